"""A dump that is read ahead of who writes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from mapd_client.chunk import Chunk
from mapd_client.dump import Dump

AHEAD: Final = 16
"""Chunks of up to 1 MiB that wait at most. While pyarrow is loaded the daemon fills about ten."""


@asynccontextmanager
async def ahead(chunks: Dump[Chunk]) -> AsyncGenerator[AsyncIterator[Chunk]]:
    """Begins to read at once. What the dump raises, the iterator raises in its place; the dump ends with the block."""
    waiting: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(AHEAD)

    async def read() -> None:
        try:
            async for chunk in chunks:
                await waiting.put(chunk)
        except Exception as error:  # of any kind: who waits for the next chunk raises it
            await waiting.put(error)
        else:
            await waiting.put(None)

    async def every() -> AsyncIterator[Chunk]:
        while (found := await waiting.get()) is not None:
            if isinstance(found, Exception):
                raise found
            yield found

    async with chunks:
        reading = asyncio.create_task(read(), name="dump read ahead")
        try:
            yield every()
        finally:
            reading.cancel()
            await asyncio.wait([reading])
