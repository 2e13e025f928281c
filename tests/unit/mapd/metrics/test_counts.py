"""Counters: each observation in one bucket, each refusal where it belongs."""

from __future__ import annotations

import pytest

from mapd.metrics.counts import BOUNDS_S, CANCELLED, OK, Calls, Histogram


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (BOUNDS_S[0], 0),
        (BOUNDS_S[0] * 1.01, 1),
        (BOUNDS_S[-1], len(BOUNDS_S) - 1),
        (1e9, len(BOUNDS_S)),
    ],
)
def test_an_observation_is_in_the_bucket_whose_bound_it_does_not_exceed(seconds: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.observe(seconds)
    assert [number for number, count in enumerate(histogram.buckets) if count] == [bucket]
    assert (histogram.count, histogram.total_s) == (1, seconds)


def test_bounds_rise() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))


def test_calls_are_told_apart_by_method_and_outcome() -> None:
    calls = Calls()
    for method, outcome in (("/a/B", OK), ("/a/B", OK), ("/a/B", "BUSY"), ("/a/C", CANCELLED)):
        calls.ended(method, outcome, 0.5)
    assert {key: one.count for key, one in calls.handled.items()} == {
        ("/a/B", OK): 2,
        ("/a/B", "BUSY"): 1,
        ("/a/C", CANCELLED): 1,
    }


def test_a_quota_is_counted_by_whose_and_which_it_is() -> None:
    calls = Calls()
    about = {"principal": "web", "quota": "dumps", "operation": "dump"}
    calls.refused("QUOTA", about, "/a/Dump")
    calls.group_refused("QUOTA", about)
    calls.group_refused("KEY_SIZE_MISMATCH", {})
    assert calls.quotas == {("web", "dumps"): 2}
    assert calls.groups == {"QUOTA": 1, "KEY_SIZE_MISMATCH": 1}
    assert not calls.cuts


def test_a_stream_that_ends_for_a_slow_reader_is_a_cut_and_no_quota() -> None:
    calls = Calls()
    calls.refused("QUOTA", {"operation": "dump"}, "/a/Dump")
    calls.refused("POLICY", {}, "/a/Dump")
    assert calls.cuts == {"/a/Dump": 1}
    assert not calls.quotas
