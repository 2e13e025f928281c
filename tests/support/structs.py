"""Layouts as C lays them out, and bytes for them: strategies that generate whatever a map may hold.

``layouts(host)`` and ``records(host)`` generate for hosts of one byte order; ``images`` the bytes of one such value.
What the kernel or bpftool does not take is left out by ``Wanted``, and each exclusion says there why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Final

from hypothesis import strategies as st

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

_WIDEST: Final = 8
"""Largest alignment of what is generated; 16-byte integers have 16."""

_C_INTS: Final = {
    (1, False): ("unsigned char", "__u8", "u8"),
    (1, True): ("signed char", "__s8"),
    (2, False): ("unsigned short", "__u16"),
    (2, True): ("short", "__s16"),
    (4, False): ("unsigned int", "__u32", "pid_t_"),
    (4, True): ("int", "__s32"),
    (8, False): ("unsigned long long", "__u64", "long unsigned int"),
    (8, True): ("long long", "__s64"),
    (16, False): ("unsigned __int128",),
    (16, True): ("__int128",),
}


_FIXED: Final[tuple[tuple[Order, str], ...]] = (("big", "be"), ("little", "le"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which kinds to generate.

    Attributes:
        byteorder: of the host that the layouts are for: bit-fields are placed by it.
        wide: integers of 16 bytes.
        floats: of 2 (``_Float16``), 4 and 8 bytes.
        pointers: addresses.
        ordered: numbers of a fixed byte order.
        bitfields: and zero-width gaps between them.
        packed: records without padding, whose members lie anywhere; floats stay aligned (the kernel wants it).
        depth: records and arrays within each other.
    """

    byteorder: ByteOrder = "little"
    wide: bool = True
    floats: bool = True
    pointers: bool = True
    ordered: bool = True
    bitfields: bool = True
    packed: bool = True
    depth: int = 3


EVERYTHING: Final = Wanted()


def _names(draw: st.DrawFn) -> Iterator[str]:
    """As many C identifiers as are asked for; those of two records meet in one blob."""
    stem = draw(st.sampled_from(("a", "Len", "_x", "saddr", "f9_")))
    return (f"{stem}{at}" if at else stem for at in count())


@cache
def integers(wanted: Wanted = EVERYTHING, *, ordered: bool = True) -> st.SearchStrategy[Integer]:
    """Integers of every size and sign, some of a fixed byte order."""
    host = [
        Integer(size=size, signed=signed, type_name=name)
        for (size, signed), names in _C_INTS.items()
        for name in names
        if size <= _WIDEST or wanted.wide
    ]
    if not (wanted.ordered and ordered):
        return st.sampled_from(host)
    fixed = [
        Integer(size=size, signed=False, order=order, type_name=f"__{short}{8 * size}")
        for size in (2, 4, 8)
        for order, short in _FIXED
    ]
    return st.sampled_from(host + fixed)


@st.composite
def enumerations(draw: st.DrawFn) -> Enumeration:
    """Enums of 1, 2, 4 and 8 bytes, signed or not, with a value or more."""
    size, signed = draw(st.sampled_from((1, 2, 4, 4, 4, 8))), draw(st.booleans())
    low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, (1 << 8 * size) - 1)
    numbers = draw(
        st.lists(st.integers(low, high) | st.sampled_from((0, 1, low, high)), min_size=1, max_size=4)
    )
    kind = draw(st.sampled_from(("", "state", "proto")))
    names = [f"{kind or 'anon'}_{size}_{'s' if signed else 'u'}{at}" for at in range(len(numbers))]
    return Enumeration(
        size=size, signed=signed, members=tuple(zip(names, numbers, strict=True)), type_name=kind
    )


@cache
def scalars(wanted: Wanted = EVERYTHING) -> st.SearchStrategy[Layout]:
    """What is not made of other layouts."""
    kinds: list[st.SearchStrategy[Layout]] = [
        integers(wanted),
        enumerations(),
        st.just(Boolean(type_name="_Bool")),
        st.integers(1, 20).map(_text),
    ]
    if wanted.floats:
        kinds.append(
            st.sampled_from(
                [
                    Float(size=2, type_name="_Float16"),
                    Float(size=4, type_name="float"),
                    Float(size=8, type_name="double"),
                ]
            )
        )
    if wanted.pointers:
        kinds.append(st.just(Pointer()))
    return st.one_of(kinds)


def _text(size: int) -> Layout:
    return Text(size=size)


@cache
def layouts(wanted: Wanted = EVERYTHING, depth: int | None = None) -> st.SearchStrategy[Layout]:
    """Any layout."""
    left = wanted.depth if depth is None else depth
    if left <= 0:
        return scalars(wanted)
    return st.one_of(scalars(wanted), scalars(wanted), arrays(wanted, left - 1), records(wanted, left - 1))


@st.composite
def arrays(draw: st.DrawFn, wanted: Wanted = EVERYTHING, depth: int = 1) -> Array:
    """Arrays; of arrays and records too. Those of ``char`` are Text, and no Array."""
    return Array(element=draw(layouts(wanted, depth)), count=draw(st.integers(1, 4)))


def alignment(layout: Layout) -> int:
    """What C aligns it to, in bytes; of a packed record 1."""
    match layout:
        case Array():
            return alignment(layout.element)
        case Text() | Opaque():
            return 1
        case Record():
            aligned = [alignment(member.layout) for member in layout.members]
            natural = max(aligned, default=1)
            placed = all(
                member.offset % max(one, 1) == 0 for member, one in zip(layout.members, aligned, strict=True)
            )
            return natural if placed and layout.size % natural == 0 else 1
        case Special():
            return min(layout.size, _WIDEST)
        case _:
            return layout.size


def _has_float(layout: Layout) -> bool:
    match layout:
        case Float():
            return True
        case Array():
            return _has_float(layout.element)
        case Record():
            return any(_has_float(member.layout) for member in layout.members)
        case _:
            return False


@st.composite
def records(
    draw: st.DrawFn, wanted: Wanted = EVERYTHING, depth: int | None = None, fewest: int = 1
) -> Record:
    """Structs and unions: nested, anonymous members, bit-fields, padding, packed; with ``fewest`` members or more."""
    left = wanted.depth - 1 if depth is None else depth
    union = draw(st.integers(0, 4)) == 0
    packed = not union and wanted.packed and draw(st.integers(0, 3)) == 0
    names = _names(draw)
    placed: list[Member] = []
    end = 0  # bits
    for _ in range(draw(st.integers(fewest, fewest + 5))):
        if wanted.bitfields and draw(st.integers(0, 3)) == 0:
            member = draw(_bitfield(wanted, next(names), 0 if union else end))
            placed.append(member)
            end = max(end, member.bit_offset + (member.bits or 0))
            continue
        layout = draw(layouts(wanted, left))
        align = 1 if packed and not _has_float(layout) else alignment(layout)
        offset = 0 if union else -(-end // (8 * align)) * align
        anonymous = isinstance(layout, Record) and draw(st.booleans())
        if anonymous and isinstance(layout, Record):
            layout = replace(_renamed(layout, names), type_name="")  # C's have no tag
        placed.append(
            Member(name="" if anonymous else next(names), offset=offset, layout=layout, bit_offset=8 * offset)
        )
        end = max(end, 8 * (offset + layout.size))
    size = -(-end // 8)
    if not packed:
        widest = max(_alignment_in(member) for member in placed)
        size = -(-size // widest) * widest
    size = _room_for_enums(placed, size)
    kind = draw(st.sampled_from(("", "flow", "stats", "inner_t")))
    return Record(size=size, members=tuple(placed), union=union, type_name=kind)


@cache
def _bases() -> st.SearchStrategy[Integer | Boolean | Enumeration]:
    """Types of bit-fields."""
    numbers = integers(Wanted(wide=False), ordered=False)
    return numbers | st.just(Boolean(type_name="_Bool")) | enumerations().filter(_of_an_int)


def _of_an_int(layout: Enumeration) -> bool:
    return layout.size == 4


@st.composite
def _bitfield(draw: st.DrawFn, wanted: Wanted, name: str, end: int) -> Member:
    """One that begins at or behind bit ``end``, in one unit of its type as C places it."""
    base = draw(_bases())
    bits = 1 if isinstance(base, Boolean) else draw(st.integers(1, 8 * base.size))
    if isinstance(base, Enumeration):
        bits = max(bits, _width(base))
    unit = 8 * base.size
    start = end if end % unit + bits <= unit else -(-end // unit) * unit
    del wanted
    return Member(name=name, offset=start // 8, layout=base, bits=bits, bit_offset=start)


def _width(layout: Enumeration) -> int:
    """Bits that hold every value of an enum."""
    return (
        max((number if number >= 0 else ~number).bit_length() + layout.signed for _, number in layout.members)
        or 1
    )


def _alignment_in(member: Member) -> int:
    return member.layout.size if member.bits is not None else alignment(member.layout)


def _room_for_enums(placed: list[Member], size: int) -> int:
    """A record with bit-fields and a small enum at its end is refused by the kernel: it takes 4 bytes of each."""
    if all(member.bits is None for member in placed):
        return size
    enums = [
        member.offset + 4
        for member in placed
        if isinstance(member.layout, Enumeration) and member.bits is None
    ]
    return max([size, *(-(-end // 8) * 8 for end in enums)])


def _renamed(record: Record, names: Iterator[str]) -> Record:
    """The same record with members that no outer one is called like."""
    members: list[Member] = []
    for member in record.members:
        if member.name:
            member_layout, name = member.layout, next(names)
        else:
            assert isinstance(member.layout, Record)
            member_layout, name = _renamed(member.layout, names), ""
        members.append(
            Member(
                name=name,
                offset=member.offset,
                layout=member_layout,
                bits=member.bits,
                bit_offset=member.bit_offset,
            )
        )
    return Record(size=record.size, members=tuple(members), union=record.union, type_name=record.type_name)


_TEXTS: Final = (b"", b"eth0", b"lo\0junk", "ünï".encode(), b"\x01\xff", b"full of letters, no NUL at all")


def images(layout: Layout) -> st.SearchStrategy[bytes]:
    """Bytes of one such value: any bits, but texts that are texts now and then, and bools that are 0 or 1.

    C leaves undefined what a bool of another byte is; ``Boolean`` says true, and a test of its own says so.
    """
    match layout:
        case Record(union=False):
            return _record_images(layout)
        case Array():
            return st.lists(images(layout.element), min_size=layout.count, max_size=layout.count).map(
                b"".join
            )
        case Boolean():
            return st.sampled_from((bytes(layout.size), b"\1" + bytes(layout.size - 1)))
        case Text():
            texts = [text[: layout.size].ljust(layout.size, b"\0") for text in _TEXTS]
            return st.sampled_from(texts) | st.binary(min_size=layout.size, max_size=layout.size)
        case Enumeration():
            known = [_packed(number, layout) for _, number in layout.members]
            return st.sampled_from(known) | st.binary(min_size=layout.size, max_size=layout.size)
        case _:
            return st.binary(min_size=layout.size, max_size=layout.size)


def _packed(number: int, layout: Enumeration) -> bytes:
    return number.to_bytes(layout.size, "little", signed=layout.signed)


@st.composite
def _record_images(draw: st.DrawFn, layout: Record) -> bytes:
    image = bytearray(draw(st.binary(min_size=layout.size, max_size=layout.size)))
    for member in layout.members:
        if member.bits is None:
            image[member.offset : member.offset + member.layout.size] = draw(images(member.layout))
    return bytes(image)


def host_order(order: Order, byteorder: ByteOrder) -> ByteOrder:
    """The byte order of a number on a host."""
    return byteorder if order == "host" else order
