"""Which maps there are: ``list``, ``show``, ``rename``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from cyclopts import Parameter

from mapd_client.cli import outcomes
from mapd_client.cli.complaints import HOST
from mapd_client.cli.options import Given, Options
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.references import Ref
from mapd_client.cli.running import many, with_client, with_map
from mapd_client.client import Client
from mapd_client.info import MapInfo, ProcessHolder, ProgramHolder
from mapd_client.map import Map

Format = Annotated[Output, Parameter(name=["--output", "-o"])]


def _held_by(holders: Sequence[dict[str, Any]]) -> str:
    found = [
        f"{one['comm']}({one['pid']})" if "pid" in one else f"prog {one['name'] or '-'}({one['prog_id']})"
        for one in holders
    ]
    return ", ".join(found) or "-"


def _bytes(count: int) -> str:
    """A size for people: 3 digits at least, and powers of 1024."""
    size, units = float(count), ["", "K", "M", "G", "T"]
    while size >= 10_000 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f}{units[0]}"


MAP: Final = (
    Field("id", int, "ID"),
    Field("name", str, "NAME"),
    Field("type", str, "TYPE"),
    Field("key_size", int, "KEY"),
    Field("value_size", int, "VALUE"),
    Field("max_entries", int, "MAX"),
    Field("flags", int),
    Field("frozen", bool, "FROZEN"),
    Field("kernel_name", str),
    Field("pin_path", str, "PIN"),
    Field("btf_id", int),
    Field("memlock_bytes", int, "MEMORY", _bytes),
    Field("iteration", str),
    Field("supported_operations", list),
    Field("lease", str),
    Field("lease_ttl_s", float, "", lambda ttl: "-" if ttl is None else f"{ttl:g} s"),
    Field("pins", list),
    Field("holders", list, "", _held_by),
)
"""A map, as every verb prints it. Its pins and holders are told by a list that was asked for them."""

OPENED: Final = MAP[:-2]
"""What a map that was opened tells: the lines of ``show``."""

_LEASED: Final = {"lease": "LEASE", "lease_ttl_s": "TTL"}
"""Of leased maps, which have no name: what keeps them, and how long they outlive it."""


def map_row(info: MapInfo) -> dict[str, Any]:
    """A map as a record."""
    return {
        "id": info.id,
        "name": info.name,
        "type": info.type_name,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": int(info.flags),
        "frozen": info.frozen,
        "kernel_name": info.kernel_name,
        "pin_path": info.pin_path,
        "btf_id": info.btf_id,
        "memlock_bytes": info.memlock_bytes,
        "iteration": info.iteration,
        "supported_operations": sorted(info.supported_operations),
        "lease": "" if info.lease is None else info.lease.id,
        "lease_ttl_s": None if info.lease is None else info.lease.ttl,
        "pins": list(info.pins),
        "holders": [_holder(one) for one in info.holders],
    }


def _holder(one: ProcessHolder | ProgramHolder) -> dict[str, object]:
    if isinstance(one, ProcessHolder):
        return {"pid": one.pid, "comm": one.comm}
    return {"prog_id": one.id, "name": one.name}


def list_(
    glob: str = "*",
    /,
    *,
    pins: bool = False,
    ids: bool = False,
    holders: bool = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"])] = False,
    output: Format = "table",
    options: Given,
) -> int:
    """The maps that you may see.

    Args:
        glob: shell pattern over "namespace/name"; over pins and kernel name of maps without a name.
        pins: also maps that other programs have pinned.
        ids: also all others of the host.
        holders: which processes and programs hold each.
        verbose: each place that was not looked at, and why.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def gather(client: Client) -> list[dict[str, Any]]:
        listing = client.list_maps(glob, pins=pins, ids=ids, holders=holders)
        rows = [map_row(info) async for info in listing]
        if output == "table":
            for row in rows:
                row["name"] = row["name"] or row["kernel_name"]
        say_not_looked_at(listing.not_looked_at, options, verbose=verbose)
        return rows

    async def work(client: Client) -> int:
        rows = await gather(client)
        leases = any(row["lease"] for row in rows)
        columns = _titled(pins=pins or ids or leases, holders=holders, leases=leases)
        records(rows, columns=columns, output=output, file=sys.stdout)
        return outcomes.OK

    if many(options):
        from mapd_client.cli import fanout

        columns = _titled(pins=pins or ids, holders=holders)
        return fanout.rows(options, gather, columns=columns, output=output)
    return with_client(options, work)


def _titled(*, pins: bool, holders: bool = False, leases: bool = False) -> Sequence[Field]:
    """The columns of the table: pins where not all maps have a name, which says their pins; holders if asked for."""
    shown = {"pin_path": "PIN" if pins else "", "holders": "HELD BY" if holders else ""}
    shown |= _LEASED if leases else {}
    return [replace(field, title=shown.get(field.name, field.title)) for field in MAP]


def of_one(info: MapInfo) -> Sequence[Field]:
    """The columns of the table for a map that was opened or made."""
    return _titled(pins=True, leases=info.lease is not None)


def say_not_looked_at(places: Sequence[str], options: Options, *, verbose: bool) -> None:
    """Say on stderr that the list is not all there is; where each place is asked for, all of them."""
    if verbose:
        host = f"{HOST.get()}: " if HOST.get() else ""
        sys.stderr.writelines(f"{host}not looked at: {place}\n" for place in places)
    elif places and not options.quiet:
        what = f"{len(places)} places" if len(places) > 1 else "1 place"
        host = f"{HOST.get()}: " if HOST.get() else ""
        sys.stderr.write(f"mapctl: {host}{what} not looked at: see --verbose\n")


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


def show(map: Ref, /, *, output: Format = "table", options: Given) -> int:
    """One map: its type, sizes, flags, and what it supports.

    Args:
        map: name, pin:PATH or id:NUMBER.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        del client
        told: Sequence[Field] = MAP
        if output == "table":
            told = OPENED if opened.info.lease else [one for one in OPENED if one.name not in _LEASED]
        records([map_row(opened.info)], columns=told, output=output, file=sys.stdout, one=True)
        return outcomes.OK

    async def gather(client: Client) -> list[dict[str, Any]]:
        async with client.open_map(map) as opened:
            return [map_row(opened.info)]

    if many(options):
        from mapd_client.cli import fanout

        return fanout.rows(options, gather, columns=MAP, output=output)
    return with_map(options, map, work)
