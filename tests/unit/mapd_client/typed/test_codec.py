"""Codecs made from layouts: whatever is written is read again, and whatever was read is written as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_client import I8, U32, U64, PerCpu, SizeMismatch, TypeMismatch
from mapd_client.codec import Int
from mapd_client.layouts import Array, Boolean, Integer, Layout, Opaque, Record, Special, Text
from mapd_client.typed import Fields, codec_of
from tests.unit.mapd_client.typed.shapes import (
    BE16,
    COMM,
    FLOW_KEY,
    MAC,
    ORDERS,
    STATE,
    STATS,
    bit,
    layouts,
    member,
    records,
    struct,
    union,
    values,
)
from tests.unit.mapd_client.typed.shapes import U8 as U8_LAYOUT
from tests.unit.mapd_client.typed.shapes import U32 as U32_LAYOUT
from tests.unit.mapd_client.typed.shapes import U64 as U64_LAYOUT

orders = st.sampled_from(ORDERS)


def _holds(read: Any, written: Any) -> bool:
    """Whether what was read has all that was written; of a union, more."""
    if isinstance(written, Mapping):
        return all(_holds(read[name], value) for name, value in written.items())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(written, tuple):
        return len(read) == len(written) and all(map(_holds, read, written))  # pyright: ignore[reportUnknownArgumentType]
    return bool(read == written)


@given(st.data(), layouts, orders)
def test_what_was_written_is_read(data: st.DataObject, layout: Layout, byteorder: Any) -> None:
    codec = codec_of(layout).bind(byteorder, 4)
    value = data.draw(values(layout))

    encoded = codec.encode(value)

    assert len(encoded) == codec.size == layout.size
    if encoded:
        assert _holds(codec.decode(encoded), value)
        assert codec.encode(codec.decode(encoded)) == encoded


@given(st.data(), records, orders)
def test_a_record_that_was_read_is_written_byte_for_byte(
    data: st.DataObject, layout: Record, byteorder: Any
) -> None:
    codec = codec_of(layout).bind(byteorder, 4)
    there = data.draw(st.binary(min_size=layout.size, max_size=layout.size))

    found = codec.decode(there)

    assert codec.encode(found) == there == bytes(found)
    assert codec_of(layout).bind(byteorder, 4).encode(found) == there, "another codec of the same layout"


@given(st.data(), layouts.filter(lambda layout: layout.size > 0), orders)
def test_a_column_is_its_elements(data: st.DataObject, layout: Layout, byteorder: Any) -> None:
    codec = codec_of(layout).bind(byteorder, 4)
    some = data.draw(st.lists(values(layout), max_size=4))

    column = codec.encode_many(some)

    assert column == b"".join(codec.encode(one) for one in some)
    assert list(map(repr, codec.decode_many(column))) == [
        repr(codec.decode(column[at : at + layout.size])) for at in range(0, len(column), layout.size)
    ]


@given(st.data(), records, orders)
def test_hostile_bytes_are_read_without_an_exception(
    data: st.DataObject, layout: Record, byteorder: Any
) -> None:
    codec = codec_of(layout).bind(byteorder, 4)

    found = codec.decode(data.draw(st.binary(min_size=layout.size, max_size=layout.size)))

    assert repr(found)
    assert [found[name] is not None for name in found] == [True] * len(found)


def test_bit_fields_are_where_the_compiler_of_each_byte_order_puts_them() -> None:
    # struct { u32 version:4, ihl:4, tos:8; } as gcc lays it out for x86-64 and for s390x.
    layout = struct(
        "bits",
        bit("version", 0, 4, U32_LAYOUT),
        bit("ihl", 4, 4, U32_LAYOUT),
        bit("wide", 8, 12, U32_LAYOUT),
        size=4,
    )
    value = {"version": 0x4, "ihl": 0x5, "wide": 0xABC}

    assert codec_of(layout).bind("little", 1).encode(value) == bytes.fromhex("54bc0a00")
    assert codec_of(layout).bind("big", 1).encode(value) == bytes.fromhex("45abc000")


def test_a_signed_bit_field_has_a_sign() -> None:
    layout = struct("bits", bit("small", 3, 5, Integer(size=4, signed=True)), size=4)
    codec = codec_of(layout)

    assert codec.decode(codec.encode({"small": -16}))["small"] == -16
    with pytest.raises(SizeMismatch, match=r"value\.small: 16 is outside a bit-field of 5 bits.*-16 to 15"):
        codec.encode({"small": 16})


def test_a_plain_integer_is_the_librarys_own_codec() -> None:
    # Atomics, sums by the daemon and arrays know those.
    codec = codec_of(U64_LAYOUT)

    assert isinstance(codec, Int)
    assert repr(codec) == "U64"
    assert PerCpu(codec).sum().bind("little", 2).decode(U64.encode(3) + U64.encode(4)) == 7
    assert repr(codec_of(Integer(size=1, signed=True))) == repr(I8)


def test_a_number_of_fixed_order_is_not_turned_by_the_host() -> None:
    codec = codec_of(struct("s", member("port", 0, BE16), size=2))

    for byteorder in ORDERS:
        assert codec.bind(byteorder, 1).encode({"port": 80}) == b"\0P"


def test_text_that_ends_before_its_nuls_is_a_str_and_all_else_bytes() -> None:
    codec = codec_of(Text(size=4))

    assert codec.decode(b"eth0") == "eth0"
    assert codec.decode(b"lo\0\0") == "lo"
    assert codec.decode(b"\xff\0\0\0") == "\udcff"
    assert codec.decode(b"lo\0x") == b"lo\0x"
    assert codec.encode("lo") == codec.encode(b"lo") == b"lo\0\0"
    with pytest.raises(SizeMismatch, match="5 bytes"):
        codec.encode("eth10")
    with pytest.raises(TypeMismatch, match="without NULs"):
        codec.encode("l\0o")


def test_an_enum_is_its_first_name_and_either_is_taken() -> None:
    codec = codec_of(STATE)

    assert codec.decode(codec.encode("ESTABLISHED")) == "OPEN"
    assert codec.decode(codec.encode(5)) == 5
    with pytest.raises(TypeMismatch, match=r"'CLOSE' is no name of enum state: did you mean 'CLOSED'"):
        codec.encode("CLOSE")


def test_bytes_are_taken_for_an_array_of_bytes() -> None:
    codec = codec_of(MAC)

    assert codec.encode(b"\2\0\0\0\0\1") == codec.encode([2, 0, 0, 0, 0, 1])
    assert codec.decode(b"\2\0\0\0\0\1") == (2, 0, 0, 0, 0, 1)
    with pytest.raises(SizeMismatch, match="5 elements given"):
        codec.encode([1, 2, 3, 4, 5])
    with pytest.raises(SizeMismatch, match=r"value\[3\]: 256 is outside U8"):
        codec.encode([1, 2, 3, 256, 5, 6])


def test_what_is_the_kernels_is_neither_read_nor_asked_for() -> None:
    lock = Special(size=4, type_name="bpf_spin_lock")
    layout = struct("v", member("lock", 0, lock), member("count", 4, U32_LAYOUT))
    codec = codec_of(layout)

    assert dict(codec.decode(b"\1\0\0\0\2\0\0\0")) == {"count": 2}
    assert codec.encode({"count": 2}) == b"\0\0\0\0\2\0\0\0"
    with pytest.raises(TypeMismatch, match=r"value\.lock: struct v has no such field"):
        codec.encode({"lock": 1, "count": 2})


def test_a_union_is_written_by_one_of_its_members() -> None:
    addr = union("addr", ("v4", U32_LAYOUT), ("v6", Array(element=U8_LAYOUT, count=16)))
    codec = codec_of(struct("key", member("family", 0, U32_LAYOUT), member("addr", 4, addr)), path="key")

    found = codec.decode(codec.encode({"family": 2, "addr": {"v4": 1}}))

    assert found["addr"]["v4"] == 1
    assert found["addr"]["v6"] == (1,) + (0,) * 15
    with pytest.raises(TypeMismatch, match=r"key\.addr: none given: union addr takes one of v4, v6"):
        codec.encode({"family": 2, "addr": {}})
    with pytest.raises(TypeMismatch, match=r"key\.addr: v4, v6 given: union addr takes one of v4, v6"):
        codec.encode({"family": 2, "addr": {"v4": 1, "v6": bytes(16)}})


def test_members_of_an_anonymous_union_are_the_outers_own() -> None:
    pair = struct("", member("low", 0, U32_LAYOUT), member("high", 4, U32_LAYOUT))
    inner = Record(size=8, members=(member("", 0, pair), member("both", 0, U64_LAYOUT)), union=True)
    codec = codec_of(struct("value", member("", 0, inner), member("seen", 8, U64_LAYOUT)))

    one = codec.encode({"both": 1 | 2 << 32, "seen": 3})

    assert one == codec.encode({"low": 1, "high": 2, "seen": 3})
    assert dict(codec.decode(one)) == {"low": 1, "high": 2, "both": 1 | 2 << 32, "seen": 3}
    with pytest.raises(TypeMismatch, match="low, both given"):
        codec.encode({"low": 1, "both": 1, "seen": 3})
    with pytest.raises(TypeMismatch, match=r"value\.high: it is missing"):
        codec.encode({"low": 1, "seen": 3})


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ({"sadr": 1}, TypeMismatch, r"key\.sadr: struct flow_key has no such field: did you mean 'saddr'\?"),
        ({"saddr": 1, "dport": 2, "proto": 3}, TypeMismatch, r"key\.ifindex: it is missing"),
        (
            {"saddr": "10.0.0.1", "dport": 2, "proto": 3, "ifindex": 4},
            TypeMismatch,
            r"key\.saddr: '10\.0\.0\.1': __be32 takes an int, not str",
        ),
        (
            {"saddr": 1, "dport": 2, "proto": 300, "ifindex": 4},
            SizeMismatch,
            r"key\.proto: 300 is outside U8: 1 bytes hold 0 to 255",
        ),
        (7, TypeMismatch, r"7: struct flow_key takes a mapping by field name, not int"),
    ],
)
def test_an_error_names_the_field_the_value_and_what_is_taken(
    value: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        codec_of(FLOW_KEY, path="key").encode(value)


def test_an_error_names_the_way_down() -> None:
    layout = struct("v", member("per", 0, Array(element=STATS, count=2)), member("comm", 32, COMM))
    codec = codec_of(layout)
    stats = {"packets": 1, "bytes": 2}

    with pytest.raises(TypeMismatch, match=r"value\.per\[1\]\.packets: 1\.5: U64 takes an int, not float"):
        codec.encode({"per": [stats, {**stats, "packets": 1.5}], "comm": "x"})


def test_a_bound_codec_reads_the_other_byte_order() -> None:
    codec = codec_of(struct("s", member("n", 0, U32_LAYOUT), member("on", 4, Boolean()), size=5))

    assert codec.bind("big", 1).encode({"n": 1, "on": True}) == b"\0\0\0\1\1"
    assert codec.bind("big", 1).bind("little", 1).encode({"n": 1, "on": True}) == b"\1\0\0\0\1"


def test_a_layout_that_leaves_its_record_is_refused() -> None:
    with pytest.raises(TypeMismatch, match="ends at byte 8, and its struct s has 4 bytes"):
        codec_of(Record(size=4, members=(member("n", 0, U64_LAYOUT),), type_name="s"))


def test_per_cpu_values_are_lists_of_records() -> None:
    codec = PerCpu(codec_of(struct("s", member("n", 0, U32_LAYOUT), size=4))).bind("little", 2)

    found = codec.decode(codec.encode([{"n": 1}, {"n": 2}]))

    assert found == [{"n": 1}, {"n": 2}]
    assert isinstance(found[0], Fields)
    assert codec_of(Opaque(size=3)).decode(b"abc") == b"abc"
    assert U32.size == 4
