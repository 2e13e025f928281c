"""Names and pins, and the end of writing: ``pin``, ``unpin``, ``freeze``."""

from __future__ import annotations

import sys

from mapd_client.cli import outcomes
from mapd_client.cli.care import DryRun, agreed, would
from mapd_client.cli.options import Given, Options
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_client, with_map
from mapd_client.client import Client
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo, ProcessHolder
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
        if (dry_run or not options.yes) and not await _may_unpin(client, parsed, options, dry_run=dry_run):
            return outcomes.OK if dry_run else outcomes.FAILURE
        await client.unpin_map(parsed)
        return outcomes.OK

    return with_client(options, work)


async def _may_unpin(client: Client, ref: MapRef, options: Options, *, dry_run: bool) -> bool:
    """Whether to go on, once it was said what goes and what stays."""
    async with client.open_map(ref) as opened:
        info = opened.info
    what = f"unpin {ref} ({info.type_name}, id {info.id}, at most {info.max_entries} elements)"
    others = await _others(client, info)
    stays = (
        f"the map stays: {', '.join(others)}"
        if others
        else "nothing else is seen to hold the map: it would be gone"
    )
    if dry_run:
        would(f"{what}; {stays}")
        return False
    return agreed(options, what, stays)


async def _others(client: Client, info: MapInfo) -> list[str]:
    """What else keeps a map, as far as the caller is told: other pins, programs, processes."""
    async for one in client.list_maps(pins=True, holders=True):
        if one.id == info.id:
            pins = [f"pinned at {pin}" for pin in one.pins if pin != info.pin_path]
            return pins + [
                f"held by {held.comm}({held.pid})"
                if isinstance(held, ProcessHolder)
                else f"used by program {held.name or '-'}({held.id})"
                for held in one.holders
            ]
    return []


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
