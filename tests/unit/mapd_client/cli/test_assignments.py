"""Structs by their fields, as one types them."""

from __future__ import annotations

from typing import Any

import pytest

from mapd_client import Misuse
from mapd_client.cli.assignments import from_fields, is_fields
from mapd_client.layouts import Array, Boolean, Enumeration, Float, Integer, Text
from tests.unit.mapd_client.cli.shown import shown, struct

U8 = Integer(size=1, signed=False)
U32 = Integer(size=4, signed=False)
INNER = struct(8, ("port", 0, U32), ("weight", 4, Float(size=4)))
WHOLE = struct(
    64,
    ("saddr", 0, U32),
    ("on", 4, Boolean()),
    ("name", 8, Text(size=16)),
    ("state", 24, Enumeration(size=4, signed=False, members=(("OPEN", 0), ("CLOSED", 1)))),
    ("bytes", 28, Array(element=U8, count=2)),
    ("inner", 32, INNER),
)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("saddr=7", {"saddr": 7}),
        ("saddr=0x0a,on=true", {"saddr": 10, "on": True}),
        ("inner.port=53,inner.weight=0.5", {"inner": {"port": 53, "weight": 0.5}}),
        ("name=a,b and c=d,state=CLOSED", {"name": "a,b and c=d", "state": "CLOSED"}),
        ("name=", {"name": ""}),
        ("name=7", {"name": "7"}),
        ("bytes=[1, 2],saddr=1", {"bytes": [1, 2], "saddr": 1}),
        ('inner={"port": 1, "weight": 2}', {"inner": {"port": 1, "weight": 2}}),
        ("nowhere=1", {"nowhere": "1"}),
        ("saddr=ten", {"saddr": "ten"}),
    ],
)
def test_fields_become_what_their_types_are_in_json(text: str, made: dict[str, Any]) -> None:
    assert is_fields(text)
    assert from_fields(text, WHOLE, {}, "key") == made


def test_a_field_with_a_hint_keeps_its_text() -> None:
    assert from_fields("saddr=7", WHOLE, {"key.saddr"}, "key") == {"saddr": "7"}


@pytest.mark.parametrize("text", ["saddr=1,saddr=2", "inner.port=1,inner.port=2", "inner=1,inner.port=2"])
def test_a_field_is_given_once(text: str) -> None:
    with pytest.raises(Misuse, match="given twice"):
        from_fields(text, WHOLE, {}, "key")


@pytest.mark.parametrize(
    "text", ["7", "hex:00", "10.0.0.1", "02:00:5e:10:00:01", '{"a": "b=c"}', "json:{}", "=7"]
)
def test_other_forms_are_no_fields(text: str) -> None:
    assert not is_fields(text)


def test_what_is_no_struct_has_no_fields() -> None:
    with pytest.raises(Misuse, match="has no fields"):
        from_fields("saddr=7", U32, {}, "key")


def test_fields_become_the_bytes_of_the_same_json() -> None:
    one = shown(INNER, U32)
    assert one.key("weight=0.5,port=53") == one.key('{"port": 53, "weight": 0.5}')


def test_without_types_there_are_no_fields_and_it_says_why() -> None:
    with pytest.raises(Misuse, match="nothing was said; give the types with --elf FILE"):
        shown(None, None).key("saddr=7")
