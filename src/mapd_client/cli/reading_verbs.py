"""Elements read: ``lookup``, ``dump``, ``count``."""

from __future__ import annotations

import sys
from typing import Annotated, Any, Final

from cyclopts import Parameter

from mapd_client.cli import literals, outcomes
from mapd_client.cli.ahead import ahead
from mapd_client.cli.options import Given, Options
from mapd_client.cli.outputs import Document, Field, Output, PerCpuForm, records
from mapd_client.cli.outputs.documents import Format as Form
from mapd_client.cli.progress import progress, wanted
from mapd_client.cli.references import Ref
from mapd_client.cli.running import many, with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import saying, shown_by
from mapd_client.client import Client
from mapd_client.info import Count, Trailer
from mapd_client.map import Map

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

COUNT: Final = (
    Field("entries", int, "ENTRIES"),
    Field("exact", bool, "EXACT"),
    Field("method", str, "METHOD"),
)


def lookup(
    map: Ref,
    key: str,
    /,
    *,
    output: Format = "table",
    bpftool_json: bool = False,
    per_cpu: PerCpuForm = "list",
    types: Source | None = None,
    options: Given,
) -> int:
    """The value of one key; exit code 3 if it is not there.

    Args:
        map: name, pin:PATH or id:NUMBER.
        key: {"saddr": "10.0.0.1", ...}, saddr=10.0.0.1,dport=443, hex:0a00, 0x0a00, u32:7, 7, 10.0.0.1, 10.0.0.0/8 or
            02:00:5e:10:00:01.
        output: table, json (the record alone), ndjson, csv, arrow (an IPC stream) or parquet.
        bpftool_json: what 'bpftool -j map lookup' prints.
        per_cpu: per-CPU values as a list, as the sum of each integer, or a column for each CPU.
        types: where the map's types are from.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("lookup", map):
            document = Document("bpftool" if bpftool_json else output, sys.stdout, per_cpu=per_cpu, one=True)
            shown = await shown_by(opened, client, types or Source())
            data = shown.key(key)
            shown.formed(per_cpu)
        value = await opened[data]
        sink = document.sink(shown)
        sink.write(data, value, 1)
        sink.close()
        sys.stderr.write(sink.shown.note if output == "table" and not bpftool_json else "")
        return outcomes.OK

    if not many(options):
        return with_map(options, map, work)
    from mapd_client.cli.everywhere import Elements

    form: Form = "bpftool" if bpftool_json else output
    return Elements(options, map, types or Source(), form, per_cpu=per_cpu).lookup(key)


def dump(
    map: Ref,
    /,
    *,
    prefix: str = "",
    limit: int | None = None,
    keys_only: bool = False,
    nonzero: bool = False,
    partial_ok: bool = False,
    output: Format = "table",
    bpftool_json: bool = False,
    per_cpu: PerCpuForm = "list",
    types: Source | None = None,
    options: Given,
) -> int:
    """Every element.

    Args:
        map: name, pin:PATH or id:NUMBER.
        prefix: hex digits that the keys begin with.
        limit: at most so many elements.
        keys_only: no values; nor are they read.
        nonzero: only elements whose value has a byte other than zero.
        partial_ok: exit code 0 even if the daemon calls the dump incomplete.
        output: table, json (a list), ndjson, csv, arrow (an IPC stream) or parquet.
        bpftool_json: what 'bpftool -j map dump' prints.
        per_cpu: per-CPU values as a list, as the sum of each integer, or a column for each CPU.
        types: where the map's types are from.
        options: of every verb.
    """
    form: Form = "bpftool" if bpftool_json else output
    with saying("dump", map):
        begins = literals.parse_hex(prefix)

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        chunks = opened.chunks(
            prefix=begins, limit=limit, keys_only=keys_only, nonzero=nonzero, partial_ok=partial_ok
        )
        async with ahead(chunks) as elements:
            with saying("dump", map):
                shown = await shown_by(opened, client, types or Source())
                document = await Document.prepared(form, sys.stdout, per_cpu=per_cpu, keys_only=keys_only)
                sink = document.sink(shown)
            total = await _total(opened, limit, options) if not begins and not nonzero else limit
            with progress(f"dump {map}", total, shown=wanted(options)) as advance:
                async for chunk in elements:
                    sink.write(chunk.keys, chunk.values, chunk.count)
                    advance(chunk.count)
        sink.close(chunks.trailer)
        sys.stderr.write(sink.shown.note if form == "table" else "")
        say_incomplete(chunks.trailer)
        return outcomes.OK

    if not many(options):
        return with_map(options, map, work)
    from mapd_client.cli.everywhere import Elements

    elements = Elements(options, map, types or Source(), form, per_cpu=per_cpu, keys_only=keys_only)
    return elements.dump(begins, limit=limit, nonzero=nonzero, partial_ok=partial_ok)


async def _total(opened: Map[bytes, bytes], limit: int | None, options: Options) -> int | None:
    """How many elements there will be, where somebody looks at the progress."""
    if not wanted(options) or "count" not in opened.info.supported_operations:
        return limit
    entries = (await opened.count()).entries
    return entries if limit is None else min(limit, entries)


def say_incomplete(trailer: Trailer | None) -> None:
    """Say on stderr what the daemon says of a dump that is not whole."""
    if trailer is not None and not trailer.complete:
        sys.stderr.write(f"incomplete: {trailer.incomplete_reason}\n")


def count(map: Ref, /, *, output: Format = "table", options: Given) -> int:
    """How many elements there are.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table (the number alone), json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        write_count(await opened.count(), output)
        return outcomes.OK

    async def gather(client: Client) -> list[dict[str, Any]]:
        async with client.open_map(map) as opened:
            return [_count_row(await opened.count())]

    if many(options):
        from mapd_client.cli import fanout

        return fanout.rows(options, gather, columns=COUNT, output=output)
    return with_map(options, map, work)


def _count_row(found: Count) -> dict[str, Any]:
    return {"entries": found.entries, "exact": found.exact, "method": found.method}


def write_count(found: Count, output: Output) -> None:
    """One count; a table is the number alone, and stderr says what it is worth."""
    if output != "table":
        records([_count_row(found)], columns=COUNT, output=output, file=sys.stdout, one=True)
        return
    sys.stdout.write(f"{found.entries}\n")
    if not found.exact:
        sys.stderr.write(f"mapctl: counted by {found.method}: not exact while others write\n")
