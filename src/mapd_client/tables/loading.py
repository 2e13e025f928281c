"""Tables as what is loaded into a map: by the names of their columns, whole columns at a time. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mapd_client.batches import Batch
from mapd_client.codec import BadElement
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.tables.columns import BadRow, Column
from mapd_client.tables.needs import ArrowArray, ArrowTable, arrow
from mapd_client.tables.nested import Struct
from mapd_client.tables.plan import Plan
from mapd_client.typed.naming import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def of_table(source: ArrowTable, plan: Plan, per_message: int) -> Iterator[Batch]:
    """Its rows in order, packed a message at a time.

    Raises:
        BadElement: at its place a row that does not fit; at place 0 what is wrong with the columns.
    """
    pa = arrow()
    try:
        reader = pa.RecordBatchReader.from_stream(source)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise BadElement(
            0, TypeMismatch(f"{type(source).__name__} is no table of columns: {error}")
        ) from None
    first, batch = 0, None
    for batch in reader:
        yield from _packed(batch, plan, first, per_message)
        first += batch.num_rows
    if batch is None:  # its names can be wrong nevertheless
        names = reader.schema.names
        _named_sides(names, [pa.nulls(0)] * len(names), plan)


def _packed(batch: Any, plan: Plan, first: int, per_message: int) -> Iterator[Batch]:
    sides = _named_sides(batch.schema.names, batch.columns, plan)
    for at in range(0, max(batch.num_rows, 1), per_message):
        parts = [
            _bytes(array.slice(at, per_message), column, path, first + at) for path, column, array in sides
        ]
        count = min(per_message, batch.num_rows - at)
        if count:
            yield Batch(first + at, count, *parts)


def _bytes(array: ArrowArray, column: Column, path: str, first: int) -> bytes:
    import numpy as np

    rows: NDArray[np.uint8] = np.zeros((len(array), column.size), np.uint8)
    try:
        column.write(array, rows, path)
    except BadRow as bad:
        raise BadElement(first + bad.at, bad.kind(f"row {first + bad.at}: {bad.text}")) from None
    except Misuse as error:
        raise BadElement(0, error) from None
    return rows.tobytes()


def _named_sides(
    names: list[str], arrays: list[ArrowArray], plan: Plan
) -> list[tuple[str, Column, ArrowArray]]:
    try:
        return _sides(names, dict(zip(names, arrays, strict=True)), plan)
    except Misuse as error:
        raise BadElement(0, error) from None


def _sides(
    names: list[str], columns: Mapping[str, ArrowArray], plan: Plan
) -> list[tuple[str, Column, ArrowArray]]:
    """Both sides' columns as the plan has them; raises TypeMismatch for missing, unknown and double ones."""
    if len(columns) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise TypeMismatch(f"two columns are called {twice!r}")
    known = [path for side, column in _pairs(plan) for path in _paths(side, column)]
    taken: set[str] = set()
    found = [(side, column, _assembled(side, column, columns, taken)) for side, column in _pairs(plan)]
    for name in names:
        if name not in taken:
            raise TypeMismatch(f"column {name!r}: there is no such field: {nearest(name, known)}")
    for side, _, array in found:
        if array is None:
            given = ", ".join(map(repr, names)) or "none"
            raise TypeMismatch(f"no column for the {side}: {side!r}, or its fields; there are {given}")
    return found


def _pairs(plan: Plan) -> list[tuple[str, Column]]:
    return [("key", plan.key), ("value", plan.value)]


def _paths(path: str, column: Column) -> Iterator[str]:
    """Every name that a column of it may have."""
    yield path
    if isinstance(column, Struct):
        for name, field in column.fields.items():
            yield from _paths(f"{path}.{name}", field.column)


def _assembled(
    path: str, column: Column, columns: Mapping[str, ArrowArray], taken: set[str]
) -> ArrowArray | None:
    """A column by its own name, or put together of its fields'; None where none of them is there."""
    if path in columns:
        taken.add(path)
        return columns[path]
    if not isinstance(column, Struct):
        return None
    pa = arrow()
    parts = {
        name: _assembled(f"{path}.{name}", field.column, columns, taken)
        for name, field in column.fields.items()
    }
    there = {name: part for name, part in parts.items() if part is not None}
    if not there:
        return None
    column.check_names(list(there), path)
    return pa.StructArray.from_arrays(list(there.values()), names=list(there))
