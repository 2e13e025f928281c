"""Elements from Parquet and Arrow files, whole columns at a time."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, cast

from mapd_client.batches import Batch
from mapd_client.cli.types import Shown
from mapd_client.codec import BadElement, Codec
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.layouts import Opaque
from mapd_client.syncing.shape import cells
from mapd_client.tables import needs
from mapd_client.typed.compiling import codec_of

_AT_ONCE = 65_536
"""Rows made bytes of at once."""


def read_table(data: bytes, name: str, *, parquet: bool) -> Any:
    """A pyarrow.Table of a Parquet file, or of an Arrow IPC file or stream.

    Raises:
        Misuse: it is none.
        Unsupported: pyarrow is not installed.
    """
    needs.need_arrow(f"reading {name}")
    pa = needs.arrow()
    try:
        if parquet:
            from pyarrow import parquet as files

            return cast("Any", files).read_table(io.BytesIO(data))
        opened = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
        return opened(io.BytesIO(data)).read_all()
    except pa.ArrowException as error:
        raise Misuse(f"{name}: {error}") from None


def packed(
    table: Any, sides: Mapping[str, Mapping[str, str]], shown: Shown, name: str
) -> list[tuple[bytes, bytes]] | None:
    """Keys and values, where the columns are what ``dump`` makes of the map; None for others (texts, CPUs' values).

    Args:
        table: the columns of ``sides``, in that order.
        sides: for "key" and "value": the columns' names by their paths in the record.
        shown: the types of the map.
        name: of the file.

    Raises:
        Misuse: a row that does not fit.
    """
    if shown.info.per_cpu or not sides["value"]:
        return None
    given = table.rename_columns([path for names in sides.values() for path in names])
    key, value = (_codec(shown, side) for side in ("key", "value"))
    try:
        batches: list[Batch] = [*needs.packed(given, key, value, shown.byteorder, _AT_ONCE)]
    except BadElement as bad:
        if isinstance(bad.error, TypeMismatch):
            return None  # row by row, which says what is wrong with them
        raise Misuse(f"{name}: {bad.error}") from None
    keys = cells(b"".join([batch.keys for batch in batches]), key.size)
    return [*zip(keys, cells(b"".join([batch.values for batch in batches]), value.size), strict=True)]


def _codec(shown: Shown, side: str) -> Codec[Any]:
    info = shown.info
    layout = shown.layouts[side] or Opaque(size=info.key_size if side == "key" else info.value_size)
    return codec_of(layout, hints=shown.hints, path=side).bind(shown.byteorder, 1)
