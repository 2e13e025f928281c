"""A layout as numpy describes it: every byte at its place, without numpy. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mapd_client.codec import ORDER
from mapd_client.errors import TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Order,
    Pointer,
    Record,
    Special,
    Text,
)

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

NUMBERS: Final = frozenset({1, 2, 4, 8})
"""Bytes of the integers that numpy has; wider ones are bytes."""

FLOATS: Final = frozenset({2, 4, 8})


def order_of(order: Order, byteorder: ByteOrder) -> ByteOrder:
    """The byte order of a number on a host of that byte order."""
    return byteorder if order == "host" else order


@dataclass(frozen=True, slots=True)
class Storage:
    """Bit-fields that follow each other without a gap of a whole byte, and the bytes that they lie in.

    Attributes:
        offset: of the first byte, from the record's beginning.
        size: bytes.
        members: the bit-fields.
    """

    offset: int
    size: int
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """What an array calls it: ``a:3+b:5``, which is no name that a field in C may have."""
        return "+".join(f"{member.name}:{member.bits}" for member in self.members)


def units(record: Record) -> Sequence[Member | Storage]:
    """A record's members as memory has them: bit-fields by the bytes they share; without those that have no name.

    Raises:
        TypeMismatch: two members of one name.
    """
    found: list[Member | Storage] = []
    seen: set[str] = set()
    for member in record.named():
        if not member.name:
            continue
        if member.name in seen:
            raise TypeMismatch(
                f"{record.type_name or 'a record'}: two fields are called {member.name!r}; no array can tell them apart"
            )
        seen.add(member.name)
        if member.bits is None:
            found.append(member)
            continue
        first, end = member.bit_offset // 8, (member.bit_offset + member.bits + 7) // 8
        last = found[-1] if found else None
        if isinstance(last, Storage) and first <= last.offset + last.size and end >= last.offset:
            begin, over = min(first, last.offset), max(end, last.offset + last.size)
            found[-1] = Storage(begin, over - begin, (*last.members, member))
        else:
            found.append(Storage(first, end - first, (member,)))
    return found


def dtype_of_layout(layout: Layout, byteorder: ByteOrder) -> DTypeLike:
    """What ``numpy.dtype()`` takes for one element of a layout; its itemsize is ``layout.size``.

    A record has its fields by name, at their offsets, those of anonymous records in their place; members of a union
    lie over each other; bytes between fields stay. An enumeration is its integer, a bool of one byte numpy's, a wider
    one the integer that it lies in. Text is "S", which ends before trailing NULs. Bytes of which nothing is known, and
    integers of 16 bytes, are "V". Bit-fields that share bytes are one field of those bytes ("u1" rows), with a name
    made of theirs: ``a:3+b:5``. Special fields are left out.

    Args:
        layout: of a key, of a value, of one CPU's slot.
        byteorder: of the daemon's host.
    """
    match layout:
        case Integer(size=size, signed=signed) | Enumeration(size=size, signed=signed) if size in NUMBERS:
            return f"{ORDER[order_of(layout.order, byteorder)]}{'i' if signed else 'u'}{size}"
        case Pointer(size=size) if size in NUMBERS:
            return f"{ORDER[order_of(layout.order, byteorder)]}u{size}"
        case Boolean(size=1):
            return "?"
        case Boolean(size=size) if size in NUMBERS:
            return f"{ORDER[order_of(layout.order, byteorder)]}u{size}"
        case Float(size=size) if size in FLOATS:
            return f"{ORDER[order_of(layout.order, byteorder)]}f{size}"
        case Text(size=size):
            return f"S{size}" if size else "V0"
        case Array():
            shape: list[int] = []
            inner: Layout = layout
            while isinstance(inner, Array):
                shape.append(inner.count)
                inner = inner.element
            return (dtype_of_layout(inner, byteorder), tuple(shape))
        case Record():
            return _record(layout, byteorder)
        case Integer() | Enumeration() | Pointer() | Boolean() | Float() | Special() | Opaque():
            return f"V{layout.size}"


def _record(record: Record, byteorder: ByteOrder) -> DTypeLike:
    fields = list(_fields(record, byteorder))
    if not fields:
        return f"V{record.size}"
    names, offsets, formats = zip(*fields, strict=True)
    return {"names": names, "formats": formats, "offsets": offsets, "itemsize": record.size}


def _fields(record: Record, byteorder: ByteOrder) -> Iterator[tuple[str, int, DTypeLike]]:
    for unit in units(record):
        if isinstance(unit, Storage):
            yield unit.name, unit.offset, ("u1", (unit.size,))
        elif not isinstance(unit.layout, Special):
            yield unit.name, unit.offset, dtype_of_layout(unit.layout, byteorder)
