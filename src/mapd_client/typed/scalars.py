"""Codecs of what a field can be besides a record: numbers, names of numbers, text. Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_client.codec import ORDER, Buffer, Bytes, Codec, Int, shown
from mapd_client.errors import SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Boolean, Enumeration, Float, Integer, Layout, Opaque, Order, Pointer, Text
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed.naming import nearest

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_LETTERS: Final[Mapping[int, str]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FLOATS: Final[Mapping[int, str]] = {2: "e", 4: "f", 8: "d"}
INT_SIZES: Final = frozenset({1, 2, 4, 8})
"""Bytes of the integers that the struct module knows."""


def resolved(order: Order, byteorder: ByteOrder) -> ByteOrder:
    """The byte order of a number on a daemon's host of that byte order."""
    return byteorder if order == "host" else order


class _Scalar(Codec[Any]):
    """A codec with the layout that it was made from, which numpy's types are made from as well."""

    layout: Layout
    _byteorder: ByteOrder = "little"

    @property
    def dtype(self) -> DTypeLike | None:
        return dtype_of_layout(self.layout, self._byteorder)


class Ordered(Int):
    """An integer in a byte order that its type fixes (``__be32``), whatever the host's."""

    def __init__(self, layout: Integer | Pointer, byteorder: ByteOrder) -> None:
        super().__init__(
            layout.size, signed=isinstance(layout, Integer) and layout.signed, byteorder=byteorder
        )
        self.layout = layout
        self.byteorder: ByteOrder = byteorder

    def __repr__(self) -> str:
        return self.layout.type_name or f"{'be' if self.byteorder == 'big' else 'le'}{8 * self.size}"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[int]:
        """Itself: the host's byte order is not asked."""
        del byteorder, possible_cpus
        return self


class Wide(_Scalar):
    """An integer of a size that the struct module has no letter for: ``__int128``."""

    def __init__(self, layout: Integer | Pointer, byteorder: ByteOrder) -> None:
        self.layout = layout
        self.size = layout.size
        self._signed = isinstance(layout, Integer) and layout.signed
        self._byteorder: ByteOrder = resolved(layout.order, byteorder)

    def __repr__(self) -> str:
        return self.layout.type_name or f"{'I' if self._signed else 'U'}{8 * self.size}"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        del possible_cpus
        return Wide(self.layout, byteorder)  # type: ignore[arg-type]  # as it was made

    def encode(self, value: int) -> bytes:
        """Raises SizeMismatch for a number that does not fit."""
        if not hasattr(value, "__index__"):
            raise TypeMismatch(f"{self!r} takes an int, not {type(value).__name__}")
        try:
            return int(value).to_bytes(self.size, self._byteorder, signed=self._signed)
        except OverflowError:
            raise SizeMismatch(f"{shown(value)} is outside {self!r} of {self.size} bytes") from None

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return [
            int.from_bytes(data, self._byteorder, signed=self._signed)
            for (data,) in struct.iter_unpack(f"{self.size}s", self._whole(column))
        ]


class Bool(_Scalar):
    """A C bool; any byte but 0 reads as True, and True is written as 1."""

    def __init__(self, layout: Boolean, byteorder: ByteOrder) -> None:
        self.layout = layout
        self.size = layout.size
        self._byteorder: ByteOrder = resolved(layout.order, byteorder)
        self._true = (1).to_bytes(layout.size, self._byteorder)

    def __repr__(self) -> str:
        return self.layout.type_name or "bool"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        del possible_cpus
        return Bool(self.layout, byteorder)  # type: ignore[arg-type]  # as it was made

    def encode(self, value: Any) -> bytes:
        """True, False, 1 or 0."""
        if not isinstance(value, int) or value not in (0, 1):
            raise TypeMismatch(f"{self!r} takes True or False")
        return self._true if value else bytes(self.size)

    def decode(self, data: Buffer) -> bool:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} reads {self.size} bytes, not {len(data)}")
        return any(data)

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return [any(data) for (data,) in struct.iter_unpack(f"{self.size}s", self._whole(column))]


class Real(_Scalar):
    """A floating-point number of 2, 4 or 8 bytes."""

    def __init__(self, layout: Float, byteorder: ByteOrder) -> None:
        self.layout = layout
        self.size = layout.size
        self._byteorder = byteorder
        self.byteorder: ByteOrder = resolved(layout.order, byteorder)
        self._one = struct.Struct(ORDER[self.byteorder] + _FLOATS[layout.size])

    def __repr__(self) -> str:
        return self.layout.type_name or f"F{8 * self.size}"

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        del possible_cpus
        return Real(self.layout, byteorder)  # type: ignore[arg-type]  # as it was made

    def encode(self, value: float) -> bytes:
        """Raises SizeMismatch for a number that the format does not reach."""
        try:
            return self._one.pack(value)
        except struct.error:
            raise TypeMismatch(f"{self!r} takes a float, not {type(value).__name__}") from None
        except OverflowError:
            raise SizeMismatch(f"{shown(value)} is too large for {self!r} of {self.size} bytes") from None

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return [number for (number,) in self._one.iter_unpack(self._whole(column))]


class Named(_Scalar):
    """An enum: the name of its value where it has one (the first that was declared), else the number.

    Takes either.
    """

    def __init__(self, layout: Enumeration, byteorder: ByteOrder) -> None:
        self.layout = layout
        self.size = layout.size
        self._byteorder = byteorder
        number = Integer(size=layout.size, signed=layout.signed, order=layout.order)
        self._number = number_codec(number, byteorder)
        self.names: dict[int, str] = {}
        for name, value in layout.members:
            self.names.setdefault(value, name)
        self.values: dict[str, int] = {}
        for name, value in layout.members:
            self.values.setdefault(name, value)

    def __repr__(self) -> str:
        return f"enum {self.layout.type_name}".rstrip()

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        del possible_cpus
        return Named(self.layout, byteorder)  # type: ignore[arg-type]  # as it was made

    def number(self, value: str | int) -> int:
        """What is written for a name or a number."""
        if isinstance(value, str):
            if value not in self.values:
                raise TypeMismatch(f"{value!r} is no name of {self!r}: {nearest(value, self.values)}")
            return self.values[value]
        if not hasattr(value, "__index__"):
            raise TypeMismatch(f"{self!r} takes a name or an int, not {type(value).__name__}")
        return value

    def encode(self, value: str | int) -> bytes:
        """Raises TypeMismatch for a name that it has not."""
        return self._number.encode(self.number(value))

    def decode(self, data: Buffer) -> str | int:
        """As Codec.decode."""
        number: int = self._number.decode(data)
        return self.names.get(number, number)

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        get = self.names.get
        return [get(number, number) for number in self._number.decode_many(column)]


class Chars(_Scalar):
    """An array of char: str up to the first NUL, or bytes where that would not be all that is there.

    Takes str (UTF-8; NULs follow) and bytes.
    """

    def __init__(self, layout: Text) -> None:
        self.layout = layout
        self.size = layout.size

    def __repr__(self) -> str:
        return f"char[{self.size}]"

    def encode(self, value: Any) -> bytes:
        """Raises SizeMismatch for what is too long."""
        if isinstance(value, str):
            if "\0" in value:
                raise TypeMismatch(f"{self!r} takes a str without NULs; give bytes for what lies behind one")
            try:
                data = value.encode("utf-8", "surrogateescape")
            except UnicodeEncodeError as error:
                raise TypeMismatch(f"{self!r} takes text that UTF-8 can express: {error.reason}") from None
        elif isinstance(value, (bytes, bytearray, memoryview)):
            data = bytes(cast("Buffer", value))
        else:
            raise TypeMismatch(f"{self!r} takes str or bytes, not {type(value).__name__}")
        if len(data) > self.size:
            raise SizeMismatch(f"{len(data)} bytes, at most {self.size} fit {self!r}")
        return data.ljust(self.size, b"\0")

    def decode(self, data: Buffer) -> str | bytes:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} reads {self.size} bytes, not {len(data)}")
        raw = bytes(data)
        text = raw.rstrip(b"\0")
        # What is decoded this way always encodes to the same bytes again.
        return raw if b"\0" in text else text.decode("utf-8", "surrogateescape")

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return [self.decode(data) for (data,) in struct.iter_unpack(f"{self.size}s", self._whole(column))]


class Raw(Bytes):
    """Bytes that nothing is known of."""

    def __init__(self, layout: Opaque) -> None:
        super().__init__(layout.size)
        self.layout = layout


def number_codec(layout: Integer | Pointer, byteorder: ByteOrder) -> Codec[int]:
    """The codec of an integer: this library's own, which atomics, sums and arrays know, where there is one."""
    if layout.size not in INT_SIZES:
        return Wide(layout, byteorder)
    if layout.order != "host":
        return Ordered(layout, layout.order)
    signed = isinstance(layout, Integer) and layout.signed
    return Int(layout.size, signed=signed, byteorder=byteorder)


def scalar_codec(layout: Layout, byteorder: ByteOrder) -> Codec[Any] | None:
    """The codec of what is neither a record nor an array nor the kernel's; None for those."""
    if isinstance(layout, (Integer, Pointer)):
        return number_codec(layout, byteorder)
    if isinstance(layout, Boolean):
        return Bool(layout, byteorder)
    if isinstance(layout, Float):
        return Real(layout, byteorder) if layout.size in _FLOATS else Raw(Opaque(size=layout.size))
    if isinstance(layout, Enumeration):
        return Named(layout, byteorder)
    if isinstance(layout, Text):
        return Chars(layout)
    return Raw(layout) if isinstance(layout, Opaque) else None


def letter_of(codec: Codec[Any], byteorder: ByteOrder) -> str | None:
    """The struct module's letter for a number of this byte order; None for all else."""
    if isinstance(codec, Int) and (codec.size == 1 or str(codec.dtype).startswith(ORDER[byteorder])):
        letter = _LETTERS[codec.size]
        return letter.lower() if codec.signed else letter
    if isinstance(codec, Real) and codec.byteorder == byteorder:
        return _FLOATS[codec.size]
    return None


Reader = Callable[[bytes], Any]


def reader(codec: Codec[Any], layout: Layout, byteorder: ByteOrder, offset: int) -> Reader:
    """A function that reads a field of a record's bytes."""
    if isinstance(codec, Int) and isinstance(layout, (Integer, Pointer)):
        signed = isinstance(layout, Integer) and layout.signed
        letter = _LETTERS[codec.size]
        order = ORDER[resolved(layout.order, byteorder)]
        unpack = struct.Struct(order + (letter.lower() if signed else letter)).unpack_from
        return lambda data: unpack(data, offset)[0]
    decode, end = codec.decode, offset + codec.size
    return lambda data: decode(data[offset:end])
