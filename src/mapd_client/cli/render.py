"""Tables for people. Names and paths in them are data, and are not read as markup."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from rich.table import Table

_PIPE_WIDTH: Final = 10_000
"""Columns where nobody looks: a table in a file is not wrapped."""


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
    """A table; numeric columns are on the right, and long text is folded, never cut.

    Args:
        titles: of each column, and whether it is numeric.
        rows: cells.
        file: stdout.
    """
    table = _table()
    for title, numeric in titles:
        table.add_column(title, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*row)
    _print(table, file)


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
