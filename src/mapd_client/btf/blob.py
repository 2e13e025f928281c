"""A blob of BTF as sections: its header, its strings, its type records as words. Sans-I/O.

Nothing here knows what a type is; every number is checked against the blob before it is followed.
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from typing import Final

from mapd_client.errors import TypeMismatch
from mapd_client.info import ByteOrder

MAGIC: Final = 0xEB9F
HEADER_BYTES: Final = 24
STRINGS_MAX: Final = 0x7FFF_FFFF
"""BTF_MAX_NAME_OFFSET of libbpf: offsets of split strings count on from the base's."""

_ORDERS: Final[dict[bytes, ByteOrder]] = {b"\x9f\xeb": "little", b"\xeb\x9f": "big"}
_PREFIXES: Final = {"little": "<", "big": ">"}

_TOLD: Final = 64
"""Characters of a name in a message."""


class BadBtf(TypeMismatch):
    """Bytes that are no BTF, or types that contradict themselves.

    Attributes:
        offset: of the wrong number or record, in bytes from the blob's beginning.
        number: what was found there, None where it is not one number.
    """

    offset: int
    number: int | None

    def __init__(self, message: str, *, offset: int = 0, number: int | None = None) -> None:
        super().__init__(message, metadata={"offset": str(offset), "number": str(number)})
        self.offset = offset
        self.number = number


def told(name: str) -> str:
    """A name for a message: its beginning, for a blob may give a type one of a megabyte of control characters."""
    return repr(name if len(name) <= _TOLD else f"{name[:_TOLD]}...")


@dataclass(frozen=True, slots=True)
class Blob:
    """The two sections of a blob.

    Attributes:
        data: the blob.
        byteorder: as its magic says.
        words: the type section; every field of every record is a u32.
        words_at: where that section begins, in bytes.
        strings_at: where the strings begin, in bytes.
        strings_len: their bytes.
    """

    data: bytes
    byteorder: ByteOrder
    words: array[int]
    words_at: int
    strings_at: int
    strings_len: int

    def string(self, at: int, record: int) -> str:
        """The string ``at`` bytes behind the strings' beginning, which ``record`` (a byte's offset) names.

        Raises:
            BadBtf: outside of the strings, or no UTF-8.
        """
        if at >= self.strings_len:
            raise BadBtf(
                f"BTF: the record at byte {record} has its name at {at} of the strings, which have"
                f" {self.strings_len} bytes",
                offset=record,
                number=at,
            )
        begin = self.strings_at + at
        # The strings end with a NUL, so there is one.
        raw = self.data[begin : self.data.index(0, begin)]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise BadBtf(
                f"BTF: the name {raw[:64]!r} at byte {begin} is no UTF-8", offset=begin, number=at
            ) from None

    def places(self, name: str) -> set[int]:
        """Every offset in the strings where ``name`` stands: a string's tail is a string too."""
        try:
            wanted = name.encode() + b"\0"
        except UnicodeEncodeError:
            return set()
        found: set[int] = set()
        if "\0" in name:
            return found
        end = self.strings_at + self.strings_len
        at = self.data.find(wanted, self.strings_at, end)
        while at >= 0:
            found.add(at - self.strings_at)
            at = self.data.find(wanted, at + 1, end)
        return found


def read_blob(data: bytes, *, split: bool) -> Blob:
    """The sections of ``data``; a ``split`` blob's strings count on from its base's.

    A header longer than 24 bytes is taken as libbpf takes it: what is added there says nothing of these sections.

    Raises:
        BadBtf: any number of the header that does not fit.
    """
    byteorder, fields = _header(data)
    header_len, type_off, type_len, str_off, str_len = fields
    words_at = header_len + type_off
    strings_at = header_len + str_off
    if type_off % 4 or type_len % 4:
        raise BadBtf(
            f"BTF: types at byte {words_at}, {type_len} bytes: both are multiples of 4",
            offset=8,
            number=type_off if type_off % 4 else type_len,
        )
    _within(data, "types", words_at, type_len, 8)
    _within(data, "strings", strings_at, str_len, 16)
    if type_len and str_len and words_at < strings_at + str_len and strings_at < words_at + type_len:
        raise BadBtf(
            f"BTF: types (bytes {words_at} to {words_at + type_len}) and strings ({strings_at} to"
            f" {strings_at + str_len}) overlap",
            offset=16,
            number=str_off,
        )
    _check_strings(data, strings_at, str_len, split)
    words = array("I")
    words.frombytes(data[words_at : words_at + type_len])
    if byteorder != sys.byteorder:
        words.byteswap()
    return Blob(data, byteorder, words, words_at, strings_at, str_len)


def _header(data: bytes) -> tuple[ByteOrder, tuple[int, int, int, int, int]]:
    if len(data) < HEADER_BYTES:
        raise BadBtf(f"BTF: {len(data)} bytes, a header has {HEADER_BYTES}", number=len(data))
    byteorder = _ORDERS.get(data[:2])
    if byteorder is None:
        raise BadBtf(
            f"BTF: the magic is {data[:2].hex()}, not 9feb (little endian) or eb9f (big endian)",
            number=int.from_bytes(data[:2], "little"),
        )
    version, flags, *lengths = struct.unpack_from(_PREFIXES[byteorder] + "BBIIIII", data, 2)
    if version != 1:
        raise BadBtf(f"BTF: version {version}, known is 1", offset=2, number=version)
    if flags:
        raise BadBtf(f"BTF: flags {flags:#x} in the header, known is 0", offset=3, number=flags)
    header_len, type_off, type_len, str_off, str_len = lengths
    if not HEADER_BYTES <= header_len <= len(data):
        raise BadBtf(
            f"BTF: a header of {header_len} bytes: it has {HEADER_BYTES} or more, the blob {len(data)}",
            offset=4,
            number=header_len,
        )
    return byteorder, (header_len, type_off, type_len, str_off, str_len)


def _within(data: bytes, what: str, at: int, size: int, field: int) -> None:
    if at + size > len(data):
        raise BadBtf(
            f"BTF: {what} at bytes {at} to {at + size}, the blob has {len(data)}; it was cut off, or is none",
            offset=field,
            number=at + size,
        )


def _check_strings(data: bytes, at: int, size: int, split: bool) -> None:
    if size == 0:
        if split:
            return
        raise BadBtf("BTF: no strings; even a blob without names has the empty one", offset=20, number=0)
    if data[at + size - 1]:
        raise BadBtf(
            f"BTF: the strings end at byte {at + size} without a NUL",
            offset=at + size - 1,
            number=data[at + size - 1],
        )
    if not split and data[at]:
        raise BadBtf(f"BTF: the first string, at byte {at}, is not empty", offset=at, number=data[at])
