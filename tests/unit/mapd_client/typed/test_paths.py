"""A field of a value by its path, and which of them a CPU can change in one instruction."""

from __future__ import annotations

import pytest

from mapd_client import Field, Misuse
from mapd_client.failures import Asked
from mapd_client.fields import Place, place
from mapd_client.layouts import Array, Boolean, Enumeration, Float, Integer, Pointer, Record, Special
from mapd_client.replies import map_info
from mapd_client.typed import codec_of
from mapd_client.typed.paths import find
from tests.unit.mapd_client.daemon import map_info as raw
from tests.unit.mapd_client.typed.shapes import (
    BE32,
    COMM,
    I32,
    STATS,
    U8,
    U32,
    U64,
    bit,
    member,
    struct,
    union,
)

ASKED = Asked("fetch_add", "flows", mutates=True)

VALUE = struct(
    "value",
    member("stats", 0, STATS),
    member("hist", 16, Array(element=U64, count=4)),
    member("per", 48, Array(element=STATS, count=2)),
    member("debt", 80, I32),
    member("addr", 84, BE32),
    member("state", 88, Enumeration(size=4, signed=True, members=(("ON", 1),))),
    bit("flags", 92 * 8 + 3, 5, U32),
    member("small", 93, U8),
    member("ratio", 96, Float(size=8)),
    member("lock", 104, Special(size=4, type_name="bpf_spin_lock")),
    member("", 108, union("", ("mark", U32), ("on", Boolean()))),
    member("next", 112, Pointer()),
    member("odd", 121, U32),
    member("comm", 125, COMM),
    member("wide", 141, Integer(size=16, signed=False)),
    size=160,
)


def _place(field: str | None, layout: Record = VALUE, *, adds: bool = True) -> Place:
    info = map_info(raw("ns/flows", value_size=layout.size))
    return place(field, codec_of(layout), info, "little", ASKED, adds=adds)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("stats.packets", Field(0, 8)),
        ("stats.bytes", Field(8, 8)),
        ("hist[3]", Field(40, 8)),
        ("per[1].bytes", Field(72, 8)),
        ("debt", Field(80, 4, signed=True)),
        ("state", Field(88, 4, signed=True)),
        ("mark", Field(108, 4)),
        ("next", Field(112, 8)),
    ],
)
def test_a_field_is_named_by_its_path(path: str, field: Field) -> None:
    assert _place(path).field == field


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("stats.packts", r"stats has no field 'packts': did you mean 'packets'\?"),
        ("stat.packets", r"the value has no field 'stat': did you mean 'stats'\?"),
        ("hist[4]", r"hist\[4\]: it has 4 elements, from 0 on"),
        ("hist", "it is an array, no integer; name one inside it"),
        ("per.bytes", r"per is an array; say which of its 2 elements: per\[0\]\.bytes"),
        ("stats[0]", "stats is a struct stats, which has no elements"),
        ("stats", "it is a struct stats, no integer"),
        ("debt.x", "debt is an int, which has no field 'x'"),
        ("stats..packets", "is no path of a field"),
        ("stats.packets.", "is no path of a field"),
        (".stats", "is no path of a field"),
        ("hist[-1]", "is no path of a field"),
        ("hist[x]", "is no path of a field"),
        ("small", "it is a __u8 of 1 bytes; a CPU changes 4 or 8 at once"),
        ("wide", "of 16 bytes; a CPU changes 4 or 8 at once"),
        ("flags", "it is a bit-field of 5 bits; no instruction changes those alone"),
        ("ratio", "it is a float, no integer"),
        ("comm", "it is a text, no integer"),
        ("lock", "it is a bpf_spin_lock, which belongs to the kernel"),
        ("odd", "it lies at byte 121, not at a multiple of its 4 bytes"),
        ("addr", "it is a __be32, whose bytes are big-endian, and .* adds as a little-endian one"),
    ],
)
def test_what_no_instruction_changes_is_refused_with_the_reason(path: str, message: str) -> None:
    with pytest.raises(Misuse, match=rf"fetch_add flows: field='.*': .*{message}"):
        _place(path)


def test_bytes_of_another_order_are_exchanged_as_the_type_has_them() -> None:
    where = _place("addr", adds=False)

    assert where.part == (84, 4)
    assert where.operand.encode(1) == b"\0\0\0\1"
    assert where.old.decode(b"\0\0\0\1") == 1


def test_without_a_field_a_record_is_no_integer() -> None:
    with pytest.raises(Misuse, match="fetch_add flows: the whole value: it is a struct value, no integer"):
        _place(None)


def test_an_array_is_a_value_as_well() -> None:
    part = find(Array(element=STATS, count=2), "[1].bytes")

    assert (part.offset, part.layout) == (24, U64)
