"""Layouts by hand and by hypothesis, and values of them."""

from __future__ import annotations

from typing import Any, Final

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

U8: Final = Integer(size=1, signed=False, type_name="__u8")
U16: Final = Integer(size=2, signed=False, type_name="__u16")
U32: Final = Integer(size=4, signed=False, type_name="__u32")
U64: Final = Integer(size=8, signed=False, type_name="__u64")
I32: Final = Integer(size=4, signed=True, type_name="int")
BE16: Final = Integer(size=2, signed=False, order="big", type_name="__be16")
BE32: Final = Integer(size=4, signed=False, order="big", type_name="__be32")
MAC: Final = Array(element=U8, count=6)
COMM: Final = Text(size=16)
STATE: Final = Enumeration(
    size=4,
    signed=False,
    members=(("NEW", 0), ("OPEN", 1), ("ESTABLISHED", 1), ("CLOSED", 7)),
    type_name="state",
)

ORDERS: Final[tuple[ByteOrder, ...]] = ("little", "big")


def member(name: str, offset: int, layout: Layout) -> Member:
    """A member that is no bit-field."""
    return Member(name=name, offset=offset, layout=layout, bit_offset=8 * offset)


def bit(name: str, bit_offset: int, bits: int, layout: Layout) -> Member:
    """A bit-field."""
    return Member(name=name, offset=bit_offset // 8, layout=layout, bits=bits, bit_offset=bit_offset)


def struct(name: str, *members: Member, size: int | None = None) -> Record:
    """A struct that ends behind its last member, unless it is larger."""
    end = max((one.offset + one.layout.size for one in members), default=0)
    return Record(size=end if size is None else size, members=members, type_name=name)


def union(name: str, *members: tuple[str, Layout]) -> Record:
    """A union of these members."""
    size = max(layout.size for _, layout in members)
    return Record(
        size=size,
        members=tuple(member(one, 0, layout) for one, layout in members),
        union=True,
        type_name=name,
    )


FLOW_KEY: Final = struct(
    "flow_key",
    member("saddr", 0, BE32),
    member("dport", 4, BE16),
    member("proto", 6, U8),
    member("ifindex", 8, U32),
)
"""One byte of padding, at 7."""

STATS: Final = struct("stats", member("packets", 0, U64), member("bytes", 8, U64))

_order: st.SearchStrategy[Order] = st.sampled_from(["host", "big", "little"])


@st.composite
def enumerations(draw: st.DrawFn) -> Enumeration:
    """An enum whose names may share values."""
    size, signed = draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans())
    numbers = draw(st.lists(_numbers(8 * size, signed), max_size=4))
    members = tuple((f"E{at}", number) for at, number in enumerate(numbers))
    return Enumeration(size=size, signed=signed, members=members, order=draw(_order))


_scalars: st.SearchStrategy[Layout] = st.one_of(
    st.builds(Integer, size=st.sampled_from([1, 2, 4, 8, 16]), signed=st.booleans(), order=_order),
    st.builds(Boolean, size=st.sampled_from([1, 4])),
    st.builds(Float, size=st.sampled_from([4, 8]), order=_order),
    st.builds(Pointer, order=_order),
    enumerations(),
    st.builds(Text, size=st.integers(1, 9)),
    st.builds(Opaque, size=st.integers(1, 9)),
)

_bit_types = st.one_of(
    st.builds(Integer, size=st.sampled_from([4, 8]), signed=st.booleans()),
    st.builds(Enumeration, size=st.just(4), signed=st.booleans(), members=st.just((("A", 0), ("B", 1)))),
    st.just(Boolean()),
)


@st.composite
def _structs(draw: st.DrawFn, parts: st.SearchStrategy[Layout]) -> Record:
    members: list[Member] = []
    at = 0  # in bits
    for index in range(draw(st.integers(1, 5))):
        if draw(st.integers(0, 3)) == 0:
            kind = draw(_bit_types)
            bits = draw(st.integers(1, 1 if isinstance(kind, Boolean) else 8 * kind.size))
            members.append(bit(f"f{index}", at, bits, kind))
            at += bits
            continue
        at = (at + 7) // 8 * 8 + 8 * draw(st.integers(0, 3))
        layout = draw(parts)
        nameless = isinstance(layout, Record) and not members and draw(st.booleans())
        members.append(
            member("" if nameless else f"f{index}", at // 8, _renamed(layout) if nameless else layout)
        )
        at += 8 * layout.size
    return Record(size=(at + 7) // 8 + draw(st.integers(0, 3)), members=tuple(members))


def _renamed(layout: Layout) -> Layout:
    """An anonymous record with names that nobody else has."""
    if not isinstance(layout, Record):
        return layout
    members = tuple(
        Member(
            name=one.name and f"a{one.name}",
            offset=one.offset,
            layout=one.layout if one.name else _renamed(one.layout),
            bits=one.bits,
            bit_offset=one.bit_offset,
        )
        for one in layout.members
    )
    return Record(size=layout.size, members=members, union=layout.union)


def _composed(parts: st.SearchStrategy[Layout]) -> st.SearchStrategy[Layout]:
    named = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        _structs(parts),
        named.map(lambda some: union("", *((f"u{at}", one) for at, one in enumerate(some)))),
        st.builds(Array, element=parts, count=st.integers(0, 3)),
        st.just(Special(size=4, type_name="bpf_spin_lock")),
    )


layouts: Final[st.SearchStrategy[Layout]] = st.recursive(_scalars, _composed, max_leaves=8)
records: Final[st.SearchStrategy[Record]] = _structs(layouts)


def _numbers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    if signed:
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1)
    return st.integers(0, (1 << bits) - 1)


@st.composite
def values(draw: st.DrawFn, layout: Layout, bits: int | None = None) -> Any:
    """A value of a layout that a user may give."""
    width = 8 * layout.size if bits is None else bits
    if isinstance(layout, Integer):
        return draw(_numbers(width, layout.signed))
    if isinstance(layout, Pointer):
        return draw(_numbers(width, signed=False))
    if isinstance(layout, Boolean):
        return draw(st.booleans())
    if isinstance(layout, Float):
        return draw(st.floats(width=8 * layout.size, allow_nan=False))  # type: ignore[arg-type]  # 32 or 64
    if isinstance(layout, Enumeration):
        return draw(_enum_values(layout, width))
    if isinstance(layout, Text):
        short = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
        return draw(short.filter(lambda text: len(text.encode()) <= layout.size))
    if isinstance(layout, Array) and not _nobodys(layout):
        count = layout.count if layout.element.size else 0
        return tuple(draw(values(layout.element)) for _ in range(count))
    if isinstance(layout, Record):
        return draw(_mappings(layout))
    return draw(st.binary(min_size=layout.size, max_size=layout.size))


@st.composite
def _enum_values(draw: st.DrawFn, layout: Enumeration, width: int) -> str | int:
    number = draw(_numbers(width, layout.signed))
    names = {value: name for name, value in reversed(layout.members)}
    return names.get(number, number)


@st.composite
def _mappings(draw: st.DrawFn, layout: Record) -> dict[str, Any]:
    members = [one for one in layout.members if not _nobodys(one.layout)]
    if layout.union and members:
        members = [draw(st.sampled_from(members))]
    given: dict[str, Any] = {}
    for one in members:
        value = draw(values(one.layout, one.bits))
        given.update({one.name: value} if one.name else value)
    return given


def _nobodys(layout: Layout) -> bool:
    """Whether it is the kernel's, and in no record that is read."""
    return isinstance(layout, Special) or (isinstance(layout, Array) and _nobodys(layout.element))
