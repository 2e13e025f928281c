"""Handles: who owns one, when it is closed, and that its descriptor goes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mapd.access.authorize import Authorized, Authorizer
from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.access.quotas import always
from mapd.maps.errors import MapError
from mapd.maps.opened import OpenMap
from mapd.runtime.handles import HandleTable, Session
from mapd.runtime.shares import Shares
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from tests.unit.mapd.dictkernel import DictKernel, DictMap, raw_info

ADMIN = Principal(name="admin", namespace="admin")
OTHER = Principal(name="admin", namespace="other")
"""The authorizer knows one name only; a principal is all of its fields."""


class Clock:
    """A test's time, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A table of three handles and two sessions per principal, that forgets after a minute."""

    def __init__(self) -> None:
        self.kernel = DictKernel()
        self.clock = Clock()
        self.table = HandleTable(
            shares=Shares(always(Quotas(handles=3, streams=2))), idle_s=60.0, clock=self.clock
        )

    def opened(self, principal: Principal = ADMIN) -> Authorized[OpenMap]:
        target = self.kernel.open(DictMap(raw_info()))
        return Authorizer().authorize(principal, frozenset({Verb.LIST}), target)

    def add(self, session: Session | None = None, principal: Principal = ADMIN) -> int:
        return self.table.add(self.opened(principal), session)

    def get(self, handle: int, principal: Principal) -> OpenMap:
        """One short use of it."""
        with self.table.borrow(handle, principal) as found:
            return found.opened


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.table.close_all()
    assert made.kernel.open_fds == 0
    assert len(made.table) == 0


def refused(reason: Reason) -> pytest.RaisesExc[MapError]:
    return pytest.RaisesExc(MapError, check=lambda error: error.reason is reason)


def test_a_handle_gives_its_map_until_it_is_closed(bench: Bench) -> None:
    opened = bench.opened()
    handle = bench.table.add(opened, None)
    assert bench.get(handle, ADMIN) is opened.target
    assert list(bench.table) == [opened.target]
    bench.table.close(handle, ADMIN)
    assert opened.target.fd.closed
    with pytest.raises(MapError, match=f"handle {handle:#x} is not open here") as caught:
        bench.get(handle, ADMIN)
    assert caught.value.reason is Reason.STALE_HANDLE


def test_handles_are_not_numbered_in_a_row_and_never_zero(bench: Bench) -> None:
    handles = [bench.add() for _ in range(3)]
    assert len(set(handles)) == 3
    assert all(handle > 1 << 32 for handle in handles)  # a chance of one in two thousand million


def test_closing_what_is_not_open_is_no_error(bench: Bench) -> None:
    bench.table.close(12, ADMIN)
    handle = bench.add()
    bench.table.close(handle, ADMIN)
    bench.table.close(handle, ADMIN)


def test_another_principals_handle_is_stale_and_stays_open(bench: Bench) -> None:
    handle = bench.add()
    with refused(Reason.STALE_HANDLE):
        bench.get(handle, OTHER)
    bench.table.close(handle, OTHER)
    assert not bench.get(handle, ADMIN).fd.closed


def test_a_handle_beyond_the_quota_is_refused_with_both_numbers_and_its_map_closed(bench: Bench) -> None:
    for _ in range(3):
        bench.add()
    one_more = bench.opened()
    with pytest.raises(MapError, match="admin has 3 handles open, its limit is 3") as caught:
        bench.table.add(one_more, None)
    assert caught.value.reason is Reason.QUOTA
    assert one_more.target.fd.closed
    bench.add(principal=OTHER)  # a quota of its own


def test_a_handle_given_back_makes_room(bench: Bench) -> None:
    handles = [bench.add() for _ in range(3)]
    bench.table.close(handles[0], ADMIN)
    bench.add()


def test_a_reserved_place_counts_until_its_block_ends(bench: Bench) -> None:
    bench.add()
    with bench.table.reserve(ADMIN, None) as keep, bench.table.reserve(ADMIN, None):
        with pytest.raises(MapError, match="admin has 3 handles open, its limit is 3"):
            bench.add()
        bench.add(principal=OTHER)
        keep(bench.opened())
    bench.add()
    assert len(bench.table) == 4


def test_a_place_reserved_for_a_session_that_ends_is_none(bench: Bench) -> None:
    session = bench.table.open_session(ADMIN)
    opened = bench.opened()
    with bench.table.reserve(ADMIN, session) as keep:
        bench.table.close_session(session)
        with refused(Reason.STALE_HANDLE):
            keep(opened)
    assert opened.target.fd.closed


def test_calls_that_open_a_map_each_have_a_quota_too(bench: Bench) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(bench.table.opening(ADMIN))
        with pytest.raises(MapError, match="admin has 3 calls under way that opened a map each") as caught:
            stack.enter_context(bench.table.opening(ADMIN))
        assert caught.value.reason is Reason.QUOTA
        stack.enter_context(bench.table.opening(OTHER))
        bench.add()  # handles are counted by themselves
    with bench.table.opening(ADMIN):
        pass


def test_sessions_have_a_quota_too(bench: Bench) -> None:
    first = bench.table.open_session(ADMIN)
    bench.table.open_session(ADMIN)
    with pytest.raises(MapError, match="admin has 2 sessions, dumps and loads open, its limit is 2"):
        bench.table.open_session(ADMIN)
    bench.table.open_session(OTHER)
    bench.table.close_session(first)
    bench.table.open_session(ADMIN)
    assert bench.table.sessions == 3


def test_the_end_of_a_session_closes_all_it_opened_and_nothing_else(bench: Bench) -> None:
    session = bench.table.open_session(ADMIN)
    mine = [bench.add(session), bench.add(session)]
    other = bench.add()
    bench.table.close(mine[0], ADMIN)
    bench.table.close_session(session)
    assert len(bench.table) == 1
    assert not bench.get(other, ADMIN).fd.closed
    bench.table.close_session(session)  # again is fine


def test_a_map_opened_for_a_session_that_ended_meanwhile_is_closed(bench: Bench) -> None:
    session = bench.table.open_session(ADMIN)
    opened = bench.opened()
    bench.table.close_session(session)
    with pytest.raises(MapError, match="ended while the map was opened") as caught:
        bench.table.add(opened, session)
    assert caught.value.reason is Reason.STALE_HANDLE
    assert opened.target.fd.closed


def test_a_session_is_found_by_its_principal_alone(bench: Bench) -> None:
    session = bench.table.open_session(ADMIN)
    assert bench.table.session("", ADMIN) is None
    assert bench.table.session(session.id, ADMIN) is session
    for name, principal in ((session.id, OTHER), ("nonsense", ADMIN)):
        with refused(Reason.STALE_HANDLE):
            bench.table.session(name, principal)


def test_a_handle_without_a_session_ends_when_nobody_uses_it(bench: Bench) -> None:
    used, unused = bench.add(), bench.add()
    bench.clock.now += 50
    bench.get(used, ADMIN)
    assert bench.table.close_idle() == 0
    bench.clock.now += 11
    assert bench.table.close_idle() == 1
    bench.get(used, ADMIN)
    with refused(Reason.STALE_HANDLE):
        bench.get(unused, ADMIN)


def test_a_handle_in_use_is_not_idle_and_its_time_begins_when_the_use_ends(bench: Bench) -> None:
    handle = bench.add()
    with bench.table.borrow(handle, ADMIN), bench.table.borrow(handle, ADMIN):
        bench.clock.now += 1e6
        assert bench.table.close_idle() == 0
    bench.clock.now += 59
    assert bench.table.close_idle() == 0
    bench.clock.now += 2
    assert bench.table.close_idle() == 1


def test_a_handle_with_a_session_lives_as_long_as_that(bench: Bench) -> None:
    session = bench.table.open_session(ADMIN)
    handle = bench.add(session)
    bench.clock.now += 1e6
    assert bench.table.close_idle() == 0
    bench.get(handle, ADMIN)


def test_a_map_that_is_closed_under_a_call_stays_open_until_the_call_ends(bench: Bench) -> None:
    handle = bench.add()
    opened = bench.get(handle, ADMIN)
    with opened.lease() as map_fd:
        bench.table.close(handle, ADMIN)
        assert bench.kernel.info(map_fd).id == 41
        with refused(Reason.STALE_HANDLE):
            opened.lease()
