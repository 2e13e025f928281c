"""Threads for syscalls: bounded lanes, and one hop for everything that is queued for a map.

A hop to a thread and back costs 20 to 110 us, a syscall 1 us, so a worker takes all jobs that wait
for one key (a map) at once; jobs of a key run in order, one thread at a time. Jobs of other keys run
beside them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, Generic, TypeVar

from mapd.bpf.fd import FdLease
from mapd.maps.errors import MapError
from mapd_api.reasons import Reason

T = TypeVar("T")

MERGE: Final = 1_024
"""Jobs of one hop at most, so that a busy map cannot keep a thread from the others."""


class Lane(StrEnum):
    """Work of one kind waits only for work of its kind."""

    POINT = "point"  # microseconds: elements, opening
    BULK = "bulk"  # milliseconds: dumps, loads, large groups
    SLOW = "slow"  # up to seconds: creating maps, map-in-map updates


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSize:
    """How many threads serve a lane, and how many jobs may wait in it."""

    threads: int
    queue: int


class _State(Enum):
    QUEUED = 0
    RUNNING = 1
    DROPPED = 2


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    """One call. The worker owns it from RUNNING on; before, whoever cancels does."""

    call: Callable[[], T]
    future: asyncio.Future[T]
    lease: FdLease | None
    discard: Callable[[T], None] | None
    expires: float | None
    state: _State = _State.QUEUED

    def finish(self) -> None:
        if self.lease is not None:
            self.lease.release()


@dataclass(slots=True)
class LaneCounts:
    """What a lane has done since it started, for metrics and tests."""

    queued: int = 0  # waiting now
    hops: int = 0
    jobs: int = 0
    dropped: int = 0  # cancelled before they began
    refused: int = 0  # the queue was full


@dataclass(slots=True)
class _LaneQueue:
    size: LaneSize
    counts: LaneCounts = field(default_factory=LaneCounts)
    waiting: dict[Hashable, deque[_Job[Any]]] = field(default_factory=dict[Hashable, deque[_Job[Any]]])
    ready: deque[Hashable] = field(default_factory=deque[Hashable])
    busy: set[Hashable] = field(default_factory=set[Hashable])
    changed: threading.Condition = field(default_factory=threading.Condition)
    open: bool = True


class SyscallPool:
    """Daemon threads, so that a syscall that never returns cannot keep the process from exiting.

    Made inside a running loop; results arrive in that loop.
    """

    def __init__(self, sizes: Mapping[Lane, LaneSize]) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes = {lane: _LaneQueue(sizes[lane]) for lane in Lane}
        self._threads = [
            threading.Thread(target=self._work, args=(queue,), name=f"mapd-{lane}-{number}", daemon=True)
            for lane, queue in self._lanes.items()
            for number in range(queue.size.threads)
        ]
        for thread in self._threads:
            thread.start()

    def counts(self, lane: Lane) -> LaneCounts:
        """The lane's counters, live."""
        return self._lanes[lane].counts

    async def run(
        self,
        lane: Lane,
        key: Hashable,
        call: Callable[[], T],
        *,
        lease: FdLease | None = None,
        discard: Callable[[T], None] | None = None,
        expires: float | None = None,
    ) -> T:
        """Run ``call`` on a thread of ``lane``, after what is queued there for ``key``.

        Args:
            lease: on the fd that the call uses; given back when the call has ended or is dropped.
            discard: what to do with a result that nobody awaits any more (close an fd).
            expires: time.monotonic() after which the call is not begun any more.

        Cancelling: a call that waits is dropped; one that runs goes on to its end, and its result is
        discarded.

        Raises:
            MapError: BUSY, the lane's queue is full; EXPIRED; DRAINING after ``close``. Nothing ran.
        """
        job: _Job[T] = _Job(call, self._loop.create_future(), lease, discard, expires)
        self._enqueue(self._lanes[lane], lane, key, job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._drop(self._lanes[lane], key, job)
            _discard(job)
            raise

    def _enqueue(self, queue: _LaneQueue, lane: Lane, key: Hashable, job: _Job[Any]) -> None:
        with queue.changed:
            refusal = None
            if not queue.open:
                refusal = MapError(Reason.DRAINING, "the daemon is stopping; connect again in a moment")
            elif queue.counts.queued >= queue.size.queue:
                queue.counts.refused += 1
                refusal = MapError(
                    Reason.BUSY,
                    f"{queue.counts.queued} calls wait for the daemon's {lane} threads already; try again",
                    lane=lane,
                )
            if refusal is not None:
                job.finish()
                raise refusal
            queue.counts.queued += 1
            jobs = queue.waiting.get(key)
            if jobs is None:
                jobs = queue.waiting[key] = deque()
                if key not in queue.busy:
                    queue.ready.append(key)
                    queue.changed.notify()
            jobs.append(job)

    def _drop(self, queue: _LaneQueue, key: Hashable, job: _Job[Any]) -> None:
        """Take a cancelled job out if no thread has begun it."""
        with queue.changed:
            if job.state is not _State.QUEUED:
                return
            job.state = _State.DROPPED
            queue.waiting[key].remove(job)
            queue.counts.queued -= 1
            queue.counts.dropped += 1
        job.finish()

    def _take(self, queue: _LaneQueue) -> tuple[Hashable, list[_Job[Any]]] | None:
        """Wait for a key with jobs; None when the lane was closed and is empty."""
        with queue.changed:
            while not queue.ready:
                if not queue.open:
                    return None
                queue.changed.wait()
            key = queue.ready.popleft()
            jobs = queue.waiting[key]
            taken = [jobs.popleft() for _ in range(min(len(jobs), MERGE))]
            for job in taken:
                job.state = _State.RUNNING
            queue.busy.add(key)
            queue.counts.queued -= len(taken)
            queue.counts.jobs += len(taken)
            queue.counts.hops += bool(taken)
            if not jobs:
                del queue.waiting[key]
            return key, taken

    def _release(self, queue: _LaneQueue, key: Hashable) -> None:
        with queue.changed:
            queue.busy.discard(key)
            if key in queue.waiting:
                queue.ready.append(key)
                queue.changed.notify()
            elif not queue.open:
                queue.changed.notify_all()

    def _work(self, queue: _LaneQueue) -> None:
        while (taken := self._take(queue)) is not None:
            key, jobs = taken
            results = [(job, *self._call(job)) for job in jobs]
            self._release(queue, key)
            if results:
                self._post(results)

    def _post(self, results: list[tuple[_Job[Any], object, BaseException | None]]) -> None:
        """Hand a hop's results to the loop in one go; a loop that is gone wants none."""
        try:
            self._loop.call_soon_threadsafe(_deliver, results)
        except RuntimeError:
            for job, result, error in results:
                if error is None and job.discard is not None:
                    job.discard(result)

    @staticmethod
    def _call(job: _Job[Any]) -> tuple[object, BaseException | None]:
        try:
            if job.expires is not None and time.monotonic() >= job.expires:
                raise MapError(Reason.EXPIRED, "its time was over before it was begun; nothing was executed")
            return job.call(), None
        except StopIteration as error:
            # No future takes one: it would end the coroutine that awaits it.
            return None, RuntimeError(f"a call raised {error!r}")
        except BaseException as error:
            return None, error
        finally:
            job.finish()

    async def close(self, timeout: float) -> bool:
        """Take no more work, let what is queued end, and join the threads.

        Returns whether all ended within ``timeout`` seconds; a thread inside a syscall that does not
        return is left behind, as a daemon thread.
        """
        for queue in self._lanes.values():
            with queue.changed:
                queue.open = False
                queue.changed.notify_all()
        give_up = time.monotonic() + timeout
        return await asyncio.to_thread(self._join, give_up)

    def _join(self, give_up: float) -> bool:
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _discard(job: _Job[Any]) -> None:
    """Discard a result that had come, but not reached the task before that was cancelled."""
    future = job.future
    if future.done() and not future.cancelled() and future.exception() is None and job.discard is not None:
        job.discard(future.result())


def _deliver(results: list[tuple[_Job[Any], Any, BaseException | None]]) -> None:
    """In the loop: resolve futures; what nobody awaits any more is discarded."""
    for job, result, error in results:
        if job.future.done():
            if error is None and job.discard is not None:
                job.discard(result)
        elif error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)
