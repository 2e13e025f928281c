"""Dumps: reading ahead while the reader takes, within one budget, and what stalled readers are told."""

from __future__ import annotations

import asyncio
import errno
import threading
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from mapd.access.authorize import Authorizer
from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.bpf import Fault, FaultyKernel
from mapd.bpf.abi import Command
from mapd.maps import split
from mapd.maps.errors import MapError
from mapd.maps.scan import Page, Scan, ScanOptions
from mapd.runtime.budget import ByteBudget
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.rates import Rates
from mapd.runtime.scans import HELD_CHUNKS, Dump, Trailer
from mapd.runtime.shares import Shares
from mapd.runtime.traffic import Traffic
from mapd_api import limits
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from tests.unit.mapd.dictkernel import DictKernel, DictMap, n, raw_info

pytestmark = pytest.mark.usefixtures("strict_loop")

WAIT_S = 10.0
BATCH = Command.MAP_LOOKUP_BATCH
ROW = 4 + 1_020
"""Bytes of an element: 64 of them are the smallest chunk."""
ROWS = limits.CHUNK_MIN_BYTES // ROW


class Bench:
    """A map of a kilobyte an element on a dict kernel, a pool, and a budget for dumps."""

    def __init__(self, budget: int, value_size: int) -> None:
        self.kernel = DictKernel()
        self.faulty = FaultyKernel(self.kernel)
        self.map = DictMap(raw_info(value_size=value_size, max_entries=100_000))
        self.opened = self.kernel.open(self.map)
        self.total = budget
        self.budget = ByteBudget(budget)
        self.pool = SyscallPool({lane: LaneSize(threads=2, queue=100) for lane in Lane})
        self.begun = 0
        self.quotas = Quotas()
        self.shares = Shares(lambda _principal: self.quotas)
        self.rates = Rates(self.shares.quotas_of)

    def fill(self, chunks: int) -> None:
        """Elements for so many of the smallest chunks."""
        self.map.elements = {n(number): n(number).ljust(1_020) for number in range(chunks * ROWS)}

    def dump(
        self,
        progress_s: float = WAIT_S,
        wait_s: float = WAIT_S,
        *,
        prefix: bytes = b"",
        silence_s: float = limits.DUMP_SILENCE_S,
        ranges: int = 1,
    ) -> Dump:
        authorized = Authorizer().authorize(
            Principal(name="admin", namespace="admin"), frozenset({Verb.READ}), self.opened
        )
        scan = Scan(
            self.faulty, self.opened.facts, ScanOptions(prefix=prefix), uuid.UUID(int=7), ranges=ranges
        )
        return Dump(
            self.pool,
            self.budget,
            authorized,
            scan,
            self.shares,
            self.rates,
            Traffic(),
            progress_s=progress_s,
            wait_s=wait_s,
            silence_s=silence_s,
        )

    async def begin(self) -> None:
        self.begun += 1

    def reads(self) -> int:
        return sum(seen.target is BATCH for seen in self.faulty.seen)


@asynccontextmanager
async def bench(budget: int = limits.DUMP_BYTES, value_size: int = 1_020) -> AsyncGenerator[Bench]:
    """At the end no lease is out, no byte of the budget is held, and the pool has ended."""
    made = Bench(budget, value_size)
    try:
        yield made
    finally:
        made.opened.fd.close()
        assert await made.pool.close(WAIT_S)
        assert made.budget.free == budget


class Reader:
    """Takes pages as fast as they come."""

    def __init__(self) -> None:
        self.pages: list[Page] = []

    async def __call__(self, page: Page) -> None:
        self.pages.append(page)

    @property
    def bytes(self) -> list[int]:
        return [len(page.keys) + len(page.values) for page in self.pages]


async def test_every_page_is_handed_over_in_order_and_the_trailer_tells_how_it_went() -> None:
    async with bench() as made:
        made.fill(20)
        reader = Reader()
        trailer = await made.dump().run(made.begin, reader)
        keys = b"".join(page.keys for page in reader.pages)
        assert sorted(keys[at : at + 4] for at in range(0, len(keys), 4)) == sorted(made.map.elements)
        assert trailer.started_at <= trailer.ended_at
        assert trailer == Trailer(
            entries=20 * ROWS,
            complete=True,
            incomplete_reason="",
            method="lookup_batch",
            restarts=0,
            duplicates_suppressed=0,
            started_at=trailer.started_at,
            ended_at=trailer.ended_at,
            map_id=41,
        )
        assert made.begun == 1


async def test_an_empty_map_has_a_beginning_no_page_and_a_complete_trailer() -> None:
    async with bench() as made:
        reader = Reader()
        trailer = await made.dump().run(made.begin, reader)
        assert (reader.pages, trailer.entries, trailer.complete, made.begun) == ([], 0, True, 1)


async def test_a_dump_that_finds_nothing_for_long_hands_over_tokens() -> None:
    async with bench() as made:
        made.fill(20)
        reader = Reader()
        trailer = await made.dump(prefix=b"\xff\xff", silence_s=0.0).run(made.begin, reader)
        assert len(reader.pages) > 2
        assert all(page.count == 0 and page.token for page in reader.pages)
        assert len({page.token for page in reader.pages}) == len(reader.pages)
        assert (trailer.entries, trailer.complete) == (0, True)


async def test_a_dump_that_finds_nothing_is_quiet_at_first() -> None:
    async with bench() as made:
        made.fill(20)
        reader = Reader()
        await made.dump(prefix=b"\xff\xff", silence_s=WAIT_S).run(made.begin, reader)
        assert reader.pages == []


async def test_chunks_grow_to_the_largest_for_a_reader_that_keeps_up() -> None:
    async with bench() as made:
        made.fill(100)
        reader = Reader()
        await made.dump().run(made.begin, reader)
        assert reader.bytes[0] <= limits.CHUNK_MIN_BYTES
        assert reader.bytes == sorted(reader.bytes[:-1]) + reader.bytes[-1:]
        assert limits.CHUNK_MAX_BYTES // 2 < max(reader.bytes) <= limits.CHUNK_MAX_BYTES


async def test_the_next_page_is_read_while_the_reader_takes_one() -> None:
    async with bench() as made:
        made.fill(4)
        second_read = threading.Event()
        made.faulty.add(Fault(target=BATCH, nth=2, reached=second_read))
        overlapped: list[bool] = []

        async def emit(page: Page) -> None:
            del page
            if not overlapped:
                overlapped.append(await asyncio.to_thread(second_read.wait, WAIT_S))

        await made.dump().run(made.begin, emit)
        assert overlapped == [True]


async def test_no_more_than_one_page_is_read_ahead() -> None:
    async with bench() as made:
        made.fill(50)
        taking, go_on = asyncio.Event(), asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            taking.set()
            await go_on.wait()

        running = asyncio.create_task(made.dump().run(made.begin, emit))
        await taking.wait()
        await made.pool.run(Lane.BULK, "other", int)
        await made.pool.run(Lane.BULK, "other", int)
        assert made.reads() <= 2
        go_on.set()
        await running


async def test_a_reader_that_fails_ends_the_dump_with_its_own_error() -> None:
    class Gone(Exception):
        pass

    async with bench() as made:
        made.fill(50)

        async def emit(page: Page) -> None:
            del page
            raise Gone

        with pytest.raises(Gone):
            await made.dump().run(made.begin, emit)


@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_map_that_cannot_be_read_ends_the_dump_with_its_reason(nth: int) -> None:
    async with bench() as made:
        made.fill(50)
        made.faulty.add(Fault(target=BATCH, nth=nth, errno=errno.EIO))
        with pytest.raises(MapError) as caught:
            await made.dump().run(made.begin, Reader())
        assert caught.value.reason is Reason.INTERNAL
        assert made.begun == (nth > 1)  # a dump that is refused has not begun


async def test_a_reading_that_fails_does_not_wait_for_a_stalled_reader() -> None:
    async with bench() as made:
        made.fill(50)
        made.faulty.add(Fault(target=BATCH, nth=2, errno=errno.EIO))
        never = asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            await never.wait()

        with pytest.raises(MapError, match="EIO"):
            await made.dump().run(made.begin, emit)


async def test_a_reader_that_stalled_gets_the_smallest_chunks_and_none_is_read_ahead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STALL_S", 0.0)  # every reader stalls
    async with bench() as made:
        made.fill(20)
        ahead: list[int] = []
        pages = 0

        async def emit(page: Page) -> None:
            nonlocal pages
            pages += 1
            assert len(page.keys) + len(page.values) <= limits.CHUNK_MIN_BYTES
            await made.pool.run(Lane.BULK, "other", int)
            ahead.append(made.reads() - pages)

        await made.dump().run(made.begin, emit)
        assert pages >= 20
        assert set(ahead[1:]) == {0}


async def test_a_reader_that_takes_nothing_is_cut_off_and_told_how_to_go_on() -> None:
    async with bench() as made:
        made.fill(50)
        never = asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            await never.wait()

        with pytest.raises(MapError, match=r"took nothing for 0.01 s.* with the last token") as caught:
            await made.dump(progress_s=0.01).run(made.begin, emit)
        assert caught.value.reason is Reason.QUOTA


async def test_a_dump_beyond_the_budget_is_busy_and_reads_nothing() -> None:
    async with bench(HELD_CHUNKS * limits.CHUNK_MIN_BYTES) as made:
        made.fill(4)
        taking, go_on = asyncio.Event(), asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            taking.set()
            await go_on.wait()

        first = asyncio.create_task(made.dump().run(made.begin, emit))
        await taking.wait()
        with pytest.raises(MapError, match="that dumps may hold are in use by 1 others") as caught:
            await made.dump(wait_s=0.01).run(made.begin, Reader())
        assert caught.value.reason is Reason.BUSY
        go_on.set()
        await first
        await made.dump().run(made.begin, Reader())


async def test_a_full_budget_keeps_chunks_small_and_the_dump_going() -> None:
    async with bench(HELD_CHUNKS * limits.CHUNK_MIN_BYTES) as made:
        made.fill(20)
        reader = Reader()
        trailer = await made.dump().run(made.begin, reader)
        assert trailer.entries == 20 * ROWS
        assert max(reader.bytes) <= limits.CHUNK_MIN_BYTES


async def test_a_dump_cancelled_while_the_reader_takes_leaves_no_task_lease_or_bytes() -> None:
    async with bench() as made:
        made.fill(50)
        taking, never = asyncio.Event(), asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            taking.set()
            await never.wait()

        task = asyncio.create_task(made.dump().run(made.begin, emit))
        await taking.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_dump_cancelled_inside_a_syscall_gives_its_lease_back_when_that_ends() -> None:
    async with bench() as made:
        made.fill(50)
        reached, let_go = threading.Event(), threading.Event()
        made.faulty.add(Fault(target=BATCH, nth=1, reached=reached, wait=let_go))
        task = asyncio.create_task(made.dump().run(made.begin, Reader()))
        await asyncio.to_thread(reached.wait, WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        made.opened.fd.close()
        with made.kernel.opened[0] as owned:  # closed, and yet open as long as the syscall runs
            assert owned.closed
        let_go.set()


async def test_a_map_closed_under_a_dump_ends_it_as_stale() -> None:
    async with bench() as made:
        made.fill(50)

        async def emit(page: Page) -> None:
            del page
            made.opened.fd.close()

        with pytest.raises(MapError, match="was closed") as caught:
            await made.dump().run(made.begin, emit)
        assert caught.value.reason is Reason.STALE_HANDLE


async def test_as_many_dumps_run_as_have_room_for_small_chunks_whatever_the_first_has_grown_to() -> None:
    most = 6
    async with bench(most * HELD_CHUNKS * limits.CHUNK_MIN_BYTES) as made:
        made.fill(40)
        all_run = asyncio.Event()
        others: list[asyncio.Task[Trailer]] = []

        async def begin() -> None:
            await made.begin()
            if made.begun == most:
                all_run.set()

        async def hold(page: Page) -> None:
            del page
            await all_run.wait()

        async def keep_up(page: Page) -> None:
            if page.count > 2 * ROWS and not others:
                assert made.budget.free < (most - 1) * HELD_CHUNKS * limits.CHUNK_MIN_BYTES
                others.extend(asyncio.create_task(made.dump().run(begin, hold)) for _ in range(most - 1))
            await asyncio.sleep(0)

        first = await made.dump().run(begin, keep_up)
        assert made.begun == most
        assert [task.result() if task.done() else await task for task in others]
        assert first.complete


async def test_elements_of_megabytes_are_counted_and_dumped_one_dump_at_a_time() -> None:
    async with bench(value_size=3 << 20) as made:
        made.map.elements = {n(number): bytes(3 << 20) for number in range(3)}
        taking, go_on = asyncio.Event(), asyncio.Event()

        async def emit(page: Page) -> None:
            assert page.count == 1
            assert limits.DUMP_BYTES - made.budget.free >= HELD_CHUNKS * (3 << 20)
            taking.set()
            await go_on.wait()

        first = asyncio.create_task(made.dump().run(made.begin, emit))
        await taking.wait()
        with pytest.raises(MapError) as caught:
            await made.dump(wait_s=0.01).run(made.begin, Reader())
        assert caught.value.reason is Reason.BUSY
        second = asyncio.create_task(made.dump().run(made.begin, emit))
        go_on.set()
        assert [(await task).entries for task in (first, second)] == [3, 3]


async def test_a_bucket_that_needs_more_than_there_is_is_read_by_a_dump_alone() -> None:
    async with bench(HELD_CHUNKS * limits.CHUNK_MIN_BYTES) as made:
        made.map.buckets = 1
        made.fill(3)
        reader = Reader()
        free: list[int] = []

        async def emit(page: Page) -> None:
            free.append(made.budget.free)
            await reader(page)

        trailer = await made.dump().run(made.begin, emit)
        assert (trailer.entries, len(reader.pages)) == (3 * ROWS, 1)
        assert free == [
            -HELD_CHUNKS * 3 * limits.CHUNK_MIN_BYTES
        ]  # four times the chunk, where one was there


async def test_a_bucket_that_needs_what_another_dump_holds_ends_the_dump_as_busy() -> None:
    async with bench(3 * HELD_CHUNKS * limits.CHUNK_MIN_BYTES) as made:
        made.map.buckets = 1
        made.fill(2)
        taking, go_on = asyncio.Event(), asyncio.Event()

        async def emit(page: Page) -> None:
            del page
            taking.set()
            await go_on.wait()

        first = asyncio.create_task(made.dump().run(made.begin, emit))
        await taking.wait()
        with pytest.raises(MapError, match="go on from the last token") as caught:
            await made.dump(progress_s=0.01).run(made.begin, Reader())
        assert caught.value.reason is Reason.BUSY
        go_on.set()
        assert (await first).complete


# ---- several ranges at once --------------------------------------------------------------------


@pytest.fixture
def split_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of these tests are large enough to be read in ranges."""
    monkeypatch.setattr(split, "SPLIT_FROM", 2)


def fill_buckets(made: Bench) -> None:
    """Elements in all of 256 buckets, as many as buckets are thought to be there."""
    made.map.info = raw_info(value_size=1_020, max_entries=256)
    made.map.elements = {
        bytes([bucket, number, 0, 0]): bytes(1_020) for bucket in range(256) for number in range(8)
    }
    made.opened.fd.close()
    made.opened = made.kernel.open(made.map)


@pytest.mark.usefixtures("split_small")
async def test_two_ranges_are_read_at_the_same_time_and_every_element_comes_once() -> None:
    async with bench() as made:
        fill_buckets(made)
        meeting = threading.Barrier(2)

        def meet() -> None:
            meeting.wait(WAIT_S)

        for nth in (2, 3):  # behind the fence; each waits inside the kernel until the other is there
            made.faulty.add(Fault(target=BATCH, nth=nth, failpoint=meet))
        reader = Reader()
        trailer = await made.dump(ranges=2).run(made.begin, reader)
        keys = b"".join(page.keys for page in reader.pages)
        assert sorted(keys[at : at + 4] for at in range(0, len(keys), 4)) == sorted(made.map.elements)
        assert (trailer.entries, trailer.complete, meeting.broken) == (256 * 8, True, False)


def reads_under_way() -> int:
    return sum(task.get_name() == "dump read-ahead" and not task.done() for task in asyncio.all_tasks())


@pytest.mark.usefixtures("split_small")
@pytest.mark.parametrize(("others_wait", "at_once"), [(False, 2), (True, 1)])
async def test_one_range_at_a_time_is_read_while_others_wait_for_a_thread(
    others_wait: bool, at_once: int
) -> None:
    async with bench() as made:
        fill_buckets(made)
        reached, let_go = threading.Event(), threading.Event()
        most = 0

        def hold() -> None:
            reached.set()
            let_go.wait(WAIT_S)

        async def emit(page: Page) -> None:
            nonlocal most
            del page
            most = max(most, reads_under_way())

        waiting: list[asyncio.Task[None]] = []
        if others_wait:
            waiting.append(asyncio.create_task(made.pool.run(Lane.BULK, "other", hold)))
            await asyncio.to_thread(reached.wait, WAIT_S)
            waiting.append(asyncio.create_task(made.pool.run(Lane.BULK, "other", hold)))
            await asyncio.sleep(0)
        trailer = await made.dump(ranges=2).run(made.begin, emit)
        assert (trailer.entries, most) == (256 * 8, at_once)
        let_go.set()
        await asyncio.gather(*waiting)


@pytest.mark.usefixtures("split_small")
async def test_a_range_that_cannot_be_read_ends_the_dump() -> None:
    async with bench() as made:
        fill_buckets(made)
        made.faulty.add(Fault(target=BATCH, nth=4, errno=errno.EIO))
        with pytest.raises(MapError, match="EIO"):
            await made.dump(ranges=2).run(made.begin, Reader())


async def test_a_dump_whose_reader_stalls_gives_back_what_it_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another one begins then, where it could not before."""
    monkeypatch.setattr(limits, "STALL_S", 0.001)
    async with bench() as made:
        made.fill(100)
        stalling, go_on = asyncio.Event(), asyncio.Event()
        before = 0

        async def emit(page: Page) -> None:
            nonlocal before
            if page.count > 2 * ROWS and not stalling.is_set():
                before = made.budget.free
                stalling.set()
                await go_on.wait()

        running = asyncio.create_task(made.dump().run(made.begin, emit))
        await stalling.wait()
        async with made.budget.share(before + limits.CHUNK_MIN_BYTES, WAIT_S) as share:
            assert share.held > before
        go_on.set()
        assert (await running).entries == 100 * ROWS


async def ignore(_page: Page) -> None:
    """A reader who takes everything at once."""


async def test_a_dump_beyond_its_principals_share_is_refused_before_it_begins() -> None:
    async with bench() as made:
        made.fill(4)
        made.quotas = Quotas(dumps=1)
        refusals: list[MapError] = []

        async def second(_page: Page) -> None:
            with pytest.raises(MapError, match="admin has 1 dumps running, its limit is 1") as caught:
                await made.dump().run(made.begin, ignore)
            refusals.append(caught.value)

        await made.dump().run(made.begin, second)
        assert refusals[0].reason is Reason.QUOTA
        assert made.begun == 1
        assert (await made.dump().run(made.begin, ignore)).entries == 4 * ROWS


async def test_a_dump_costs_its_elements_and_is_slowed_down_to_the_rate() -> None:
    async with bench() as made:
        made.fill(4)
        now, pauses = 0, list[float]()

        async def sleep(seconds: float) -> None:
            nonlocal now
            pauses.append(seconds)
            now += round(seconds * 1e9)

        made.quotas = Quotas(ops_per_second=ROWS, burst=ROWS)
        made.rates = Rates(made.shares.quotas_of, clock=lambda: now, sleep=sleep)
        found = await made.dump().run(made.begin, ignore)
        assert found.entries == 4 * ROWS
        # One second's worth was there at the beginning; the last page may be larger than that, and is owed.
        assert 1.0 <= sum(pauses) <= 3.0
        assert made.rates.used(Principal(name="admin", namespace="admin")) >= ROWS
