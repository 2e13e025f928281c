"""What mapctl prints: one record schema, as a table for people or NDJSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, TextIO

from mapd_client.info import MapInfo, ProcessHolder, ProgramHolder

if TYPE_CHECKING:
    from rich.table import Table

Output = Literal["table", "ndjson"]

_PIPE_WIDTH: Final = 10_000
"""Columns where nobody looks: a table in a file is not wrapped."""


def map_record(info: MapInfo) -> dict[str, object]:
    """A map, as ``list`` and ``show`` print it."""
    return {
        "id": info.id,
        "name": info.name,
        "type": info.type_name,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": int(info.flags),
        "frozen": info.frozen,
        "kernel_name": info.kernel_name,
        "pin_path": info.pin_path,
        "btf_id": info.btf_id,
        "memlock_bytes": info.memlock_bytes,
        "iteration": info.iteration,
        "supported_operations": sorted(info.supported_operations),
        "pins": list(info.pins),
        "holders": [holder_record(one) for one in info.holders],
    }


def holder_record(one: ProcessHolder | ProgramHolder) -> dict[str, object]:
    """Who holds a map."""
    if isinstance(one, ProcessHolder):
        return {"pid": one.pid, "comm": one.comm}
    return {"prog_id": one.id, "name": one.name}


def write_record(record: Mapping[str, object], file: TextIO) -> None:
    """One line of NDJSON."""
    file.write(json.dumps(record, separators=(", ", ": ")) + "\n")


def write_maps(maps: Iterable[MapInfo], file: TextIO, *, holders: bool = False) -> None:
    """A table of maps; with who holds each, where it was asked for."""
    table = _table()
    for title in ("ID", "NAME", "TYPE", "KEY", "VALUE", "MAX", "FROZEN", "PIN", *["HELD BY"] * holders):
        numeric = title in ("ID", "KEY", "VALUE", "MAX")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True)
    for info in maps:
        table.add_row(
            str(info.id),
            info.name or info.kernel_name or "-",
            info.type_name,
            str(info.key_size),
            str(info.value_size),
            str(info.max_entries),
            "yes" if info.frozen else "no",
            info.pin_path or "-",
            *[", ".join(map(_holder, info.holders)) or "-"] * holders,
        )
    _print(table, file)


def _holder(one: ProcessHolder | ProgramHolder) -> str:
    if isinstance(one, ProcessHolder):
        return f"{one.comm}({one.pid})"
    return f"prog {one.name or '-'}({one.id})"


def write_map(info: MapInfo, file: TextIO) -> None:
    """One map, a line per field."""
    record = {**map_record(info), "supported_operations": " ".join(sorted(info.supported_operations))}
    for listed in ("pins", "holders"):  # of a listing: a map that was opened does not tell them
        record.pop(listed)
    write_fields({name: str(value) for name, value in record.items()}, file)


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
