"""A map's elements as record batches while they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from mapd_client import waiting
from mapd_client.chunk import Chunk
from mapd_client.dump import Dump
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo, Trailer
from mapd_client.tables.metadata import metadata
from mapd_client.tables.needs import arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from mapd_client.tables.plan import Plan

T = TypeVar("T")


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """``work`` in a thread of the loop's executor; whoever is cancelled meanwhile waits for its end.

    So that nothing it uses is closed, or removed, under it. The executor bounds the threads; a caller has one piece
    of work at a time.
    """
    if waiting.driven():
        return work(*arguments)
    running = asyncio.get_running_loop().run_in_executor(None, work, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # looked at: nobody else will
        raise


class Batches(AsyncIterator["pa.RecordBatch"], AbstractAsyncContextManager["Batches"]):
    """A dump as record batches, one for each chunk of up to 1 MiB; from ``Map.to_batches``.

    Iterate it once. One chunk and its batch are in memory at a time, and what gRPC holds ahead. Batches are made in a
    thread, so that the event loop has its turn. Ends, fails and is left as a ``Dump``.

    Attributes:
        schema: of every batch; its metadata "mapd" says which map it is.
    """

    schema: pa.Schema

    def __init__(self, dump: Dump[Chunk], plan: Plan, info: MapInfo) -> None:
        self._dump = dump
        self._plan = plan
        self._info = info
        self.schema = plan.schema().with_metadata(metadata(info, None))

    @property
    def trailer(self) -> Trailer | None:
        """What the daemon said at the end; None before."""
        return self._dump.trailer

    @property
    def token(self) -> bytes:
        """Pass it as ``resume`` to go on after the last batch."""
        return self._dump.token

    @property
    def ending(self) -> dict[bytes, bytes]:
        """The schema's metadata with the trailer, once there is one."""
        return metadata(self._info, self.trailer)

    async def __anext__(self) -> pa.RecordBatch:
        """The next batch; empty chunks make none. Raises, and is cancelled, as ``Dump``."""
        while True:
            chunk = await anext(self._dump)
            if chunk.count:
                return self._batch(chunk) if self._plan.asks else await in_thread(self._batch, chunk)

    def _batch(self, chunk: Chunk) -> pa.RecordBatch:
        batch: Any = self._plan.batch(chunk.count, chunk.keys, chunk.values)
        found: pa.RecordBatch = batch.replace_schema_metadata(self.schema.metadata)
        return found

    def reader(self) -> pa.RecordBatchReader:
        """The same for code that knows no asyncio, in another thread: polars, duckdb, a writer of files.

        Its reads wait for this event loop, which has to run meanwhile:
        ``await asyncio.to_thread(consume, batches.reader())``. What a dump raises, it raises.

        Raises:
            Misuse: on reading, in the event loop's own thread, which would wait for itself.
        """
        loop = asyncio.get_running_loop()

        async def following() -> pa.RecordBatch | None:
            return await anext(self, None)

        def batches() -> Iterator[pa.RecordBatch]:
            with suppress(RuntimeError):
                if asyncio.get_running_loop() is loop:
                    raise Misuse(
                        "a reader of a map's batches waits for the event loop, and this is its thread: read it in "
                        "another, asyncio.to_thread(...), or iterate with async for"
                    )
            while (batch := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
                yield batch

        made: pa.RecordBatchReader = arrow().RecordBatchReader.from_batches(self.schema, batches())
        return made

    async def aclose(self) -> None:
        """End the dump now. Idempotent."""
        await self._dump.aclose()

    async def __aenter__(self) -> Batches:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()


async def collected(batches: Batches) -> pa.Table:
    """All batches as one table, whose metadata has the trailer."""
    async with batches:
        found = [batch async for batch in batches]
    # A later batch may know more numbers without a name than an earlier one.
    table: Any = arrow().Table.from_batches(found, batches.schema).unify_dictionaries()
    made: pa.Table = table.replace_schema_metadata(batches.ending)
    return made
