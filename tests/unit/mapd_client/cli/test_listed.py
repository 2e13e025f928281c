"""Records that are no elements, in every format; and the schema of every command's, which only grows."""

from __future__ import annotations

import csv
import io
import json
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import polars
import pyarrow.ipc as ipc
import pytest

import mapd_client.cli as package
from mapd_client.cli.outputs import Field, Output, records

parquet: Any = import_module("pyarrow.parquet")  # its stubs are half there

GOLDEN: Final = Path(__file__).parent / "golden" / "records.json"
COLUMNS = (
    Field("id", int, "ID"),
    Field("name", str, "NAME"),
    Field("frozen", bool, "FROZEN"),
    Field("pins", list, "PINS"),
    Field("size", int, "SIZE", lambda size: f"{size} B"),
    Field("inner", dict),
)
ROWS: list[dict[str, Any]] = [
    {"id": 2**53 + 1, "name": 'a "b"', "frozen": True, "pins": ["/x", "/y"], "size": 7, "inner": {"a": 1}},
    {"id": 2, "name": "", "frozen": False, "pins": [], "size": None, "inner": {}},
]
TEXTS: list[dict[str, Any]] = [
    {**row, "pins": json.dumps(row["pins"]), "inner": json.dumps(row["inner"])} for row in ROWS
]


def written(output: Output, rows: Any = ROWS, *, one: bool = False) -> bytes:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="utf-8")
    records(rows, columns=COLUMNS, output=output, file=file, one=one)
    file.flush()
    return raw.getvalue()


def test_json_is_a_list_and_ndjson_a_line_each() -> None:
    assert json.loads(written("json")) == ROWS
    assert json.loads(written("json", [])) == []
    assert [json.loads(line) for line in written("ndjson").splitlines()] == ROWS


def test_json_of_a_command_with_one_record_is_the_object() -> None:
    assert json.loads(written("json", ROWS[:1], one=True)) == ROWS[0]


def test_csv_has_a_header_even_of_nothing() -> None:
    found = list(csv.reader(io.StringIO(written("csv").decode())))
    assert found[0] == ["id", "name", "frozen", "pins", "size", "inner"]
    assert found[1] == [str(2**53 + 1), 'a "b"', "true", '["/x", "/y"]', "7", '{"a": 1}']
    assert written("csv", []).decode().count("\n") == 1
    assert polars.read_csv(written("csv"))["id"].to_list() == [2**53 + 1, 2]


def test_arrow_and_parquet_have_the_same_types_whatever_there_is() -> None:
    assert ipc.open_stream(written("arrow")).read_all().to_pylist() == TEXTS
    assert parquet.read_table(io.BytesIO(written("parquet"))).to_pylist() == TEXTS
    empty = ipc.open_stream(written("arrow", [])).read_all()
    assert empty.schema == ipc.open_stream(written("arrow")).read_all().schema
    assert empty.num_rows == 0


def test_a_table_has_the_columns_with_a_title_and_one_record_a_line_each() -> None:
    lines = written("table").decode().splitlines()
    assert lines[0].split() == ["ID", "NAME", "FROZEN", "PINS", "SIZE"]
    assert lines[1].split() == [str(2**53 + 1), "a", '"b"', "yes", "/x", "/y", "7", "B"]
    alone = written("table", ROWS[:1], one=True).decode().splitlines()
    assert [line.split()[0] for line in alone] == ["id", "name", "frozen", "pins", "size", "inner"]


def test_a_record_without_a_field_of_its_schema_is_a_fault() -> None:
    with pytest.raises(KeyError):
        written("ndjson", [{"id": 1}])


def _fields(value: object) -> list[Field]:
    """Of a tuple of fields alone."""
    members: list[object] = [*cast("tuple[object, ...]", value)] if isinstance(value, tuple) else []
    fields = [one for one in members if isinstance(one, Field)]
    return fields if len(fields) == len(members) else []


def declared() -> dict[str, dict[str, str]]:
    """By module and name: the fields of every record that mapctl knows, in order, with their types."""
    found: dict[str, dict[str, str]] = {}
    for module in pkgutil.iter_modules(package.__path__):
        loaded = import_module(f"{package.__name__}.{module.name}")
        for name, value in vars(loaded).items():
            fields = _fields(value)
            if fields:
                key = f"{module.name}.{name.lstrip('_').lower()}"
                found[key] = {one.name: one.kind.__name__ for one in fields}
    return found


def test_a_record_has_its_golden_fields() -> None:
    """Scripts read them: a field may be added, none may go or become something else."""
    golden: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text())
    found = declared()
    for name, fields in golden.items():
        assert found.get(name) == fields, name
