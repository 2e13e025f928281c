"""Everything that is no element, as records: what a verb says, in the format that is asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any, Final, TextIO, cast

from mapd_client.cli.outputs.kinds import Output, fit_for

Row = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a command's records.

    Attributes:
        name: in the record.
        kind: str, int, float, bool; list and dict for what is nested, which is JSON text in csv and Arrow. A field may
            be None.
        title: of the table's column; "" where the table of many records does not have it.
        text: how the table writes it; None: plainly, "-" for what is empty.
    """

    name: str
    kind: type = str
    title: str = ""
    text: Callable[[Any], str] | None = None

    def cell(self, row: Row) -> str:
        """As the table writes it."""
        value = row[self.name]
        return self.text(value) if self.text is not None else _plainly(value)


def records(
    rows: Iterable[Row], *, columns: Sequence[Field], output: Output, file: TextIO, one: bool = False
) -> None:
    """Write them all.

    Args:
        rows: a mapping for each, which has just the fields of ``columns``.
        columns: the schema.
        output: the format.
        file: stdout.
        one: it is a single record: json writes the object alone, a table has a line for each field.

    Raises:
        Misuse: bytes for a terminal.
        Unsupported: pyarrow is not installed.
    """
    fit_for(output, file)
    found = [{field.name: row[field.name] for field in columns} for row in rows]
    _WRITERS[output](found, columns, file, one)


def _ndjson(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    del columns, one
    file.writelines(json.dumps(row) + "\n" for row in rows)


def _json(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    del columns
    file.write(json.dumps(rows[0] if one else rows, indent=2) + "\n")


def _csv(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    del one
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(field.name for field in columns)
    writer.writerows([_flat(row[field.name]) for field in columns] for row in rows)


def _flat(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _table(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    from mapd_client.cli import render

    if one:
        render.write_fields({field.name: field.cell(rows[0]) for field in columns}, file)
        return
    shown = [field for field in columns if field.title]
    render.write_table(
        [(field.title, field.kind in (int, float)) for field in shown],
        [[field.cell(row) for field in shown] for row in rows],
        file,
    )


def _plainly(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, cast("Sequence[object]", value))) or "-"
    return "-" if value is None or value == "" else str(value)


def _arrow_table(rows: Sequence[Row], columns: Sequence[Field], what: str) -> Any:
    from mapd_client.tables.needs import arrow, need

    need(what, "pyarrow")
    pa = arrow()
    kinds: Mapping[type, Any] = {int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    schema = pa.schema([pa.field(field.name, kinds.get(field.kind, pa.string())) for field in columns])
    plain = [
        {name: json.dumps(value) if isinstance(value, (list, dict)) else value for name, value in row.items()}
        for row in rows
    ]
    return pa.Table.from_pylist(plain, schema=schema)


def _arrow(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    del one
    table = _arrow_table(rows, columns, "-o arrow")
    from pyarrow import ipc

    with cast("Any", ipc).new_stream(cast("TextIOWrapper", file).buffer, table.schema) as writer:
        writer.write_table(table)


def _parquet(rows: Sequence[Row], columns: Sequence[Field], file: TextIO, one: bool) -> None:
    del one
    table = _arrow_table(rows, columns, "-o parquet")
    from importlib import import_module

    cast("Any", import_module("pyarrow.parquet")).write_table(table, cast("TextIOWrapper", file).buffer)


_WRITERS: Final[Mapping[Output, Callable[[Sequence[Row], Sequence[Field], TextIO, bool], None]]] = {
    "table": _table,
    "json": _json,
    "ndjson": _ndjson,
    "csv": _csv,
    "arrow": _arrow,
    "parquet": _parquet,
}
