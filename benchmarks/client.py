"""``client SOCKET MAP ENTRIES``: measures mapd through its own client, in a process without rights.

Commands: ``flight``, ``one`` (as in commands.py), ``dump``, and N random keys in one call each of ``lookup``,
``update``, ``delete``, ``fetch_add`` (N SEED).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

import mapd_client
from benchmarks.commands import Answer, Prepare, Work, flight, one, prepared, random_keys, serve
from mapd_client import U64, Map

ELEMENTS: Final = "elements"
COUNTERS: Final = "counters"

OPERATIONS: Final = ("lookup", "update", "delete", "fetch_add")

Opened = Map[int, int]
Column = NDArray[np.uint64]


def right(keys: Column, values: Column) -> int:
    """How many values are those of their keys."""
    return int(np.count_nonzero(values == 3 * keys + 1))


def dump(opened: Opened) -> Prepare:
    """``dump``: every element, as one array of keys and one of values."""

    async def work() -> Answer:
        chunks = [chunk async for chunk in opened.chunks()]
        keys = np.concatenate([chunk.keys_array for chunk in chunks])
        values = np.concatenate([chunk.values_array for chunk in chunks])
        return lambda: {"count": right(keys, values)}

    return prepared(work)


def many(operation: str, opened: Opened, entries: int) -> Prepare:
    """``OPERATION N SEED``: N random keys, in one call."""

    async def prepare(numbers: Sequence[int]) -> Work:
        wanted, seed = numbers
        keys = random_keys(entries, wanted, seed)
        values = 3 * keys + 1

        async def lookup() -> Answer:
            found = await opened.lookup_many(keys)
            return lambda: {"count": right(keys[found.present], found.values[found.present])}

        async def update() -> Answer:
            done = await opened.update_many((keys, values))
            return lambda: {"count": done}

        async def delete() -> Answer:
            done = await opened.delete_many(keys)
            return lambda: {"count": done}

        async def fetch_add() -> Answer:
            old = await opened.fetch_add_many(keys, 1)
            return lambda: {"count": int(np.count_nonzero(old.present))}

        works: Mapping[str, Work] = {
            "lookup": lookup,
            "update": update,
            "delete": delete,
            "fetch_add": fetch_add,
        }
        return works[operation]

    return prepare


def fill(opened: Opened, entries: int, factor: int, summand: int) -> Prepare:
    """``fill``, ``zero``: every element."""
    keys = np.arange(entries, dtype=np.uint64)

    async def work() -> Answer:
        done = await opened.update_many((keys, factor * keys + summand))
        return lambda: {"count": done}

    return prepared(work)


def total(opened: Opened) -> Prepare:
    """``sum``: of all values."""

    async def work() -> Answer:
        sums = [int(chunk.values_array.sum()) async for chunk in opened.chunks()]
        return lambda: {"count": sum(sums)}

    return prepared(work)


async def main(socket: str, name: str, entries: int) -> None:
    """Answer commands."""
    async with (
        mapd_client.connect(socket) as client,
        client.open_map(name, key=U64, value=U64) as opened,
    ):
        operations = {name: many(name, opened, entries) for name in OPERATIONS}
        await serve(
            {
                "fill": fill(opened, entries, 3, 1),
                "zero": fill(opened, entries, 0, 0),
                "sum": total(opened),
                "flight": flight(opened.lookup, entries),
                "one": one(opened.lookup, entries),
                "dump": dump(opened),
                **operations,
            }
        )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
