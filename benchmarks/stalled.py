"""``stalled SOCKET MAP STREAMS``: dumps that are not read, each over a connection of its own.

``connected`` answers when all are connected and have opened the map. ``begin`` begins all dumps and takes the first
chunk of each; ``finish`` reads them to their ends and answers how many elements there were. Between the two nothing is
read.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

import mapd_client
from benchmarks.commands import Answer, prepared, serve
from mapd_client import Chunk, Dump


async def rest_of(dump: Dump[Chunk]) -> int:
    """How many elements are still to come."""
    return sum([chunk.count async for chunk in dump])


async def main(socket: str, name: str, streams: int) -> None:
    """Answer commands."""
    async with AsyncExitStack() as stack:
        dumps: list[Dump[Chunk]] = []
        for _ in range(streams):
            client = await stack.enter_async_context(mapd_client.connect(socket))
            opened = await stack.enter_async_context(client.open_map(name))
            dumps.append(await stack.enter_async_context(opened.chunks()))
        first = 0

        async def begin() -> Answer:
            nonlocal first
            first = sum([chunk.count for chunk in await asyncio.gather(*map(anext, dumps))])
            return lambda: {"count": first}

        async def finish() -> Answer:
            counts = await asyncio.gather(*map(rest_of, dumps))
            return lambda: {"count": first + sum(counts)}

        async def connected() -> Answer:
            return lambda: {"count": streams}

        await serve({"connected": prepared(connected), "begin": prepared(begin), "finish": prepared(finish)})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
