"""Verdicts and ratios of the benchmarks, from made-up answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import builds, report
from benchmarks.contenders import Answer
from benchmarks.memory import Growth
from benchmarks.reach import Goal, rows
from benchmarks.rounds import Results, Spread


def answers(*seconds: float, count: int = 1_000) -> list[Answer]:
    return [Answer(each, each / 2, count) for each in seconds]


@pytest.mark.parametrize(
    ("figure", "verdict"), [(1.0, "missed"), (2.0, "met"), (2.9, "met"), (3.0, "stretch"), (9.0, "stretch")]
)
def test_faster_is_better_where_more_is_wanted(figure: float, verdict: str) -> None:
    assert Goal("work", "x faster", 2, 3, "race", "raw").verdict(figure) == verdict


@pytest.mark.parametrize(
    ("figure", "verdict"), [(1.5, "missed"), (1.25, "met"), (0.81, "met"), (0.8, "stretch"), (0.1, "stretch")]
)
def test_less_is_better_where_a_part_of_a_time_is_wanted(figure: float, verdict: str) -> None:
    assert Goal("work", "x its time", 1.25, 0.8, "race", "raw").verdict(figure) == verdict


def test_a_goal_without_stretch_is_met_at_most_and_one_without_target_has_no_verdict() -> None:
    assert Goal("work", "MiB", 8, None, "race").verdict(0.0) == "met"
    assert Goal("work", "x faster", None, None, "race", "plain").verdict(99.0) == "no target"


def test_a_ratio_is_taken_within_each_round_and_for_one_element() -> None:
    # The machine was half as fast in the third round: the ratio of that round is as the others.
    results: Results = {"lookup": {"raw": answers(4, 6, 12, count=2_000), "mapd": answers(1, 1, 2)}}
    (row,) = rows(results, {}, {})
    assert row.figure == Spread(median=3.0, low=2.0, high=3.0)
    assert row.theirs == Spread(median=0.003, low=0.002, high=0.006)
    assert row.verdict == "missed"


def test_one_at_a_time_is_judged_by_the_median_operation() -> None:
    ours, theirs = Answer(9.0, 1.0, 10, p50=0.3), Answer(1.0, 1.0, 10, p50=0.1)
    found = {
        row.goal.peer: row for row in rows({"one": {"mapd": [ours], "go": [theirs]}}, {}, {"plain": "-"})
    }
    assert found["go"].figure == Spread.of([0.3 / 0.1])


def test_memory_counts_what_was_seen_at_most() -> None:
    grown = Growth(streams=1, stall_s=10, entries=1, before=99 << 20, stalled=3 << 20, peak=9 << 20)
    (row,) = rows({}, {"stalled 1": grown}, {})
    assert (row.figure, row.verdict) == (Spread.of([9.0]), "missed")


def test_a_row_whose_peer_was_left_out_is_not_measured_and_says_why() -> None:
    results: Results = {"lookup": {"mapd": answers(1)}}
    (row,) = rows(results, {}, {"raw": "gcc is not installed"})
    assert (row.figure, row.verdict, row.why) == (None, "not measured", "gcc is not installed")
    assert any("not measured" in line for line in report.table([row]))


@pytest.mark.parametrize(("build", "tool"), [(builds.raw, "gcc"), (builds.go, "go")])
def test_a_peer_whose_compiler_is_missing_is_named_with_what_to_install(
    build: object, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert callable(build)
    with pytest.raises(builds.Missing, match=f"^{tool} is not installed .apt-get install .*{tool}"):
        build(tmp_path)
