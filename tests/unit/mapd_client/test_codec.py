"""Codecs: what goes in comes out, in columns too, in either byte order."""

from __future__ import annotations

import gc
import struct
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_client import (
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bytes,
    Cidr4,
    Cidr6,
    Codec,
    Ipv4,
    Ipv6,
    Mac,
    Misuse,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
    Unsupported,
)
from mapd_client.info import ByteOrder

UNSIGNED = {1: U8, 2: U16, 4: U32, 8: U64}
SIGNED = {1: I8, 2: I16, 4: I32, 8: I64}

byteorders = st.sampled_from(("little", "big"))


def round_trip(codec: Codec[Any], values: list[Any]) -> None:
    column = codec.encode_many(values)
    assert len(column) == len(values) * codec.stride
    assert column == b"".join(map(codec.encode, values))
    assert codec.decode_many(column) == values
    assert codec.decode_many(memoryview(column)) == values
    assert [codec.decode(codec.encode(value)) for value in values] == values


@given(st.data(), st.sampled_from((1, 2, 4, 8)), st.booleans(), byteorders)
def test_integers(data: st.DataObject, size: int, signed: bool, byteorder: ByteOrder) -> None:
    low, high = (-(1 << 8 * size - 1), (1 << 8 * size - 1) - 1) if signed else (0, (1 << 8 * size) - 1)
    values = data.draw(st.lists(st.integers(low, high)))
    codec = (SIGNED if signed else UNSIGNED)[size].bind(byteorder, 1)
    assert codec.size == size
    round_trip(codec, values)
    assert codec.encode_many(values) == b"".join(
        value.to_bytes(size, byteorder, signed=signed) for value in values
    )


@given(st.lists(st.binary(min_size=5, max_size=5)))
def test_bytes(values: list[bytes]) -> None:
    round_trip(Bytes(5), values)


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))), byteorders)
def test_structs(values: list[tuple[int, int]], byteorder: ByteOrder) -> None:
    round_trip(Struct("<IQ"), values)
    round_trip(Struct("=IQ").bind(byteorder, 1), values)


@given(st.lists(st.ip_addresses(v=4)), st.lists(st.ip_addresses(v=6)), byteorders)
def test_addresses(four: list[IPv4Address], six: list[IPv6Address], byteorder: ByteOrder) -> None:
    round_trip(Ipv4.bind(byteorder, 1), four)
    round_trip(Ipv6.bind(byteorder, 1), six)


@given(st.lists(st.tuples(st.ip_addresses(v=4), st.integers(0, 32))), byteorders)
def test_networks(pairs: list[tuple[IPv4Address, int]], byteorder: ByteOrder) -> None:
    four = [IPv4Network((address, length), strict=False) for address, length in pairs]
    round_trip(Cidr4.bind(byteorder, 1), four)
    six = [IPv6Network((int(address) << 64, length), strict=False) for address, length in pairs]
    round_trip(Cidr6.bind(byteorder, 1), six)


@given(st.lists(st.binary(min_size=6, max_size=6)))
def test_macs(values: list[bytes]) -> None:
    round_trip(Mac, [value.hex(":") for value in values])


@given(st.integers(1, 5), st.lists(st.integers(0, 2**32 - 1), max_size=4), byteorders)
def test_per_cpu_slots_are_padded_to_eight_bytes(cpus: int, firsts: list[int], byteorder: ByteOrder) -> None:
    values = [[first >> cpu for cpu in range(cpus)] for first in firsts]
    codec = PerCpu(U32).bind(byteorder, cpus)
    assert (codec.size, codec.stride) == (4, 8 * cpus)
    round_trip(codec, values)
    column = codec.encode_many(values)
    assert PerCpu(U32).sum().bind(byteorder, cpus).decode_many(column) == [sum(value) for value in values]


def test_network_keys_are_the_kernels_lpm_key() -> None:
    assert Cidr4.encode(IPv4Network("10.0.0.0/8")) == bytes([8, 0, 0, 0, 10, 0, 0, 0])
    assert Cidr4.bind("big", 1).encode(IPv4Network("10.0.0.0/8")) == bytes([0, 0, 0, 8, 10, 0, 0, 0])
    assert (Cidr4.size, Cidr6.size) == (8, 20)


def test_bits_beyond_the_prefix_are_not_lost_with_an_error() -> None:
    assert Cidr4.decode(bytes([8, 0, 0, 0, 10, 1, 2, 3])) == IPv4Network("10.0.0.0/8")


def test_a_prefix_longer_than_the_address_is_named() -> None:
    with pytest.raises(TypeMismatch, match="no Cidr4"):
        Cidr4.decode(bytes([33, 0, 0, 0, 10, 0, 0, 0]))


@pytest.mark.parametrize(
    ("codec", "value", "error", "text"),
    [
        (U8, 256, SizeMismatch, "256 is outside U8: 1 bytes hold 0 to 255"),
        (I8, -129, SizeMismatch, "-128 to 127"),
        (U64, 1 << 200, SizeMismatch, "an int of 201 bits is outside U64"),
        (U32, "1", TypeMismatch, "U32 takes an int, not str"),
        (U32, None, TypeMismatch, "NoneType"),
        (Bytes(4), b"abc", SizeMismatch, "3 bytes given, 4 needed"),
        (Bytes(4), "abcd", TypeMismatch, r"Bytes\(4\) takes bytes, not str"),
        (Ipv4, "10.0.0.1", TypeMismatch, "IPv4Address, not str"),
        (Cidr4, "10.0.0.0/8", TypeMismatch, "IPv4Network, not str"),
        (Mac, "02:00", TypeMismatch, "six bytes"),
        (Struct("<II"), (1,), TypeMismatch, "cannot hold"),
        (Struct("<II"), 7, TypeMismatch, "cannot hold"),
        (Struct("<f"), (1e40,), SizeMismatch, "too large"),
        (Struct("<BH"), (1, 65_536), SizeMismatch, "65535"),
        (Struct("<BH"), (1, "2"), TypeMismatch, "cannot hold"),
        (Struct("<B4sx"), (1, b"toolongname"), SizeMismatch, "field 1 has 11 bytes, at most 4 fit"),
        (Struct("<4p"), (b"1234",), SizeMismatch, "field 0 has 4 bytes, at most 3 fit"),
        (Struct("<4s"), ("name",), TypeMismatch, "cannot hold"),
        (PerCpu(U64).bind("little", 2), 5, TypeMismatch, r"PerCpu\(U64\) takes a list, .* not int"),
        (PerCpu(U64).bind("little", 2), b"ab", TypeMismatch, "not bytes"),
        (PerCpu(U64).bind("little", 2), (n for n in (1, 2)), TypeMismatch, "not generator"),
        (PerCpu(U64).sum(), 7, TypeMismatch, "only reads"),
        (PerCpu(U64), [1], Misuse, "before a map was opened"),
    ],
)
def test_what_does_not_fit_is_named(
    codec: Codec[Any], value: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        codec.encode(value)


def test_short_bytes_of_a_struct_are_filled_up_and_full_ones_kept() -> None:
    assert Struct("<4s2H").encode((b"ab", 1, 2)) == b"ab\0\0\1\0\2\0"
    assert Struct("< 4s 3x").encode((b"abcd",)) == b"abcd\0\0\0"
    assert PerCpu(U8).bind("little", 2).encode((1, 2)) == bytes([1, *bytes(7), 2, *bytes(7)])  # type: ignore[arg-type]  # a tuple will do


def test_a_bad_number_in_a_column_is_named() -> None:
    with pytest.raises(SizeMismatch, match="-1 is outside U16"):
        U16.encode_many([1, -1])


def test_the_error_of_a_prefix_that_is_none_can_be_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps an exception in a name of the function that caught it has made a cycle."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)

    def kept() -> None:
        try:
            Cidr4.bind("little", 1).decode_many(memoryview(bytes([99] * 16)))
        except TypeMismatch as error:
            refused = error
            assert str(refused)

    for _ in range(20):
        kept()
        gc.collect()
    assert not told


def test_a_column_must_be_made_of_whole_elements() -> None:
    for codec in (U32, Bytes(4), Struct("<I"), Ipv4):
        with pytest.raises(SizeMismatch, match="7 bytes"):
            codec.decode_many(bytes(7))
    with pytest.raises(SizeMismatch, match="reads 4 bytes, not 8"):
        U32.decode(bytes(8))


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(TypeMismatch, match="no struct format"):
        Struct("<zz")


def test_a_native_struct_is_not_read_from_a_host_of_the_other_byte_order() -> None:
    other: ByteOrder = "big" if sys.byteorder == "little" else "little"
    native = Struct("BI")
    assert native.size == struct.calcsize("BI")
    assert native.bind("little" if other == "big" else "big", 1) is native
    with pytest.raises(Unsupported, match="begin the format with '='"):
        native.bind(other, 1)


def test_a_value_is_per_cpu_once() -> None:
    with pytest.raises(TypeMismatch):
        PerCpu(PerCpu(U64))
