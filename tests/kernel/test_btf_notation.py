"""How bpftool says what it shows: each difference from our decoding that the comparison allows for, by itself.

bpftool 7.1; tools/bpf/bpftool/btf_dumper.c and json_writer.c.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from mapd_api.uapi import MapType
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
from tests.kernel.maps import KERNEL, Maps
from tests.kernel.typed import INDEX, create_typed, read, shown_value, write
from tests.support.bpftool import differences, raw_dump

U8 = Integer(size=1, signed=False, type_name="__u8")
I32 = Integer(size=4, signed=True, type_name="__s32")


def record(*members: Member, size: int) -> Record:
    return Record(size=size, members=members, type_name="s")


def enumeration(size: int, number: int, *, signed: bool = False) -> Enumeration:
    return Enumeration(size=size, signed=signed, members=(("name", number),), type_name="e")


def bits(layout: Layout, width: int) -> Record:
    return record(Member(name="x", offset=0, layout=layout, bits=width), size=8)


PAIR = record(
    Member(name="", offset=0, layout=record(Member(name="a", offset=0, layout=I32), size=4)),
    Member(name="", offset=4, layout=record(Member(name="b", offset=0, layout=I32), size=4), bit_offset=32),
    size=8,
)


@pytest.mark.parametrize(
    ("layout", "data", "theirs", "ours"),
    [
        pytest.param(
            Integer(size=16, signed=True), b"\xfe" + b"\xff" * 15, "0x" + "f" * 31 + "e", -2, id="16 bytes: no sign"
        ),
        pytest.param(bits(I32, 3), b"\7" + bytes(7), [("x", "0x7")], {"x": -1}, id="bit-fields: no sign"),
        pytest.param(bits(Boolean(), 1), b"\1" + bytes(7), [("x", "0x1")], {"x": True}, id="bit-fields: no bool"),
        pytest.param(
            bits(enumeration(4, 1), 2), b"\1" + bytes(7), [("x", "0x1")], {"x": "name"}, id="bit-fields: no name"
        ),
        pytest.param(
            Integer(size=2, signed=False, order="big"), b"\0\x50", 0x5000, 80, id="byte order: the host's, always"
        ),
        pytest.param(enumeration(1, 200), b"\xc8", -56, "name", id="small enums: signed, without a name"),
        pytest.param(enumeration(4, 1), b"\xff" * 4, -1, 0xFFFFFFFF, id="enums: signed where there is no name"),
        pytest.param(enumeration(8, 1), b"\xff" * 8, -1, (1 << 64) - 1, id="enums of 8 bytes: likewise"),
        pytest.param(enumeration(8, 1 << 63), bytes(7) + b"\x80", "name", "name", id="enums of 8 bytes: names"),
        pytest.param(Text(size=8), b"lo\0junk\0", "lo", b"lo\0junk\0", id="text: nothing behind the NUL"),
        pytest.param(Text(size=4), b"full", [102, 117, 108, 108], "full", id="text: numbers without a NUL"),
        pytest.param(Text(size=3), "é".encode() + b"\0", [-61, -87, 0], "é", id="text: numbers if not ASCII"),
        pytest.param(Text(size=3), b"a\\\0", "a\n", "a\\", id="text: a newline for a backslash"),
        pytest.param(Text(size=3), b'a"\0', 'a"', 'a"', id="text: quotes"),
        pytest.param(
            Array(element=Integer(size=1, signed=True, type_name="s8"), count=2), b"lo", [108, 111], (108, 111),
            id="numbers of one byte are no text",
        ),
        pytest.param(Pointer(), b"\xff" * 8, (1 << 64) - 1, (1 << 64) - 1, id="pointers: numbers"),
        pytest.param(Opaque(size=2), b"\1\xff", [1, 255], b"\1\xff", id="opaque bytes: numbers"),
        pytest.param(
            PAIR, b"\1\0\0\0\2\0\0\0", [("", [("a", 1)]), ("", [("b", 2)])], {"a": 1, "b": 2},
            id="anonymous members: objects, all called the same",
        ),
        pytest.param(
            record(
                Member(name="lock", offset=0, layout=Special(size=4, type_name="bpf_spin_lock")),
                Member(name="x", offset=4, layout=I32, bit_offset=32),
                size=8,
            ),
            b"\xff\xff\xff\xff\1\0\0\0",
            [("lock", [("val", 0)]), ("x", 1)],
            {"x": 1},
            id="the kernel's own fields: zeros",
        ),
    ],
)  # fmt: skip
def test_bpftool_shows_what_we_decode_in_its_own_notation(
    maps: Maps, layout: Layout, data: bytes, theirs: Any, ours: Any
) -> None:
    shown = shown_value(maps, layout, data)
    assert shown == theirs
    assert read(layout, data) == ours
    assert not list(differences(layout, shown, read(layout, data), "value"))


def test_bpftool_reads_one_byte_of_a_wide_bool(maps: Maps) -> None:
    """Such bools are not generated: there is no notation by which ours could be told from it."""
    wide = Boolean(size=4)
    assert shown_value(maps, wide, b"\0\1\0\0") is False
    assert read(wide, b"\0\1\0\0") is True


def test_a_bool_of_another_byte_than_1_is_true_to_both(maps: Maps) -> None:
    assert shown_value(maps, Boolean(), b"\2") is True
    assert read(Boolean(), b"\2") is True


def test_a_float_ends_the_output_of_bpftool(maps: Maps) -> None:
    """It writes no JSON then, and leaves out the fields that follow; so floats are compared with the kernel alone."""
    real = record(
        Member(name="rate", offset=0, layout=Float(size=8, type_name="double")),
        Member(name="after", offset=8, layout=I32, bit_offset=64),
        size=16,
    )
    made = create_typed(maps, MapType.HASH, INDEX, real)
    data = bytes.fromhex("000000000000f83f 07000000 00000000")
    write(made, {bytes(4): [data]})
    output = raw_dump(KERNEL.info(made.fd).id)
    assert b'"rate":(unsupported-kind' in output
    assert b"after" not in output
    with pytest.raises(json.JSONDecodeError):
        json.loads(output)
    assert read(real, data) == {"rate": 1.5, "after": 7}
