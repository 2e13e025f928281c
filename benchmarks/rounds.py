"""Rounds: every contender does the same piece of work in turn, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.contenders import Answer, Contender


@dataclass(frozen=True, slots=True)
class Runner:
    """A contender, and how much of a race's work it does: who is a hundred times slower does less of it."""

    contender: Contender
    count: int


@dataclass(frozen=True, slots=True)
class Race:
    """A piece of work.

    Attributes:
        name: what it is called in results.
        command: "{count}" and "{seed}" in it are replaced; every round has its own seed.
        runners: who does it, in this order.
        restore: brings the map back after each turn.
    """

    name: str
    command: str
    runners: Mapping[str, Runner]
    restore: Callable[[], object] = field(default=lambda: None)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """Of at least one figure."""
        return cls(median(figures), min(figures), max(figures))


Results = dict[str, dict[str, list[Answer]]]
"""By race, by contender, one answer a round."""


def run(races: Sequence[Race], rounds: int, say: Callable[[str], None]) -> Results:
    """All of a race's rounds, then the next race: A B C A B C ..."""
    results: Results = {}
    for race in races:
        say(f"{race.name}: {', '.join(race.runners)}")
        answers: dict[str, list[Answer]] = {name: [] for name in race.runners}
        for seed in range(1, rounds + 1):
            for name, runner in race.runners.items():
                answer = runner.contender.ask(race.command.format(count=runner.count, seed=seed))
                if answer.count != runner.count:
                    raise SystemExit(f"{name}: {race.name}: {answer.count} of {runner.count} were right")
                answers[name].append(answer)
                race.restore()
        results[race.name] = answers
    return results
