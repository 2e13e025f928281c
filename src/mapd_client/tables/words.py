"""Columns of words: names of numbers, char arrays. Sans-I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mapd_client.errors import SizeMismatch, TypeMismatch
from mapd_client.tables.columns import BadRow, Column, Number, without_nulls, wrong_type
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow, compute
from mapd_client.typed.naming import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapd_client.tables.columns import Rows

MOST_UNNAMED: Final = 65_536
"""Numbers without a name that one column of an enum has room for: each is a word in the column's dictionary."""


class Enum(Column):
    """An enumeration: a dictionary of its names. A number without one is its digits, as "17".

    The dictionary begins with the names and only grows, so that a file of many batches has one.
    """

    def __init__(self, number: Number, members: Sequence[tuple[str, int]]) -> None:
        self.size = number.size
        self._number = number
        self._codes: dict[int, int] = {}
        """Places in the dictionary by value; of two names of one value the first is used."""
        self._words: list[str] = []
        self._values: dict[str, int] = {}
        bits = 8 * number.size
        for name, value in members:
            here = value % (1 << bits)
            if number.kind == "i" and here >> (bits - 1):
                here -= 1 << bits
            self._values.setdefault(name, here)
            if here not in self._codes:
                self._codes[here] = len(self._words)
                self._words.append(name)
        self._named = len(self._words)
        self._written_out = False

    def write_out(self) -> None:
        """From now on make text, where there can be no dictionary."""
        self._written_out = True

    def type(self) -> ArrowType:
        """dictionary<int32, string>; string where it is written out."""
        pa = arrow()
        return pa.string() if self._written_out else pa.dictionary(pa.int32(), pa.string())

    def read(self, rows: Rows) -> ArrowArray:
        """As Column; raises TypeMismatch for more than 65,536 numbers without a name."""
        import numpy as np

        pa = arrow()
        distinct, places = np.unique(self._number.numbers(rows), return_inverse=True)
        codes = np.array([self._code(number) for number in distinct.tolist()], np.int32)
        indices = codes[places] if len(codes) else codes
        found = pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(self._words, pa.string()))
        return found.dictionary_decode() if self._written_out else found

    def _code(self, number: int) -> int:
        code = self._codes.get(number)
        if code is None:
            if len(self._words) - self._named >= MOST_UNNAMED:
                raise TypeMismatch(
                    f"an enum of {self._named} names has more than {MOST_UNNAMED} values without one: read it as a "
                    'number, hints={"value.field": U32}'
                )
            code = self._codes[number] = len(self._words)
            self._words.append(str(number))
        return code

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes names, digits, and columns of integers."""
        import numpy as np

        pa = arrow()
        array = without_nulls(array, path)
        if pa.types.is_integer(array.type):
            self._number.write(array, rows, path)
            return
        encoded = text(array, path).dictionary_encode()
        words: list[str] = encoded.dictionary.to_pylist()
        values = np.array([self._value(word, path) for word in words], f"={self._number.kind}{self.size}")
        chosen = values[encoded.indices.to_numpy(zero_copy_only=False)] if len(values) else values
        self._number.write(pa.array(chosen), rows, path)

    def _value(self, word: str, path: str) -> int:
        if word in self._values:
            return self._values[word]
        try:
            number = int(word)
        except ValueError:
            raise TypeMismatch(
                f"{path}: {word!r} is no name of this enum: {nearest(word, self._values)}"
            ) from None
        bits = 8 * self.size
        low, high = (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if self._number.kind == "i" else (0, (1 << bits) - 1)
        )
        if not low <= number <= high:
            raise SizeMismatch(f"{path}: {word} is outside an enum of {self.size} bytes: {low} to {high}")
        return number


_ESCAPE: Final = re.compile(rb"\\x([0-9a-f]{2})")
_BACKSLASH: Final = re.compile(rb"\\(?=x[0-9a-f]{2})")


def _byte(escape: re.Match[bytes]) -> bytes:
    return bytes([int(escape[1], 16)])


def _has_escapes(array: ArrowArray) -> bool:
    pc = compute()
    found: bool | None = pc.any(pc.match_substring(array, pattern="\\x")).as_py()
    return bool(found)


class Chars(Column):
    r"""An array of char: a string up to its first NUL.

    Bytes that are no UTF-8 are written out as ``\xff``, and a backslash that begins what looks like that as ``\x5c``;
    so written they are read too. What lies behind the NUL is not told: who needs it reads the field as bytes,
    ``hints={"value.comm": Bytes(16)}``.
    """

    exact = False

    def __init__(self, size: int) -> None:
        self.size = size

    def type(self) -> ArrowType:
        """String."""
        return arrow().string()

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        pa = arrow()
        ended = rows == 0
        lengths = np.where(ended.any(axis=1), ended.argmax(axis=1), self.size)
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        data = rows[np.arange(self.size)[None, :] < lengths[:, None]]
        buffers = [None, pa.py_buffer(offsets.data), pa.py_buffer(data.data)]
        found = pa.Array.from_buffers(pa.binary(), len(rows), buffers)
        try:
            if not _has_escapes(found):
                return found.cast(pa.string())
        except pa.ArrowInvalid:  # some of it is no UTF-8
            pass
        words: list[bytes] = found.to_pylist()  # only then one by one
        shown = [_BACKSLASH.sub(rb"\\x5c", word).decode(errors="backslashreplace") for word in words]
        return pa.array(shown, pa.string())

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes text and binary columns of at most ``size`` bytes without NULs."""
        import numpy as np

        pa, pc = arrow(), compute()
        array = without_nulls(array, path)
        types = pa.types
        binary = (
            types.is_binary(array.type)
            or types.is_large_binary(array.type)
            or types.is_binary_view(array.type)
        )
        array = (array if binary else text(array, path)).cast(pa.large_binary())
        if not binary and _has_escapes(array):
            given: list[bytes] = array.to_pylist()
            array = pa.array([_ESCAPE.sub(_byte, word) for word in given], pa.large_binary())
        lengths: NDArray[Any] = pc.binary_length(array).to_numpy(zero_copy_only=False)
        long = lengths > self.size
        if long.any():
            at = int(long.argmax())
            raise BadRow(at, SizeMismatch, f"{path}: {lengths[at]} bytes of text, at most {self.size} fit")
        cut = pc.match_substring(array, pattern="\0").to_numpy(zero_copy_only=False)
        if cut.any():
            raise BadRow(int(cut.argmax()), TypeMismatch, f"{path}: text with a NUL, where C's strings end")
        data = array.buffers()[2]
        if not len(array) or data is None:
            return
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        flat = np.frombuffer(data, np.uint8)[int(offsets[0]) : int(offsets[-1])]
        rows[np.arange(self.size)[None, :] < lengths[:, None]] = flat


def text(array: ArrowArray, path: str) -> ArrowArray:
    """A column of text as large_string; raises TypeMismatch for another kind."""
    pa = arrow()
    types = pa.types
    given = array.type
    if types.is_string(given) or types.is_large_string(given) or types.is_string_view(given):
        return array.cast(pa.large_string())
    raise wrong_type(path, given, "text")
