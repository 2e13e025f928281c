"""``tables SOCKET MAP ENTRIES``: measures a typed map as arrays and tables, beside its raw dump, through mapd's client.

Makes the map. Commands: ``fill``; ``drain``, which reads every chunk and looks at none, ``numpy`` and ``arrow``.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

import mapd_client
from benchmarks.commands import Answer, Prepare, prepared, serve
from benchmarks.contenders import Answer as Told
from benchmarks.contenders import Contender
from mapd_client import Map
from mapd_client.layouts import Array, Integer, Layout, Member, Record
from mapd_client.typed import codec_of

FLOWS: Final = "flows"

_U8, _U16, _U32, _U64 = (Integer(size=size, signed=False) for size in (1, 2, 4, 8))


def _struct(size: int, *members: tuple[str, int, Layout]) -> Record:
    return Record(
        size=size, members=tuple(Member(name=name, offset=at, layout=of) for name, at, of in members)
    )


KEY: Final = _struct(
    16,
    ("saddr", 0, _U32),
    ("daddr", 4, _U32),
    ("sport", 8, _U16),
    ("dport", 10, _U16),
    ("proto", 12, _U8),
    ("pad", 13, Array(element=_U8, count=3)),
)
VALUE: Final = _struct(16, ("packets", 0, _U64), ("bytes", 8, _U64))


@dataclass(frozen=True, slots=True)
class Instead:
    """A contender that does another piece of work where a race's is asked for."""

    contender: Contender
    command: str

    def ask(self, command: str) -> Told:
        """Its own command."""
        del command
        return self.contender.ask(self.command)


def fill(flows: Map[Any, Any], entries: int) -> Prepare:
    """Every element: addresses and ports of all sizes, and counters that follow from them."""

    async def work() -> Answer:
        keys: Any = np.zeros(entries, np.dtype(codec_of(KEY, path="key").dtype))
        values: Any = np.zeros(entries, np.dtype(codec_of(VALUE).dtype))
        n = np.arange(entries)
        keys["saddr"], keys["daddr"] = n, 0x0A000000 + n % 65_536
        keys["sport"], keys["dport"], keys["proto"] = n % 60_000, 443, 6
        values["packets"], values["bytes"] = n, 1_500 * n
        done = await flows.load((keys, values))
        return lambda: {"count": done}

    return prepared(work)


def drain(flows: Map[Any, Any]) -> Prepare:
    """All chunks, as they came."""

    async def work() -> Answer:
        count = 0
        async for chunk in flows.chunks():
            count += chunk.count
        return lambda: {"count": count}

    return prepared(work)


def numpy(flows: Map[Any, Any]) -> Prepare:
    """One structured array of keys, one of values."""

    async def work() -> Answer:
        keys, values = await flows.to_numpy()
        return lambda: {"count": _right(keys["saddr"], values["packets"], values["bytes"])}

    return prepared(work)


def arrow(flows: Map[Any, Any]) -> Prepare:
    """One table, a column for each field."""

    async def work() -> Answer:
        table: Any = (await flows.to_arrow()).flatten()

        def looked_through() -> dict[str, float]:
            columns = [table[name].to_numpy() for name in ("key.saddr", "value.packets", "value.bytes")]
            return {"count": _right(*columns)}

        return looked_through

    return prepared(work)


def _right(saddr: Any, packets: Any, octets: Any) -> int:
    """How many values are those of their keys."""
    return int(np.count_nonzero((saddr == packets) & (octets == 1_500 * packets)))


async def main(socket: str, name: str, entries: int) -> None:
    """Answer commands."""
    async with (
        mapd_client.connect(socket) as client,
        client.create_map(
            name, "hash", key=codec_of(KEY, path="key"), value=codec_of(VALUE), max_entries=entries, btf=True
        ) as flows,
    ):
        await serve(
            {
                "fill": fill(flows, entries),
                "drain": drain(flows),
                "numpy": numpy(flows),
                "arrow": arrow(flows),
            }
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
