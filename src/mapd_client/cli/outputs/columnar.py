"""Elements as Arrow's columns: an IPC stream, or a Parquet file. Needs pyarrow, which its importer has looked for."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pyarrow_

from mapd_client.cli.outputs.writers import Write, Writer
from mapd_client.cli.types import Shown
from mapd_client.codec import Buffer
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo, Trailer
from mapd_client.layouts import Layout, Opaque
from mapd_client.tables.binary import Raw
from mapd_client.tables.columns import Column
from mapd_client.tables.files import GROUP_BYTES
from mapd_client.tables.lists import per_cpu
from mapd_client.tables.metadata import TRAILER, metadata
from mapd_client.tables.plan import Plan, column_of_layout

pa: Any = pyarrow_


class Columnar(Writer):
    """``host`` where there are several, ``key`` and ``value``; structs are structs, enums text."""

    _writer: Any = None
    _schema: Any = None
    _only: MapInfo | None = None

    def part(self, shown: Shown, host: str | None) -> Write:
        """As Writer."""
        columns = _plan(shown)
        schema = columns.schema()
        if self.keys_only:
            schema = schema.remove(1)
        if host is None:
            self._only = shown.info
            schema = schema.with_metadata(metadata(shown.info, None))
        else:
            schema = schema.insert(0, pa.field("host", pa.string(), nullable=False))
        self._begin(schema, shown, host)

        def part(keys: Buffer, values: Buffer, count: int) -> None:
            arrays: list[Any] = [] if host is None else [pa.repeat(host, count)]
            arrays.append(_read(columns.key, keys, count))
            if not self.keys_only:
                arrays.append(_read(columns.value, values, count))
            self.add(pa.RecordBatch.from_arrays(arrays, schema=schema))

        return part

    def _begin(self, schema: Any, shown: Shown, host: str | None) -> None:
        if self._writer is None:
            self._schema = schema
            self._writer = self.made(cast("BinaryIO", cast("TextIOWrapper", self.file).buffer), schema)
        elif not schema.equals(self._schema):
            raise Misuse(f"{shown.info.label} of {host} has other types than the host before; take -o ndjson")

    def made(self, file: BinaryIO, schema: Any) -> Any:
        """The writer of this format."""
        raise NotImplementedError

    def add(self, batch: Any) -> None:
        """One more batch."""
        self._writer.write_batch(batch)

    def ending(self, trailer: Trailer | None) -> dict[bytes, bytes] | None:
        """What is said of the dump, of a document of one map."""
        return None if self._only is None or trailer is None else metadata(self._only, trailer)


class Arrow(Columnar):
    """The IPC stream format: a record batch for each chunk, then an empty one whose own metadata has the trailer."""

    def made(self, file: BinaryIO, schema: Any) -> Any:
        """As Columnar."""
        return cast("Any", import_module("pyarrow.ipc")).new_stream(file, schema)

    def end(self, trailer: Trailer | None) -> None:
        """As Writer."""
        if self._writer is None:
            return
        said = self.ending(trailer)
        if said is not None:
            # Of lists, pyarrow would make them with pandas' help, and import that: 0.15 s.
            nothing = [pa.nulls(0, field.type) for field in self._schema]
            empty = pa.RecordBatch.from_arrays(nothing, schema=self._schema)
            self._writer.write_batch(empty, custom_metadata=said)
        self._writer.close()


class _Gate(io.RawIOBase):
    """Lets through what is written while it is open.

    A ParquetWriter that is let go writes the footer (``__del__``), and half a dump would be a whole file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._at = 0
        self.passing = False

    def writable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Bytes so far, for pyarrow's offsets."""
        return self._at

    def write(self, data: Any, /) -> int:
        """All of it, or nothing at all."""
        if self.passing:
            self._file.write(data)
        size = memoryview(data).nbytes
        self._at += size
        return size


class Parquet(Columnar):
    """Row groups of about 8 MiB; the trailer is in the file's metadata."""

    _gate: _Gate

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._waiting: list[Any] = []
        self._bytes = 0

    def made(self, file: BinaryIO, schema: Any) -> Any:
        """As Columnar."""
        parquet: Any = import_module("pyarrow.parquet")
        self._gate = _Gate(file)
        with self._passing():
            return parquet.ParquetWriter(self._gate, schema, compression="zstd")

    @contextmanager
    def _passing(self) -> Generator[None]:
        self._gate.passing = True
        try:
            yield
        finally:
            self._gate.passing = False

    def add(self, batch: Any) -> None:
        """As Columnar."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting)
            with self._passing():
                self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._bytes = [], 0

    def end(self, trailer: Trailer | None) -> None:
        """As Writer."""
        if self._writer is None:
            return
        self._flush()
        said = self.ending(trailer)
        if said is not None:
            self._writer.add_key_value_metadata({TRAILER.decode(): said[TRAILER].decode()})
        with self._passing():
            self._writer.close()


def _plan(shown: Shown) -> Plan:
    """A column for the key, one for the value, or all CPUs' of it."""
    info = shown.info
    key = _column(shown, "key", info.key_size)
    value = _column(shown, "value", info.value_size)
    if info.per_cpu:
        value = per_cpu(value, info.slots())
    made = Plan(key, value)
    made.write_out()  # a dictionary would have to be whole before the last element has come
    return made


def _column(shown: Shown, side: str, size: int) -> Column:
    layout: Layout = shown.layouts[side] or Opaque(size=size)
    return column_of_layout(layout, shown.byteorder, shown.hints, side) or Raw(size)


def _read(column: Column, data: Buffer, count: int) -> Any:
    return column.read(np.frombuffer(data, np.uint8).reshape(count, column.size))
