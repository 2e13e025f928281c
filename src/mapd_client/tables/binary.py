"""Columns of bytes: those that nothing is known of, and integers that Arrow is not wide enough for. Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mapd_client.errors import SizeMismatch
from mapd_client.info import ByteOrder
from mapd_client.tables.columns import BadRow, Column, packed, without_nulls, wrong_type
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow, compute

if TYPE_CHECKING:
    from mapd_client.tables.columns import Rows

WIDE: Final = 16
"""Bytes of ``__int128``."""


class Wide(Column):
    """An integer of 16 bytes: Arrow's binary, most significant byte first, so that bytes sort as numbers do."""

    size = WIDE

    def __init__(self, byteorder: ByteOrder) -> None:
        self._byteorder = byteorder

    def type(self) -> ArrowType:
        """fixed_size_binary[16]: the widest decimals that all readers have end at 38 digits, these have 39."""
        pa = arrow()
        return pa.binary(WIDE)

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        ordered = rows if self._byteorder == "big" else rows[:, ::-1]
        return pa.Array.from_buffers(self.type(), len(rows), [None, packed(ordered)])

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column."""
        given = bytes_of(array, WIDE, path)
        rows[...] = given if self._byteorder == "big" else given[:, ::-1]


class Raw(Column):
    """Bytes as they are."""

    def __init__(self, size: int) -> None:
        self.size = size

    def type(self) -> ArrowType:
        """fixed_size_binary."""
        pa = arrow()
        return pa.binary(self.size)

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        return pa.Array.from_buffers(self.type(), len(rows), [None, packed(rows)])

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes any binary column whose elements all have this size."""
        rows[...] = bytes_of(array, self.size, path)


def bytes_of(array: ArrowArray, size: int, path: str) -> Rows:
    """A binary column as rows of ``size`` bytes.

    Raises:
        TypeMismatch: a column of another kind.
        BadRow: an element of another size, or null.
    """
    import numpy as np

    pa = arrow()
    array = without_nulls(array, path)
    types = pa.types
    if types.is_fixed_size_binary(array.type) and array.type.byte_width == size:
        fixed = array
    elif (
        types.is_fixed_size_binary(array.type)
        or types.is_binary(array.type)
        or types.is_large_binary(array.type)
    ):
        fixed = _same_size(array, size, path)
    elif types.is_binary_view(array.type):
        fixed = _same_size(array.cast(pa.large_binary()), size, path)
    else:
        raise wrong_type(path, array.type, f"binary of {size} bytes")
    data = fixed.buffers()[1]
    if not len(fixed) or data is None:
        return np.zeros((len(fixed), size), np.uint8)
    first = fixed.offset * size
    flat: Rows = np.frombuffer(memoryview(data), np.uint8)[first : first + len(fixed) * size]
    return flat.reshape(len(fixed), size)


def _same_size(array: ArrowArray, size: int, path: str) -> ArrowArray:
    pa = arrow()
    pc = compute()
    lengths = pc.binary_length(array).to_numpy(zero_copy_only=False)
    wrong = lengths != size
    if wrong.any():
        at = int(wrong.argmax())
        raise BadRow(at, SizeMismatch, f"{path}: {lengths[at]} bytes, {size} are due")
    return array.cast(pa.binary(size))
