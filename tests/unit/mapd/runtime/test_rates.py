"""Operations per second: nobody gets more than its rate and burst, and a refusal says exactly when there is room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.access.quotas import NOTHING
from mapd.maps.errors import MapError
from mapd.runtime.rates import Rates
from mapd_api.reasons import Reason

EDGE = Principal(name="edge", namespace="edge")
WEB = Principal(name="web", namespace="web")
SECOND = 1_000_000_000


class Bench:
    """Rates with a clock that stands still."""

    def __init__(self, quotas: Quotas) -> None:
        self.now = 5 * SECOND
        self.quotas = quotas
        self.pauses: list[float] = []
        self.rates = Rates(lambda _principal: self.quotas, clock=lambda: self.now, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += round(seconds * SECOND)

    def take(self, count: int, principal: Principal = EDGE) -> MapError | None:
        try:
            self.rates.take(principal, count, lambda: "update")
        except MapError as error:
            return error
        return None


def refused(error: MapError | None) -> MapError:
    assert error is not None
    assert error.reason is Reason.QUOTA
    return error


def test_without_a_limit_nothing_is_counted() -> None:
    bench = Bench(Quotas())
    assert all(bench.take(1 << 40) is None for _ in range(10))
    assert bench.rates.used(EDGE) == 0


def test_the_burst_is_there_at_once_and_then_the_rate() -> None:
    bench = Bench(Quotas(ops_per_second=10, burst=4))
    assert [bench.take(1) is None for _ in range(5)] == [True] * 4 + [False]
    bench.now += SECOND // 10
    assert [bench.take(1) is None for _ in range(2)] == [True, False]


def test_a_refusal_has_both_numbers_and_the_exact_time() -> None:
    bench = Bench(Quotas(ops_per_second=3, burst=5))
    assert bench.take(4) is None
    error = refused(bench.take(3))
    assert (
        "update: 3 operations are asked for and edge has room for 1 now, its limit is 3 a second and 5 at once"
        in str(error)
    )
    assert error.refusal.metadata["limit"] == "3"
    wait = error.refusal.retry_after_s
    assert wait is not None
    nanoseconds = round(wait * SECOND)
    assert nanoseconds == 666_666_667
    bench.now += nanoseconds - 1
    refused(bench.take(3))
    bench.now += 1
    assert bench.take(3) is None


def test_a_refused_group_costs_nothing() -> None:
    bench = Bench(Quotas(ops_per_second=10, burst=10))
    assert bench.take(8) is None
    refused(bench.take(3))
    refused(bench.take(3))
    assert bench.take(2) is None


def test_a_group_larger_than_the_burst_goes_when_the_bucket_is_full_and_is_paid_for_afterwards() -> None:
    bench = Bench(Quotas(ops_per_second=10, burst=10))
    assert bench.take(1) is None
    refused(bench.take(50))
    bench.now += SECOND // 10
    assert bench.take(50) is None
    assert bench.rates.used(EDGE) == 50
    wait = refused(bench.take(1)).refusal.retry_after_s
    assert wait == pytest.approx(4.1)


def test_what_was_not_begun_is_given_back_and_never_beyond_the_burst() -> None:
    bench = Bench(Quotas(ops_per_second=10, burst=10))
    assert bench.take(10) is None
    bench.rates.give_back(EDGE, 10)
    bench.rates.give_back(EDGE, 10)
    assert bench.take(10) is None
    refused(bench.take(1))


def test_one_principal_s_operations_are_not_anothers() -> None:
    bench = Bench(Quotas(ops_per_second=1, burst=1))
    assert bench.take(1) is None
    assert bench.take(1, WEB) is None
    refused(bench.take(1))


def test_another_policy_counts_at_once() -> None:
    bench = Bench(Quotas(ops_per_second=1_000, burst=1_000))
    assert bench.take(1) is None
    bench.quotas = Quotas(ops_per_second=2, burst=2)
    refused(bench.take(3)) if bench.take(2) is None else pytest.fail("the smaller burst was not there")
    bench.quotas = Quotas()
    assert bench.take(1 << 40) is None


def test_who_is_not_in_the_policy_any_more_may_do_nothing() -> None:
    assert refused(Bench(NOTHING).take(1)).refusal.retry_after_s == 1.0


@given(
    rate=st.integers(1, 1_000_000),
    burst=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 20_000)), max_size=50),
)
def test_never_more_than_rate_and_burst_were_let_through(
    rate: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    """Over any stretch that begins with a full bucket; the last group may be larger than the burst."""
    bench, began = Bench(Quotas(ops_per_second=rate, burst=burst)), 5 * SECOND
    admitted = 0
    for pause, count in steps:
        bench.now += pause
        room = burst + (bench.now - began) * rate / SECOND
        if bench.take(count) is None:
            assert admitted + min(count, burst) <= room
            admitted += count


async def test_a_stream_is_slowed_down_to_the_rate_instead_of_refused() -> None:
    bench = Bench(Quotas(ops_per_second=1_000, burst=10))
    for _ in range(3):
        await bench.rates.pace(EDGE, 10)
    assert bench.pauses == [0.01, 0.01]
