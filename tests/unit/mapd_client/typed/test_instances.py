"""Instances of the user's classes: what was written is read, in the class's own types."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_client import (
    I32,
    U8,
    U16,
    U32,
    U64,
    Codec,
    Ipv4,
    Mac,
    SizeMismatch,
    Struct,
    TypeMismatch,
    Unsupported,
)
from mapd_client.classes import layout_of
from mapd_client.info import ByteOrder
from mapd_client.typed import codec_of
from mapd_client.typed.hints import Port
from mapd_client.typed.instances import codec_of_class, hints_of_class
from tests.unit.mapd_client.typed.shapes import STATS


class Proto(IntEnum):
    """As in headers of IP."""

    TCP = 6
    UDP = 17


class Native(ctypes.Structure):
    """With three bytes of padding."""

    _fields_ = [("kind", ctypes.c_uint8), ("count", ctypes.c_uint32)]


class NativeBig(ctypes.BigEndianStructure):
    """Of the other byte order on most hosts."""

    _fields_ = [("count", ctypes.c_uint32)]


@dataclass(frozen=True, slots=True)
class Peer:
    """Frozen, nested."""

    address: IPv4Address
    port: Annotated[int, Port]
    proto: Annotated[Proto, U8]


@dataclass(kw_only=True)
class Everything:
    """Each way to say what a field is."""

    peers: Annotated[list[Peer], 2]
    best: Peer
    pair: Annotated[tuple[int, ...], U16, 2]
    grid: Annotated[list[list[int]], I32, 2, 2]
    one: Annotated[list[int], U32, 1]
    name: Annotated[str, 8]
    raw: Annotated[bytes, 3]
    mac: Annotated[str, Mac]
    wide: IPv6Address
    on: bool
    ratio: float
    native: Native
    words: Annotated[Any, Struct("=HH")]
    counts: Annotated[Any, STATS]
    rest: Annotated[int, U64] = field(default=7)


def codec(kind: type, path: str = "value") -> Codec[Any]:
    return codec_of_class(kind, layout_of(kind), hints_of_class(kind, path), path).bind(sys.byteorder, 2)


u16, u32 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1)
peers = st.builds(Peer, address=st.builds(IPv4Address, u32), port=u16, proto=st.sampled_from(Proto))
texts = st.text(st.characters(min_codepoint=1, max_codepoint=127), max_size=8)


def _native(kind: int, count: int) -> Native:
    return Native(kind, count)


everything = st.builds(
    Everything,
    peers=st.tuples(peers, peers).map(list),
    best=peers,
    pair=st.tuples(u16, u16),
    grid=st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=2, max_size=2), min_size=2, max_size=2),
    one=st.lists(u32, min_size=1, max_size=1),
    name=texts,
    raw=st.binary(min_size=3, max_size=3),
    mac=st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":")),
    wide=st.builds(IPv6Address, st.integers(0, 2**128 - 1)),
    on=st.booleans(),
    ratio=st.floats(allow_nan=False),
    native=st.builds(_native, st.integers(0, 255), u32),
    words=st.tuples(u16, u16),
    counts=st.fixed_dictionaries({"packets": u32, "bytes": u32}),
    rest=st.integers(0, 2**64 - 1),
)


@given(everything)
def test_an_instance_that_was_written_is_read(value: Everything) -> None:
    found = codec(Everything).decode(codec(Everything).encode(value))

    assert isinstance(found, Everything)
    assert (found.native.kind, found.native.count) == (value.native.kind, value.native.count)
    found.native = value.native  # ctypes compares by identity
    assert found == value
    assert found.best.proto is value.best.proto


@given(st.lists(peers, max_size=5))
def test_a_column_is_its_instances(values: list[Peer]) -> None:
    column = codec(Peer).encode_many(values)

    assert len(column) == 8 * len(values)
    assert codec(Peer).decode_many(column) == values


def test_an_enum_without_a_member_for_it_is_the_number() -> None:
    found = codec(Peer).decode(bytes([10, 0, 0, 1, 0, 80, 99, 0]))

    assert found == Peer(IPv4Address("10.0.0.1"), 80, 99)  # type: ignore[arg-type]  # that it is none is the point


def test_a_mapping_is_as_good_as_an_instance() -> None:
    peer = Peer(IPv4Address("10.0.0.1"), 80, Proto.TCP)

    assert codec(Peer).encode({"address": "10.0.0.1", "port": 80, "proto": "TCP"}) == codec(Peer).encode(peer)
    with pytest.raises(TypeMismatch, match=r"\('10\.0\.0\.1', 80\): Peer is taken, not tuple"):
        codec(Peer).encode(("10.0.0.1", 80))


def test_an_error_names_the_way_into_a_nested_instance() -> None:
    bad = Peer(IPv4Address("10.0.0.1"), 70_000, Proto.TCP)

    with pytest.raises(SizeMismatch, match=r"key\.port: 70000 is outside port"):
        codec(Peer, "key").encode(bad)


def test_a_ctypes_structure_keeps_its_padding() -> None:
    native = codec(Native)
    there = b"\1\xaa\xbb\xcc\2\0\0\0"

    found = native.decode(there)

    assert isinstance(found, Native)
    assert (found.kind, found.count) == (1, int.from_bytes(there[4:], sys.byteorder))
    assert native.encode(found) == there
    assert [native.encode(one) for one in native.decode_many(there * 3)] == [there] * 3
    with pytest.raises(SizeMismatch, match="Native reads 8 bytes, not 7"):
        native.decode(there[:7])


def test_a_ctypes_structure_of_another_byte_order_than_the_daemons_is_refused() -> None:
    other: ByteOrder = "big" if sys.byteorder == "little" else "little"

    with pytest.raises(Unsupported, match=rf"derive it from ctypes\.{other.capitalize()}EndianStructure"):
        codec(Native).bind(other, 2)
    assert (
        codec_of_class(NativeBig, layout_of(NativeBig), {}, "value").bind("big", 2).encode(NativeBig(1))
        == b"\0\0\0\1"
    )


def test_an_address_class_is_a_key_by_itself() -> None:
    assert codec(IPv4Address).encode(IPv4Address("10.0.0.1")) == b"\x0a\0\0\1"
    assert codec(IPv4Network).decode((8).to_bytes(4, sys.byteorder) + b"\x0a\0\0\0") == IPv4Network(
        "10.0.0.0/8"
    )
    with pytest.raises(TypeMismatch, match=r"a dataclass, a ctypes\.Structure or an address class"):
        codec_of_class(int, STATS, {}, "key")


def test_a_field_that_cannot_be_given_is_refused_before_anything_is_read() -> None:
    @dataclass
    class Counted:
        packets: Annotated[int, U32]
        seen: Annotated[int, U32] = field(init=False, default=0)

    with pytest.raises(TypeMismatch, match=r"Counted\.seen: init=False: what is read cannot be given to it"):
        codec(Counted)


def test_what_numpy_reads_is_the_layouts() -> None:
    for kind in (Peer, Native):
        assert codec(kind).dtype == codec_of(layout_of(kind)).bind(sys.byteorder, 2).dtype


def test_a_dataclass_of_the_daemons_byte_order_is_bound_to_it() -> None:
    @dataclass
    class Numbered:
        number: Annotated[int, U32]
        address: Annotated[IPv4Address, Ipv4]

    made = codec_of_class(Numbered, layout_of(Numbered), hints_of_class(Numbered, "value"), "value")
    value = Numbered(1, IPv4Address("10.0.0.1"))

    assert made.bind("big", 2).encode(value) == b"\0\0\0\1\x0a\0\0\1"
    assert made.bind("big", 2).bind("little", 2).encode(value) == b"\1\0\0\0\x0a\0\0\1"
