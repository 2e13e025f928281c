"""Elements read: ``lookup``, ``dump``."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Literal

from cyclopts import Parameter

from mapd_client.cli import literals, outcomes
from mapd_client.cli.options import Format, Given
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client
from mapd_client.map import Map

Dumped = Annotated[Literal["table", "ndjson", "bpftool"], Parameter(name=["--output", "-o"])]


def lookup(
    map: str, key: str, /, *, output: Format = "table", types: Source | None = None, options: Given
) -> int:
    """The value of one key; exit code 3 if it is not there.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or 02:00:5e:10:00:01.
        output: table or ndjson.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("lookup", map):
            shown = await shown_by(opened, client, types or Source())
            data = shown.key(key)
        _write(shown, output, data, await opened[data], 1)
        sys.stderr.write(shown.note if output == "table" else "")
        return outcomes.OK

    return with_map(options, map, work)


def dump(
    map: str,
    /,
    *,
    prefix: str = "",
    limit: int | None = None,
    partial_ok: bool = False,
    output: Dumped = "table",
    types: Source | None = None,
    options: Given,
) -> int:
    """Every element.

    Args:
        map: name, pin:PATH or id:NUMBER.
        prefix: hex digits that the keys begin with.
        limit: at most so many elements.
        partial_ok: exit code 0 even if the daemon calls the dump incomplete.
        output: table; ndjson; bpftool, as bpftool -j map dump prints it.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("dump", map):
            shown = await shown_by(opened, client, types or Source())
            begins = literals.parse_hex(prefix)
        write = shown.bpftool(sys.stdout) if output == "bpftool" else partial(_write, shown, output)
        if limit is None:
            async with opened.chunks(prefix=begins, partial_ok=partial_ok) as chunks:
                async for chunk in chunks:
                    write(chunk.keys, chunk.values, chunk.count)
            trailer = chunks.trailer
        else:
            async with opened.items(prefix=begins, limit=limit, partial_ok=partial_ok) as elements:
                async for key, value in elements:
                    write(key, value, 1)
            trailer = elements.trailer
        if output == "bpftool":
            sys.stdout.write("]\n")
        sys.stderr.write(shown.note if output == "table" else "")
        if trailer is not None and not trailer.complete:
            sys.stderr.write(f"incomplete: {trailer.incomplete_reason}\n")
        return outcomes.OK

    return with_map(options, map, work)


def _write(
    shown: Shown, output: str, keys: bytes | memoryview, values: bytes | memoryview, count: int
) -> None:
    if output == "table":
        sys.stdout.writelines(shown.rows(keys, values, count))
    else:
        sys.stdout.write(shown.records.lines(keys, values, count))
