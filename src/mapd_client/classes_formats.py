"""Layouts of struct formats and of codecs, and where C would place them. Sans-I/O."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final, cast

from mapd_client.codec import Codec, Int
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import (
    Array,
    Boolean,
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
from mapd_client.netcodec import Cidr4, Cidr6, Ipv4, Ipv6, Mac
from mapd_client.percpu import of_one_cpu
from mapd_client.structcodec import Struct

_ORDERS: Final[dict[str, Order]] = {"<": "little", ">": "big", "!": "big", "=": "host", "@": "host"}
_SIGNED: Final = "bhilqn"
_FLOATS: Final = {"e": "_Float16", "f": "float", "d": "double"}
_WIDEST: Final = 16


@dataclass(frozen=True, slots=True)
class Placed:
    """A layout, and the multiple of bytes at which C places it."""

    layout: Layout
    align: int


def natural(end: int, align: int) -> int:
    """The first multiple of ``align`` that is not below ``end``."""
    return -(-end // align) * align


def placed(layout: Layout) -> Placed:
    """A layout with its natural alignment.

    A record is aligned as its widest member, or not at all if one of its members is not.
    """
    return Placed(layout, _alignment(layout))


def _alignment(layout: Layout) -> int:
    match layout:
        case Array():
            return _alignment(layout.element)
        case Text() | Opaque():
            return 1
        case Record():
            widest = 1
            for member in layout.members:
                align = _alignment(member.layout)
                start = member.bit_offset // 8 // align * align if member.bits is not None else member.offset
                if start % align:
                    return 1
                widest = max(widest, align)
            return 1 if layout.size % widest else widest
        case Special():
            return 4 if layout.size % 8 else 8
        case _:
            return min(layout.size, _WIDEST)


def integer(size: int, *, signed: bool, order: Order = "host") -> Integer:
    """An integer by the kernel's name for it: ``__u32``, ``__be16``."""
    if order == "host" or size == 1:
        return Integer(size=size, signed=signed, type_name=f"__{'s' if signed else 'u'}{8 * size}")
    return Integer(
        size=size, signed=signed, order=order, type_name=f"__{'be' if order == 'big' else 'le'}{8 * size}"
    )


_U8: Final = integer(1, signed=False)
_NETWORK: Final[dict[int, Layout]] = {
    # By identity: each of these codecs is one object.
    id(Ipv4): integer(4, signed=False, order="big"),
    id(Ipv6): Array(element=_U8, count=16),
    id(Mac): Array(element=_U8, count=6),
}


def prefix(address_bytes: int) -> Record:
    """The struct bpf_lpm_trie_key_u8: what the kernel wants the keys of an LPM trie to be."""
    return Record(
        size=4 + address_bytes,
        members=(
            Member(name="prefixlen", offset=0, layout=integer(4, signed=False)),
            Member(name="data", offset=4, layout=Array(element=_U8, count=address_bytes), bit_offset=32),
        ),
        type_name="bpf_lpm_trie_key_u8",
    )


def layout_of_codec(codec: Codec[Any]) -> Layout:
    """What a codec encodes to; opaque bytes for one of somebody's own that does not say it."""
    said = getattr(codec, "layout", None)
    if said is not None:
        return cast("Layout", said)
    slot = of_one_cpu(codec)
    if slot is not None:
        return layout_of_codec(slot)
    if id(codec) in _NETWORK:
        return _NETWORK[id(codec)]
    if isinstance(codec, (type(Cidr4), type(Cidr6))):
        return prefix(codec.size - 4)
    if isinstance(codec, Int):
        return integer(codec.size, signed=codec.signed)
    if isinstance(codec, Struct):
        return layout_of_format(codec.format)
    return Opaque(size=codec.size)


def layout_of_format(format: str) -> Layout:
    """A struct of the format's fields, f0, f1 ...; the field itself where there is one and no padding.

    Raises:
        TypeMismatch: no format of the struct module.
    """
    try:
        size = struct.calcsize(format)
    except struct.error as error:
        raise TypeMismatch(f"{format!r} is no struct format: {error}") from None
    mode = format[:1] if format[:1] in _ORDERS else "@"
    members: list[Member] = []
    for token in re.finditer(r"([0-9]*)([a-zA-Z?])", format):
        number, letter = int(token[1] or 1), token[2]
        if letter == "x":
            continue
        end = struct.calcsize(format[: token.end()])
        if letter in "sp":
            layout: Layout = Text(size=number) if letter == "s" else Opaque(size=number)
            offsets = range(end - number, end - number + 1)
        else:
            layout = _field(letter, struct.calcsize(mode + letter), _ORDERS[mode])
            offsets = range(end - number * layout.size, end, layout.size)
        members += [
            Member(name=f"f{at}", offset=offset, layout=layout, bit_offset=8 * offset)
            for at, offset in enumerate(offsets, len(members))
        ]
    if len(members) == 1 and members[0].layout.size == size:
        return members[0].layout
    return Record(size=size, members=tuple(members))


def _field(letter: str, size: int, order: Order) -> Layout:
    if letter == "?":
        return Boolean(size=size, type_name="_Bool")
    if letter == "c":
        return Integer(size=1, signed=True, type_name="char")
    if letter == "P":
        return Pointer(size=size)
    if letter in _FLOATS:
        return Float(size=size, order=order, type_name=_FLOATS[letter])
    return integer(size, signed=letter in _SIGNED, order=order)
