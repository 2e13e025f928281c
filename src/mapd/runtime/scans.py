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
from mapd.runtime.budget import ByteBudget, Share
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


HELD_CHUNKS = 3
"""Chunks that one dump holds: the scan's buffer, the page being written, the page read ahead."""


class Dump:
    """One dump of an authorised map.

    Args:
        progress_s: a reader that takes no chunk for so long is cut off, and so is a dump that gets no memory.
        wait_s: so long it waits to begin when others hold all the memory.
        silence_s: after so long without an element that is wanted, a page without any is handed over, so that
            the reader sees the dump go on and has a token to come back with.
    """

    def __init__(
        self,
        pool: SyscallPool,
        budget: ByteBudget,
        authorized: Authorized[OpenMap],
        scan: Scan,
        *,
        progress_s: float = limits.STREAM_PROGRESS_S,
        wait_s: float = limits.DUMP_WAIT_S,
        silence_s: float = limits.DUMP_SILENCE_S,
    ) -> None:
        self._pool = pool
        self._budget = budget
        self._opened = authorized.demand({Verb.READ})
        self._scan = scan
        self._progress_s = progress_s
        self._wait_s = wait_s
        self._chunk = self._wanted = (
            limits.CHUNK_MIN_BYTES
        )  # of the next page, and what the reader could take
        self._stalled = False
        self._silence_s = silence_s
        self._spoke = time.monotonic()

    async def run(self, begin: Begin, emit: Emit) -> Trailer:
        """Hand every page to ``emit``, in order; the trailer when the end was reached.

        ``begin`` is awaited before the first page, and only when there is one: a dump that is refused
        has not begun.

        Cancelling ends it after the syscall that runs; nothing is changed by a dump.

        Raises:
            MapError: the map cannot be read; QUOTA when the reader has stalled too long; BUSY when other dumps
                hold the memory that this one needs.
        """
        started = time.time()
        async with self._budget.share(self._cost(self._chunk, 0), self._wait_s) as share:
            page = await self._read()
            await begin()
            while not self._scan.done:
                await self._resize(share, page)
                page = await self._step(page, emit)
            await self._write(page, emit)
        return self._trailer(started)

    def _cost(self, chunk: int, held: int) -> int:
        """Bytes in use while the next page, of ``chunk`` bytes, is read and one of ``held`` bytes is written."""
        size = max(chunk, self._scan.page_bytes(chunk))
        return (HELD_CHUNKS - 1) * size + max(size, held) + self._scan.remembered_bytes(chunk)

    async def _resize(self, share: Share, page: Page) -> None:
        """Settle on the size of the next chunk: the wanted one, or what there is a fair share for."""
        held = len(page.keys) + len(page.values)
        self._chunk = self._wanted
        while self._chunk > limits.CHUNK_MIN_BYTES:
            if self._budget.take(share, self._cost(self._chunk, held)):
                return
            self._chunk //= 2
        await self._budget.need(share, self._cost(self._chunk, held), self._progress_s)

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
        began = time.monotonic()
        if page.count == 0 and (not page.token or began - self._spoke < self._silence_s):
            return
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
        self._spoke = time.monotonic()
        self._stalled = self._spoke - began > limits.STALL_S
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
