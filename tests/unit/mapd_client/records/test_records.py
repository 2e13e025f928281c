"""Elements as JSON: the same that typed access reads, one JSON type for each field."""

from __future__ import annotations

import json
import math
import re
import struct as packing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd_api.uapi import MapFlag, MapType
from mapd_client import MapInfo, Misuse, SizeMismatch, TypeMismatch, Unsupported
from mapd_client.info import ByteOrder
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
from mapd_client.records import Records
from mapd_client.records.reading import from_json
from mapd_client.records.schema import VERSION
from mapd_client.typed import Fields, codec_of
from tests.support.structs import EVERYTHING, images, layouts

U32 = Integer(size=4, signed=False, type_name="__u32")
U64 = Integer(size=8, signed=False, type_name="__u64")
U8 = Integer(size=1, signed=False, type_name="__u8")
BE16 = Integer(size=2, signed=False, order="big", type_name="__be16")
STATE = Enumeration(size=4, signed=False, members=(("OPEN", 0), ("CLOSED", 1)), type_name="state")
INFO = MapInfo(
    id=1, type=MapType.HASH, key_size=4, value_size=8, max_entries=8, flags=MapFlag(0), frozen=False, name="ns/it",
    kernel_name="it", pin_path="", key_stride=4, value_stride=8, map_extra=0, btf_id=0, btf_key_type_id=0,
    btf_value_type_id=0, memlock_bytes=0, supported_operations=frozenset(), iteration="exact",
)  # fmt: skip


def of(value: Layout | None, *, key: Layout | None = None, size: int = 8, **options: Any) -> Records:
    info = replace(INFO, value_size=value.size if value is not None else size)
    layout = MapLayout(key=key, value=value, source="a test")
    return Records(info, layout, byteorder=options.pop("byteorder", "little"), **options)


def struct(size: int, *members: tuple[str, int, Layout], union: bool = False) -> Record:
    made = tuple(
        Member(name=one, offset=offset, layout=layout, bit_offset=8 * offset)
        for one, offset, layout in members
    )
    return Record(size=size, members=made, type_name="v", union=union)


def value_of(layout: Layout, data: bytes, **options: Any) -> Any:
    return of(layout, **options).record(bytes(4), data)["value"]


@pytest.mark.parametrize(
    ("layout", "data", "text"),
    [
        (U32, b"\x2a\0\0\0", "42"),
        (U64, b"\xff" * 8, "18446744073709551615"),
        (Integer(size=8, signed=True), b"\xff" * 8, "-1"),
        (Integer(size=16, signed=False), b"\xff" * 16, '"340282366920938463463374607431768211455"'),
        (BE16, b"\x01\xbb", "443"),
        (Boolean(), b"\x02", "true"),
        (STATE, b"\x01\0\0\0", '"CLOSED"'),
        (STATE, b"\x07\0\0\0", '"7"'),
        (Pointer(), packing.pack("<Q", 0xFFFF_8880_0000_1000), '"0xffff888000001000"'),
        (Float(size=8), packing.pack("<d", 0.5), "0.5"),
        (Float(size=8), packing.pack("<d", math.nan), "null"),
        (Float(size=4), packing.pack("<f", math.inf), "null"),
        (Text(size=8), b'a"b\\\n\0zz', '"a\\"b\\\\\\n"'),
        (Text(size=4), b"\xc3\xbc\xff\0", '"\\u00fc\\\\xff"'),
        (Opaque(size=3), b"\x00\xab\xff", '"00abff"'),
        (Array(element=U8, count=3), b"\x01\x02\x03", "[1, 2, 3]"),
        (Array(element=U8, count=0), b"", "[]"),
        (struct(0), b"", "{}"),
        (struct(8, ("lock", 0, Special(size=4, type_name="bpf_spin_lock")), ("n", 4, U32)), bytes(8), '{"n": 0}'),
        (struct(4, ("100%", 0, U32)), bytes(4), '{"100%": 0}'),
    ],
    ids=repr,
)  # fmt: skip
def test_a_field_is_written_so(layout: Layout, data: bytes, text: str) -> None:
    assert of(layout).line(bytes(4), data) == f'{{"key": "00000000", "value": {text}}}\n'


def test_integers_of_eight_bytes_are_strings_where_that_is_asked_for() -> None:
    layout = struct(16, ("wide", 0, U64), ("narrow", 8, U32))

    assert value_of(layout, bytes(16), wide="string") == {"wide": "0", "narrow": 0}


def test_what_is_not_known_is_hex() -> None:
    assert of(None).record(b"\0\1\2\3", bytes(range(8))) == {"key": "00010203", "value": "0001020304050607"}


def test_bytes_that_are_none_are_an_empty_string() -> None:
    queue = replace(INFO, key_size=0, key_stride=0)
    assert (
        Records(queue, byteorder="little").lines(b"", bytes(16), 2)
        == 2 * f'{{"key": "", "value": "{"00" * 8}"}}\n'
    )


def test_a_per_cpu_value_is_a_list_with_cpu_0_first() -> None:
    info = replace(INFO, type=MapType.PERCPU_HASH, value_size=4, value_stride=24)
    layout = MapLayout(key=U32, value=U32, source="a test")
    column = packing.pack("<I4xI4xI4x", 7, 8, 9)

    assert Records(info, layout, byteorder="little").record(b"\1\0\0\0", column) == {
        "key": 1,
        "value": [7, 8, 9],
    }


def test_a_hint_is_a_string_and_a_port_a_number() -> None:
    key = struct(6, ("saddr", 0, U32), ("dport", 4, U16))
    records = Records(
        replace(INFO, key_size=6),
        MapLayout(key=key, value=None, source="a test"),
        byteorder="little",
        hints={"key.saddr": "ipv4", "key.dport": "port"},
    )

    found = records.record(bytes((10, 0, 0, 1, 1, 187)), bytes(8))

    assert found["key"] == {"saddr": str(IPv4Address("10.0.0.1")), "dport": 443}


def test_a_hint_for_no_field_is_refused() -> None:
    with pytest.raises(Misuse, match=r"value\.dadr"):
        of(struct(4, ("daddr", 0, U32)), hints={"value.dadr": "ipv4"})


def test_a_layout_of_another_size_is_refused_with_both() -> None:
    with pytest.raises(Unsupported, match="by a test a value has 8 bytes, in the map 4"):
        Records(
            replace(INFO, value_size=4), MapLayout(key=None, value=U64, source="a test"), byteorder="little"
        )


def test_columns_of_another_size_are_refused() -> None:
    with pytest.raises(SizeMismatch, match="12 bytes are not 2 elements of 4"):
        of(U64).lines(bytes(12), bytes(16), 2)


U16 = Integer(size=2, signed=False)


def _plain(layout: Layout, value: Any, data: bytes) -> Any:
    """What typed access reads, as the record schema has it."""
    match layout:
        case Record():
            assert isinstance(value, Fields)
            return {
                one.name: _plain(one.layout, value[one.name], data[one.offset : one.offset + one.layout.size])
                for one in layout.named()
                if one.name in value
            }
        case Array():
            size = layout.element.size
            return [
                _plain(layout.element, one, data[at * size : (at + 1) * size]) for at, one in enumerate(value)
            ]
        case Integer():
            return str(value) if layout.size > 8 else value
        case Enumeration():
            return str(value)
        case Pointer():
            return hex(value)
        case Float():
            return value if math.isfinite(value) else None
        case Text():
            return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")
        case _:
            return value


@settings(max_examples=150, deadline=None)
@given(st.data(), layouts(EVERYTHING), st.integers(1, 3))
def test_records_say_what_typed_access_reads(data: st.DataObject, layout: Layout, count: int) -> None:
    column = [data.draw(images(layout)) for _ in range(count)]
    codec = codec_of(layout).bind("little", 1)
    records = of(layout)

    lines = records.lines(bytes(4 * count), b"".join(column), count).splitlines()

    found = [json.loads(line)["value"] for line in lines]
    assert found == [_plain(layout, codec.decode(one), one) for one in column]
    schema = records.schema()["properties"]["value"]
    for value in found:
        assert _conforms(value, schema)


def _writable(layout: Layout) -> bool:
    """Whether what is read of it says all that is to be written: of a union one member is to be chosen."""
    match layout:
        case Record():
            return not layout.union and all(_writable(one.layout) for one in layout.members)
        case Array():
            return _writable(layout.element)
        case _:
            return not isinstance(layout, Text)


@settings(max_examples=100, deadline=None)
@given(st.data(), layouts(EVERYTHING).filter(_writable), st.sampled_from(["number", "string"]))
def test_what_was_written_as_json_is_read_again(data: st.DataObject, layout: Layout, wide: Any) -> None:
    records = of(layout, wide=wide)
    found = records.record(bytes(4), data.draw(images(layout)))["value"]

    given_again = from_json(layout, found, {}, "value")

    encoded = codec_of(layout).bind("little", 1).encode(given_again)
    assert records.record(bytes(4), encoded)["value"] == found


@pytest.mark.parametrize(
    ("layout", "value", "why"),
    [
        (U32, "10.0.0.1", "value: '10.0.0.1' is no number; where it is .* a hint says so: value=ipv4"),
        (
            Enumeration(size=4, signed=False, members=(("OPEN", 0),)),
            "OPN",
            "value: 'OPN' is no number, and no name of this enum: did you mean 'OPEN'?",
        ),
        (Opaque(size=2), "zz", "value: 'zz': two hex digits"),
    ],
)
def test_a_string_that_is_no_number_names_the_field(layout: Layout, value: str, why: str) -> None:
    with pytest.raises(TypeMismatch, match=why):
        from_json(layout, value, {}, "value")


def _conforms(value: Any, schema: Mapping[str, Any]) -> bool:
    """The part of JSON Schema that these schemas use."""
    if "anyOf" in schema:
        return any(_conforms(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema["type"]
    if isinstance(kinds, str):
        return _is(value, kinds, schema)
    return any(_is(value, kind, schema) for kind in cast("list[str]", kinds))


def _is(value: Any, kind: str, schema: Mapping[str, Any]) -> bool:
    match kind:
        case "object":
            properties = schema["properties"]
            return set(value) == set(schema["required"]) == set(properties) and all(
                _conforms(value[name], one) for name, one in properties.items()
            )
        case "array":
            elements = cast("Sequence[Any]", value)
            return len(elements) == schema["minItems"] == schema["maxItems"] and all(
                _conforms(one, schema["items"]) for one in elements
            )
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "number":
            return isinstance(value, float)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case _:
            return isinstance(value, str) and re.search(schema.get("pattern", ""), value) is not None


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_bit_fields_of_either_byte_order(byteorder: ByteOrder) -> None:
    flags = Record(
        size=4,
        members=(
            Member(name="low", offset=0, layout=U32, bits=3, bit_offset=0),
            Member(name="high", offset=0, layout=Integer(size=4, signed=True), bits=5, bit_offset=3),
        ),
        type_name="flags",
    )
    first = 0b11110_101 if byteorder == "little" else 0b101_11110

    assert value_of(flags, bytes((first, 0, 0, 0)), byteorder=byteorder) == {"low": 5, "high": -2}


def test_the_schema_says_its_version_and_the_cpus() -> None:
    info = replace(INFO, type=MapType.PERCPU_HASH, value_size=8, value_stride=16)
    layout = MapLayout(key=U32, value=U64, source="a test")

    schema = Records(info, layout, byteorder="little", wide="string").schema()

    assert schema["title"] == f"mapd record, version {VERSION}"
    assert schema["properties"]["key"] == {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}
    assert schema["properties"]["value"] == {
        "type": "array",
        "items": {"type": "string", "pattern": "^[0-9]+$"},
        "minItems": 2,
        "maxItems": 2,
        "description": "one for each possible CPU, CPU 0 first",
    }
