"""The part of the demo about types: fields by name, here and in bpftool."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated, Any

from mapd_client import U16, U64, Client, MapdError


@dataclass(frozen=True)
class Flow:
    """The key of the demo's typed map: a C struct of 8 bytes, 2 of them padding."""

    saddr: IPv4Address
    dport: Annotated[int, U16]


@dataclass
class Stats:
    """Its value."""

    packets: Annotated[int, U64]
    bytes: Annotated[int, U64]


async def typed_map(client: Client, say: Callable[[str], None], ask: Callable[[str], str]) -> None:
    """A map made from two dataclasses; raises SystemExit where somebody reads it otherwise."""
    say("\n6  A map of dataclasses: fields by name, here and in bpftool")
    flow = Flow(IPv4Address("10.0.0.1"), 443)
    async with client.create_map("typed", "hash", key=Flow, value=Stats, max_entries=100) as made:
        await made.update(flow, Stats(packets=1, bytes=1500))
        seen = await made.fetch_add(flow, 9, field="packets")
        say(f"     fetch_add(flow, 9, field='packets') found {seen}; now {await made.lookup(flow)}")
        _check("an atomic on a field", (seen, await made.lookup(flow)), (1, Stats(packets=10, bytes=1500)))
        fields = await made.typed()
        keys = [key async for key in fields.keys()]  # noqa: SIM118 - a map is no dict
        _check("a key by field name", keys[0]["dport"], 443)
        say(f"     bpftool, through {made.info.pin_path}:")
        said = ask("pretty typed")
        say(f"     {said}")
        _check("bpftool's number of packets", '"packets":10' in said.replace(" ", ""), True)
        await _table(made, say)


async def _table(made: Any, say: Callable[[str], None]) -> None:
    try:
        table = await made.to_arrow()
    except MapdError as error:  # without pyarrow
        say(f"     no table: {error}")
        return
    _check("rows of a table", table.num_rows, 1)
    say(f"     to_arrow(): {table.num_rows} row of {', '.join(table.column_names)}")


def _check(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")
