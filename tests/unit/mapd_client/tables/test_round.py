"""Bytes to Arrow columns and back: whatever the layout, no bit of a field is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow
import pytest

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
    Pointer,
    Record,
    Text,
)
from mapd_client.tables.columns import BadRow, Column, Moments, Number
from mapd_client.tables.plan import column_of_layout

pa: Any = pyarrow  # its stubs know half of it

U8, U16, U32, U64 = (Integer(size=size, signed=False) for size in (1, 2, 4, 8))
I32 = Integer(size=4, signed=True)
PROTO = Enumeration(size=4, signed=False, members=(("ICMP", 1), ("TCP", 6), ("SIX", 6), ("UDP", 17)))


def column(layout: Layout, byteorder: ByteOrder = "little") -> Column:
    found = column_of_layout(layout, byteorder, {}, "value")
    assert found is not None
    return found


def rows(data: bytes, size: int) -> Any:
    return np.frombuffer(data, np.uint8).reshape(-1, size)


def read(layout: Layout, data: bytes, byteorder: ByteOrder = "little") -> list[Any]:
    array = column(layout, byteorder).read(rows(data, layout.size))
    array.validate(full=True)
    found: list[Any] = array.to_pylist()
    return found


def back(layout: Layout, array: Any, byteorder: ByteOrder = "little") -> bytes:
    made = np.zeros((len(array), layout.size), np.uint8)
    column(layout, byteorder).write(array, made, "value")
    return made.tobytes()


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize(
    "layout",
    [
        *(Integer(size=size, signed=signed) for size in (1, 2, 4, 8, 16) for signed in (False, True)),
        Integer(size=4, signed=False, order="big"),
        *(Float(size=size) for size in (2, 4, 8, 16)),
        Pointer(),
        PROTO,
        Enumeration(size=8, signed=True, members=(("LOW", -(2**63)), ("MINUS", -1))),
        Opaque(size=5),
        Array(element=Array(element=U16, count=3), count=2),
        Record(
            size=24,
            members=(
                Member(name="a", offset=0, layout=Integer(size=1, signed=True)),
                Member(name="b", offset=1, layout=Array(element=U8, count=7)),
                Member(
                    name="in",
                    offset=8,
                    layout=Record(
                        size=16,
                        members=(
                            Member(name="x", offset=0, layout=Float(size=4)),
                            Member(name="p", offset=4, layout=PROTO),
                            Member(name="y", offset=8, layout=U64),
                        ),
                    ),
                ),
            ),
        ),
    ],
    ids=repr,
)
def test_every_byte_comes_back(layout: Layout, byteorder: ByteOrder) -> None:
    data = np.random.default_rng(layout.size).bytes(50 * layout.size)
    array = column(layout, byteorder).read(rows(data, layout.size))
    array.validate(full=True)
    assert back(layout, array, byteorder) == data
    assert back(layout, array[7:19], byteorder) == data[7 * layout.size : 19 * layout.size]


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_bit_fields_are_columns_of_their_own(byteorder: ByteOrder) -> None:
    record = Record(
        size=8,
        members=(
            Member(name="a", offset=0, layout=U32, bits=3, bit_offset=0),
            Member(name="b", offset=0, layout=I32, bits=7, bit_offset=3),
            Member(name="c", offset=1, layout=Boolean(), bits=1, bit_offset=10),
            Member(name="d", offset=1, layout=PROTO, bits=5, bit_offset=11),
            Member(name="wide", offset=2, layout=U64, bits=48, bit_offset=16),
        ),
    )
    word = {"a": 5, "b": -3, "c": 1, "d": 17, "wide": 0xABCDEF012345}
    widths = {"a": 3, "b": 7, "c": 1, "d": 5, "wide": 48}
    number = at = 0
    for name, bits in widths.items():
        part = word[name] & ((1 << bits) - 1)
        at += bits
        number |= part << (at - bits if byteorder == "little" else 64 - at)
    data = number.to_bytes(8, byteorder)
    (found,) = read(record, data, byteorder)
    assert found == word | {"c": True, "d": "UDP"}
    assert back(record, column(record, byteorder).read(rows(data, 8)), byteorder) == data


def test_members_of_a_union_are_all_there_and_some_of_them_are_enough() -> None:
    pair = Record(
        size=4, members=(Member(name="a", offset=0, layout=U16), Member(name="b", offset=2, layout=U8))
    )
    union = Record(
        size=4,
        union=True,
        members=(
            Member(name="raw", offset=0, layout=U32),
            Member(name="word", offset=0, layout=Text(size=4)),
            Member(name="pair", offset=0, layout=pair),
        ),
    )
    data = b"A\0B\x07abcd"
    array = column(union).read(rows(data, 4))
    assert array.to_pylist() == [
        {"raw": 0x07420041, "word": "A", "pair": {"a": 0x41, "b": 0x42}},
        {"raw": 0x64636261, "word": "abcd", "pair": {"a": 0x6261, "b": 0x63}},
    ]
    assert back(union, array) == data
    assert back(union, pa.array([{"raw": 7}])) == b"\7\0\0\0"
    assert back(union, pa.array([{"word": "ab"}])) == b"ab\0\0"


def test_a_bool_over_a_text_leaves_it_as_it_is_and_what_disagrees_is_refused() -> None:
    members = (
        Member(name="set", offset=0, layout=Boolean()),
        Member(name="word", offset=0, layout=Text(size=2)),
    )
    union = Record(size=2, union=True, members=members)
    assert back(union, column(union).read(rows(b"\2a\0\0b\0", 2))) == b"\2a\0\0b\0"
    with pytest.raises(BadRow, match="says other bytes than the members of its union") as caught:
        back(union, pa.array([{"set": True, "word": "a"}, {"set": False, "word": "a"}]))
    assert caught.value.at == 1


def test_text_ends_at_its_nul_and_what_is_no_utf8_is_written_out() -> None:
    data = b"abcd" + b"a\0xy" + b"\0\0\0\0" + "é\0\0".encode() + b"\xffa\0\0" + rb"\x41"
    words = ["abcd", "a", "", "é", r"\xffa", r"\x5cx41"]
    assert read(Text(size=4), data) == words
    zeros = data.replace(b"a\0xy", b"a\0\0\0")
    assert back(Text(size=4), pa.array(words)) == zeros
    assert back(Text(size=4), pa.array([zeros[at : at + 4].rstrip(b"\0") for at in range(0, 24, 4)])) == zeros


def test_a_bool_is_any_byte_but_zero_and_written_as_one() -> None:
    assert read(Boolean(size=2), b"\0\0\0\2\1\0") == [False, True, True]
    assert back(Boolean(size=2), pa.array([True, False])) == b"\1\0\0\0"
    assert back(Boolean(size=2), pa.array([True, False]), "big") == b"\0\1\0\0"


def test_a_wide_integer_is_binary_that_sorts_as_a_number() -> None:
    wide = Integer(size=16, signed=False)
    numbers = [1, 2**127, 3 << 60]
    data = b"".join(number.to_bytes(16, "little") for number in numbers)
    assert read(wide, data) == [number.to_bytes(16, "big") for number in numbers]


def test_a_number_without_a_name_is_its_digits_in_a_dictionary_that_only_grows() -> None:
    enum = column(PROTO)
    first = enum.read(rows(b"\6\0\0\0\x11\0\0\0", 4))
    second = enum.read(rows(b"\x63\0\0\0\6\0\0\0", 4))
    assert (first.to_pylist(), second.to_pylist()) == (["TCP", "UDP"], ["99", "TCP"])
    assert first.dictionary.to_pylist() == second.dictionary.to_pylist()[:3] == ["ICMP", "TCP", "UDP"]
    assert back(PROTO, pa.array(["SIX", "99", "ICMP"])) == b"\6\0\0\0\x63\0\0\0\1\0\0\0"
    assert back(PROTO, pa.array([6, 17])) == b"\6\0\0\0\x11\0\0\0"


def test_nanoseconds_of_a_clock_are_moments_and_come_back_whatever_they_are() -> None:
    zero = 1_700_000_000 * 10**9 + 123
    times = Moments(Number("u", 8, "big"), zero)
    numbers = [0, 5, 10**15, 2**64 - 1]
    data = b"".join(number.to_bytes(8, "big") for number in numbers)
    moments = times.read(rows(data, 8))
    assert str(moments.type) == "timestamp[ns, tz=UTC]"
    assert moments.cast(pa.int64()).to_pylist() == [zero, zero + 5, zero + 10**15, zero - 1]
    made = np.zeros((4, 8), np.uint8)
    times.write(moments, made, "value")
    assert made.tobytes() == data
    times.write(pa.array(numbers, pa.uint64()), made, "value")
    assert made.tobytes() == data
    with pytest.raises(
        TypeMismatch, match=r"value: a column of timestamp.*; a timestamp with a time zone is due"
    ):
        times.write(moments.cast(pa.timestamp("ns")), made, "value")
