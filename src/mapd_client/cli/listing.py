"""Which maps there are: ``list``, ``show``, ``rename``."""

from __future__ import annotations

import sys

from mapd_client.cli import outcomes, render
from mapd_client.cli.options import Format, Given
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_client, with_map
from mapd_client.client import Client
from mapd_client.map import Map


def list_(
    glob: str = "*",
    /,
    *,
    pins: bool = False,
    ids: bool = False,
    holders: bool = False,
    output: Format = "table",
    options: Given,
) -> int:
    """The maps that you may see.

    Args:
        glob: shell pattern over "namespace/name"; over pins and kernel name of maps without a name.
        pins: also maps that other programs have pinned.
        ids: also all others of the host.
        holders: which processes and programs hold each.
        output: table or ndjson.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        listing = client.list_maps(glob, pins=pins, ids=ids, holders=holders)
        found = [info async for info in listing]
        if output == "table":
            render.write_maps(found, sys.stdout, holders=holders)
        else:
            for info in found:
                render.write_record(render.map_record(info), sys.stdout)
        for place in listing.not_looked_at:
            sys.stderr.write(f"not looked at: {place}\n")
        return outcomes.OK

    return with_client(options, work)


def show(map: Ref, /, *, output: Format = "table", options: Given) -> int:
    """One map: its type, sizes, flags, and what it supports.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table or ndjson.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        if output == "table":
            render.write_map(opened.info, sys.stdout)
        else:
            render.write_record(render.map_record(opened.info), sys.stdout)
        return outcomes.OK

    return with_map(options, map, work)


def rename(name: Ref, new_name: str, /, *, options: Given) -> int:
    """Give a map another name; what has the new name already stays.

    Args:
        name: "flows" or "ns/flows".
        new_name: the same.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        sys.stdout.write(await client.rename_map(name, new_name) + "\n")
        return outcomes.OK

    return with_client(options, work)
