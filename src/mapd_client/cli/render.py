"""Tables for people. Names and paths in them are data, and are not read as markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.table import Table

_PIPE_WIDTH: Final = 10_000
"""Columns where nobody looks: a table in a file is not wrapped."""


_NARROW: Final = 12
"""Columns that folded text has at least, where others can be folded too."""

_GAP: Final = 2
"""Blanks between columns."""


def write_record(record: Mapping[str, object], file: TextIO) -> None:
    """One line of NDJSON."""
    file.write(json.dumps(record, separators=(", ", ": ")) + "\n")


def write_fields(fields: Mapping[str, str], file: TextIO) -> None:
    """A line per field."""
    table = _table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, value)
    _print(table, file)


def write_table(titles: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]], file: TextIO) -> None:
    """A table; numeric columns are on the right. Where the terminal is too narrow, long text is folded, never cut.

    Args:
        titles: of each column, and whether it is numeric.
        rows: cells.
        file: stdout.
    """
    cells = list(rows)
    widths = [
        max(len(title), *(len(row[at]) for row in cells)) if cells else len(title)
        for at, (title, _) in enumerate(titles)
    ]
    table = _table()
    folded = _folded(widths, [numeric for _, numeric in titles], _width(file))
    for at, (title, numeric) in enumerate(titles):
        table.add_column(
            title, justify="right" if numeric else "left", no_wrap=at not in folded, overflow="fold"
        )
    for row in cells:
        table.add_row(*row)
    _print(table, file)


def _folded(widths: Sequence[int], numeric: Sequence[bool], width: int) -> set[int]:
    """Which columns are folded: the widest of text, as few as will do. Names stay whole beside a long path."""
    texts = sorted((at for at, number in enumerate(numeric) if not number), key=lambda at: -widths[at])
    folded: set[int] = set()
    for at in texts:
        taken = sum(min(one, _NARROW) if place in folded else one for place, one in enumerate(widths))
        if taken + _GAP * len(widths) <= width:
            break
        folded.add(at)
    return folded


def _width(file: TextIO) -> int:
    if not file.isatty():
        return _PIPE_WIDTH
    from mapd_client.cli.console import QuietConsole

    return QuietConsole(file=file).width


def _table(*, show_header: bool = True) -> Table:
    from rich.table import Table  # 22 ms, which most verbs need not pay

    return Table(box=None, pad_edge=False, show_edge=False, show_header=show_header)


def _print(table: Table, file: TextIO) -> None:
    # Names and paths are data: neither markup nor emoji is to be read into them.
    from mapd_client.cli.console import QuietConsole

    width = None if file.isatty() else _PIPE_WIDTH
    console = QuietConsole(file=file, width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    file.write(captured.get())
