"""The columns of ``mapctl top``, and how wide each is on a screen. No widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from rich.text import Text

from mapd_client.top import words
from mapd_client.top.model import Level, Row, Sort, sparkline

STYLES: Final[Mapping[Level, str]] = MappingProxyType(
    {Level.UNKNOWN: "", Level.CALM: "green", Level.AMBER: "bold #ffaf00", Level.RED: "bold #ff5f5f"}
)

_NAME_LEAST: Final = 16
_NAME_MOST: Final = 60


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        rooms: characters on screens of 80, 110 and 150 columns and more; 0: not shown.
        sort: what a click on its title orders by.
        right: whether it is set to the right, as numbers are.
    """

    title: str
    rooms: tuple[int, int, int]
    draw: Callable[[Row, int, float], Text]
    sort: Sort | None = None
    right: bool = False

    def cell(self, row: Row, room: int, now: float) -> Text:
        """What stands in it; ``now``: when the newest sample came."""
        text = self.draw(row, room, now)
        text.no_wrap = True
        if self.right:
            text.plain = text.plain.rjust(room)
        return text


def _name(row: Row, room: int, now: float) -> Text:
    del now
    return Text(words.cut(row.stats.label, room))


def _type(row: Row, room: int, now: float) -> Text:
    del now
    return Text(row.stats.type_name[:room], style="dim")


def _entries(row: Row, room: int, now: float) -> Text:
    del room, now
    return Text(words.count(row.stats.entries, exact=row.stats.exact))


def _fill(row: Row, room: int, now: float) -> Text:
    """``█████░░░ 62%``, with ``!`` where it is red: not all see colours."""
    del now
    if row.fill is None:
        return Text(words.NOTHING.rjust(room), style="dim")
    told = words.percent(row.fill, exact=row.stats.exact)
    told += "!" if row.level is Level.RED else " "
    width = room - 6
    return Text(words.bar(row.fill, width) + told.rjust(room - width), style=STYLES[row.level])


def _rate(row: Row, room: int, now: float) -> Text:
    del room, now
    return Text(words.rate(row.rate, signed=True), style="" if row.rate else "dim")


def _ops(row: Row, room: int, now: float) -> Text:
    del room, now
    return Text(words.rate(row.ops), style="" if row.ops else "dim")


def _memory(row: Row, room: int, now: float) -> Text:
    del room, now
    return Text(words.memory(row.stats.memlock_bytes))


def _line(row: Row, room: int, now: float) -> Text:
    return Text(sparkline(row.line, now, room), style="cyan")


COLUMNS: Final = (
    Column("NAME", (0, 0, 0), _name, Sort.NAME),
    Column("TYPE", (0, 14, 18), _type, Sort.TYPE),
    Column("ENTRIES", (10, 11, 11), _entries, Sort.ENTRIES, right=True),
    Column("FILL", (11, 16, 26), _fill, Sort.FILL),
    Column("+/s", (7, 7, 8), _rate, Sort.RATE, right=True),
    Column("OPS/s", (6, 7, 8), _ops, Sort.OPS, right=True),
    Column("MEM", (7, 7, 8), _memory, Sort.MEMORY, right=True),
    Column("ENTRIES, 60 s", (12, 20, 30), _line),
)
"""From left to right; the name has what the others leave."""


def widths(width: int) -> list[tuple[Column, int]]:
    """The columns of a screen, each with the characters that it has; one more separates it from the next."""
    size = 0 if width < 110 else 1 if width < 150 else 2
    rooms = [column.rooms[size] for column in COLUMNS]
    shown = [(column, room) for column, room in zip(COLUMNS, rooms, strict=True) if room]
    left = width - sum(room + 1 for _, room in shown) - 3
    return [(COLUMNS[0], min(max(left, _NAME_LEAST), _NAME_MOST)), *shown]
