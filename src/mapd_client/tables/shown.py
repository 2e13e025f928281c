"""Columns of what a codec makes of bytes: addresses, networks, names. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mapd_client.codec import Codec
from mapd_client.errors import Misuse, TypeMismatch
from mapd_client.facts_codecs import HostCodec
from mapd_client.tables.columns import Column, without_nulls
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow, compute
from mapd_client.tables.words import text
from mapd_client.typed.hints import Parsing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapd_client.tables.columns import Rows

_BYTE: Final = 256


class Words(Column):
    """What a codec decodes, as text. Each distinct element is decoded, or parsed, once for a batch."""

    def __init__(self, codec: Codec[Any]) -> None:
        self.codec = codec
        self.size = codec.size
        self._parse: Callable[[str], Any] = codec.parse if isinstance(codec, Parsing) else str

    def type(self) -> ArrowType:
        """String."""
        return arrow().string()

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        pa = arrow()
        flat: NDArray[np.void] = np.ascontiguousarray(rows).view(f"V{self.size}")[:, 0]
        distinct, places = np.unique(flat, return_inverse=True)
        words = [str(value) for value in self.codec.decode_many(distinct.tobytes())]
        return pa.array(words, pa.string()).take(pa.array(places))

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes text."""
        import numpy as np

        encoded = text(without_nulls(array, path), path).dictionary_encode()
        words: list[str] = encoded.dictionary.to_pylist()
        packed = b"".join(self._encoded(word, path) for word in words)
        distinct = np.frombuffer(packed, np.uint8).reshape(len(words), self.size)
        rows[...] = distinct[encoded.indices.to_numpy(zero_copy_only=False)]

    def _encoded(self, word: str, path: str) -> bytes:
        number = isinstance(self.codec, HostCodec) and word.isdecimal()  # no name is known of it
        try:
            data = self.codec.encode(int(word) if number else self._parse(word))
        except Misuse as error:
            raise TypeMismatch(f"{path}: {word!r} is no {self.codec!r}: {error}") from None
        if len(data) != self.size:
            raise TypeMismatch(f"{path}: {word!r} became {len(data)} bytes, {self.codec!r} has {self.size}")
        return data


class _Joined(Words):
    """Bytes written one by one with a character between them; nothing is decoded in Python."""

    _between: str
    _written: str
    """How a byte is written, as for format()."""

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        pa, pc = arrow(), compute()
        words = pa.array([format(byte, self._written) for byte in range(_BYTE)], pa.string())
        parts = [words.take(pa.array(np.ascontiguousarray(rows[:, at]))) for at in range(self.size)]
        return pc.binary_join_element_wise(*parts, self._between)


class Ipv4Words(_Joined):
    """IPv4 addresses, as "192.0.2.1"."""

    _between, _written = ".", "d"


class MacWords(_Joined):
    """MAC addresses, as "02:00:5e:10:00:01"."""

    _between, _written = ":", "02x"


def words_of(codec: Codec[Any]) -> Words:
    """The column of a codec whose values are written as text."""
    kinds: Mapping[str, type[Words]] = {"Ipv4": Ipv4Words, "Mac": MacWords}
    return kinds.get(repr(codec), Words)(codec)
