"""How long leases have, by a clock of the test's own; the store and its kernel are real ones in memory."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mapd.access.policy.model import Subject
from mapd.bpf import Fault, FaultyKernel, ListFolder, Pin, Unpin
from mapd.maps import leased
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.leases import Ended
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, PinRef
from mapd.memory import MemoryKernel
from mapd.runtime.leases import BEAT_S, PAUSE_S, Lease, Leases
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.reach import Reach, Reached
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

ROOT = "/bpf/mapd"
JOB = LeaseId("team", "job")
TTL_S = 5.0
STEP_S = BEAT_S * 1.5
WAIT_S = 20.0
EVERY_S = 0.005
SPEC = MapSpec(map_type=MapType.HASH, key_size=4, value_size=4, max_entries=4)


class Clock:
    """A clock that goes on when it is told to."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """Leases on a kernel in memory."""

    kernel: FaultyKernel
    store: MapStore
    pool: SyscallPool
    clock: Clock
    leases: Leases
    ended: list[tuple[LeaseId, Ended]] = field(default_factory=list[tuple[LeaseId, Ended]])

    async def make(self, name: str = "map", lease: LeaseId = JOB, ttl_s: float = TTL_S) -> int:
        place = LeasedRef(lease, round(ttl_s * 1_000), name)

        def call() -> tuple[Reached, bool]:
            opened, created = self.store.create(place, SPEC, exist_ok=True)
            return Reached(opened, Subject()), created

        reached, _ = await self.leases.make(place, self.pool.run(Lane.SLOW, str(place), call, discard=closed))
        reached.opened.fd.close()
        return reached.opened.facts.id

    def lease(self) -> Lease:
        found = self.leases.find(JOB)
        assert found is not None
        return found

    def spend(self, seconds: float) -> None:
        """Time goes by, and the daemon is there all the while."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(self.clock.now + STEP_S, until)
            for lease in [self.leases.find(JOB)] * 2:
                if lease is not None:
                    self.leases.remaining(lease)

    def stop(self, seconds: float) -> None:
        """Time goes by, and the daemon stands still."""
        self.clock.now += seconds

    def pinned(self, name: str = "map", lease: LeaseId = JOB, ttl_s: float = TTL_S) -> bool:
        path = leased.path_of(ROOT, LeasedRef(lease, round(ttl_s * 1_000), name))
        try:
            self.store.open(PinRef(path)).fd.close()
        except MapError:
            return False
        return True


def closed(made: tuple[Reached, bool]) -> None:
    made[0].opened.fd.close()


@asynccontextmanager
async def benched(kernel: FaultyKernel | None = None) -> AsyncGenerator[Bench]:
    """A bench; on another one's kernel it is a daemon that starts again."""
    kernel = kernel or FaultyKernel(MemoryKernel(2, [ROOT]))
    store = MapStore(kernel=kernel, possible_cpus=2, boot_id=uuid.UUID(int=1), names_root=ROOT)
    pool = SyscallPool({lane: LaneSize(threads=1, queue=100) for lane in Lane})
    clock = Clock()
    ended: list[tuple[LeaseId, Ended]] = []
    leases = Leases(
        store, Reach(store), pool, clock=clock, ended=lambda lease, what: ended.append((lease, what))
    )
    try:
        await leases.adopt()
        yield Bench(kernel, store, pool, clock, leases, ended)
    finally:
        assert await pool.close(WAIT_S)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 - threads of the pool do it, and tell nobody
            await asyncio.sleep(EVERY_S)


async def looks(bench: Bench, count: int = 3) -> None:
    """Wait until the keeper has looked so often."""
    bulk = bench.pool.counts(Lane.BULK)
    began = bulk.hops
    await until(lambda: bench.pool.counts(Lane.BULK).hops >= began + count)


async def test_a_lease_ends_when_nobody_has_kept_it_alive_for_its_ttl() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        made = await bench.make()
        bench.spend(TTL_S - 0.1)
        await looks(bench)
        assert bench.pinned()
        bench.spend(0.2)
        await until(lambda: not bench.pinned())
        await until(lambda: len(bench.leases) == 0)
        assert bench.leases.find(JOB) is None
        ((lease, ended),) = bench.ended
        assert (lease, [map_id for _, map_id in ended.pins]) == (JOB, [made])
        assert bench.leases.counts.expired == 1


async def test_who_keeps_it_alive_gives_it_its_whole_ttl() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        for _ in range(5):
            bench.spend(TTL_S * 0.9)
            bench.leases.keep_alive(bench.lease())
            assert bench.leases.remaining(bench.lease()) == TTL_S
            await looks(bench)
        assert bench.pinned()


async def test_a_map_that_is_made_in_a_lease_keeps_it_alive() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make("a")
        bench.spend(TTL_S * 0.9)
        await bench.make("b")
        bench.spend(TTL_S * 0.9)
        await looks(bench)
        assert bench.pinned("a")
        assert bench.pinned("b")
        bench.spend(TTL_S * 0.2)
        await until(lambda: not (bench.pinned("a") or bench.pinned("b")))


@pytest.mark.parametrize("stopped", [PAUSE_S * 1.2, 3_600.0])
async def test_a_daemon_that_stood_still_gives_every_lease_its_whole_ttl(stopped: float) -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        bench.spend(TTL_S - 0.1)
        bench.stop(stopped)
        await looks(bench)
        assert bench.pinned()
        assert bench.leases.remaining(bench.lease()) == TTL_S
        bench.spend(TTL_S + 0.1)
        await until(lambda: not bench.pinned())
        assert bench.leases.counts.paused == 1


@pytest.mark.parametrize("stalled", [BEAT_S * 3, PAUSE_S * 0.9])
async def test_while_a_daemon_is_held_up_no_time_goes_by(stalled: float) -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        bench.spend(TTL_S - 1.0)
        bench.stop(stalled)
        assert bench.leases.remaining(bench.lease()) == pytest.approx(1.0 - BEAT_S)
        await looks(bench)
        assert bench.pinned()
        assert bench.leases.counts.paused == 0


async def test_without_that_the_stop_would_have_ended_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary of the test above: a daemon that does not notice that it stood still."""
    monkeypatch.setattr("mapd.runtime.leases.PAUSE_S", float("inf"))
    monkeypatch.setattr("mapd.runtime.leases.BEAT_S", 3_600.0)
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        bench.spend(TTL_S - 0.1)
        bench.stop(PAUSE_S * 1.2)
        await until(lambda: not bench.pinned())


async def test_a_daemon_that_starts_gives_every_lease_that_is_pinned_its_whole_ttl() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        made = await bench.make()
        bench.spend(TTL_S - 0.1)
    async with benched(bench.kernel) as again:
        assert again.leases.counts.adopted == 1
        again.stop(60.0)  # between its first look and its first client
        async with again.leases.kept(EVERY_S):
            assert again.leases.remaining(again.lease()) == TTL_S
            (one,) = again.lease().maps.values()
            assert (one.map.facts.id, one.subject.owners) == (made, frozenset({"team"}))
            again.spend(TTL_S - 0.1)
            await looks(again)
            assert again.pinned()
            again.spend(0.2)
            await until(lambda: not again.pinned())


async def test_a_daemon_that_cannot_look_when_it_starts_takes_leases_over_when_it_can() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
    bench.kernel.add(Fault(target=ListFolder, nth=1, errno=24))
    bench.kernel.add(Fault(target=ListFolder, nth=3, errno=12))
    async with benched(bench.kernel) as again:
        assert again.leases.find(JOB) is None
        async with again.leases.kept(EVERY_S):
            await until(lambda: again.leases.find(JOB) is not None)
            assert again.leases.remaining(again.lease()) == TTL_S
            assert again.leases.counts.adopted == 1
            again.spend(TTL_S + 0.1)
            await until(lambda: not again.pinned())


async def test_a_short_lease_has_time_for_its_client_to_come_back() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make(ttl_s=1.0)
        bench.stop(60.0)
        assert bench.leases.remaining(bench.lease()) == limits.LEASE_RETURN_S
        bench.leases.keep_alive(bench.lease())
        assert bench.leases.remaining(bench.lease()) == 1.0


async def test_nothing_ends_in_a_daemon_that_takes_no_calls() -> None:
    async with benched() as bench:
        async with bench.leases.kept(EVERY_S):
            await bench.make()
        bench.spend(10 * TTL_S)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("leases")]
        assert bench.pinned()


async def test_a_lease_does_not_end_while_a_map_is_made_in_it() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make("a")
        reached, go = threading.Event(), threading.Event()
        fault = Fault(target=Pin, nth=1, reached=reached, wait=go)
        bench.kernel.add(fault)
        making = asyncio.create_task(bench.make("b"))
        await until(reached.is_set)
        bench.spend(3 * TTL_S)
        await looks(bench)
        assert bench.pinned("a")
        go.set()
        await making
        assert bench.leases.remaining(bench.lease()) == TTL_S
        assert bench.pinned("b")


async def test_what_a_cancelled_call_makes_is_in_its_lease_and_held_open_by_nobody() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        reached, go = threading.Event(), threading.Event()
        bench.kernel.add(Fault(target=Pin, nth=1, reached=reached, wait=go))
        making = asyncio.create_task(bench.make())
        await until(reached.is_set)
        making.cancel()
        await asyncio.wait({making})
        assert making.cancelled()
        go.set()
        await until(bench.pinned)
        await until(lambda: bench.leases.find(JOB) is not None)
        bench.spend(TTL_S + 0.1)
        await until(lambda: len(bench.leases) == 0)
        assert not bench.pinned()


async def test_a_lease_whose_only_map_could_not_be_made_is_forgotten_at_once() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        bench.kernel.add(Fault(target=Pin, errno=12))
        with pytest.raises(MapError):
            await bench.make()
        assert bench.leases.find(JOB) is None
        await until(lambda: len(bench.leases) == 0)
        assert bench.ended == []


async def test_a_map_that_others_unpin_is_no_longer_in_its_lease() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make("a")
        await bench.make("b")
        path = leased.path_of(ROOT, LeasedRef(JOB, round(TTL_S * 1_000), "a"))
        bench.kernel.control(Unpin(root=ROOT, path=path))
        await until(lambda: len(bench.lease().maps) == 1)
        path = path.removesuffix("a") + "b"
        bench.kernel.control(Unpin(root=ROOT, path=path))
        await until(lambda: len(bench.leases) == 0)
        folder = path.rpartition("/")[0]
        with pytest.raises(FileNotFoundError):
            bench.kernel.control(ListFolder(root=ROOT, path=folder))
        assert bench.leases.counts.expired == 0


async def test_a_map_that_others_put_in_the_place_is_the_leases_now() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        first = await bench.make()
        path = leased.path_of(ROOT, LeasedRef(JOB, round(TTL_S * 1_000), "map"))
        other, _ = bench.store.create(LeasedRef(LeaseId("team", "x"), 5_000, "x"), SPEC, exist_ok=False)
        with other.fd, other.fd.lease() as fd:
            bench.kernel.control(Unpin(root=ROOT, path=path))
            bench.kernel.control(Pin(root=ROOT, path=path), [fd])

        def ids() -> set[int]:
            found = bench.leases.find(JOB)
            return set() if found is None else {one.map.facts.id for one in found.maps.values()}

        await until(lambda: ids() == {other.facts.id})
        assert other.facts.id != first
        assert bench.pinned()


async def test_an_end_that_fails_is_tried_again() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        fault = Fault(target=Unpin, nth=1, errno=12)
        bench.kernel.add(fault)
        bench.spend(TTL_S + 0.1)
        await until(lambda: not bench.pinned())
        assert bench.kernel.fired.count(fault) == 1
        await until(lambda: len(bench.leases) == 0)


async def test_a_fault_of_ours_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        await bench.make()
        met = asyncio.Event()

        async def fail(_lease: Lease) -> Ended:
            met.set()
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(bench.leases, "end", fail)
            bench.spend(TTL_S + 0.1)
            await asyncio.wait_for(met.wait(), WAIT_S)
            assert bench.pinned()
        await until(lambda: not bench.pinned())


async def test_another_ttl_than_the_leases_own_is_refused() -> None:
    async with benched() as bench:
        await bench.make("a")
        with pytest.raises(MapError, match=r"has a ttl of 5 s, not 6") as caught:
            await bench.make("b", ttl_s=6.0)
        assert caught.value.reason is Reason.BAD_SPEC
        assert not bench.pinned("b", ttl_s=6.0)


async def test_a_daemon_has_so_many_leases_and_a_lease_so_many_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASES", 3)
    monkeypatch.setattr(limits, "LEASE_MAPS", 3)
    async with benched() as bench:
        for name in ("a", "b", "c"):
            await bench.make(name)
        await bench.make("a", LeaseId("team", "second"))
        await bench.make("a", LeaseId("other", "first"))
        for place in (("d", JOB), ("a", LeaseId("third", "first"))):
            with pytest.raises(MapError) as caught:
                await bench.make(*place)
            assert caught.value.reason is Reason.QUOTA


async def test_a_namespace_has_no_more_leases_than_are_left_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "LEASES", 8)
    async with benched() as bench:
        for count in range(4):
            await bench.make(lease=LeaseId("greedy", str(count)))
        with pytest.raises(MapError, match=r"4 leases, 4 of them of greedy") as caught:
            await bench.make(lease=LeaseId("greedy", "more"))
        assert caught.value.reason is Reason.QUOTA
        await bench.make(lease=LeaseId("other", "job"))


async def test_a_lease_whose_first_map_is_refused_is_none() -> None:
    async with benched() as bench:
        bench.kernel.add(Fault(target=Pin, nth=1, errno=12))
        with pytest.raises(MapError):
            await bench.make()
        assert len(bench.leases) == 0
        await bench.make(ttl_s=TTL_S + 1)


async def test_a_lease_that_was_made_anew_does_not_end_with_the_one_before() -> None:
    async with benched() as bench:
        await bench.make()
        before = bench.lease()
        ended = await bench.leases.end(before)
        assert len(ended.pins) == 1
        await bench.make()
        assert bench.lease() is not before
        assert not (await bench.leases.end(before)).pins
        assert bench.pinned()


async def test_a_lease_ends_once() -> None:
    async with benched() as bench:
        await bench.make()
        lease = bench.lease()
        ended = await asyncio.gather(*[bench.leases.end(lease) for _ in range(3)])
        assert [len(each.pins) for each in ended] == [1, 0, 0]


async def test_one_namespaces_lease_is_not_the_others_of_that_id() -> None:
    async with benched() as bench, bench.leases.kept(EVERY_S):
        other = LeaseId("other", "job")
        await bench.make()
        await bench.make(lease=other)
        found = bench.leases.find(other)
        assert found is not None
        for _ in range(4):
            bench.spend(TTL_S * 0.4)
            bench.leases.keep_alive(found)
        await until(lambda: not bench.pinned())
        assert bench.pinned(lease=other)
