"""What is wanted: one row for each piece of work, with a target and what would be better still."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from benchmarks.contenders import Answer
from benchmarks.memory import Growth
from benchmarks.rounds import Results, Spread

Verdict = Literal["missed", "met", "stretch", "no target", "not measured"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A row.

    Attributes:
        work: what is done.
        unit: "x faster" and "x its time" are ratios to ``peer``; the others are mapd's own figures.
        target: at least so much where faster is wanted, else at most; None for a row that is told only.
        stretch: what would be better still.
        race, peer: whose answers.
    """

    work: str
    unit: Literal["x faster", "x its time", "us CPU", "MiB"]
    target: float | None
    stretch: float | None
    race: str
    peer: str = ""

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.unit == "x faster"

    def verdict(self, figure: float) -> Verdict:
        """How a measured figure stands to the target."""
        if self.target is None:
            return "no target"

        def reached(wanted: float | None) -> bool:
            if wanted is None:
                return False
            return figure >= wanted if self.more_is_better else figure <= wanted

        return "stretch" if reached(self.stretch) else "met" if reached(self.target) else "missed"


@dataclass(frozen=True, slots=True)
class Row:
    """A goal and what was measured; ``figure`` is None where it was not, and ``why`` says why."""

    goal: Goal
    figure: Spread | None
    verdict: Verdict
    ours: Spread | None = None
    theirs: Spread | None = None
    why: str = ""


GOALS: Final[Sequence[Goal]] = (
    Goal("dump to numpy, and C LOOKUP_BATCH", "x its time", 1.25, 0.8, "dump", "raw"),
    Goal("dump, and bpftool -j map dump", "x faster", 6, 10, "dump", "bpftool"),
    Goal("dump, and the Go peer's", "x faster", 6, 10, "dump", "go"),
    Goal("mapctl dump -o ndjson, and bpftool -j map dump", "x faster", 1, 2, "mapctl ndjson", "bpftool"),
    Goal("mapctl dump -o arrow, and bpftool -j map dump", "x faster", 4, None, "mapctl arrow", "bpftool"),
    Goal(
        "mapctl dump -o ndjson of a typed map, and bpftool's",
        "x faster",
        1,
        2,
        "mapctl typed ndjson",
        "bpftool",
    ),
    Goal(
        "mapctl dump -o arrow of a typed map, and bpftool's",
        "x faster",
        4,
        None,
        "mapctl typed arrow",
        "bpftool",
    ),
    Goal("64 concurrent lookup(), and Go's 64", "x faster", 2, 3, "flight 64", "go"),
    Goal("256 concurrent lookup(), and Go's 256", "x faster", 4, 7, "flight 256", "go"),
    Goal("lookup_many of random keys, and C's syscall each", "x faster", 4, 6, "lookup", "raw"),
    Goal("update_many, and C's syscall each", "x faster", 2.5, 5, "update", "raw"),
    Goal("delete_many, and C's syscall each", "x faster", 2.5, 5, "delete", "raw"),
    Goal("fetch_add_many, and C's PROG_RUN each", "x faster", 2.5, 5, "fetch_add", "raw"),
    Goal("one lookup() at a time, p50, and Go's", "x its time", 3, 1.5, "one", "go"),
    Goal(
        "typed dump to numpy structs, and its chunks drained",
        "x its time",
        1.3,
        1.1,
        "typed numpy",
        "drained",
    ),
    Goal(
        "typed dump to an Arrow table, and its chunks drained", "x its time", 2, 1.2, "typed arrow", "drained"
    ),
    Goal("daemon memory: one stalled dump", "MiB", 8, None, "stalled 1"),
    Goal("daemon memory: 64 stalled dumps", "MiB", 32, None, "stalled 64"),
    Goal("client CPU per lookup(), 256 concurrent", "us CPU", 6, 3, "flight 256"),
    Goal("64 concurrent lookup(), and plain grpc.aio's 64", "x faster", None, None, "flight 64", "plain"),
    Goal("256 concurrent lookup(), and plain grpc.aio's 256", "x faster", None, None, "flight 256", "plain"),
    Goal("one lookup() at a time, p50, and plain grpc.aio's", "x its time", None, None, "one", "plain"),
)


def rows(results: Results, growths: Mapping[str, Growth], left_out: Mapping[str, str]) -> list[Row]:
    """Every goal of the work that was done, measured or not."""
    asked = [goal for goal in GOALS if goal.race in results or goal.race in growths]
    return [_row(goal, results, growths, left_out) for goal in asked]


def _row(goal: Goal, results: Results, growths: Mapping[str, Growth], left_out: Mapping[str, str]) -> Row:
    if goal.unit == "MiB":
        grown = growths[goal.race].peak / (1 << 20)
        return Row(goal, Spread.of([grown]), goal.verdict(grown))
    answers = results[goal.race]
    ours = answers["mapd"]
    if goal.unit == "us CPU":
        spread = Spread.of([answer.cpu / answer.count * 1e6 for answer in ours])
        return Row(goal, spread, goal.verdict(spread.median))
    if goal.peer not in answers:
        return Row(goal, None, "not measured", why=left_out[goal.peer])
    mine, theirs = [_each(answer) for answer in ours], [_each(answer) for answer in answers[goal.peer]]
    ratios = [
        other / own if goal.more_is_better else own / other for own, other in zip(mine, theirs, strict=True)
    ]
    spread = Spread.of(ratios)
    return Row(goal, spread, goal.verdict(spread.median), Spread.of(mine), Spread.of(theirs))


def _each(answer: Answer) -> float:
    """Seconds of one operation: the median one where each was timed, else the mean."""
    return answer.p50 or answer.seconds / answer.count
