"""Threads for syscalls: bounded lanes, and one hop for everything that is queued for a map.

A syscall takes 1 us, and a hop to a thread and back many, so a worker takes all jobs that wait for one
key (a map) at once; jobs of a key run in order, one thread at a time. Jobs of other keys run beside them.

Both sides wait on an eventfd, and the loop is woken once for all results that have come meanwhile. Bare,
such a hop takes 6 us, 13 with queue.SimpleQueue and call_soon_threadsafe, 14 with a Condition, 17 with an
executor (both threads on one CPU); ``run`` takes 12, and 0.4 a job for 64 at once. Where the other thread's CPU
sleeps, waking it costs more: 70 to 90 in all on a virtual machine of two idle CPUs.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, Generic, TypeVar

import structlog

from mapd.bpf.abi import Command
from mapd.bpf.fd import FdLease
from mapd.bpf.kernel import SyscallError
from mapd.maps.errors import MapError, not_now, scarcity
from mapd_api.reasons import Reason

T = TypeVar("T")

_log = structlog.stdlib.get_logger("mapd.runtime")

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


Done = Callable[[Any, BaseException | None], None]
"""Told in the loop how a call ended: its result and None, or None and what it raised."""


class _State(Enum):
    QUEUED = 0
    RUNNING = 1
    DROPPED = 2


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One call. The worker owns it from RUNNING on; before, whoever drops it does."""

    call: Callable[[], T]
    done: Done
    lease: FdLease | None
    expires: float | None
    owner: Hashable = None
    state: _State = _State.QUEUED

    def finish(self) -> None:
        """Give back what the call had borrowed."""
        if self.lease is not None:
            self.lease.release()


_Result = tuple[Job[Any], object, BaseException | None]


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
    """Jobs by key, in order. ``ready``: keys with jobs that no thread runs; those in ``lines`` only are run.

    Keys that are ready stand behind the owner of their first job, and owners take turns: whoever has work for many maps
    is no more often served than one with work for a single one.

    ``lock`` guards all of it, and is never held across a call or a wait. ``bell`` has one token for each key in
    ``ready``, and one more for each thread when the lane is closed.
    """

    size: LaneSize
    bell: int
    counts: LaneCounts = field(default_factory=LaneCounts)
    lines: dict[Hashable, deque[Job[Any]]] = field(default_factory=dict[Hashable, deque[Job[Any]]])
    ready: dict[Hashable, deque[Hashable]] = field(default_factory=dict[Hashable, "deque[Hashable]"])
    turns: deque[Hashable] = field(default_factory=deque[Hashable])
    waiting: Counter[Hashable] = field(default_factory=Counter[Hashable])
    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0
    open: bool = True

    def has_room(self, owner: Hashable) -> bool:
        """Whether one more job of ``owner`` may wait: never more than there is room for others after it.

        So one alone gets half of the queue, two a third each, and whoever comes new finds some.
        """
        free = self.size.queue - self.counts.queued
        return free > 0 if owner is None else self.waiting[owner] < free

    def enter(self, owner: Hashable) -> None:
        """A job waits."""
        self.counts.queued += 1
        if owner is not None:
            self.waiting[owner] += 1

    def leave(self, owner: Hashable) -> None:
        """It waits no more; an owner without jobs is forgotten."""
        self.counts.queued -= 1
        if owner is not None:
            self.waiting[owner] -= 1
            if not self.waiting[owner]:
                del self.waiting[owner]

    def make_ready(self, key: Hashable, owner: Hashable) -> None:
        """A key may be run, when it is its owner's turn."""
        keys = self.ready.get(owner)
        if keys is None:
            self.ready[owner] = deque((key,))
            self.turns.append(owner)
        else:
            keys.append(key)

    def next_key(self) -> Hashable:
        """The key whose turn it is; there is one."""
        owner = self.turns.popleft()
        keys = self.ready[owner]
        key = keys.popleft()
        if keys:
            self.turns.append(owner)
        else:
            del self.ready[owner]
        return key


class SyscallPool:
    """Daemon threads, so that a syscall that never returns cannot keep the process from exiting.

    Made inside a running loop; results arrive in that loop.

    Args:
        cpu: threads of Lane.POINT stay on it; None: wherever the scheduler has them.
    """

    def __init__(self, sizes: Mapping[Lane, LaneSize], *, cpu: int | None = None) -> None:
        self._cpu = cpu
        self._loop = asyncio.get_running_loop()
        self._results: deque[list[_Result]] = deque()
        self._waking = False
        self._to_ring: list[int] = []
        self._results_bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.add_reader(self._results_bell, self._on_results)
        self._lanes = {
            lane: _LaneQueue(size, os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC), threads=size.threads)
            for lane, size in sizes.items()
        }
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(lane_queue,), name=f"mapd-{lane}-{number}", daemon=True)
            for lane, lane_queue in self._lanes.items()
            for number in range(lane_queue.size.threads)
        ]
        self._alive = len(self._threads)
        for thread in self._threads:
            thread.start()

    def threads(self, lane: Lane) -> int:
        """How many threads serve a lane."""
        return self._lanes[lane].size.threads

    def counts(self, lane: Lane) -> LaneCounts:
        """The lane's counters, live."""
        return self._lanes[lane].counts

    def idle(self, key: Hashable) -> bool:
        """Whether nothing waits or runs for ``key``, in any lane. Its results may not have been told yet."""
        return all(key not in lane_queue.lines for lane_queue in self._lanes.values())

    async def run(
        self,
        lane: Lane,
        key: Hashable,
        call: Callable[[], T],
        *,
        lease: FdLease | None = None,
        discard: Callable[[T], None] | None = None,
        expires: float | None = None,
        owner: Hashable = None,
    ) -> T:
        """Run ``call`` on a thread of ``lane``, after what is queued there for ``key``.

        Args:
            lease: on the fd that the call uses; given back when the call has ended or is dropped.
            discard: what to do with a result that nobody awaits any more (close an fd).
            expires: time.monotonic() after which the call is not begun any more.
            owner: who asks, for a fair share of the queue and of the turns; None: the daemon itself.

        Cancelling: a call that waits is dropped; one that runs goes on to its end, and its result is
        discarded.

        Raises:
            MapError: BUSY, the lane's queue is full; EXPIRED; DRAINING after ``close``. Nothing ran.
        """
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done() or self._loop.is_closed():
                if error is None and discard is not None:
                    discard(result)
            elif error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        job = self.submit(lane, key, call, done, lease=lease, expires=expires, owner=owner)
        try:
            return await future
        except asyncio.CancelledError:
            self.drop(lane, key, job)
            # A result that had come, but not reached the task before that was cancelled.
            if discard is not None and future.done() and not future.cancelled() and not future.exception():
                discard(future.result())
            raise

    def submit(
        self,
        lane: Lane,
        key: Hashable,
        call: Callable[[], T],
        done: Done,
        *,
        lease: FdLease | None = None,
        expires: float | None = None,
        at_once: bool = False,
        owner: Hashable = None,
    ) -> Job[T]:
        """Queue ``call`` as ``run`` does; ``done`` is told in the loop, once, unless the job is dropped.

        ``at_once``: a thread is woken now, not when the turn of the loop ends: 2 us sooner, for work that was
        gathered already.

        ``done`` must not raise, and is told without the loop where that has ended: whoever opens something
        in ``call`` closes it there.

        Raises:
            MapError: BUSY or DRAINING, as ``run``; the lease was given back, and ``done`` is told nothing.
        """
        job: Job[T] = Job(call, done, lease, expires, owner)
        lane_queue = self._lanes[lane]
        with lane_queue.lock:
            refused = not lane_queue.open or not lane_queue.has_room(owner)
            if not refused:
                lane_queue.enter(owner)
                jobs = lane_queue.lines.get(key)
                if jobs is not None:
                    jobs.append(job)
                    return job
                lane_queue.lines[key] = deque((job,))
                lane_queue.make_ready(key, owner)
        if refused:
            job.finish()
            raise _refusal(lane_queue, lane, owner)
        if at_once:
            os.eventfd_write(lane_queue.bell, 1)
            return job
        if not self._to_ring:
            self._loop.call_soon(self._ring)
        self._to_ring.append(lane_queue.bell)
        return job

    def _ring(self) -> None:
        """Wake a thread for each key that became ready in the last turn of the loop.

        Not at once: a write to the bell lets go of the GIL, and the thread would begin with the first job
        while its neighbours are still being queued (47 hops for 64 jobs of one key, instead of 1).
        """
        for bell in self._to_ring:
            os.eventfd_write(bell, 1)
        self._to_ring.clear()

    def drop(self, lane: Lane, key: Hashable, job: Job[Any]) -> None:
        """Take a job out if no thread has begun it; nothing is told of it then."""
        lane_queue = self._lanes[lane]
        with lane_queue.lock:
            if job.state is not _State.QUEUED:
                return
            job.state = _State.DROPPED
            lane_queue.lines[key].remove(job)
            lane_queue.leave(job.owner)
            lane_queue.counts.dropped += 1
        job.finish()

    @staticmethod
    def _take(lane_queue: _LaneQueue) -> tuple[Hashable, list[Job[Any]]] | None:
        """The jobs of the next key, up to the bound, for a token of the bell; None: it was one to end for."""
        with lane_queue.lock:
            if not lane_queue.turns:
                return None
            key = lane_queue.next_key()
            jobs = lane_queue.lines[key]
            taken = [jobs.popleft() for _ in range(min(len(jobs), MERGE))]
            for job in taken:
                job.state = _State.RUNNING
                lane_queue.leave(job.owner)
            counts = lane_queue.counts
            counts.jobs += len(taken)
            counts.hops += bool(taken)
            return key, taken

    @staticmethod
    def _release(lane_queue: _LaneQueue, key: Hashable) -> None:
        """Behind all other keys with it, if it has jobs again."""
        with lane_queue.lock:
            jobs = lane_queue.lines[key]
            if not jobs:
                del lane_queue.lines[key]
                return
            lane_queue.make_ready(key, jobs[0].owner)
        os.eventfd_write(lane_queue.bell, 1)

    def _work(self, lane_queue: _LaneQueue) -> None:
        if self._cpu is not None and lane_queue is self._lanes[Lane.POINT]:
            os.sched_setaffinity(0, {self._cpu})
        while True:
            os.eventfd_read(lane_queue.bell)
            found = self._take(lane_queue)
            if found is None:
                break
            key, jobs = found
            results: list[_Result] = [(job, *self._call(job)) for job in jobs]
            if results:
                self._post(results)  # before another thread may run the key's next jobs, and tell of them
            self._release(lane_queue, key)
        self._end(lane_queue)

    def _end(self, lane_queue: _LaneQueue) -> None:
        """One thread less; the last of a lane closes its bell, and the last of all the results' if nobody else can."""
        with self._lock:
            lane_queue.threads -= 1
            if not lane_queue.threads:
                os.close(lane_queue.bell)
            self._alive -= 1
            if not self._alive and self._loop.is_closed():
                self._close_results()

    def _close_results(self) -> None:
        bell, self._results_bell = self._results_bell, -1
        if bell >= 0:
            os.close(bell)

    def _post(self, results: list[_Result]) -> None:
        """Hand a hop's results to the loop, which is woken if it is not about to look anyway.

        ``_on_results`` clears the flag before it looks, so that what is seen set here was not cleared yet and
        no result is left lying. Two threads may both wake it; the second time it finds nothing.
        """
        self._results.append(results)
        if self._loop.is_closed():
            self._deliver()
        elif not self._waking:
            self._waking = True
            os.eventfd_write(self._results_bell, 1)

    def _on_results(self) -> None:
        os.eventfd_read(self._results_bell)
        self._waking = False
        self._deliver()

    def _deliver(self) -> None:
        """Tell how calls ended: in the loop, or in a thread when that has ended."""
        while True:
            try:
                results = self._results.popleft()
            except IndexError:
                return
            for job, result, error in results:
                try:
                    job.done(result, error)
                except Exception:
                    # A fault of ours; the other results of this hop are other callers', who wait for them.
                    _log.exception("a result was not taken")

    @staticmethod
    def _call(job: Job[Any]) -> tuple[object, BaseException | None]:
        try:
            if job.expires is not None and time.monotonic() >= job.expires:
                raise MapError(Reason.EXPIRED, "its time was over before it was begun; nothing was executed")
            return job.call(), None
        except StopIteration as error:
            # No future takes one: it would end the coroutine that awaits it.
            return None, RuntimeError(f"a call raised {error!r}")
        except OSError as error:
            return None, _of_the_host(error) or error
        except BaseException as error:
            return None, error
        finally:
            job.finish()

    async def close(self, timeout: float) -> bool:
        """Take no more work, let what is queued end, and join the threads.

        Returns whether all ended within ``timeout`` seconds; a thread inside a syscall that does not
        return is left behind, as a daemon thread.
        """
        for lane_queue in self._lanes.values():
            with lane_queue.lock:
                was_open, lane_queue.open = lane_queue.open, False
            for _ in range(lane_queue.size.threads if was_open else 0):
                os.eventfd_write(lane_queue.bell, 1)
        give_up = time.monotonic() + timeout
        ended = await asyncio.to_thread(self._join, give_up)
        if ended and self._results_bell >= 0:
            self._loop.remove_reader(self._results_bell)
            self._deliver()
            self._close_results()
        return ended

    def _join(self, give_up: float) -> bool:
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)


def _of_the_host(error: OSError) -> MapError | None:
    """What no layer below has made sense of and is no fault of ours, wherever it shows; None for anything else.

    A host or daemon without descriptors or memory, and a kernel that was busy. Where a program was run nobody knows
    what an errno means: the kernel has none for it that passes (net/bpf/test_run.c, bpf_prog_test_run_syscall()).
    """
    command = error.command if isinstance(error, SyscallError) else "the call"
    if command == Command.PROG_TEST_RUN.uapi_name:
        return scarcity(error, command)
    return not_now(error, command)


def _refusal(lane_queue: _LaneQueue, lane: Lane, owner: Hashable) -> MapError:
    if not lane_queue.open:
        return MapError(Reason.DRAINING, "the daemon is stopping; connect again in a moment")
    lane_queue.counts.refused += 1
    queued, own = lane_queue.counts.queued, lane_queue.waiting[owner]
    whose = (
        f", {own} of them yours, as many as there is room for besides" if own and owner is not None else ""
    )
    return MapError(
        Reason.BUSY,
        f"{queued} calls wait for the daemon's {lane} threads already{whose}; try again",
        lane=lane,
    )
