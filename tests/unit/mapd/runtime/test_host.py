"""Where work of the host runs, and in how many parts."""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from mapd.access.authorize import Authorized, Authorizer
from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.maps.groups import Group
from mapd.maps.opened import OpenMap
from mapd.maps.scan import Scan, ScanOptions
from mapd.maps.store import MapStore, NameRef
from mapd.maps.tokens import MOST_RANGES
from mapd.runtime.budget import ByteBudget
from mapd.runtime.handles import HandleTable
from mapd.runtime.host import BULK_FROM, MapHost
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.traffic import Flow
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.unit.mapd.dictkernel import CPUS, ROOT, DictKernel, DictMap, raw_info

T = TypeVar("T")

ADMIN = Principal(name="admin", namespace="admin")


class Store(MapStore):
    """Notes in how many ranges a scan was wanted."""

    wanted: int = 0

    def scan(self, opened: OpenMap, options: ScanOptions, *, ranges: int = 1) -> Scan:
        self.wanted = ranges
        return super().scan(opened, options, ranges=ranges)


@asynccontextmanager
async def hosting(
    kernel: DictKernel, bulk_threads: int = 1
) -> AsyncGenerator[tuple[MapHost, SyscallPool, Store]]:
    threads = {Lane.POINT: 1, Lane.BULK: bulk_threads, Lane.SLOW: 1}
    pool = SyscallPool({lane: LaneSize(threads=count, queue=10) for lane, count in threads.items()})
    boot = uuid.UUID(int=7)
    store = Store(kernel=kernel, possible_cpus=CPUS, boot_id=boot, names_root=ROOT, pin_roots=("/bpf",))
    try:
        yield MapHost(store, pool, HandleTable(), ByteBudget()), pool, store
    finally:
        await pool.close(10)


def allowed(opened: OpenMap, verbs: Iterable[Verb]) -> Authorized[OpenMap]:
    return Authorizer().authorize(ADMIN, frozenset(verbs), opened)


def many_cpus(_: int) -> set[int]:
    return set(range(64))


async def test_a_dump_has_no_more_ranges_than_its_token_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", many_cpus)
    kernel = DictKernel()
    opened = kernel.open(kernel.add(DictMap(raw_info())))
    async with hosting(kernel, bulk_threads=MOST_RANGES + 1) as (host, _, store):
        host.dump(allowed(opened, {Verb.READ}), ScanOptions())
        assert store.wanted == MOST_RANGES
    opened.fd.close()


async def test_what_was_refused_before_it_began_went_through_nobody() -> None:
    kernel = DictKernel()
    opened = kernel.open(kernel.add(DictMap(raw_info(key_size=4, value_size=8))))
    group = Group(count=3, ops=bytes([Op.LOOKUP]), keys=bytes(12))
    async with hosting(kernel) as (host, _, _):
        authorized = allowed(opened, {Verb.READ})
        with pytest.raises(MapError) as caught:
            await host.apply(authorized, group, expires=0.0)
        assert caught.value.reason is Reason.EXPIRED
        assert host.traffic.of([opened.facts.id]) == [Flow(0, 0)]
        await host.apply(authorized, group)
        assert host.traffic.of([opened.facts.id]) == [Flow(3, 0)]
    opened.fd.close()


@pytest.mark.parametrize(("count", "lane"), [(BULK_FROM - 1, Lane.POINT), (BULK_FROM, Lane.BULK)])
async def test_a_group_for_one_cpu_runs_in_the_lane_of_its_size(count: int, lane: Lane) -> None:
    kernel = DictKernel()
    info = raw_info(map_type=MapType.PERCPU_HASH, key_size=4, value_size=8)
    opened = kernel.open(kernel.add(DictMap(info)))
    group = Group(count=count, ops=bytes([Op.LOOKUP]), keys=bytes(4 * count), values=b"", cpu=0)
    async with hosting(kernel) as (host, pool, _):
        await host.apply(allowed(opened, {Verb.READ}), group)
        assert {one: pool.counts(one).hops for one in Lane} == {one: int(one is lane) for one in Lane}
    opened.fd.close()


EDGE = Principal(name="edge", namespace="edge")


def authorised(target: T) -> Authorized[T]:
    return Authorizer().authorize(ADMIN, frozenset(Verb), target)


Kind = Callable[[MapHost, OpenMap], Coroutine[Any, Any, object]]

KINDS: dict[str, Kind] = {
    "btf": lambda host, opened: host.btf(authorised(opened)),
    "freeze": lambda host, opened: host.freeze(authorised(opened)),
    "called": lambda host, opened: host.called(authorised(opened)),
    "pin": lambda host, opened: host.pin(authorised(opened), "/bpf/x"),
    "unpin": lambda host, _: host.unpin(authorised(NameRef("edge", "x")), 0),
    "rename": lambda host, _: host.rename(
        authorised(NameRef("edge", "x")), authorised(NameRef("edge", "y")), 0
    ),
    "charged": lambda host, _: host.charged(ADMIN),
    "check_pins": lambda host, _: host.check_pins(owner=ADMIN),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_no_kind_of_call_takes_the_room_in_the_queues_that_others_are_due(kind: str) -> None:
    kernel = DictKernel()
    opened = kernel.open(kernel.add(DictMap(raw_info())))
    go, all_stand = threading.Event(), threading.Barrier(len(Lane) + 1)

    def stand() -> None:
        all_stand.wait(10)
        assert go.wait(10)

    async with hosting(kernel) as (host, pool, _):
        host.handles.add(authorised(kernel.open(kernel.add(DictMap(raw_info(id=42))))), None)
        standing = [asyncio.ensure_future(pool.run(lane, "stand", stand)) for lane in Lane]
        await asyncio.to_thread(all_stand.wait, 10)
        calls = [asyncio.ensure_future(KINDS[kind](host, opened)) for _ in range(20)]
        await asyncio.sleep(0)
        others = [asyncio.ensure_future(pool.run(lane, "other", os.getpid, owner=EDGE)) for lane in Lane]
        await asyncio.sleep(0)
        go.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(one, MapError) and one.reason is Reason.BUSY for one in answers)
        assert await asyncio.gather(*others) == [os.getpid()] * len(Lane)
        await asyncio.gather(*standing)
        host.handles.close_all()
    opened.fd.close()
