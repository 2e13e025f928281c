"""Dataclasses, ctypes classes, struct formats and codecs as layouts: where C, ctypes and struct place things."""

from __future__ import annotations

import ctypes
import enum
import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, ClassVar

import pytest

from mapd_client import I64, U8, U16, U32, U64, Bytes, Cidr4, Cidr6, Client, Ipv4, Ipv6, Mac, PerCpu, Struct
from mapd_client.classes import layout_of
from mapd_client.codec import Buffer, Codec
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Pointer,
    Record,
    Special,
    Text,
)


def record(layout: Layout) -> Record:
    assert isinstance(layout, Record)
    return layout


def places(layout: Layout) -> dict[str, tuple[int, int]]:
    """Offset and size of each member."""
    return {member.name: (member.offset, member.layout.size) for member in record(layout).members}


def member(layout: Layout, name: str) -> Layout:
    return next(one.layout for one in record(layout).members if one.name == name)


class Proto(enum.IntEnum):
    """Of four or more bits, one number with two names."""

    TCP = 6
    UDP = 17
    LAST = 17


class Signed(enum.IntEnum):
    """One number below 0."""

    DROP = -1
    PASS = 0


@dataclass
class Point:
    """Three bytes that C makes four."""

    x: Annotated[int, U16]
    y: Annotated[int, U8]


@dataclass
class Flow:
    """One field of each kind."""

    proto: Annotated[Proto, U8]
    saddr: IPv4Address
    port: Annotated[int, U16]
    up: bool
    seen: Annotated[int, U64]
    name: Annotated[str, 5]
    rate: float
    small: Annotated[float, 4]
    at: Point
    points: Annotated[list[Point], 3]
    matrix: Annotated[list[list[int]], U32, 2, 3]
    mac: Annotated[bytes, 6]
    kind: Signed
    lock: Annotated[None, Special(size=4, type_name="bpf_spin_lock")]
    shared: ClassVar[int] = 3


class PointInC(ctypes.Structure):
    """As Point."""

    _fields_ = (("x", ctypes.c_uint16), ("y", ctypes.c_uint8))


class InC(ctypes.Structure):
    """The same in ctypes, which knows C's alignment."""

    _fields_ = (
        ("proto", ctypes.c_uint8),
        ("saddr", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("up", ctypes.c_bool),
        ("seen", ctypes.c_uint64),
        ("name", ctypes.c_char * 5),
        ("rate", ctypes.c_double),
        ("small", ctypes.c_float),
        ("at", PointInC),
        ("points", PointInC * 3),
        ("matrix", ctypes.c_uint32 * 3 * 2),
        ("mac", ctypes.c_uint8 * 6),
        ("kind", ctypes.c_int),
        ("lock", ctypes.c_uint32),
    )


def test_a_dataclass_lies_where_c_would_place_it() -> None:
    layout = layout_of(Flow)
    assert places(layout) == places(layout_of(InC))
    assert layout.size == ctypes.sizeof(InC)
    assert record(layout).type_name == "Flow"


def test_a_dataclass_says_its_types_by_codecs_and_classes() -> None:
    layout = layout_of(Flow)
    names = (("TCP", 6), ("UDP", 17), ("LAST", 17))
    assert member(layout, "proto") == Enumeration(size=1, signed=False, members=names, type_name="Proto")
    assert member(layout, "kind") == Enumeration(
        size=4, signed=True, members=(("DROP", -1), ("PASS", 0)), type_name="Signed"
    )
    assert member(layout, "saddr") == Integer(size=4, signed=False, order="big", type_name="__be32")
    assert member(layout, "up") == Boolean(type_name="_Bool")
    assert member(layout, "small") == Float(size=4, type_name="float")
    assert member(layout, "name") == Text(size=5)
    assert member(layout, "mac") == Opaque(size=6)
    assert member(layout, "points") == Array(element=layout_of(Point), count=3)
    word = Integer(size=4, signed=False, type_name="__u32")
    assert member(layout, "matrix") == Array(element=Array(element=word, count=3), count=2)


@pytest.mark.parametrize(
    ("type", "message"),
    [
        (int, r"Bad\.x: int does not say its size: Annotated\[int, U32\]"),
        (str, r"Bad\.x: str does not say its size"),
        (list[int], r"Bad\.x: list\[int\] does not say its length"),
        (Annotated[list[int], 4], r"Bad\.x\[0\]: int does not say its size"),
        (Annotated[list[int], U32, 2, 3], r"Bad\.x: .* has 1 dimensions, 2 are counted"),
        (Annotated[int, U32, 4], r"Bad\.x: an array is a list"),
        (Annotated[int, U32, U64], r"Bad\.x: it says two layouts"),
        (Annotated[float, 3], r"Bad\.x: a float has 2, 4 or 8 bytes, not 3"),
        (Annotated[Signed, U8], r"Bad\.x: Signed\.DROP is -1, and 1 bytes hold 0 to 255"),
        (Annotated[Signed, Ipv6], r"Bad\.x: Signed is an integer"),
        (int | None, r"Bad\.x: .* does not say how it lies in memory"),
        (Any, r"Bad\.x: .* does not say how it lies in memory"),
        (Annotated[int, "Z"], r"'Z' is no struct format"),
        (Annotated[bytes, -1], r"Bad\.x: \[-1\] are no numbers of elements"),
    ],
)
def test_what_a_dataclass_does_not_say_is_named_by_field(type: Any, message: str) -> None:
    kind = make_dataclass("Bad", [("x", type)])
    with pytest.raises(TypeMismatch, match=message):
        layout_of(kind)


def test_a_class_that_contains_itself_is_refused() -> None:
    @dataclass
    class Node:
        next: Node

    Node.__annotations__["next"] = Node
    with pytest.raises(TypeMismatch, match=r"Node\.next: Node contains itself"):
        layout_of(Node)


class Bits(ctypes.Structure):
    """Bit-fields in units of three sizes."""

    _fields_ = (
        ("a", ctypes.c_uint32, 3),
        ("b", ctypes.c_int32, 7),
        ("c", ctypes.c_uint8),
        ("d", ctypes.c_uint64, 40),
        ("e", ctypes.c_uint64, 30),
    )


def test_bit_fields_lie_where_ctypes_writes_them() -> None:
    for one in record(layout_of(Bits)).members:
        value = Bits()
        setattr(value, one.name, -1 if one.name == "b" else (1 << (one.bits or 8)) - 1)
        written = int.from_bytes(bytes(value), "little")
        width = one.bits or 8 * one.layout.size
        assert written == ((1 << width) - 1) << one.bit_offset, one


def test_packed_nested_and_anonymous_members_of_ctypes_lie_where_it_says() -> None:
    class Inner(ctypes.Union):
        _fields_ = (("word", ctypes.c_uint32), ("half", ctypes.c_uint16 * 2))

    class Outer(ctypes.Structure):
        _pack_ = 1
        _layout_ = "ms"
        _anonymous_ = ("u",)
        _fields_ = (
            ("flag", ctypes.c_uint8),
            ("u", Inner),
            ("where", ctypes.c_void_p),
            ("tag", ctypes.c_char),
        )

    class Longer(Outer):
        # ctypes adds these to Outer's; to a type checker they replace them.
        _fields_ = (("more", ctypes.c_uint16),)  # type: ignore[assignment]

    layout = record(layout_of(Longer))
    assert layout.size == ctypes.sizeof(Longer)
    assert [one.name for one in layout.members] == ["flag", "", "where", "tag", "more"]
    for one in layout.named():
        assert one.offset == getattr(Longer, one.name).offset
    assert record(layout.members[1].layout).union
    assert member(layout, "where") == Pointer()
    assert member(layout, "tag") == Integer(size=1, signed=True, type_name="char")


def test_a_big_endian_structure_says_so_of_each_number() -> None:
    class Network(ctypes.BigEndianStructure):
        _fields_ = (("port", ctypes.c_uint16), ("flag", ctypes.c_uint8), ("words", ctypes.c_int32 * 2))

    layout = layout_of(Network)
    assert member(layout, "port") == Integer(size=2, signed=False, order="big", type_name="__be16")
    assert member(layout, "flag") == Integer(size=1, signed=False, type_name="__u8")
    assert member(layout, "words") == Array(
        element=Integer(size=4, signed=True, order="big", type_name="__be32"), count=2
    )


def test_bit_fields_of_the_other_byte_order_are_refused() -> None:
    class Network(ctypes.BigEndianStructure):
        _fields_ = (("version", ctypes.c_uint16, 4), ("length", ctypes.c_uint16, 12))

    with pytest.raises(TypeMismatch, match=r"Network\.version: a big-endian bit-field"):
        layout_of(Network)


class SecondInUnion(ctypes.Union):
    """Its second bit-field lies at offset -1, until Python 3.14."""

    _fields_ = (("a", ctypes.c_uint8, 1), ("x", ctypes.c_uint8, 1))


class AnotherType(ctypes.Structure):
    """Its second bit-field lies at bit 25 of 16, until Python 3.14."""

    _fields_ = (("a", ctypes.c_int32, 25), ("x", ctypes.c_int16, 4))


@pytest.mark.parametrize("kind", [SecondInUnion, AnotherType])
def test_a_bit_field_that_ctypes_misplaces_is_refused(kind: Any) -> None:
    if sys.version_info >= (3, 14):
        assert layout_of(kind).size == ctypes.sizeof(kind)
        return
    with pytest.raises(TypeMismatch, match=r"\.x: this Python's ctypes places it at bit .* which is outside"):
        layout_of(kind)


def test_a_format_is_a_struct_of_its_fields() -> None:
    fixed = Record(
        size=12,
        members=(
            Member(
                name="f0", offset=0, layout=Integer(size=4, signed=False, order="little", type_name="__le32")
            ),
            Member(
                name="f1",
                offset=4,
                layout=Integer(size=8, signed=False, order="little", type_name="__le64"),
                bit_offset=32,
            ),
        ),
    )
    assert layout_of("<IQ") == fixed
    assert layout_of(Struct("<IQ")) == fixed
    assert places(layout_of("BIx2H4s")) == {
        "f0": (0, 1),
        "f1": (4, 4),
        "f2": (10, 2),
        "f3": (12, 2),
        "f4": (14, 4),
    }
    assert layout_of("BIx2H4s").size == 18
    assert member(layout_of("=?d"), "f0") == Boolean(type_name="_Bool")
    assert member(layout_of("=?d"), "f1") == Float(size=8, type_name="double")


def test_a_format_of_one_field_is_that_field() -> None:
    assert layout_of("I") == Integer(size=4, signed=False, type_name="__u32")
    assert layout_of("16s") == Text(size=16)
    assert isinstance(layout_of("I4x"), Record)


class Own(Codec[int]):
    """A codec that says its size alone."""

    size = 3

    def encode(self, value: int) -> bytes:
        return value.to_bytes(3, "big")

    def decode_many(self, column: Buffer) -> list[int]:
        return [0] * (len(column) // 3)


class Saying(Own):
    """A codec that says its layout."""

    layout = Text(size=3)


def test_codecs_say_what_they_encode_to() -> None:
    assert layout_of(U32) == Integer(size=4, signed=False, type_name="__u32")
    assert layout_of(I64) == Integer(size=8, signed=True, type_name="__s64")
    assert layout_of(PerCpu(U64)) == layout_of(PerCpu(U64).sum()) == layout_of(U64)
    assert layout_of(Ipv4) == Integer(size=4, signed=False, order="big", type_name="__be32")
    assert layout_of(Mac) == Array(element=layout_of(U8), count=6)
    assert layout_of(Bytes(5)) == Opaque(size=5)
    assert layout_of(Own()) == Opaque(size=3)
    assert layout_of(Saying()) == Text(size=3)
    assert places(layout_of(Cidr4)) == {"prefixlen": (0, 4), "data": (4, 4)}
    assert places(layout_of(Cidr6)) == {"prefixlen": (0, 4), "data": (4, 16)}
    assert layout_of(IPv4Network) == layout_of(Cidr4)


@pytest.mark.parametrize("thing", [3, None, object(), int, dict, "Z"])
def test_what_says_no_layout_is_refused(thing: object) -> None:
    with pytest.raises(TypeMismatch, match=r"says no layout|no struct format"):
        layout_of(thing)


def test_ctypes_is_not_imported_for_it() -> None:
    code = "import sys; from mapd_client.classes import layout_of; layout_of('<I'); assert 'ctypes' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("given", "meant"), [("8s", "Struct('8s')"), ("<IH", "Struct('<IH')"), (8, "Bytes(8)"), ("zz", None)]
)
def test_what_is_no_codec_is_told_with_the_one_that_was_meant(given: Any, meant: str | None) -> None:
    client = Client("/nowhere")
    for key, value in ((given, U32), (U32, given)):
        with pytest.raises(TypeMismatch) as refused:
            _ = client.create_map("flows", "hash", key=key, value=value, max_entries=1)
        assert f"{given!r}: a codec, a dataclass or a ctypes.Structure" in str(refused.value)
        assert str(refused.value).endswith(f" write {meant}" if meant else "ctypes.Structure")
