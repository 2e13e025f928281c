"""Many elements in and out: a load, a dump that is interrupted, and the rest of it.

Needs a running daemon; finds its socket by itself, or in MAPD_ADDRESS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import mapd_client
from mapd_client import U32, U64, DumpIncomplete

ENTRIES = 100_000


def squares() -> Iterator[tuple[int, int]]:
    """Made while it is sent: the daemon sets the pace."""
    return ((number, number * number) for number in range(ENTRIES))


async def main() -> None:
    """Load, take the first part, then the rest; then sum up without decoding keys."""
    async with (
        mapd_client.connect() as client,
        client.create_map(
            "squares", "hash", key=U32, value=U64, max_entries=ENTRIES, exist_ok=True
        ) as numbers,
    ):
        print("written:", await numbers.load(squares()))

        seen = 0
        async with numbers.chunks() as dump:
            async for chunk in dump:
                seen += chunk.count
                break  # leaving ends the stream; its token remembers how far it came
        async for chunk in numbers.chunks(resume=dump.token):
            seen += chunk.count
        print("seen:", seen)

        try:
            values = numbers.values()
            print("sum:", sum([value async for value in values]))
            print("how:", values.trailer)
        except DumpIncomplete as incomplete:
            print("not all of it:", incomplete)
        await client.unpin_map("squares")


asyncio.run(main())
