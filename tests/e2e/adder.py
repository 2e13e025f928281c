"""A client process that counts through a daemon: ``adder.py SOCKET MAP CPU COUNT HOW``.

Says ``ready`` on its standard output, begins when a line comes on its standard input, and ends with a JSON object:
the smallest and the largest number that it was told had been there, and how many different ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import mapd_client
from mapd_client import U32, U64

KEY: Final = 7
AT_ONCE: Final = 256
"""Additions in flight."""

Hits = mapd_client.Map[int, int]


async def by_fetch_add(hits: Hits) -> int:
    old = await hits.fetch_add(KEY, 1)
    assert old is not None
    return old


async def by_writing_back(hits: Hits) -> int:
    """What atomics are there for."""
    old = await hits[KEY]
    await hits.update(KEY, old + 1)
    return old


HOW: Final[dict[str, Callable[[Hits], Awaitable[int]]]] = {
    "fetch_add": by_fetch_add,
    "write_back": by_writing_back,
}


async def count(socket: str, name: str, number: int, add: Callable[[Hits], Awaitable[int]]) -> set[int]:
    seen: set[int] = set()
    async with mapd_client.connect(socket) as client, client.open_map(name, key=U32, value=U64) as hits:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        left = number
        while left:
            batch = min(left, AT_ONCE)
            seen.update(await asyncio.gather(*(add(hits) for _ in range(batch))))
            left -= batch
    return seen


def main(socket: str, name: str, cpu: str, number: str, how: str) -> None:
    os.sched_setaffinity(0, {int(cpu)})
    seen = asyncio.run(count(socket, name, int(number), HOW[how]))
    print(json.dumps({"least": min(seen), "most": max(seen), "different": len(seen)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
