"""Fields of values, for atomics: where they are, and their integers as bytes. Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from mapd_client.codec import ORDER, Codec, Int, shown
from mapd_client.errors import Misuse, NoTypeInfo, SizeMismatch, TypeMismatch
from mapd_client.failures import Asked
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.layouts import Enumeration, Integer, Layout, Pointer, Special
from mapd_client.typed.paths import Part, find, kind

T = TypeVar("T")

SIZES: Final = (4, 8)
"""Bytes that a CPU changes in one instruction."""


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a value that atomics work on: an integer in the byte order of the daemon's host.

    Attributes:
        offset: bytes from the value's beginning; a multiple of ``size``.
        size: 4 or 8 bytes.
        signed: how its old value is read; what is added or compared is the same either way.

    Raises:
        Misuse: an offset or a size that no atomic has.
    """

    offset: int
    size: int
    signed: bool = False

    def __post_init__(self) -> None:
        for what in ("offset", "size"):
            given: object = getattr(self, what)  # as a caller without a type checker may pass it
            if not isinstance(given, int):
                raise TypeMismatch(f"Field: {what}={given!r}: an int, not {type(given).__name__}")
        if self.size not in SIZES:
            raise Misuse(f"Field: size={shown(self.size)}; a CPU changes 4 or 8 bytes at once")
        if self.offset < 0 or self.offset % self.size:
            raise Misuse(
                f"Field: offset={shown(self.offset)}; it is a multiple of size={self.size}, from 0 on"
            )


@dataclass(frozen=True, slots=True)
class Exchanged(Generic[T]):
    """What became of a ``compare_exchange``.

    Attributes:
        exchanged: whether the field, or the value, was as expected, and is the new one now.
        old: what it was.
    """

    exchanged: bool
    old: T


class Operand(Int):
    """An integer that goes into a field, whether signed or not: -5 and 2**64 - 5 are the same 8 bytes."""

    def __init__(self, size: int, byteorder: ByteOrder) -> None:
        super().__init__(size, signed=False, byteorder=byteorder)
        self._low, self._end = -(1 << 8 * size - 1), 1 << 8 * size

    def __repr__(self) -> str:
        return f"a field of {self.size} bytes"

    def encode(self, value: int) -> bytes:  # noqa: D102 - as Codec
        if not hasattr(value, "__index__"):
            raise TypeMismatch(f"{self!r} takes an int, not {type(value).__name__}")
        if not self._low <= value < self._end:
            raise SizeMismatch(f"{shown(value)} does not fit {self!r}: {self._low} to {self._end - 1} do")
        return self._one.pack(int(value) % self._end)

    def encode_many(self, values: Iterable[int]) -> bytes:  # noqa: D102 - as Codec
        numbers = values if isinstance(values, (list, tuple)) else list(values)
        try:
            return struct.pack(f"{ORDER[self._byteorder]}{len(numbers)}{self._letter}", *numbers)
        except struct.error:
            return b"".join(map(self.encode, numbers))


@dataclass(frozen=True, slots=True)
class Place:
    """A field of one map's values, ready to be asked for.

    Attributes:
        field: which part.
        operand: codec of what goes there.
        old: codec of what was there.
    """

    field: Field
    operand: Codec[int]
    old: Codec[int]

    @property
    def part(self) -> tuple[int, int]:
        """Offset and size, as they are sent."""
        return self.field.offset, self.field.size


def place(
    field: Field | str | None,
    value: Codec[Any],
    info: MapInfo,
    byteorder: ByteOrder,
    asked: Asked,
    *,
    adds: bool = True,
) -> Place:
    """The part of a map's values that a call means; None stands for the whole, where that is one integer.

    Args:
        field: a path of names in a map whose types are known, ``stats.packets`` or ``hist[3]``, or a Field.
        value: the map's value codec.
        info: of the map.
        byteorder: of the daemon's host.
        asked: the call, for messages.
        adds: it is a fetch_add, which needs the host's own byte order; other operations are done on bytes.

    Raises:
        Misuse: the whole value is no integer of 4 or 8 bytes, or the field leaves it; no such name, or one that no
            instruction can change.
        NoTypeInfo: a name, and the map's types are not known.
        TypeMismatch: no field.
    """
    layout: Layout | None = getattr(value, "layout", None)
    if layout is not None and (field is None or isinstance(field, str)):
        try:
            return _named(field or "", layout, byteorder, adds=adds)
        except Misuse as error:
            what = "the whole value" if field is None else f"field={field!r}"
            text = f"{asked}: {what}: {error}"
            raise type(error)(text, operation=asked.operation, map=asked.map) from None
    if field is None:
        if not isinstance(value, Int) or value.size not in SIZES:
            raise Misuse(
                f"{asked}: the values ({value!r}, {info.value_size} bytes) are no integer of 4 or 8 bytes: say which "
                "part of them, field=Field(offset, size)",
                operation=asked.operation,
                map=asked.map,
            )
        return Place(Field(0, value.size), Operand(value.size, byteorder), value)
    if isinstance(field, str):
        raise NoTypeInfo(
            f"{asked}: field={field!r}: this map was opened without the names of its fields; open it by them, "
            "(await m.typed()), or say where it is, field=Field(offset, size)",
            operation=asked.operation,
            map=asked.map,
        )
    given = cast("object", field)  # as a caller without a type checker may pass it
    if not isinstance(given, Field):
        raise TypeMismatch(f"{asked}: field={given!r}: a Field, not {type(given).__name__}")
    if field.offset + field.size > info.value_size:
        raise Misuse(
            f"{asked}: {field} ends at byte {field.offset + field.size}; the map's values have {info.value_size}",
            operation=asked.operation,
            map=asked.map,
        )
    old = Int(field.size, signed=field.signed, byteorder=byteorder)
    return Place(field, Operand(field.size, byteorder), old)


def _named(path: str, layout: Layout, byteorder: ByteOrder, *, adds: bool) -> Place:
    """A field by its path; raises Misuse for one that no instruction changes."""
    part = find(layout, path)
    number = part.layout
    reason = _unfit(part)
    if reason is not None:
        raise Misuse(reason)
    assert isinstance(number, (Integer, Pointer, Enumeration))  # all others are unfit
    order = byteorder if number.order == "host" else number.order
    if adds and order != byteorder:
        raise Misuse(
            f"it is {kind(number)}, whose bytes are {order}-endian, and the daemon's host adds as a {byteorder}-endian "
            "one: the carry would go the wrong way. Read it and use compare_exchange"
        )
    signed = not isinstance(number, Pointer) and number.signed
    return Place(
        Field(part.offset, number.size, signed),
        Operand(number.size, order),
        Int(number.size, signed=signed, byteorder=order),
    )


def _unfit(part: Part) -> str | None:
    """Why no instruction changes a part of a value by itself; None where one does."""
    number = part.layout
    if part.bits is not None:
        return f"it is a bit-field of {part.bits} bits; no instruction changes those alone"
    if isinstance(number, Special):
        return f"it is {kind(number)}, which belongs to the kernel"
    if not isinstance(number, (Integer, Pointer, Enumeration)):
        return f"it is {kind(number)}, no integer; name one inside it, or give field=Field(offset, size)"
    if number.size not in SIZES:
        return f"it is {kind(number)} of {number.size} bytes; a CPU changes 4 or 8 at once"
    if part.offset % number.size:
        return f"it lies at byte {part.offset}, not at a multiple of its {number.size} bytes"
    return None
