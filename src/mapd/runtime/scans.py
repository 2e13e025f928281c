"""Dumps: reading ahead while the previous chunk is written, within one budget of bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from mapd.access.authorize import Authorized
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.maps.scan import Page, Scan
from mapd.runtime.pool import Lane, SyscallPool
from mapd_api import limits
from mapd_api.ops import Verb
from mapd_api.reasons import Reason

Begin = Callable[[], Awaitable[None]]
Emit = Callable[[Page], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trailer:
    """How a dump went (elements.proto, DumpTrailer). Times are seconds since 1970, this host's clock."""

    entries: int
    complete: bool
    incomplete_reason: str
    method: str
    restarts: int
    duplicates_suppressed: int
    started_at: float
    ended_at: float
    map_id: int


class ByteBudget:
    """Bytes that all dumps together may hold."""

    def __init__(self, total: int = limits.DUMP_BYTES) -> None:
        self._free = total

    def grow(self, have: int, want: int) -> int:
        """Exchange ``have`` bytes for ``want`` if there is room; what the caller holds now."""
        if want - have > self._free:
            return have
        self._free -= want - have
        return want


HELD_CHUNKS = 3
"""Chunks that one dump holds: the scan's buffer, the page being written, the page read ahead."""


class Dump:
    """One dump of an authorised map.

    Args:
        progress_s: a reader that takes no chunk for so long is cut off.
    """

    def __init__(
        self,
        pool: SyscallPool,
        budget: ByteBudget,
        authorized: Authorized[OpenMap],
        scan: Scan,
        *,
        progress_s: float = limits.STREAM_PROGRESS_S,
    ) -> None:
        self._pool = pool
        self._budget = budget
        self._opened = authorized.demand({Verb.READ})
        self._scan = scan
        self._progress_s = progress_s
        self._chunk = self._wanted = limits.CHUNK_MIN_BYTES  # what it has of the budget, what it could use
        self._stalled = False

    async def run(self, begin: Begin, emit: Emit) -> Trailer:
        """Hand every page to ``emit``, in order; the trailer when the end was reached.

        ``begin`` is awaited before the first page, and only when there is one: a dump that is refused
        has not begun.

        Cancelling ends it after the syscall that runs; nothing is changed by a dump.

        Raises:
            MapError: the map cannot be read; QUOTA when the reader has stalled too long.
        """
        started = time.time()
        held = self._budget.grow(0, HELD_CHUNKS * self._chunk)
        if held == 0:
            raise MapError(
                Reason.BUSY,
                f"all {limits.DUMP_BYTES >> 20} MiB for dumps are in use; try again when another one has ended",
                operation="dump",
            )
        try:
            page = await self._read()
            await begin()
            while not self._scan.done:
                page = await self._step(page, emit)
                held = self._budget.grow(held, HELD_CHUNKS * self._wanted)
                self._chunk = held // HELD_CHUNKS
            await self._write(page, emit)
        finally:
            self._budget.grow(held, 0)
        return self._trailer(started)

    async def _step(self, page: Page, emit: Emit) -> Page:
        """Write one page and read the next: at the same time, unless the reader is stalling."""
        if self._stalled:
            await self._write(page, emit)
            return await self._read()
        try:
            async with asyncio.TaskGroup() as group:
                ahead = group.create_task(self._read(), name="dump read-ahead")
                await self._write(page, emit)
        except BaseExceptionGroup as failed:
            # One cause: the other half was cancelled for it.
            raise failed.exceptions[0] from None
        return ahead.result()

    async def _read(self) -> Page:
        lease = self._opened.lease()
        return await self._pool.run(
            Lane.BULK, self, partial(self._scan.page, lease.fd, self._chunk), lease=lease
        )

    async def _write(self, page: Page, emit: Emit) -> None:
        """Hand a page over, and learn from how long it took how large the next may be."""
        if page.count == 0:
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._progress_s):
                await emit(page)
        except TimeoutError:
            raise MapError(
                Reason.QUOTA,
                f"dump {self._opened.facts.label}: the reader took nothing for {self._progress_s:g} s; read faster, "
                "or go on later with the last token",
                **self._opened.facts.about("dump"),
            ) from None
        self._stalled = time.monotonic() - began > limits.STALL_S
        self._wanted = (
            limits.CHUNK_MIN_BYTES if self._stalled else min(2 * self._chunk, limits.CHUNK_MAX_BYTES)
        )

    def _trailer(self, started: float) -> Trailer:
        scan = self._scan
        return Trailer(
            entries=scan.entries,
            complete=not scan.incomplete,
            incomplete_reason=scan.incomplete,
            method=scan.method,
            restarts=scan.restarts,
            duplicates_suppressed=scan.duplicates,
            started_at=started,
            ended_at=time.time(),
            map_id=self._opened.facts.id,
        )
