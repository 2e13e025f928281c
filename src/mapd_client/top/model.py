"""What ``mapctl top`` shows: rows, rates, the last minute, their order and which of them. Sans-I/O and sans-UI."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

from mapd_client.stats import MapStats, StatsSample

WINDOW_S: Final = 60.0
"""How far back the line of entries goes."""

AMBER: Final = 0.80
RED: Final = 0.95
"""Of max_entries: from where on a map is nearly full, and from where on full."""

_KEPT: Final = 240
"""Points of one map's line at most: four a second."""

_BARS: Final = "▁▂▃▄▅▆▇█"


class Level(Enum):
    """How full a map is."""

    UNKNOWN = "unknown"
    CALM = "calm"
    AMBER = "amber"
    RED = "red"


class Sort(StrEnum):
    """What rows are ordered by; names and types from A to Z, all else from the most to the least."""

    NAME = "name"
    TYPE = "type"
    ENTRIES = "entries"
    FILL = "fill"
    RATE = "rate"
    OPS = "ops"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Row:
    """One map as it is now.

    Attributes:
        fill: entries of max_entries; None where they are not counted, or where all are always there (arrays).
        rate: entries that came, less those that went, each second since the sample before; None where there was none.
        ops: elements that clients read or wrote through the daemon, each second; None as for ``rate``, across a
            restart of the daemon, or where the caller may not read the map.
        line: (when, entries) of the last minute, the newest last.
    """

    stats: MapStats
    fill: float | None
    rate: float | None
    ops: float | None
    line: Sequence[tuple[float, int]]

    @property
    def level(self) -> Level:
        """How full it is."""
        if self.fill is None:
            return Level.UNKNOWN
        if self.fill >= RED:
            return Level.RED
        return Level.AMBER if self.fill >= AMBER else Level.CALM


Identity = tuple[int, str, int]
"""Of a map across samples: after a reboot of the host ids begin anew."""


def _identity(stats: MapStats) -> Identity:
    return (stats.id, stats.kernel_name, int(stats.type))


@dataclass(slots=True)
class _Seen:
    """What is remembered of one map."""

    row: Row
    line: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_KEPT))


class Model:
    """The maps of the last sample, and what the samples before say about them.

    Times are seconds of one clock that only goes forward; the caller's.
    """

    def __init__(self) -> None:
        self.sort = Sort.NAME
        self.backwards = False
        self.pattern = ""
        self.sample: StatsSample | None = None
        self.answered_at: float | None = None
        self.away = ""
        self._seen: dict[Identity, _Seen] = {}

    def feed(self, sample: StatsSample, at: float) -> None:
        """Take what the daemon answered at ``at``."""
        before, self.sample = self.sample, sample
        same = before is not None and before.epoch == sample.epoch
        # By the daemon's clock where there is one: how long answers travel does not blur the rates.
        passed = sample.uptime - before.uptime if before is not None and same else None
        if passed is None and self.answered_at is not None:
            passed = at - self.answered_at
        self.answered_at, self.away = at, ""
        seen: dict[Identity, _Seen] = {}
        for stats in sample.maps:
            identity = _identity(stats)
            known = self._seen.get(identity)
            one = known or _Seen(_row(stats, None, None, same=False))
            if stats.entries is not None:
                one.line.append((at, stats.entries))
            while one.line and at - one.line[0][0] > WINDOW_S:
                one.line.popleft()
            one.row = _row(stats, known.row.stats if known else None, passed, same=same, line=tuple(one.line))
            seen[identity] = one
        self._seen = seen

    def lost(self, why: str) -> None:
        """The daemon did not answer; what it said last stays."""
        self.away = why

    @property
    def total(self) -> int:
        """Maps of the last sample."""
        return len(self._seen)

    def rows(self) -> list[Row]:
        """Those that the pattern matches, in order; what is not known stands behind all else."""
        rows = [one.row for one in self._seen.values() if self._matches(one.row.stats)]
        rows.sort(key=lambda row: row.stats.label)  # among equals by name, whichever way
        by = _ORDERS[self.sort]
        known = [row for row in rows if by(row) is not None]
        backwards = self.backwards is (self.sort in (Sort.NAME, Sort.TYPE))
        known.sort(key=by, reverse=backwards)
        return known + [row for row in rows if by(row) is None]

    def sort_by(self, sort: Sort) -> None:
        """Order by this; what is ordered so already is turned round."""
        self.backwards = sort is self.sort and not self.backwards
        self.sort = sort

    def _matches(self, stats: MapStats) -> bool:
        """A part of name, type or kernel name, in any case; with ``*``, ``?`` or ``[`` a shell pattern."""
        pattern = self.pattern.lower()
        words = (stats.label.lower(), stats.type_name, stats.kernel_name.lower())
        if any(mark in pattern for mark in "*?["):
            return any(fnmatchcase(word, pattern) for word in words)
        return any(pattern in word for word in words)


def _row(
    stats: MapStats,
    before: MapStats | None,
    passed: float | None,
    *,
    same: bool,
    line: Sequence[tuple[float, int]] = (),
) -> Row:
    rate = ops = None
    if before is not None and passed is not None and passed > 0:
        if stats.entries is not None and before.entries is not None:
            rate = (stats.entries - before.entries) / passed
        done, was = _done(stats), _done(before)
        if same and done is not None and was is not None and done >= was:
            ops = (done - was) / passed
    fill = None
    if stats.entries is not None and stats.method != "max_entries" and stats.max_entries:
        fill = stats.entries / stats.max_entries
    return Row(stats, fill, rate, ops, line)


def _done(stats: MapStats) -> int | None:
    if stats.read_elements is None or stats.written_elements is None:
        return None
    return stats.read_elements + stats.written_elements


_ORDERS: Final[Mapping[Sort, Callable[[Row], Any]]] = MappingProxyType(
    {
        Sort.NAME: lambda row: row.stats.label,
        Sort.TYPE: lambda row: row.stats.type_name,
        Sort.ENTRIES: lambda row: row.stats.entries,
        Sort.FILL: lambda row: row.fill,
        Sort.RATE: lambda row: row.rate,
        Sort.OPS: lambda row: row.ops,
        Sort.MEMORY: lambda row: row.stats.memlock_bytes,
    }
)


def sparkline(line: Sequence[tuple[float, int]], now: float, width: int) -> str:
    """The last minute in so many characters, the newest at the right; blank where nothing is known.

    The least of the minute is at the bottom and the most at the top; what does not change lies at the bottom. Each
    character is the last of its part of the minute.
    """
    cells: list[int | None] = [None] * width
    for at, entries in line:
        index = width - 1 - int((now - at) / WINDOW_S * width)
        if 0 <= index < width:
            cells[index] = entries
    known = [entries for entries in cells if entries is not None]
    if not known:
        return " " * width
    least, most = min(known), max(known)
    scale = (len(_BARS) - 1) / (most - least) if most > least else 0.0
    shown: list[str] = []
    last = " "
    for cell in cells:
        # A sample may be late: between two that are known the line goes on as it was.
        last = last if cell is None else _BARS[round((cell - least) * scale)]
        shown.append(last)
    return "".join(shown)
