"""Between the packed bytes of one field and its Arrow column, whole columns at a time. Sans-I/O.

Each method works on *rows*: an array of uint8 of shape (elements, bytes of the field), whose rows may lie apart as they
do inside larger records. Nothing here looks at one element after the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from mapd_client.codec import ORDER
from mapd_client.errors import Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow, compute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows: TypeAlias = NDArray[np.uint8]


class BadRow(Exception):
    """Internal: an element that cannot be written, at its place among those that were to be."""

    def __init__(self, at: int, kind: type[Misuse], text: str) -> None:
        super().__init__(text)
        self.at = at
        self.kind = kind
        self.text = text


class Column(ABC):
    """A field: its bytes, and how Arrow has it.

    Attributes:
        size: bytes of one element.
    """

    size: int

    exact: bool = True
    """Whether each bit of its fields comes back from what was read: not of text, which ends before a NUL."""

    def mask(self) -> Rows:
        """The bits that are its own, as one row: of records those of their fields, without padding."""
        import numpy as np

        return np.full((1, self.size), 255, np.uint8)

    def weight(self) -> int:
        """How many bytes come back exactly, about: who has more of them has the last word in a union."""
        return self.size if self.exact else 0

    def parts(self) -> Iterator[Column]:
        """It and all that it is made of."""
        yield self

    @abstractmethod
    def type(self) -> ArrowType:
        """Arrow's type of the column."""

    @abstractmethod
    def read(self, rows: Rows) -> ArrowArray:
        """The column that these bytes are; of ``type``, without nulls."""

    @abstractmethod
    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """Put a column's elements into ``rows``, which are zeros; bytes that no field has stay so.

        Args:
            array: of ``type``, or of one that can be cast to it without loss.
            rows: as many as ``array`` has elements.
            path: of the field, for messages: "key.saddr".

        Raises:
            TypeMismatch: a column of another kind.
            BadRow: an element that does not fit, or is null.
        """


def viewed(rows: Rows, dtype: str) -> NDArray[Any]:
    """Rows as one number each; over the same memory."""
    return rows.view(dtype)[:, 0]


def packed(array: NDArray[Any]) -> Any:
    """An array's memory, or that of a copy whose elements lie one after the other."""
    import numpy as np

    pa = arrow()
    return pa.py_buffer(np.ascontiguousarray(array).data)


def without_nulls(array: ArrowArray, path: str) -> ArrowArray:
    """The column itself, a dictionary's written out; raises BadRow where an element is null."""
    pa = arrow()
    if isinstance(array, pa.DictionaryArray):
        array = _written_out(array)
    if array.null_count:
        pc = compute()
        at = pc.index(array.is_null(), True).as_py()
        raise BadRow(
            at, TypeMismatch, f"{path} is null; a map has no nulls: fill them, or leave those rows out"
        )
    return array


def _written_out(array: ArrowArray) -> ArrowArray:
    """A dictionary's elements; polars has views in them, which Arrow cannot take from."""
    pa = arrow()
    words, types = array.dictionary, pa.types
    if types.is_string_view(words.type):
        array = pa.DictionaryArray.from_arrays(array.indices, words.cast(pa.large_string()))
    elif types.is_binary_view(words.type):
        array = pa.DictionaryArray.from_arrays(array.indices, words.cast(pa.large_binary()))
    return array.dictionary_decode()


def wrong_type(path: str, given: ArrowType, due: str) -> TypeMismatch:
    """A column of another kind."""
    return TypeMismatch(f"{path}: a column of {given}; {due} is due")


def cast(array: ArrowArray, due: ArrowType, path: str) -> ArrowArray:
    """A column of numbers in another type, if each number is the same there; raises SizeMismatch."""
    pa = arrow()
    if array.type == due:
        return array
    try:
        made = array.cast(due)
        if pa.types.is_floating(due) or pa.types.is_floating(array.type):
            # Arrow rounds a double to a float without a word.
            back = made.cast(array.type)
            differs = (back.to_numpy(zero_copy_only=False) != array.to_numpy(zero_copy_only=False)) & ~_nan(
                array
            )
            if differs.any():
                at = int(differs.argmax())
                raise BadRow(at, SizeMismatch, f"{path}: {array[at]} cannot be had as {due} without loss")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SizeMismatch(f"{path}: {array.type} does not fit into {due}: {error}") from None
    return made


def _nan(array: ArrowArray) -> NDArray[Any]:
    import numpy as np

    values = array.to_numpy(zero_copy_only=False)
    found: NDArray[Any] = np.not_equal(values, values)
    return found


class Number(Column):
    """An integer or IEEE 754 number of 1, 2, 4 or 8 bytes; ``kind`` as numpy writes it: "i", "u", "f"."""

    def __init__(self, kind: str, size: int, byteorder: ByteOrder) -> None:
        self.kind = kind
        self.size = size
        self._stored = f"{ORDER[byteorder]}{kind}{size}"
        self._native = f"={kind}{size}"

    def type(self) -> ArrowType:
        """int8 to int64, uint8 to uint64, float16 to float64."""
        import numpy as np

        pa = arrow()
        return pa.from_numpy_dtype(np.dtype(self._native))

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        numbers = self.numbers(rows)
        return pa.Array.from_buffers(self.type(), len(rows), [None, packed(numbers)])

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes integers and floats that are the same number in this type."""
        pa = arrow()
        array = without_nulls(array, path)
        types = pa.types
        if not (
            types.is_integer(array.type) or types.is_floating(array.type) or types.is_decimal(array.type)
        ):
            raise wrong_type(path, array.type, str(self.type()))
        made = cast(array, self.type(), path)
        viewed(rows, self._stored)[...] = made.to_numpy(zero_copy_only=False)

    def numbers(self, rows: Rows) -> NDArray[Any]:
        """The numbers in this host's byte order."""
        return viewed(rows, self._stored).astype(self._native)


class Moments(Column):
    """Nanoseconds of a kernel clock: moments in UTC.

    Exact, and modulo 2 to the 64: a number that is no time, all ones for "never", comes back as it was.
    """

    def __init__(self, number: Number, zero: int) -> None:
        self.size = number.size
        self._number = number
        self._zero = zero % (1 << 64)

    def type(self) -> ArrowType:
        """timestamp[ns, UTC]."""
        return arrow().timestamp("ns", "UTC")

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        pa = arrow()
        moments = self._number.numbers(rows) + np.uint64(self._zero)
        return pa.Array.from_buffers(self.type(), len(rows), [None, packed(moments)])

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes timestamps with a time zone, and integers as nanoseconds of the clock."""
        import numpy as np

        pa = arrow()
        array = without_nulls(array, path)
        if pa.types.is_integer(array.type):
            self._number.write(array, rows, path)
            return
        if not pa.types.is_timestamp(array.type) or array.type.tz is None:
            raise wrong_type(path, array.type, "a timestamp with a time zone")
        moments = cast(array, self.type(), path).cast(pa.int64()).to_numpy(zero_copy_only=False)
        self._number.write(pa.array(moments.view(np.uint64) - np.uint64(self._zero)), rows, path)


class Flag(Column):
    """A C bool: any byte but 0 is true, and true is written as 1."""

    exact = False

    def __init__(self, size: int, byteorder: ByteOrder) -> None:
        self.size = size
        self._lowest = 0 if byteorder == "little" else size - 1

    def weight(self) -> int:
        """As Column; more than text, of which a bool may only say that it is there."""
        return 1

    def type(self) -> ArrowType:
        """Arrow's bool."""
        pa = arrow()
        return pa.bool_()

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        return pa.array((rows != 0).any(axis=1))

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes bools alone."""
        pa = arrow()
        array = without_nulls(array, path)
        if not pa.types.is_boolean(array.type):
            raise wrong_type(path, array.type, "bool")
        rows[:, self._lowest] = array.to_numpy(zero_copy_only=False)
