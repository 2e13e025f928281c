"""A daemon takes over the pins that it finds: looked at side by side before it serves, and again as they change."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from mapd.maps.adoption import Adoption, Misfit, Unseen, differences
from mapd.maps.errors import MapError
from mapd.runtime.pool import Lane, SyscallPool

LIMIT_S: Final = 1.0
"""For one pin. It takes 60 us; one that takes longer must not keep all others from being served."""

TOGETHER: Final = 64
"""Pins of one hop to a thread: 4 ms."""

LANES: Final = (Lane.POINT, Lane.BULK, Lane.SLOW)
"""One thread of each looks: a pin that never answers keeps one thread, and the lane has others."""

TOLD: Final = 32
"""Lines about single misfits in the log at once; more are counted."""

_log = structlog.stdlib.get_logger("mapd.runtime")


@dataclass(slots=True)
class Counts:
    """What was found since the start.

    Attributes:
        adopted: pins that are served, as they were last looked at.
        quarantined: pins and folders that are not.
        mended: what was quarantined once and is served, or gone, now.
        replaced: pins of maps that are held open, behind which another map was found.
        unanswered: pins about which the kernel said nothing in time.
        looks: after the first.
    """

    adopted: int = 0
    quarantined: int = 0
    mended: int = 0
    replaced: int = 0
    unanswered: int = 0
    looks: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    """Pins for one thread. ``done``: how many it has looked at; ``given_up``: nobody wants the rest from it."""

    pins: Sequence[Unseen]
    done: int = 0
    given_up: bool = False

    def look(self, adoption: Adoption) -> None:
        for one in self.pins:
            if self.given_up:
                return
            adoption.judge(one)
            self.done += 1


@dataclass(frozen=True, slots=True)
class _Found:
    """What does not fit, what of it is new, what of before fits or is gone now; pins that are served."""

    misfits: Sequence[Misfit]
    new: Sequence[Misfit]
    mended: Sequence[Misfit]
    served: int


@dataclass(slots=True, eq=False)
class Adopting:
    """The pins of one daemon, for one event loop.

    Attributes:
        limit_s: for one pin.
    """

    adoption: Adoption
    pool: SyscallPool
    limit_s: float = LIMIT_S
    counts: Counts = field(default_factory=Counts)
    _told: Sequence[Misfit] = ()

    async def adopt(self) -> None:
        """Look at every pin, several at a time; return when each was looked at or has had its time.

        A daemon that has no descriptors or memory left to look serves nevertheless: what was not looked at is judged
        when it is opened, and ``look`` goes on with it.

        Cancelling: what is under way goes on to its end, and nobody is told.
        """
        began = time.monotonic()
        try:
            todo = deque(await self.pool.run(Lane.SLOW, self, self.adoption.survey))
        except MapError as error:
            self._not_looked(error)
            return
        lanes: Sequence[Lane] = LANES
        while todo and lanes:  # again with what was taken back from a thread that stands still
            async with asyncio.TaskGroup() as group:
                work = [
                    (lane, group.create_task(self._work(lane, todo), name=f"adopting in {lane}"))
                    for lane in lanes
                ]
            lanes = [lane for lane, task in work if task.result()]
        for one in todo:  # every thread stands still
            self._unanswered(one)
        self._tell(self._found())
        _log.info(
            "pins adopted",
            pins=self.counts.adopted,
            quarantined=self.counts.quarantined,
            seconds=round(time.monotonic() - began, 3),
        )

    async def look(self) -> None:
        """Look at what has changed since.

        Raises:
            MapError: QUOTA, KERNEL_MEMORY, BUSY, DRAINING: it could not be looked.
        """
        self._tell(await self.pool.run(Lane.BULK, self, self._look))
        self.counts.looks += 1

    async def _work(self, lane: Lane, todo: deque[Unseen]) -> bool:
        """Have a thread of one lane look until there is nothing more; False if a pin has had its time."""
        while todo:
            batch = _Batch([todo.popleft() for _ in range(min(TOGETHER, len(todo)))])
            look = partial(batch.look, self.adoption)
            task = asyncio.create_task(self.pool.run(lane, batch, look), name="adopting pins")
            try:
                if not await self._moving(batch, task):
                    todo.extend(batch.pins[batch.done + 1 :])
                    self._unanswered(batch.pins[batch.done])
                    return False
            except MapError as error:
                self._not_looked(error)
                todo.clear()
            finally:
                batch.given_up = True
                task.cancel()
        return True

    async def _moving(self, batch: _Batch, task: asyncio.Task[None]) -> bool:
        """Wait for a thread; False if it was at one pin for all of its time.

        Raises:
            MapError: what the thread raised.
        """
        while True:
            done = batch.done
            await asyncio.wait({task}, timeout=self.limit_s)
            if task.done():
                task.result()
                return True
            if batch.done == done:
                return False

    def _not_looked(self, error: MapError) -> None:
        _log.warning("pins were not all looked at", reason=error.reason.name, message=str(error))

    def _unanswered(self, one: Unseen) -> None:
        self.counts.unanswered += 1
        self.adoption.unanswered(one, self.limit_s)

    def _look(self) -> _Found:
        """In a thread: with 65,536 pins that do not fit, to compare them takes 27 ms."""
        self.adoption.look()
        return self._found()

    def _found(self) -> _Found:
        misfits = self.adoption.misfits
        new, mended = differences(self._told, misfits)
        return _Found(misfits, new, mended, self.adoption.served)

    def _tell(self, found: _Found) -> None:
        """Say what does not fit now and did before, and the other way round; each once."""
        self._told = found.misfits
        for one in found.new[:TOLD]:
            say = "served in part" if one.served else "quarantined: not served, and left as it is"
            _log.warning(say, path=one.path, why=one.why, fix=one.fix)
        for one in found.mended[:TOLD]:
            _log.info("no longer quarantined", path=one.path, was=one.why)
        if len(found.new) > TOLD:
            _log.warning("quarantined: more pins like these", count=len(found.new) - TOLD)
        self.counts.quarantined = sum(not one.served for one in found.misfits)
        self.counts.mended += sum(not one.served for one in found.mended)
        self.counts.adopted = found.served
