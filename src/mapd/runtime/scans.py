"""Dumps: reading ahead while the previous chunk is written, within one budget of bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from mapd.access.authorize import Authorized
from mapd.access.quotas import Dimension
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.maps.part import Part, Read
from mapd.maps.scan import Page, Scan
from mapd.runtime.budget import ByteBudget, Share
from mapd.runtime.pool import Lane, SyscallPool
from mapd.runtime.rates import Rates
from mapd.runtime.shares import Shares
from mapd.runtime.traffic import Traffic
from mapd_api import limits
from mapd_api.ops import Verb
from mapd_api.reasons import Reason

Begin = Callable[[], Awaitable[None]]
Emit = Callable[[Page], Awaitable[None]]
"""May make a message of the page when it is called, and write it when it is awaited: the page is gone by then."""


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


HELD_CHUNKS = 4
"""Chunks that one dump holds: what the kernel writes to, what was read ahead, the message that is written, and
grpc's copy of it. The first two once more for each further range that is read at the same time."""


class Dump:
    """One dump of an authorised map.

    A large hash table's dump reads several ranges of it at once, but only one as long as calls wait in the pool's
    bulk lane, the reader stalls or the budget is short: a second thread is for a dump that nobody else waits for.

    Args:
        progress_s: a reader that takes no chunk for so long is cut off, and so is a dump that gets no memory; None:
            limits.STREAM_PROGRESS_S.
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
        shares: Shares,
        rates: Rates,
        traffic: Traffic,
        *,
        progress_s: float | None = None,
        wait_s: float = limits.DUMP_WAIT_S,
        silence_s: float = limits.DUMP_SILENCE_S,
    ) -> None:
        self._pool = pool
        self._budget = budget
        self._opened = authorized.demand({Verb.READ})
        self._principal = authorized.principal
        self._shares = shares
        self._rates = rates
        self._traffic = traffic
        self._scan = scan
        self._progress_s = limits.STREAM_PROGRESS_S if progress_s is None else progress_s
        self._wait_s = wait_s
        # Of the next page, and what the reader could take.
        self._chunk = self._wanted = limits.CHUNK_MIN_BYTES
        self._width = 1
        self._reading: dict[asyncio.Task[Read], Part] = {}
        self._stalled = False
        self._silence_s = silence_s
        self._spoke = time.monotonic()

    @property
    def value_bytes(self) -> int:
        """Of one value in the pages; 0 where values are not wanted."""
        return self._scan.value_bytes

    async def run(self, begin: Begin, emit: Emit) -> Trailer:
        """Hand every page to ``emit``, one after the other; the trailer when the end was reached.

        ``begin`` is awaited before the first page, and only when there is one: a dump that is refused
        has not begun.

        Cancelling ends it after the syscall that runs; nothing is changed by a dump.

        Each page costs its elements of the principal's operations per second: a dump is slowed down to that rate.

        Raises:
            MapError: the map cannot be read; QUOTA when the reader has stalled too long, or at once when the principal
                has all the dumps that it may; BUSY when other dumps hold the memory that this one needs.
        """
        started = time.time()
        label = f"dump {self._opened.facts.label}"
        with self._shares.hold(self._principal, Dimension.DUMPS, label):
            await self._run(begin, emit)
        return self._trailer(started)

    async def _run(self, begin: Begin, emit: Emit) -> None:
        least = self._cost(self._chunk, 1, 0)
        async with self._budget.share(least, self._wait_s, self._principal) as share:
            try:
                async with asyncio.TaskGroup() as group:
                    await self._hand_over(group, share, begin, emit)
            except BaseExceptionGroup as failed:
                # One cause: all others were cancelled for it.
                raise failed.exceptions[0] from None

    async def _hand_over(self, group: asyncio.TaskGroup, share: Share, begin: Begin, emit: Emit) -> None:
        self._read_on(group)
        if self._reading:
            await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        await begin()
        while self._reading:
            page = await self._next_page()
            size = len(page.keys) + len(page.values)
            if not self._scan.done:
                await self._resize(share, size)
            if not self._stalled:
                self._read_on(group)
            if self._wants(page):
                await self._rates.pace(self._principal, max(1, page.count))
                self._traffic.add(self._opened.facts.id, page.count, 0)
                writing = emit(page)
                del page
                await self._write(writing, partial(self._shrink, share, size))
            if self._stalled or not self._reading:
                self._read_on(group)

    def _read_on(self, group: asyncio.TaskGroup) -> None:
        """Begin to read the next parts, as many as may be read at once."""
        for part in self._scan.parts:
            if len(self._reading) >= self._width:
                return
            if part not in self._reading.values():
                task = group.create_task(self._read(part), name="dump read-ahead")
                self._reading[task] = part

    async def _read(self, part: Part) -> Read:
        lease = self._opened.lease()
        read = partial(self._scan.read, part, lease.fd, self._chunk)
        return await self._pool.run(Lane.BULK, part, read, lease=lease, owner=self._principal)

    async def _next_page(self) -> Page:
        done, _ = await asyncio.wait(self._reading, return_when=asyncio.FIRST_COMPLETED)
        task = next(task for task in self._reading if task in done)
        return self._scan.hand_out(self._reading.pop(task), task.result())

    def _cost(self, chunk: int, width: int, held: int) -> int:
        """Bytes in use while so many reads of ``chunk`` bytes are under way and one of ``held`` is written."""
        size = max(chunk, self._scan.page_bytes(chunk))
        ahead = (HELD_CHUNKS - 2) * width * size
        return ahead + 2 * max(size, held) + self._scan.remembered_bytes(chunk)

    async def _resize(self, share: Share, held: int) -> None:
        """Settle on the next reads: as wanted, or what there is a fair share for."""
        self._chunk, self._width = self._wanted, self._at_once()
        while (self._chunk, self._width) != (limits.CHUNK_MIN_BYTES, 1):
            if self._budget.take(share, self._cost(self._chunk, max(self._width, len(self._reading)), held)):
                return
            if self._chunk > limits.CHUNK_MIN_BYTES:
                self._chunk //= 2
            else:
                self._width = 1
        await self._budget.need(
            share, self._cost(self._chunk, max(1, len(self._reading)), held), self._progress_s
        )

    def _at_once(self) -> int:
        """How many parts may be read at once now."""
        if self._stalled or self._pool.counts(Lane.BULK).queued:
            return 1
        return max(1, self._scan.width)

    def _wants(self, page: Page) -> bool:
        """Whether a page is to be handed over: not one without elements, unless the reader has waited long."""
        silent = time.monotonic() - self._spoke
        return page.count > 0 or bool(page.token and silent >= self._silence_s)

    def _shrink(self, share: Share, size: int) -> None:
        """While the reader stalls: hold what was read ahead, the message of ``size`` bytes and grpc's copy of it."""
        self._scan.forget_rooms()
        ahead = sum(1 if task.done() else 2 for task in self._reading) * max(
            self._chunk, self._scan.page_bytes(self._chunk)
        )
        self._budget.give_back(share, ahead + 2 * size + self._scan.remembered_bytes(self._chunk))

    async def _write(self, writing: Awaitable[None], stalls: Callable[[], None]) -> None:
        """Hand a page over, and learn from how long it took how large the next may be.

        ``stalls`` is called when the reader does not take it soon.
        """
        began = time.monotonic()
        alarm = asyncio.get_running_loop().call_later(limits.STALL_S, stalls)
        try:
            async with asyncio.timeout(self._progress_s):
                await writing
        except TimeoutError:
            raise MapError(
                Reason.QUOTA,
                f"dump {self._opened.facts.label}: the reader took nothing for {self._progress_s:g} s; read faster, "
                "or go on later with the last token",
                **self._opened.facts.about("dump"),
            ) from None
        finally:
            alarm.cancel()
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
