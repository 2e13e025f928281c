"""What ``Map`` does with all elements as columns: arrays, Arrow, data frames, files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from mapd_client.dumping import Dumps
from mapd_client.info import Trailer
from mapd_client.tables.needs import need, need_arrow

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow as pa

    from mapd_client.tables.arrays import Arrays
    from mapd_client.tables.streaming import Batches

K = TypeVar("K")
V = TypeVar("V")


class Tables(Dumps[K, V], Generic[K, V]):
    """All elements as columns. Needs the extras numpy and arrow; nothing of them is imported before.

    Each method makes one dump, as ``chunks``: DumpIncomplete is raised where the daemon does not call it complete and
    ``partial_ok`` does not accept that. It does not change which elements an LRU map evicts. Cancelled, it is over,
    and nothing has changed.
    """

    async def to_numpy(self, *, partial_ok: bool = False) -> Arrays:
        """All keys and all values as two arrays, ``(keys, values)``; ``trailer`` says how the dump went.

        Integers, records for structs and typed maps, rows of uint8 for bytes and addresses; per-CPU values have an
        axis of CPUs. ``load`` takes them back. In memory once, with an eighth more at most while it grows.

        Raises:
            Unsupported: numpy is not installed; a codec without a dtype.
        """
        need("to_numpy", "numpy")
        from mapd_client.tables.arrays import gathered

        return await gathered(self.chunks(partial_ok=partial_ok), self._key, self._value)

    def to_batches(self, *, resume: bytes | None = None, partial_ok: bool = False) -> Batches:
        """The same as ``to_arrow``, a record batch for each chunk, for maps that memory does not hold.

        ``async for batch in m.to_batches()``; ``reader()`` is a pyarrow.RecordBatchReader for other threads.

        Args:
            resume: the ``token`` of an earlier stream or dump.
            partial_ok: do not raise DumpIncomplete where the daemon calls the dump incomplete.

        Raises:
            Unsupported: pyarrow is not installed; a codec of which no column can be made.
        """
        need_arrow("to_batches")
        return self._batches(resume, partial_ok)

    async def to_arrow(self, *, partial_ok: bool = False) -> pa.Table:
        """All elements as a table of ``key`` and ``value``, a chunk of each column for each of the dump's.

        Structs are structs, a union's members all there; enums are dictionaries; arrays and per-CPU values
        fixed-size lists; char arrays strings; bit-fields columns of their own; integers of 16 bytes and unknown
        bytes binary; addresses and networks, by codec or by hint, strings. The schema's metadata "mapd" has the
        map and the trailer: ``mapd_client.tables.trailer_of``.

        Raises:
            Unsupported: as ``to_batches``.
        """
        need_arrow("to_arrow")
        from mapd_client.tables.streaming import collected

        return await collected(self.to_batches(partial_ok=partial_ok))

    async def to_pandas(self, *, partial_ok: bool = False) -> pandas.DataFrame:
        """All elements as a frame, a column for each field: "key.saddr". Lists are arrays in a column.

        ``attrs["mapd"]`` has the trailer: entries, complete, method, started_at ...

        Raises:
            Unsupported: pandas or pyarrow is not installed.
        """
        need("to_pandas", "numpy", "pyarrow", "pandas")
        from mapd_client.tables.frames import pandas_frame
        from mapd_client.tables.streaming import in_thread

        return await in_thread(pandas_frame, await self.to_arrow(partial_ok=partial_ok))

    async def to_polars(self, *, partial_ok: bool = False) -> polars.DataFrame:
        """As ``to_pandas``; ``attrs`` is of this very frame, what is computed from it has none.

        Raises:
            Unsupported: polars or pyarrow is not installed.
        """
        need("to_polars", "numpy", "pyarrow", "polars")
        from mapd_client.tables.frames import polars_frame
        from mapd_client.tables.streaming import in_thread

        return await in_thread(polars_frame, await self.to_arrow(partial_ok=partial_ok))

    async def write_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd",
        partial_ok: bool = False,
    ) -> Trailer:
        """All elements as ``to_arrow`` has them in a Parquet file; how the dump went, which is in the file too.

        Written in threads, batch by batch, beside its place and renamed when it is whole: at most about 16 MiB of
        elements are in memory. Cancelled or failed: ``path`` is as it was before; in the last moment it may be
        the new file, whole.

        Raises:
            Unsupported: pyarrow is not installed.
            OSError: the file cannot be written.
        """
        need_arrow("write_parquet")
        from mapd_client.tables.files import Parquet, written

        batches = self.to_batches(partial_ok=partial_ok)
        return await written(batches, Parquet(path, batches.schema, compression))

    async def write_arrow(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Literal["zstd", "lz4"] | None = "zstd",
        partial_ok: bool = False,
    ) -> Trailer:
        """As ``write_parquet``, an Arrow IPC file ("Feather 2"): a batch for each chunk, then an empty one.

        The empty one's own metadata has the trailer; the schema's has the map alone, for it comes first. Enums are
        text: a dictionary would have to be whole before the last batch has come.

        Raises:
            Unsupported: pyarrow is not installed.
            OSError: the file cannot be written.
        """
        need_arrow("write_arrow")
        from mapd_client.tables.files import Ipc, written

        batches = self._batches(None, partial_ok, plain=True)
        return await written(batches, Ipc(path, batches.schema, compression))

    # Inside

    def _batches(self, resume: bytes | None, partial_ok: bool, *, plain: bool = False) -> Batches:
        """``plain``: with text for enums."""
        from mapd_client.tables.plan import plan
        from mapd_client.tables.streaming import Batches

        columns = plan(self._key, self._value, self._byteorder)
        if plain:
            columns.write_out()
        return Batches(self.chunks(resume=resume, partial_ok=partial_ok), columns, self.info)
