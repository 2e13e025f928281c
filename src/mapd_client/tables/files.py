"""A map written to a file, batch by batch: Parquet, Arrow IPC."""

from __future__ import annotations

import os
import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from mapd_client.info import Trailer
from mapd_client.tables.metadata import TRAILER
from mapd_client.tables.needs import arrow
from mapd_client.tables.streaming import Batches, in_thread

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_BYTES: Final = 8 << 20
"""Of Arrow's columns that become one row group of a Parquet file: groups of a chunk each would make it a third larger
to read, and one of everything would be held in memory."""


class Sink(ABC):
    """A file that is there whole, or not at all: written beside its place, and renamed when all is in it.

    Blocking; each method by one thread at a time.
    """

    def __init__(self, path: str | os.PathLike[str], schema: pa.Schema) -> None:
        self._path = Path(path)
        self._beside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(6)}.tmp")
        self._schema = schema
        self._file: BinaryIO | None = None
        self._writer: Any = None

    def begin(self) -> None:
        """Create the file beside; raises OSError as ``open``."""
        self._file = self._beside.open("xb")
        self._writer = self._made(self._file)

    @abstractmethod
    def _made(self, file: BinaryIO) -> Any:
        """The writer of this format."""

    @abstractmethod
    def add(self, batch: pa.RecordBatch) -> None:
        """One more batch."""

    @abstractmethod
    def _end(self, ending: dict[bytes, bytes]) -> None:
        """What comes after the last batch."""

    def finish(self, ending: dict[bytes, bytes]) -> None:
        """Put the file in its place; what was there before is gone."""
        assert self._file is not None  # begun
        self._end(ending)
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._beside.replace(self._path)

    def abandon(self) -> None:
        """Leave nothing behind; what was in its place before stays."""
        if self._file is None:
            return
        with suppress(Exception):  # its format may want to end what cannot be ended
            self._writer.close()
        self._file.close()
        self._beside.unlink(missing_ok=True)


class Parquet(Sink):
    """Row groups of about 8 MiB. The schema says which map it is; the trailer is in the file's metadata."""

    def __init__(self, path: str | os.PathLike[str], schema: pa.Schema, compression: str) -> None:
        super().__init__(path, schema)
        self._compression = compression
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0

    def _made(self, file: BinaryIO) -> Any:
        parquet: Any = import_module("pyarrow.parquet")
        return parquet.ParquetWriter(file, self._schema, compression=self._compression)

    def add(self, batch: pa.RecordBatch) -> None:
        """As Sink."""
        self._waiting.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            table = arrow().Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._waiting, self._bytes = [], 0

    def _end(self, ending: dict[bytes, bytes]) -> None:
        self._write()
        self._writer.add_key_value_metadata({TRAILER.decode(): ending[TRAILER].decode()})


class Ipc(Sink):
    """A record batch for each chunk, and an empty one at the end, whose own metadata has the trailer.

    A file has one dictionary for a column, or additions to it, which not all readers take (polars 2.1): names that are
    not known before the last batch came cannot be in one. So enums have to come written out.
    """

    def __init__(self, path: str | os.PathLike[str], schema: pa.Schema, compression: str | None) -> None:
        super().__init__(path, schema)
        self._compression = compression

    def _made(self, file: BinaryIO) -> Any:
        ipc: Any = import_module("pyarrow.ipc")
        options = ipc.IpcWriteOptions(compression=self._compression)
        return ipc.new_file(file, self._schema, options=options)

    def add(self, batch: pa.RecordBatch) -> None:
        """As Sink."""
        self._writer.write_batch(batch)

    def _end(self, ending: dict[bytes, bytes]) -> None:
        empty = arrow().RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata=ending)


async def written(batches: Batches, sink: Sink) -> Trailer:
    """All batches in a file; how the dump went.

    Cancelled, or failed: the file is what it was before; if the last step had begun, it may be the new one, whole.
    """
    async with batches:
        try:
            await in_thread(sink.begin)
            async for batch in batches:
                await in_thread(sink.add, batch)
            await in_thread(sink.finish, batches.ending)
        except BaseException:
            await in_thread(sink.abandon)
            raise
    assert batches.trailer is not None  # else the dump had raised
    return batches.trailer
