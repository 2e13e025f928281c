"""When the client keeps a lease alive, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from mapd_api.v1.leases_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse
from mapd_client import leasing, waiting
from mapd_client.codec import Bytes
from mapd_client.errors import MapdError, MapNotFound, PermissionDenied, Unavailable
from mapd_client.failures import Asked
from mapd_client.held import Grip, Held
from mapd_client.info import Lease
from mapd_client.leasing import Kept, Leasing, ThreadLeasing
from mapd_client.replies import map_info
from tests.unit.mapd_client import daemon as described

TTL_S = 30.0
JOB = Lease(TTL_S, "team/job")
WAIT_S = 20.0


class Clock:
    """A clock that goes on when it is told to."""

    now = 50.0

    def __call__(self) -> float:
        return self.now


def held() -> Held:
    return Held(Grip(1), map_info(described.map_info("a/map")), "a map", Bytes(4))


@dataclass
class Daemon:
    """Answers as it is told to."""

    error: MapdError | None = None
    fault: str = ""  # the lease about which this library is wrong
    asked: list[tuple[str, float | None]] = field(default_factory=list[tuple[str, float | None]])
    heard: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    async def call(
        self, method: Any, request: LeaseKeepAliveRequest, asked: Asked, timeout: float | None = None
    ) -> LeaseKeepAliveResponse:
        assert method.path == "/mapd_api.v1.LeaseService/LeaseKeepAlive"
        assert not asked.mutates
        self.asked.append((request.lease, timeout))
        self.heard.release()
        if request.lease == self.fault:
            raise ZeroDivisionError
        if self.error is not None:
            raise self.error
        return LeaseKeepAliveResponse()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(clock: Clock) -> Kept:
    return Kept(clock)


def ask(daemon: Daemon, kept: Kept) -> None:
    waiting.drive(leasing.keep_alive(daemon.call, kept))


def test_a_lease_is_due_after_a_third_of_its_ttl_and_again_after_another(clock: Clock, kept: Kept) -> None:
    daemon = Daemon()
    assert kept.wait() is None
    kept.add(JOB, held())
    for _ in range(3):
        assert kept.wait() == pytest.approx(TTL_S / 3)
        clock.now += TTL_S / 3 - 0.01
        ask(daemon, kept)
        assert daemon.asked == []
        clock.now += 0.02
        ask(daemon, kept)
        assert [lease for lease, _ in daemon.asked] == ["team/job"]
        daemon.asked.clear()


def test_one_lease_of_several_maps_is_kept_until_the_last_is_closed(clock: Clock, kept: Kept) -> None:
    daemon, maps = Daemon(), [held(), held()]
    for one in maps:
        kept.add(JOB, one)
    for one in maps:
        clock.now += TTL_S / 3
        ask(daemon, kept)
        assert len(daemon.asked) == 1
        daemon.asked.clear()
        one.closed = True
    clock.now += TTL_S / 3
    ask(daemon, kept)
    assert daemon.asked == []
    assert kept.wait() is None


@pytest.mark.parametrize("error", [Unavailable("no daemon"), PermissionDenied("policy")])
def test_what_fails_is_tried_again_soon_and_then_every_second(
    clock: Clock, kept: Kept, error: MapdError, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(error)
    kept.add(JOB, held())
    clock.now += TTL_S / 3
    pauses: list[float] = []
    with caplog.at_level(logging.WARNING, logger="mapd_client"):
        for _ in range(8):
            ask(daemon, kept)
            wait = kept.wait()
            assert wait is not None
            pauses.append(round(wait, 6))
            clock.now += wait + 0.000_001
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert len(caplog.records) == 1, "one line for each time that it begins to fail"
    daemon.error = None
    ask(daemon, kept)
    assert kept.wait() == pytest.approx(TTL_S / 3)


def test_a_short_lease_is_tried_again_within_its_ttl(clock: Clock, kept: Kept) -> None:
    daemon = Daemon(Unavailable("no daemon"))
    kept.add(Lease(1.0, "a/b"), held())
    for _ in range(10):
        clock.now += 0.4
        ask(daemon, kept)
        wait = kept.wait()
        assert wait is not None
        assert wait <= 0.334
    assert {timeout for _, timeout in daemon.asked} == {1.0}


def test_a_lease_that_has_ended_is_told_of_and_kept_no_longer(
    clock: Clock, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    daemon = Daemon(MapNotFound("keep alive team/job: no such lease"))
    kept.add(JOB, held())
    clock.now += TTL_S / 3
    with caplog.at_level(logging.WARNING, logger="mapd_client"):
        ask(daemon, kept)
    assert kept.wait() is None
    assert "no such lease" in caplog.text


def test_one_that_fails_keeps_no_other_waiting(clock: Clock, kept: Kept) -> None:
    daemon = Daemon(Unavailable("no answer"))
    for name in ("a/a", "a/b", "a/c"):
        kept.add(Lease(TTL_S, name), held())
    clock.now += TTL_S / 3
    ask(daemon, kept)
    assert sorted(daemon.asked) == [("a/a", 2.0), ("a/b", 2.0), ("a/c", 2.0)]


async def test_a_task_asks_while_there_is_a_lease_and_ends_with_the_last() -> None:
    daemon, leases, one = Daemon(), Leasing(), held()
    leases.keep(daemon.call, Lease(0.03, "a/b"), one)
    async with asyncio.timeout(WAIT_S):
        for _ in range(3):
            await asyncio.to_thread(daemon.heard.acquire)
        one.closed = True
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "mapd leases")
        await task
    asked = len(daemon.asked)
    again = held()
    leases.keep(daemon.call, Lease(0.03, "a/b"), again)
    async with asyncio.timeout(WAIT_S):
        await asyncio.to_thread(daemon.heard.acquire)
    assert len(daemon.asked) > asked
    await leases.aclose()
    await leases.aclose()


def test_a_thread_asks_for_a_blocking_client_and_ends_with_the_last_or_with_the_client() -> None:
    def asking() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "mapd leases"]

    daemon, leases, one = Daemon(), ThreadLeasing(), held()
    leases.keep(daemon.call, Lease(0.03, "a/b"), one)
    for _ in range(3):
        assert daemon.heard.acquire(timeout=WAIT_S)
    (thread,) = asking()
    one.closed = True
    thread.join(WAIT_S)
    assert not asking()
    leases.keep(daemon.call, Lease(3_600.0, "a/c"), held())
    (thread,) = asking()
    waiting.drive(leases.aclose())
    thread.join(WAIT_S)
    assert not thread.is_alive()
    leases.keep(daemon.call, Lease(0.03, "a/d"), held())
    assert not asking(), "a client that is closed keeps nothing alive"


async def test_a_lease_of_a_map_that_was_made_while_the_client_was_closed_is_kept_by_nobody() -> None:
    leases = Leasing()
    await leases.aclose()
    before = asyncio.all_tasks()
    leases.keep(Daemon().call, JOB, held())
    assert asyncio.all_tasks() == before
    assert leases.kept.wait() is None


async def test_a_fault_while_one_lease_is_kept_alive_lets_the_others_live(
    kept: Kept, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    daemon, other = Daemon(fault=JOB.id), Lease(TTL_S, "team/other")
    for lease in (JOB, other):
        kept.add(lease, held())
    clock.now += TTL_S
    with caplog.at_level(logging.ERROR, logger="mapd_client"):
        await leasing.keep_alive(daemon.call, kept)
    assert [lease for lease, _ in daemon.asked] == [JOB.id, other.id]
    assert "keep alive team/job: tried again until it ends" in caplog.text
    assert 0 < (kept.wait() or 0) < TTL_S / 3, "it is due again in a moment"


def test_a_thread_that_cannot_be_started_is_started_for_the_next_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(_: threading.Thread) -> None:
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    daemon, leases, one = Daemon(), ThreadLeasing(), held()
    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError):
        leases.keep(daemon.call, Lease(0.03, "a/b"), one)
    leases.keep(daemon.call, Lease(0.03, "a/c"), held())
    assert daemon.heard.acquire(timeout=WAIT_S)
    waiting.drive(leases.aclose())
