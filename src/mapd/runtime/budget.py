"""Memory that all dumps of a daemon share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mapd.maps.errors import MapError
from mapd_api import limits
from mapd_api.reasons import Reason


@dataclass(slots=True, eq=False)
class Share:
    """What one dump of ``owner`` holds of the budget, in bytes."""

    owner: Hashable = None
    held: int = 0


class ByteBudget:
    """Bytes that all dumps together may hold, in fair shares. For one event loop.

    No dump grows beyond the total less ``reserve``, divided by the principals that dump, and that by the dumps of its
    own, those included that wait to begin; so the others, which ask at each of their steps, give back. A reader that
    stalls keeps its dump from asking: the reserve, which nobody grows into, is for those that begin meanwhile.

    One that cannot do with less than is left (elements of megabytes, a large bucket, keys to remember) gets
    it where no other dump holds anything: every map can be dumped, if not several at once.
    """

    def __init__(self, total: int = limits.DUMP_BYTES, *, reserve: int = 0) -> None:
        self._total = total
        self._reserve = reserve
        self._held = 0
        self._running = 0
        self._beginning = 0  # wait for their first bytes
        self._dumps: Counter[Hashable] = Counter()  # by owner, those that wait to begin too
        self._stuck = 0  # run, and wait for more
        self._freed = asyncio.Event()

    @property
    def free(self) -> int:
        """Bytes that nobody holds; negative while one dump alone has more than there is."""
        return self._total - self._held

    @asynccontextmanager
    async def share(self, least: int, patience_s: float, owner: Hashable = None) -> AsyncGenerator[Share]:
        """A place for one more dump, which holds ``least`` bytes at first and none after the block.

        Raises:
            MapError: BUSY, nobody gave so many back within ``patience_s`` seconds.
        """
        share = Share(owner)
        self._dumps[owner] += 1
        try:
            self._beginning += 1
            try:
                await self._wait(share, least, patience_s)
            finally:
                self._beginning -= 1
            self._running += 1
            try:
                yield share
            finally:
                self._running -= 1
                self._set(share, 0)
        finally:
            self._dumps[owner] -= 1
            if not self._dumps[owner]:
                del self._dumps[owner]

    def take(self, share: Share, size: int) -> bool:
        """Hold ``size`` bytes from now on, if that is a fair share and there is room; whether it does."""
        fair = (self._total - self._reserve) // len(self._dumps) // self._dumps[share.owner]
        if size > fair or size - share.held > self.free - self._reserve:
            return False
        self._set(share, size)
        return True

    def give_back(self, share: Share, size: int) -> None:
        """Hold no more than ``size`` bytes from now on."""
        self._set(share, min(size, share.held))

    async def need(self, share: Share, size: int, patience_s: float) -> None:
        """Hold ``size`` bytes from now on, for a dump that cannot do with less.

        Raises:
            MapError: BUSY, as for ``share``; at once where all who could give back wait themselves.
        """
        if not self._fits(share, size) and self._stuck + 1 == self._running:
            raise self._busy(size)
        self._stuck += 1
        try:
            await self._wait(share, size, patience_s)
        finally:
            self._stuck -= 1

    async def _wait(self, share: Share, size: int, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                while not self._fits(share, size):
                    await self._freed.wait()
        except TimeoutError:
            raise self._busy(size) from None
        self._set(share, size)

    def _fits(self, share: Share, size: int) -> bool:
        return size - share.held <= self.free or self._held == share.held

    def _set(self, share: Share, size: int) -> None:
        gave_back = size < share.held
        self._held += size - share.held
        share.held = size
        if gave_back:
            # Who waits now looks again, in the order in which they came; who comes later waits for the next.
            self._freed.set()
            self._freed = asyncio.Event()

    def _busy(self, size: int) -> MapError:
        return MapError(
            Reason.BUSY,
            f"dump: {size} bytes are needed, and the {self._total >> 10} KiB that dumps may hold are in use by "
            f"{self._running} others; try again when one has ended, or go on from the last token",
            operation="dump",
        )
