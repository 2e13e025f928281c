"""Names and pins, and the end of writing: ``pin``, ``unpin``, ``freeze``."""

from __future__ import annotations

import sys

from mapd_client.cli import outcomes
from mapd_client.cli.care import DryRun, agreed, would
from mapd_client.cli.options import Given
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_client, with_map
from mapd_client.client import Client
from mapd_client.errors import Misuse
from mapd_client.map import Map
from mapd_client.refs import Id, MapRef


def pin(map: Ref, path: str, /, *, options: Given) -> int:
    """Pin a map at a path of a bpffs on the daemon's host, beside the names and pins that it has.

    Args:
        map: name, pin:PATH or id:NUMBER.
        path: absolute, where nothing is yet; below a folder that the daemon may pin in.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        await opened.pin(path.removeprefix("pin:"))
        return outcomes.OK

    return with_map(options, map, work)


def unpin(map: Ref, /, *, dry_run: DryRun = False, options: Given) -> int:
    """Remove a name or a pin. A map that nothing else holds is gone then, with what is in it.

    Args:
        map: name or pin:PATH; an id has nothing to remove.
        dry_run: say what would be removed, and what else leads to the map.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        parsed = MapRef.parse(map)
        if isinstance(parsed, Id):
            raise Misuse(
                f"unpin {map}: an id is no name: see 'mapctl show {map}' for its pins, and unpin one of them"
            )
        async with client.open_map(parsed) as opened:
            info = opened.info
        what = f"unpin {map} ({info.type_name}, id {info.id}, at most {info.max_entries} elements)"
        if dry_run:
            would(what)
            return outcomes.OK
        if not agreed(
            options, what, "a map that no program and no other pin holds is gone with its elements"
        ):
            return outcomes.FAILURE
        await client.unpin_map(parsed)
        return outcomes.OK

    return with_client(options, work)


def freeze(map: Ref, /, *, dry_run: DryRun = False, options: Given) -> int:
    """Make a map read-only for user space, for ever; BPF programs can still write it.

    Args:
        map: name, pin:PATH or id:NUMBER.
        dry_run: only look whether it can be.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        if opened.info.frozen:
            sys.stderr.write(f"mapctl: {map} is frozen already\n")
            return outcomes.OK
        if dry_run:
            would(f"freeze {map} ({opened.info.type_name}, id {opened.info.id})")
            return outcomes.OK
        if not agreed(
            options, f"freeze {map}", "no element can be written from user space any more, for ever"
        ):
            return outcomes.FAILURE
        await opened.freeze()
        return outcomes.OK

    return with_map(options, map, work)
