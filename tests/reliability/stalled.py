"""Readers that stand still: ``python -m tests.reliability.stalled SOCKET MAP COUNT FINISH``.

Each takes the first chunk of a dump and no more. Says so in a line of JSON, waits for the end of standard input, and
then reads FINISH of the dumps to their ends; how many were complete is the next line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Final

import mapd_client

CONNECTIONS: Final = 8


def tell(**what: int) -> None:
    """A line for whoever started this."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(address: str, name: str, count: int, finish: int) -> None:
    """Begin, wait, go on."""
    async with AsyncExitStack() as stack:
        maps: list[mapd_client.Map[bytes, bytes]] = []
        for _ in range(min(count, CONNECTIONS)):
            client = await stack.enter_async_context(mapd_client.connect(address, timeout=30))
            maps.append(await stack.enter_async_context(client.open_map(name)))
        dumps = [maps[at % len(maps)].chunks() for at in range(count)]
        for dump in dumps:
            await anext(dump)
        tell(held=count)
        await asyncio.to_thread(sys.stdin.read)
        complete = 0
        for dump in dumps[:finish]:
            async for _ in dump:
                pass
            complete += dump.trailer is not None and dump.trailer.complete
        tell(complete=complete)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
