"""A layout as numpy sees it: each byte at its place."""

from typing import Any

import numpy as np
import pytest

from mapd_client.arrays import column
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
    Special,
    Text,
)
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed import codec_of

U8 = Integer(size=1, signed=False)
U16 = Integer(size=2, signed=False)
U32 = Integer(size=4, signed=False)
U64 = Integer(size=8, signed=False)


def dtype(layout: Layout, byteorder: ByteOrder = "little") -> np.dtype[Any]:
    return np.dtype(dtype_of_layout(layout, byteorder))


@pytest.mark.parametrize(
    ("layout", "byteorder", "expected"),
    [
        (Integer(size=2, signed=True), "little", "<i2"),
        (U64, "big", ">u8"),
        (Integer(size=4, signed=False, order="big"), "little", ">u4"),
        (Integer(size=4, signed=False, order="little"), "big", "<u4"),
        (Integer(size=16, signed=False), "little", "V16"),
        (Boolean(), "little", "?"),
        (Boolean(size=4), "little", "<u4"),
        (Float(size=2), "big", ">f2"),
        (Float(size=8), "little", "<f8"),
        (Float(size=16), "little", "V16"),
        (Pointer(), "little", "<u8"),
        (Enumeration(size=8, signed=True, members=(("A", -1),)), "little", "<i8"),
        (Text(size=16), "little", "S16"),
        (Opaque(size=7), "little", "V7"),
        (Special(size=4, type_name="bpf_spin_lock"), "little", "V4"),
        (Array(element=Array(element=U16, count=3), count=2), "little", ("<u2", (2, 3))),
        (Record(size=0, members=()), "little", "V0"),
    ],
)
def test_a_layout_is_numpys_type_of_the_same_bytes(
    layout: Layout, byteorder: ByteOrder, expected: Any
) -> None:
    assert dtype(layout, byteorder) == np.dtype(expected)
    assert dtype(layout, byteorder).itemsize == layout.size


def test_a_record_keeps_offsets_padding_and_its_size() -> None:
    inner = Record(
        size=8, members=(Member(name="x", offset=0, layout=U8), Member(name="y", offset=4, layout=U32))
    )
    outer = Record(
        size=32,
        members=(
            Member(name="a", offset=0, layout=U16),
            Member(name="in", offset=4, layout=inner),
            Member(name="rows", offset=12, layout=Array(element=inner, count=2)),
        ),
    )
    got = dtype(outer)
    assert got.itemsize == 32
    assert [got.fields[name][1] for name in got.names] == [0, 4, 12]  # type: ignore[index,union-attr]
    column = bytes(range(64))
    array = np.ndarray((2,), got, column)
    assert array["in"]["y"].tolist() == [0x0B0A0908, 0x2B2A2928]
    assert array["rows"]["x"].tolist() == [[12, 20], [44, 52]]


def test_members_of_a_union_share_bytes_and_anonymous_ones_are_the_outers() -> None:
    union = Record(
        size=4,
        union=True,
        members=(
            Member(name="v4", offset=0, layout=U32),
            Member(name="raw", offset=0, layout=Array(element=U8, count=4)),
        ),
    )
    outer = Record(
        size=8, members=(Member(name="a", offset=0, layout=U32), Member(name="", offset=4, layout=union))
    )
    array = np.ndarray((1,), dtype(outer), b"\1\0\0\0\2\3\4\5")
    assert array["v4"].tolist() == [0x05040302]
    assert array["raw"].tolist() == [[2, 3, 4, 5]]


def test_bit_fields_are_the_bytes_that_they_share() -> None:
    record = Record(
        size=8,
        members=(
            Member(name="a", offset=0, layout=U32, bits=3, bit_offset=0),
            Member(name="b", offset=0, layout=U32, bits=7, bit_offset=3),
            Member(name="plain", offset=4, layout=U16),
            Member(name="c", offset=6, layout=U8, bits=1, bit_offset=48),
        ),
    )
    got = dtype(record)
    assert got.names == ("a:3+b:7", "plain", "c:1")
    assert np.ndarray((1,), got, bytes(range(8)))["a:3+b:7"].tolist() == [[0, 1]]


def test_what_belongs_to_the_kernel_is_left_out_and_its_bytes_stay() -> None:
    lock = Special(size=4, type_name="bpf_spin_lock")
    record = Record(
        size=8, members=(Member(name="lock", offset=0, layout=lock), Member(name="n", offset=4, layout=U32))
    )
    got = dtype(record)
    assert (got.names, got.itemsize) == (("n",), 8)
    assert dtype(Record(size=4, members=(Member(name="lock", offset=0, layout=lock),))) == np.dtype("V4")


def test_two_fields_of_one_name_are_refused() -> None:
    twice = tuple(Member(name="a", offset=at, layout=U32) for at in (0, 4))
    with pytest.raises(TypeMismatch, match="two fields are called 'a'"):
        dtype(Record(size=8, members=twice, type_name="struct pair"))


def test_padding_beside_a_union_is_not_sent_though_its_members_add_up_to_the_records_size() -> None:
    union = Record(
        size=4,
        union=True,
        members=(Member(name="a", offset=0, layout=U32), Member(name="b", offset=0, layout=U32)),
    )
    codec = codec_of(Record(size=8, members=(Member(name="", offset=0, layout=union),)))
    array = np.ndarray((1,), np.dtype(codec.dtype), b"\1\2\3\4junk")
    assert bytes(column(array, codec, "value")) == b"\1\2\3\4\0\0\0\0"
