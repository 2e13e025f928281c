"""The pool: order per key, one hop for all that waits, bounds, and what cancelling and closing leave."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from structlog.testing import capture_logs

from mapd.bpf import OwnedFd, SyscallError
from mapd.maps.errors import MapError
from mapd.runtime.pool import MERGE, Lane, LaneSize, SyscallPool
from mapd_api.reasons import Reason

pytestmark = pytest.mark.usefixtures("strict_loop")

WAIT_S = 10.0


class Held:
    """A call that has begun and stands still until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.let_go.wait(WAIT_S)
        return "held"


@asynccontextmanager
async def running(threads: int = 1, queue: int = 10_000) -> AsyncGenerator[SyscallPool]:
    pool = SyscallPool({lane: LaneSize(threads=threads, queue=queue) for lane in Lane})
    try:
        yield pool
    finally:
        assert await pool.close(WAIT_S)


@asynccontextmanager
async def held(pool: SyscallPool, key: object = "map", lane: Lane = Lane.POINT) -> AsyncGenerator[Held]:
    """While inside, one thread of the lane is busy with ``key``."""
    call = Held()
    task = asyncio.create_task(pool.run(lane, key, call))
    await asyncio.to_thread(call.begun.wait, WAIT_S)
    try:
        yield call
    finally:
        call.let_go.set()
        assert await task == "held"


async def queued(pool: SyscallPool, count: int, lane: Lane = Lane.POINT) -> None:
    """Until so many calls wait: they are enqueued in the loop turn that starts their tasks."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert pool.counts(lane).queued == count


def fail(error: BaseException) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


async def test_a_result_reaches_its_caller_from_another_thread() -> None:
    async with running() as pool:
        thread = await pool.run(Lane.POINT, 1, threading.get_ident)
        assert thread != threading.get_ident()


@pytest.mark.parametrize(
    "error", [ValueError("no"), MapError(Reason.BUSY, "busy"), KeyboardInterrupt("no"), StopIteration("no")]
)
async def test_an_exception_reaches_its_caller_and_the_thread_goes_on(error: BaseException) -> None:
    async with running() as pool:
        with pytest.raises((type(error), RuntimeError)):
            await pool.run(Lane.POINT, 1, fail(error))
        assert await pool.run(Lane.POINT, 1, lambda: 7) == 7


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/proc/self/fdinfo/63"), Reason.QUOTA),
        (SyscallError(errno.ENFILE, "BPF_OBJ_GET"), Reason.QUOTA),
        (SyscallError(errno.ENOMEM, "BPF_MAP_CREATE"), Reason.KERNEL_MEMORY),
        (SyscallError(errno.EINTR, "BPF_MAP_GET_NEXT_KEY"), Reason.BUSY),
    ],
    ids=str,
)
async def test_a_host_that_has_no_more_to_give_is_a_refusal_wherever_it_shows(
    error: OSError, reason: Reason
) -> None:
    """No fault of the daemon's: its caller is told what is scarce."""
    async with running() as pool:
        with pytest.raises(MapError) as raised:
            await pool.run(Lane.POINT, 1, fail(error))
    assert raised.value.reason is reason


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINVAL])
async def test_of_a_program_that_was_run_nothing_is_made_up(number: int) -> None:
    """Whether it changed anything nobody knows: to say that the kernel was busy would say that it did not."""
    async with running() as pool:
        with pytest.raises(SyscallError):
            await pool.run(Lane.POINT, 1, fail(SyscallError(number, "BPF_PROG_TEST_RUN")))


async def test_calls_of_one_key_run_in_the_order_they_were_made_one_at_a_time() -> None:
    done: list[int] = []
    inside = threading.Lock()

    def step(number: int) -> None:
        assert inside.acquire(blocking=False)
        done.append(number)
        inside.release()

    async with running(threads=4) as pool, asyncio.TaskGroup() as group:
        for number in range(500):
            group.create_task(pool.run(Lane.POINT, "map", partial(step, number)))
            if number % 50 == 0:
                await asyncio.sleep(0)
    assert done == list(range(500))


async def test_all_that_waits_for_a_key_runs_in_one_hop() -> None:
    async with running() as pool:
        async with held(pool):
            tasks = [
                asyncio.create_task(pool.run(Lane.POINT, "map", threading.get_ident)) for _ in range(100)
            ]
            await queued(pool, 100)
        threads = await asyncio.gather(*tasks)
        counts = pool.counts(Lane.POINT)
        assert len(set(threads)) == 1
        assert (counts.hops, counts.jobs, counts.queued) == (2, 101, 0)


async def test_all_that_is_queued_for_a_key_in_one_turn_of_the_loop_runs_in_one_hop() -> None:
    async with running(threads=2) as pool:
        await asyncio.gather(*(pool.run(Lane.POINT, "map", int) for _ in range(100)))
        counts = pool.counts(Lane.POINT)
        assert (counts.hops, counts.jobs) == (1, 100)


async def test_a_hop_takes_no_more_than_its_bound() -> None:
    async with running() as pool:
        async with held(pool):
            tasks = [asyncio.create_task(pool.run(Lane.POINT, "map", int)) for _ in range(MERGE + 1)]
            await queued(pool, MERGE + 1)
        await asyncio.gather(*tasks)
        assert pool.counts(Lane.POINT).hops == 3


async def test_a_busy_map_lets_others_in_between_its_hops() -> None:
    done: list[str] = []
    async with running() as pool:
        async with held(pool):
            busy = [
                asyncio.create_task(pool.run(Lane.POINT, "map", lambda: done.append("map")))
                for _ in range(2 * MERGE)
            ]
            await queued(pool, 2 * MERGE)
            other = asyncio.create_task(pool.run(Lane.POINT, "other", lambda: done.append("other")))
            await queued(pool, 2 * MERGE + 1)
        await asyncio.gather(*busy, other)
    assert done.index("other") <= MERGE


async def test_another_key_does_not_wait_while_there_is_a_thread() -> None:
    async with running(threads=2) as pool, held(pool, "slow map"):
        assert await pool.run(Lane.POINT, "other map", lambda: 7) == 7


async def test_a_key_is_idle_while_nothing_waits_or_runs_for_it_in_any_lane() -> None:
    async with running() as pool:
        async with held(pool, "map", Lane.SLOW):
            assert not pool.idle("map")
            assert pool.idle("other")
        await pool.run(Lane.SLOW, "behind", int)  # the lane's one thread has let go of "map"
        assert pool.idle("map")


async def test_another_lane_does_not_wait_at_all() -> None:
    async with running(threads=1) as pool, held(pool, lane=Lane.SLOW), held(pool, lane=Lane.BULK):
        assert await pool.run(Lane.POINT, "map", lambda: 7) == 7


async def test_a_full_queue_is_busy_and_runs_nothing() -> None:
    ran: list[int] = []
    async with running(queue=2) as pool:
        async with held(pool):
            tasks = [asyncio.create_task(pool.run(Lane.POINT, "map", int)) for _ in range(2)]
            await queued(pool, 2)
            with pytest.raises(MapError, match="2 calls wait for the daemon's point threads") as caught:
                await pool.run(Lane.POINT, "another", lambda: ran.append(1))
            assert caught.value.reason is Reason.BUSY
            assert caught.value.refusal.retry_after_s is not None
        await asyncio.gather(*tasks)
        assert await pool.run(Lane.POINT, "map", lambda: 7) == 7
        assert pool.counts(Lane.POINT).refused == 1
    assert ran == []


async def test_a_refused_call_gives_its_lease_back() -> None:
    owned = OwnedFd(os.open("/dev/null", os.O_RDONLY))
    async with running(queue=1) as pool, held(pool):
        task = asyncio.create_task(pool.run(Lane.POINT, "map", int))
        await queued(pool, 1)
        with pytest.raises(MapError):
            await pool.run(Lane.POINT, "map", int, lease=owned.lease())
        task.cancel()
    owned.close()  # the fixture sees the fd if a lease kept it open


async def test_a_cancelled_call_that_waits_never_runs_and_gives_its_lease_back() -> None:
    ran: list[int] = []
    owned = OwnedFd(os.open("/dev/null", os.O_RDONLY))
    lease = owned.lease()
    async with running() as pool:
        async with held(pool):
            task = asyncio.create_task(pool.run(Lane.POINT, "map", lambda: ran.append(1), lease=lease))
            await queued(pool, 1)
            owned.close()
            os.fstat(lease.fd)  # open: the call may still run
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(lease.fd)
            assert pool.counts(Lane.POINT).queued == 0
        assert pool.counts(Lane.POINT).dropped == 1
    assert ran == []


async def test_cancelling_every_call_of_a_key_leaves_the_lane_usable() -> None:
    async with running() as pool:
        async with held(pool, "busy"):
            tasks = [asyncio.create_task(pool.run(Lane.POINT, "map", int)) for _ in range(10)]
            await queued(pool, 10)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await pool.run(Lane.POINT, "map", lambda: 7) == 7


async def test_a_cancelled_call_that_runs_goes_on_to_its_end_and_its_result_is_discarded() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def open_slowly() -> OwnedFd:
        begun.set()
        assert let_go.wait(WAIT_S)
        return OwnedFd(os.open("/dev/null", os.O_RDONLY))

    discarded: list[OwnedFd] = []

    def discard(opened: OwnedFd) -> None:
        discarded.append(opened)
        opened.close()

    async with running() as pool:
        task = asyncio.create_task(pool.run(Lane.POINT, "map", open_slowly, discard=discard))
        await asyncio.to_thread(begun.wait, WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        let_go.set()
        await pool.run(Lane.POINT, "map", int)  # behind it
    assert [opened.closed for opened in discarded] == [True]


async def test_a_call_cancelled_in_the_turn_that_brings_its_result_discards_it() -> None:
    call, discarded = Held(), list[str]()
    async with running() as pool:
        async with held(pool):
            first = asyncio.create_task(pool.run(Lane.POINT, "map", call, discard=discarded.append))

            # Delivered right after the first, before the loop wakes anybody: cancelled while it runs, it is
            # discarded, and that cancels the first.
            def cancel_first(_: int) -> None:
                first.cancel()

            second = asyncio.create_task(pool.run(Lane.POINT, "map", int, discard=cancel_first))
            await queued(pool, 2)
        await asyncio.to_thread(call.begun.wait, WAIT_S)
        second.cancel()
        await asyncio.wait([second])
        call.let_go.set()
        await asyncio.wait([first])
    assert first.cancelled()
    assert discarded == ["held"]


async def test_a_submitted_call_tells_how_it_ended_in_the_loop_and_in_order() -> None:
    told: list[tuple[object, object, int]] = []
    broken = ValueError("no")

    def done(result: object, error: BaseException | None) -> None:
        told.append((result, error, threading.get_ident()))

    async with running() as pool:
        pool.submit(Lane.POINT, "map", lambda: 7, done)
        pool.submit(Lane.POINT, "map", fail(broken), done)
        await pool.run(Lane.POINT, "map", int)  # behind them
    here = threading.get_ident()
    assert told == [(7, None, here), (None, broken, here)]


async def test_a_submitted_call_that_is_dropped_tells_nothing_and_one_that_runs_is_not_dropped() -> None:
    told: list[tuple[object, object]] = []

    def done(result: object, error: BaseException | None) -> None:
        told.append((result, error))

    async with running() as pool:
        async with held(pool):
            job = pool.submit(Lane.POINT, "map", int, done)
            pool.drop(Lane.POINT, "map", job)
            pool.drop(Lane.POINT, "map", job)
            assert (pool.counts(Lane.POINT).queued, pool.counts(Lane.POINT).dropped) == (0, 1)
        call = Held()
        running_job = pool.submit(Lane.POINT, "map", call, done)
        await asyncio.to_thread(call.begun.wait, WAIT_S)
        pool.drop(Lane.POINT, "map", running_job)
        call.let_go.set()
        await pool.run(Lane.POINT, "map", int)
    assert told == [("held", None)]


async def test_a_call_whose_time_is_over_is_refused_unexecuted() -> None:
    ran: list[int] = []
    async with running() as pool:
        with pytest.raises(MapError, match="nothing was executed") as caught:
            await pool.run(Lane.POINT, "map", lambda: ran.append(1), expires=time.monotonic())
        assert caught.value.reason is Reason.EXPIRED
        assert await pool.run(Lane.POINT, "map", lambda: 7, expires=time.monotonic() + WAIT_S) == 7
    assert ran == []


async def test_time_runs_while_a_call_waits() -> None:
    async with running() as pool:
        async with held(pool):
            soon = time.monotonic() + 1e-6
            task = asyncio.create_task(pool.run(Lane.POINT, "map", int, expires=soon))
            await queued(pool, 1)
        with pytest.raises(MapError) as caught:
            await task
        assert caught.value.reason is Reason.EXPIRED


async def test_closing_lets_what_is_queued_end_and_refuses_the_rest() -> None:
    pool = SyscallPool({lane: LaneSize(threads=2, queue=100) for lane in Lane})
    call = Held()
    first = asyncio.create_task(pool.run(Lane.POINT, "map", call))
    await asyncio.to_thread(call.begun.wait, WAIT_S)
    tasks = [asyncio.create_task(pool.run(Lane.POINT, "map", lambda: 7)) for _ in range(10)]
    await queued(pool, 10)
    closing = asyncio.create_task(pool.close(WAIT_S))
    await asyncio.sleep(0)
    with pytest.raises(MapError, match="stopping") as caught:
        await pool.run(Lane.POINT, "map", int)
    assert caught.value.reason is Reason.DRAINING
    call.let_go.set()
    assert await closing
    assert await asyncio.gather(*tasks) == [7] * 10
    assert await first == "held"


async def test_closing_twice_is_fine() -> None:
    pool = SyscallPool({lane: LaneSize(threads=1, queue=1) for lane in Lane})
    assert await pool.close(WAIT_S)
    assert await pool.close(WAIT_S)


async def test_a_stuck_thread_does_not_hold_up_closing_beyond_its_timeout() -> None:
    pool = SyscallPool({lane: LaneSize(threads=1, queue=1) for lane in Lane})
    call = Held()
    task = asyncio.create_task(pool.run(Lane.POINT, "map", call))
    await asyncio.to_thread(call.begun.wait, WAIT_S)
    assert not await pool.close(0.01)
    call.let_go.set()
    assert await task == "held"
    assert await pool.close(WAIT_S)


async def test_results_that_come_after_the_loop_has_ended_are_discarded() -> None:
    call = Held()
    discarded = threading.Event()

    def discard(_: str) -> None:
        discarded.set()

    async def daemon() -> None:
        pool = SyscallPool({lane: LaneSize(threads=1, queue=1) for lane in Lane})
        running = asyncio.create_task(pool.run(Lane.POINT, "map", call, discard=discard))
        await asyncio.to_thread(call.begun.wait, WAIT_S)
        running.cancel()
        assert not await pool.close(0.0)

    await asyncio.to_thread(asyncio.run, daemon())
    call.let_go.set()
    await asyncio.to_thread(discarded.wait, WAIT_S)
    assert discarded.is_set()
    for thread in threading.enumerate():
        if thread.name.startswith("mapd-"):
            await asyncio.to_thread(thread.join, WAIT_S)


async def test_one_owner_has_no_more_of_the_queue_than_it_leaves_for_others() -> None:
    """Alone half, of two a third each; whoever comes new always finds room."""
    async with crowded(queue=12) as (pool, submit):
        assert fill(submit, "abuser") == 6
        assert fill(submit, "second") == 3
        submit("victim")
        with pytest.raises(MapError, match=r"10 calls wait .*, 6 of them yours") as caught:
            submit("abuser")
        assert caught.value.reason is Reason.BUSY
        assert pool.counts(Lane.POINT).refused == 3


async def test_owners_take_turns_however_many_keys_each_has() -> None:
    ran: list[str] = []
    async with crowded(queue=100) as (_pool, submit):
        for number in range(10):
            submit("abuser", key=f"a{number}", call=lambda: ran.append("abuser"))
        submit("victim", key="v", call=lambda: ran.append("victim"))
    assert ran.index("victim") <= 1
    assert len(ran) == 11


async def test_an_owner_whose_calls_have_ended_is_forgotten() -> None:
    async with crowded(queue=8) as (pool, submit):
        submit("one")
        submit("two")
    assert not pool._lanes[Lane.POINT].waiting  # pyright: ignore[reportPrivateUsage]
    assert not pool._lanes[Lane.POINT].ready  # pyright: ignore[reportPrivateUsage]


def fill(submit: Callable[..., None], owner: str) -> int:
    """How many calls of one owner may wait."""
    for count in range(1_000):
        try:
            submit(owner)
        except MapError:
            return count
    raise AssertionError("there is no end")


@asynccontextmanager
async def crowded(queue: int) -> AsyncGenerator[tuple[SyscallPool, Callable[..., None]]]:
    """A pool whose only thread of a lane waits until the block ends, and what queues a call for an owner."""
    begun, let_go = threading.Event(), threading.Event()
    pool = SyscallPool({Lane.POINT: LaneSize(threads=1, queue=queue)})

    def block() -> None:
        begun.set()
        assert let_go.wait(20)

    def submit(owner: str, key: str = "", call: Callable[[], None] = lambda: None) -> None:
        pool.submit(Lane.POINT, key or owner, call, lambda _result, _error: None, owner=owner)

    blocked = asyncio.ensure_future(pool.run(Lane.POINT, "blocked", block))
    await asyncio.to_thread(begun.wait, 20)
    try:
        yield pool, submit
    finally:
        let_go.set()
        await blocked
        assert await pool.close(20)


async def test_a_result_that_cannot_be_taken_keeps_no_other_from_its_caller() -> None:
    def unwilling(result: object, error: BaseException | None) -> None:
        del result, error
        raise ValueError("a fault")

    async with running() as pool:
        with capture_logs() as said:
            async with held(pool):
                pool.submit(Lane.POINT, "other", lambda: 1, unwilling)
                rest = [
                    asyncio.create_task(pool.run(Lane.POINT, "other", partial(int, at))) for at in range(3)
                ]
                await queued(pool, 4)
            async with asyncio.timeout(WAIT_S):
                assert await asyncio.gather(*rest) == [0, 1, 2]
    assert [line["event"] for line in said] == ["a result was not taken"]
