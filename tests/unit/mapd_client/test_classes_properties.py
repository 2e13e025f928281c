"""Generated classes and formats: a layout says what ctypes and struct do with the bytes."""

from __future__ import annotations

import ctypes
import struct
import sys
from contextlib import suppress
from dataclasses import make_dataclass
from typing import Annotated, Any, cast

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mapd_client import I8, I16, I32, I64, U8, U16, U32, U64, Codec
from mapd_client.classes import layout_of
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import Array, Layout, Record
from mapd_client.typed import codec_of

NUMBERS: dict[Any, Codec[int]] = {
    ctypes.c_uint8: U8,
    ctypes.c_int8: I8,
    ctypes.c_uint16: U16,
    ctypes.c_int16: I16,
    ctypes.c_uint32: U32,
    ctypes.c_int32: I32,
    ctypes.c_uint64: U64,
    ctypes.c_int64: I64,
}
"""Types of ctypes, and our codecs of the same numbers."""


@st.composite
def structures(draw: st.DrawFn, depth: int = 1) -> type[Any]:
    """Structures and unions: of numbers, arrays, bit-fields and each other, packed or not, of either byte order."""
    bases: list[type[Any]] = [ctypes.Structure, ctypes.Structure, ctypes.Union, ctypes.BigEndianStructure]
    base = draw(st.sampled_from(bases))
    swapped = base is ctypes.BigEndianStructure and sys.byteorder == "little"
    fields: list[tuple[Any, ...]] = []
    for at in range(draw(st.integers(1, 6))):
        number = draw(st.sampled_from(list(NUMBERS)))
        choice = draw(st.integers(0, 5))
        if choice == 0 and not swapped:
            fields.append((f"f{at}", number, draw(st.integers(1, 8 * ctypes.sizeof(number)))))
        elif choice == 1:
            fields.append((f"f{at}", number * draw(st.integers(1, 3))))
        elif choice == 2 and depth and not swapped:
            fields.append((f"f{at}", draw(structures(depth - 1))))
        else:
            fields.append((f"f{at}", number))
    body: dict[str, Any] = {"_fields_": fields}
    if draw(st.integers(0, 2)) == 0 and base is not ctypes.Union:
        body = {"_pack_": draw(st.sampled_from((1, 2, 4))), "_layout_": "ms", **body}
    return type("Generated", (base,), body)


def values(layout: Layout, decoded: Any) -> Any:
    """What was decoded as lists and dicts."""
    if isinstance(layout, Record):
        return {one.name: values(one.layout, decoded[one.name]) for one in layout.members}
    return [values(layout.element, one) for one in decoded] if isinstance(layout, Array) else decoded


def told(instance: Any) -> Any:
    """What ctypes says of an instance, likewise."""
    if isinstance(instance, (ctypes.Structure, ctypes.Union)):
        fields: list[tuple[Any, ...]] = list(instance._fields_)
        return {field[0]: told(getattr(instance, field[0])) for field in fields}
    return [told(one) for one in instance] if isinstance(instance, ctypes.Array) else instance


def mixed(kind: type[Any]) -> bool:
    """Whether it has what ctypes misplaces: bit-fields of several types, or several in a union."""
    fields: list[tuple[Any, ...]] = list(cast("Any", kind)._fields_)
    types = [field[1] for field in fields if len(field) > 2]
    inner = [field[1] for field in fields if hasattr(field[1], "_fields_")]
    return (
        len(set(types)) > 1 or (issubclass(kind, ctypes.Union) and len(types) > 1) or any(map(mixed, inner))
    )


def placed_rightly(kind: type[Any]) -> Layout:
    """The layout; a class that ctypes misplaces is refused, and no example."""
    with suppress(TypeMismatch):
        return layout_of(kind)
    with pytest.raises(TypeMismatch, match="this Python's ctypes places it"):
        layout_of(kind)
    assert mixed(kind)
    return reject()


@settings(max_examples=100, deadline=None)
@given(structures(), st.data())
def test_a_layout_reads_what_ctypes_reads(kind: type[Any], data: st.DataObject) -> None:
    layout = placed_rightly(kind)
    assert layout.size == ctypes.sizeof(kind)
    image = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    ours = codec_of(layout).bind(sys.byteorder, 1).decode(image)
    assert values(layout, ours) == told(kind.from_buffer_copy(image))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(NUMBERS)), st.integers(0, 3)), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_dataclass_lies_as_the_same_structure_of_ctypes(
    fields: list[tuple[Any, int]], nested: bool
) -> None:
    foreign: list[tuple[str, Any]] = []
    ours: list[tuple[str, Any]] = []
    for at, (number, count) in enumerate(fields):
        foreign.append((f"f{at}", number * count if count else number))
        codec = NUMBERS[number]
        ours.append((f"f{at}", Annotated[list[int], codec, count] if count else Annotated[int, codec]))
    theirs: Any = type("Same", (ctypes.Structure,), {"_fields_": foreign})
    mine: type[Any] = make_dataclass("Same", ours)
    if nested:
        theirs = type("Outer", (ctypes.Structure,), {"_fields_": [("a", ctypes.c_uint8), ("b", theirs)]})
        mine = make_dataclass("Outer", [("a", Annotated[int, U8]), ("b", mine)])
    assert layout_of(mine) == layout_of(theirs)


@st.composite
def formats(draw: st.DrawFn) -> str:
    """Formats of the struct module, in every mode."""
    letters = st.sampled_from("xbBhHiIlLqQefd?s")
    tokens = draw(
        st.lists(st.tuples(st.sampled_from(("", "0", "1", "2", "3")), letters), min_size=1, max_size=6)
    )
    return draw(st.sampled_from(("", "@", "=", "<", ">", "!"))) + "".join(map("".join, tokens))


@settings(max_examples=100, deadline=None)
@given(formats(), st.data())
def test_a_layout_reads_what_struct_reads(format: str, data: st.DataObject) -> None:
    layout = layout_of(format)
    assert layout.size == struct.calcsize(format)
    image = data.draw(st.binary(min_size=layout.size, max_size=layout.size))
    theirs = list(struct.unpack(format, image))
    decoded = codec_of(layout).bind(sys.byteorder, 1).decode(image)
    ours = [decoded[one.name] for one in layout.members] if isinstance(layout, Record) else [decoded]
    assert len(ours) == len(theirs)
    for mine, one in zip(ours, theirs, strict=True):
        if isinstance(one, bytes):
            text = mine.encode("utf-8", "surrogateescape") if isinstance(mine, str) else mine
            assert text.ljust(len(one), b"\0") == one
        else:
            assert mine == one or (mine != mine and one != one)
