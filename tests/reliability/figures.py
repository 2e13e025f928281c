"""Figures beside their bars: what a test measured, what it may be, and whether the test sees a planted fault.

A test records them with the fixtures ``figure`` and ``canary``; they travel with its report, from whichever process ran
it, and the table at the end of the run shows all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

import pytest

PROPERTY: Final = "mapd figure"
"""Of a test's report: one recorded line."""

SIZES: Final = ("quick", "full")


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does: ``quick`` in every run of the tests, ``full`` when it is asked for."""

    name: str

    @property
    def quick(self) -> bool:
        return self.name == "quick"

    def pick(self, *, quick: int, full: int) -> int:
        """The number for this size."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        id: R1 to R21.
        name: what was measured.
        value: its figure; of a canary, how often the planted fault was caught.
        of: how much it was looked for in; 0 where that says nothing.
        bar: what it may be, in words ("<= 1.5"); "" where it is only told.
        met: the bar is.
    """

    id: str
    name: str
    value: float
    unit: str = ""
    of: float = 0
    bar: str = ""
    met: bool = True

    @property
    def shown(self) -> str:
        """The value as a person reads it."""
        unit = f" {self.unit}" if self.unit else ""
        among = f" of {number(self.of)}" if self.of else ""
        return f"{number(self.value)}{unit}{among}"


class Figures:
    """What the fixture ``figure`` is: call it with what was measured."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(
        self,
        id: str,
        name: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        of: float = 0,
        unit: str = "",
    ) -> None:
        """Record a figure, and fail the test if it misses a bar. Without a bar it is only told."""
        bars = [f"<= {number(at_most)}"] if at_most is not None else []
        bars += [f">= {number(at_least)}"] if at_least is not None else []
        met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        line = Line(id=id, name=name, value=value, unit=unit, of=of, bar=" and ".join(bars), met=met)
        record(self._item, line)
        assert met, f"{id}: {name}: {line.shown}, and the bar is {line.bar}"


class Canaries:
    """What the fixture ``canary`` is: call it with what became of a planted fault."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item

    def __call__(self, id: str, planted: str, *, caught: int, of: int) -> None:
        """Record it, and fail the test unless the fault was caught every time: a figure counts only then."""
        line = Line(
            id=id, name=f"canary: {planted}", value=caught, of=of, bar=f"= {of}", met=caught == of > 0
        )
        record(self._item, line)
        assert line.met, f"{id}: a planted fault, {planted}, was caught {caught} times of {of}"


def record(item: pytest.Item, line: Line) -> None:
    """Put a line on a test's report."""
    item.user_properties.append((PROPERTY, asdict(line)))


def number(value: float) -> str:
    """1,000,000; 0.123; 12.3: three digits that count, and whole numbers whole."""
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


@dataclass(slots=True, eq=False)
class FigureReport:
    """Collects the lines of all tests, and prints them at the end."""

    lines: list[Line] = field(default_factory=list[Line])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.lines += [
                Line(**fields(found)) for name, found in report.user_properties if name == PROPERTY
            ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.lines:
            return
        terminalreporter.section("reliability")
        for row in table(self.lines):
            terminalreporter.write_line(row)


def fields(found: object) -> dict[str, Any]:
    """A line as it travelled."""
    return cast("dict[str, Any]", found)


def table(lines: Iterable[Line]) -> Sequence[str]:
    """The lines as text, by number, in columns."""
    ordered = sorted(lines, key=lambda line: int(line.id[1:]))  # as they were recorded within one
    rows = [("", "figure", "measured", "bar", "")]
    rows += [(one.id, one.name, one.shown, one.bar or "-", "" if one.met else "MISSED") for one in ordered]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
