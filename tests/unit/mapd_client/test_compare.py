"""Types compared: what counts as another type, and what it is called."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_client.btf import Types
from mapd_client.btf.build import blob_of
from mapd_client.compare import Change, differences, listed
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    MapLayout,
    Member,
    Opaque,
    Pointer,
    Record,
    Special,
    Text,
)
from tests.support.structs import Wanted, records

U8 = Integer(size=1, signed=False, type_name="__u8")
U16 = Integer(size=2, signed=False, type_name="__u16")
U32 = Integer(size=4, signed=False, type_name="__u32")
S32 = Integer(size=4, signed=True, type_name="int")
U64 = Integer(size=8, signed=False, type_name="__u64")
BE32 = Integer(size=4, signed=False, order="big", type_name="__be32")
LE32 = Integer(size=4, signed=False, order="little", type_name="__le32")
STATE = Enumeration(size=4, signed=False, members=(("OPEN", 0), ("CLOSED", 1)), type_name="state")

BELOW = Enumeration(size=4, signed=True, members=(("NONE", -1), ("SOME", 1)), type_name="below")


def struct(name: str, size: int, *members: tuple[str, int, Layout], union: bool = False) -> Record:
    made = tuple(
        Member(name=one, offset=offset, layout=layout, bit_offset=8 * offset)
        for one, offset, layout in members
    )
    return Record(size=size, members=made, type_name=name, union=union)


def bits(name: str, base: Layout, width: int, at: int) -> Record:
    member = Member(name=name, offset=at // 8, layout=base, bits=width, bit_offset=at)
    return Record(size=4, members=(member,), type_name="flags")


def compared(wanted: Layout | None, there: Layout | None, **options: Any) -> list[str]:
    ours = MapLayout(key=None, value=wanted, source="class V")
    theirs = MapLayout(key=None, value=there, source="the map's BTF")
    return [str(one) for one in differences(ours, theirs, **options)]


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        (U32, dataclasses.replace(U32, type_name="pid_t")),
        (U64, Pointer()),
        (STATE, U32),
        (S32, STATE),
        (Text(size=4), Array(element=U8, count=4)),
        (Text(size=4), Array(element=dataclasses.replace(U8, signed=True), count=4)),
        (Opaque(size=4), BE32),
        (Record(size=6, members=()), Opaque(size=6)),
        (U8, dataclasses.replace(U8, order="big")),
        (None, U32),
        (U32, None),
        (struct("a", 8, ("x", 0, U32)), struct("b", 8, ("x", 0, U32))),
        (
            struct("a", 8, ("x", 0, U32), ("y", 4, S32)),
            struct("a", 8, ("", 0, struct("", 8, ("x", 0, U32), ("y", 4, S32)))),
        ),
        (struct("a", 4, ("x", 0, U32)), struct("a", 4, ("x", 0, U32), union=True)),
        (bits("x", U32, 3, 2), bits("x", U8, 3, 2)),
        (bits("x", STATE, 3, 2), bits("x", U8, 3, 2)),
        (bits("x", U32, 8, 16), struct("flags", 4, ("x", 2, U8))),
        (struct("flags", 4, ("x", 0, STATE)), bits("x", STATE, 32, 0)),
        (BELOW, dataclasses.replace(BELOW, signed=False, members=(("NONE", 2**32 - 1), ("SOME", 1)))),
        (Special(size=4, type_name="bpf_spin_lock"), Special(size=4, type_name="bpf_spin_lock")),
    ],
)
def test_types_of_the_same_bytes_are_compatible(wanted: Layout | None, there: Layout | None) -> None:
    assert compared(wanted, there) == []


@pytest.mark.parametrize(
    ("wanted", "there", "lines"),
    [
        (U32, U64, ["value: wanted u32, is u64"]),
        (U32, S32, ["value: wanted u32, is int (s32)"]),
        (U32, BE32, ["value: wanted u32, is be32"]),
        (U8, Boolean(type_name="_Bool"), ["value: wanted u8, is _Bool (bool)"]),
        (U32, Float(size=4, type_name="float"), ["value: wanted u32, is float (f32)"]),
        (STATE, U64, ["value: wanted state (enum of 4 bytes), is u64"]),
        (Text(size=4), Text(size=8), ["value: wanted char[4], is char[8]"]),
        (Array(element=U32, count=2), Array(element=U32, count=3), ["value: wanted u32[2], is u32[3]"]),
        (Array(element=U32, count=2), Array(element=S32, count=2), ["value[]: wanted u32, is int (s32)"]),
        (Opaque(size=4), U64, ["value: wanted 4 bytes, is u64"]),
        (
            Special(size=4, type_name="bpf_spin_lock"),
            Special(size=4, type_name="bpf_refcount"),
            ["value: wanted bpf_spin_lock, is bpf_refcount"],
        ),
        (Special(size=4, type_name="bpf_spin_lock"), U32, ["value: wanted bpf_spin_lock, is u32"]),
        (
            BELOW,
            dataclasses.replace(STATE, members=(("SOME", 1),)),
            ["value.NONE: wanted -1, is not there"],
        ),
        (
            bits("x", STATE, 3, 2),
            bits("x", dataclasses.replace(STATE, members=(("OPEN", 1), ("CLOSED", 0))), 3, 2),
            ["value.x.OPEN: wanted 0, is 1", "value.x.CLOSED: wanted 1, is 0"],
        ),
        (
            bits("x", U32, 32, 0),
            struct("flags", 4, ("x", 0, BE32)),
            ["value.x: wanted u32:32 at bit 0, is be32 at 0"],
        ),
    ],
)
def test_another_type_is_named(wanted: Layout, there: Layout, lines: list[str]) -> None:
    assert compared(wanted, there) == lines


@pytest.mark.parametrize(
    ("wanted", "there", "change", "line"),
    [
        (
            struct("v", 16, ("stats", 0, struct("s", 16, ("bytes", 0, U64), ("packets", 8, U32)))),
            struct("v", 16, ("stats", 0, struct("s", 16, ("bytes", 0, U64), ("packets", 8, U64)))),
            "resized",
            "value.stats.packets: wanted u32 at 8, is u64 at 8",
        ),
        (
            struct("v", 8, ("a", 0, U32)),
            struct("v", 8, ("a", 4, U32)),
            "moved",
            "value.a: wanted u32 at 0, is u32 at 4",
        ),
        (
            struct("v", 8, ("a", 0, U32)),
            struct("v", 8, ("b", 0, U32)),
            "renamed",
            "value.a: wanted u32 at 0, is b, u32 at 0",
        ),
        (struct("v", 8, ("a", 0, U32)), struct("v", 8), "added", "value.a: wanted u32 at 0, is not there"),
        (struct("v", 8), struct("v", 8, ("a", 0, U32)), "removed", "value.a: not wanted, is u32 at 0"),
        (
            struct("v", 8, ("a", 0, U32)),
            struct("v", 8, ("a", 0, BE32)),
            "retyped",
            "value.a: wanted u32 at 0, is be32 at 0",
        ),
        (
            struct("v", 8),
            struct("v", 16),
            "resized",
            "value: wanted struct v of 8 bytes, is struct v of 16 bytes",
        ),
        (
            bits("x", U32, 3, 2),
            bits("x", U32, 4, 2),
            "resized",
            "value.x: wanted u32:3 at bit 2, is u32:4 at bit 2",
        ),
        (
            bits("x", U32, 3, 2),
            bits("x", U32, 3, 3),
            "moved",
            "value.x: wanted u32:3 at bit 2, is u32:3 at bit 3",
        ),
        (
            bits("x", U32, 3, 2),
            bits("x", S32, 3, 2),
            "retyped",
            "value.x: wanted u32:3 at bit 2, is int (s32):3 at bit 2",
        ),
        (
            STATE,
            dataclasses.replace(STATE, members=(("OPEN", 0), ("SHUT", 1))),
            "renamed",
            "value.CLOSED: wanted 1, is SHUT, 1",
        ),
        (
            STATE,
            dataclasses.replace(STATE, members=(("OPEN", 0), ("CLOSED", 2))),
            "moved",
            "value.CLOSED: wanted 1, is 2",
        ),
        (
            STATE,
            dataclasses.replace(STATE, members=(("OPEN", 0),)),
            "added",
            "value.CLOSED: wanted 1, is not there",
        ),
        (
            dataclasses.replace(STATE, members=(("OPEN", 0),)),
            STATE,
            "removed",
            "value.CLOSED: not wanted, is 1",
        ),
    ],
)
def test_a_field_that_differs_is_named_by_its_path(
    wanted: Layout, there: Layout, change: Change, line: str
) -> None:
    ours = MapLayout(key=U32, value=wanted, source="class V")
    theirs = MapLayout(key=U32, value=there, source="the map's BTF")

    (found,) = differences(ours, theirs)

    assert (found.change, str(found)) == (change, line)


def test_members_of_a_union_that_share_their_bytes_are_all_named() -> None:
    there = struct("u", 8, ("x", 0, U64), ("y", 0, U64), ("z", 0, U32), union=True)

    assert compared(struct("u", 8, union=True), there) == [
        "value.x: not wanted, is u64 at 0",
        "value.y: not wanted, is u64 at 0",
        "value.z: not wanted, is u32 at 0",
    ]


def test_the_hosts_order_equals_the_same_order_fixed() -> None:
    assert compared(U32, LE32, byteorder="little") == []
    assert compared(U32, LE32, byteorder="big") == ["value: wanted u32, is le32"]
    assert compared(U32, BE32, byteorder="big") == []


def test_a_message_names_sixteen_and_counts_the_rest() -> None:
    many = struct("v", 80, *((f"f{at}", 4 * at, U32) for at in range(20)))

    text = listed(
        differences(
            MapLayout(key=None, value=struct("v", 80), source=""),
            MapLayout(key=None, value=many, source=""),
        )
    )

    assert text.splitlines()[15:] == ["  value.f15: not wanted, is u32 at 60", "  and 4 more"]


@settings(max_examples=60)
@given(records(Wanted(byteorder="little")))
def test_a_type_is_compatible_with_itself_as_btf_has_it(record: Record) -> None:
    btf = blob_of(U32, record, "little")
    read = Types(btf.blob).layout(btf.value_type_id)

    assert compared(record, read) == []
    assert compared(read, record) == []


@settings(max_examples=60)
@given(records(Wanted(byteorder="little")), st.data())
def test_a_field_taken_away_is_named(record: Record, data: st.DataObject) -> None:
    named = [one for one in record.members if one.name]
    if not named:
        return
    lost = data.draw(st.sampled_from(named))
    rest = tuple(member for member in record.members if member is not lost)
    there = dataclasses.replace(record, members=rest)

    assert f"value.{lost.name}" in {line.partition(":")[0] for line in compared(record, there)}
    assert f"value.{lost.name}" in {line.partition(":")[0] for line in compared(there, record)}
