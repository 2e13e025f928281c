"""Tables as data frames: a column for each field. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mapd_client.tables.metadata import about
from mapd_client.tables.needs import ArrowArray, arrow

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


def flat(table: pa.Table) -> pa.Table:
    """Structs replaced by columns of their fields, named by their paths: ``key.saddr``. Lists stay as they are."""
    columns: list[tuple[str, ArrowArray]] = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        columns += _flattened(name, column)
    names, arrays = [name for name, _ in columns], [array for _, array in columns]
    made: pa.Table = arrow().Table.from_arrays(arrays, names=names, metadata=table.schema.metadata)
    return made


def _flattened(path: str, column: ArrowArray) -> Iterator[tuple[str, ArrowArray]]:
    if not arrow().types.is_struct(column.type):
        yield path, column
        return
    names = [column.type.field(at).name for at in range(column.type.num_fields)]
    for name, part in zip(names, column.flatten(), strict=True):
        yield from _flattened(f"{path}.{name}", part)


def pandas_frame(table: pa.Table) -> pd.DataFrame:
    """A frame with ``attrs["mapd"]``: the trailer's facts as JSON has them, which pandas can copy and write."""
    columns: Any = flat(table)
    frame: pd.DataFrame = columns.to_pandas()
    frame.attrs["mapd"] = about(table)["trailer"]
    return frame


def polars_frame(table: pa.Table) -> pl.DataFrame:
    """A frame with the same ``attrs["mapd"]``, of this very object: polars itself carries no facts beside the rows."""
    import polars

    module: Any = polars
    frame: Any = module.from_arrow(flat(table))
    frame.attrs = {"mapd": about(table)["trailer"]}
    made: pl.DataFrame = frame
    return made
