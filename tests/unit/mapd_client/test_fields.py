"""Fields of values: which there are, which part of a value a call means, and what integers become there."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapd_api.ops import Op
from mapd_client import U8, U32, U64, Bytes, Field, Misuse, NoTypeInfo, SizeMismatch, Struct, TypeMismatch
from mapd_client.batches import message_elements, of_columns
from mapd_client.codec import I32, I64, BadElement, Codec
from mapd_client.failures import Asked
from mapd_client.fields import Operand, place
from mapd_client.info import ByteOrder, Limits, MapInfo
from mapd_client.replies import map_info
from tests.unit.mapd_client.daemon import map_info as raw

ASKED = Asked("fetch_add", "flows", mutates=True)
BITS = {4: 32, 8: 64}


def info(value_size: int = 24) -> MapInfo:
    return map_info(raw("ns/flows", value_size=value_size))


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        (0, 2, "size=2; a CPU changes 4 or 8 bytes at once"),
        (0, 16, "size=16; a CPU changes 4 or 8 bytes at once"),
        (4, 8, "offset=4; it is a multiple of size=8, from 0 on"),
        (-8, 8, "offset=-8; it is a multiple of size=8, from 0 on"),
        (2, 4, "offset=2; it is a multiple of size=4, from 0 on"),
    ],
)
def test_a_field_that_no_cpu_changes_at_once_is_none(offset: int, size: int, message: str) -> None:
    with pytest.raises(Misuse, match=message):
        Field(offset, size)


@pytest.mark.parametrize(("offset", "size"), [("packets", 8), (0, 8.0), (None, 4)])
def test_a_field_is_made_of_ints(offset: Any, size: Any) -> None:
    with pytest.raises(TypeMismatch, match="an int, not"):
        Field(offset, size)


@pytest.mark.parametrize(("codec", "size"), [(U32, 4), (I32, 4), (U64, 8), (I64, 8)])
def test_without_a_field_the_whole_integer_is_meant_and_read_by_its_codec(
    codec: Codec[int], size: int
) -> None:
    where = place(None, codec, info(size), "little", ASKED)
    assert where.part == (0, size)
    assert where.old is codec


@pytest.mark.parametrize("codec", [Bytes(8), Struct("=IQ"), Struct("=Q"), U8, Bytes(64)])
def test_without_a_field_other_values_ask_for_one(codec: Codec[Any]) -> None:
    with pytest.raises(Misuse, match=r"fetch_add flows: the values .* say which part of them, field=Field\("):
        place(None, codec, info(codec.size), "little", ASKED)


def test_a_field_outside_the_value_is_refused_with_both_numbers() -> None:
    assert place(Field(16, 8), Bytes(24), info(24), "little", ASKED).part == (16, 8)
    with pytest.raises(Misuse, match="ends at byte 24; the map's values have 20"):
        place(Field(16, 8), Bytes(20), info(20), "little", ASKED)


def test_a_field_by_name_needs_types_and_names_the_way_out() -> None:
    with pytest.raises(NoTypeInfo, match=r"field='packets': .* field=Field\(offset, size\)"):
        place("packets", Bytes(24), info(24), "little", ASKED)
    with pytest.raises(TypeMismatch, match="a Field, not tuple"):
        place(cast("Field", (0, 8)), Bytes(24), info(24), "little", ASKED)


@given(st.sampled_from([4, 8]), st.booleans(), st.sampled_from(["little", "big"]), st.data())
def test_an_operand_is_taken_with_either_sign_and_read_with_the_fields(
    size: int, signed: bool, order: ByteOrder, data: st.DataObject
) -> None:
    bits = BITS[size]
    number = data.draw(st.integers(-(1 << bits - 1), (1 << bits) - 1))
    where = place(Field(0, size, signed), Bytes(24), info(24), order, ASKED)
    packed = where.operand.encode(number)
    assert packed == (number % (1 << bits)).to_bytes(size, order)
    (read,) = where.old.decode_many(packed)
    assert (read - number) % (1 << bits) == 0
    assert (-(1 << bits - 1) if signed else 0) <= read < (1 << (bits - 1 if signed else bits))


@pytest.mark.parametrize("size", [4, 8])
def test_an_operand_that_does_not_fit_is_refused_with_what_does(size: int) -> None:
    low, high = -(1 << BITS[size] - 1), (1 << BITS[size]) - 1
    for number in (low - 1, high + 1, 1 << 200):
        with pytest.raises(SizeMismatch, match=f"a field of {size} bytes: {low} to {high} do"):
            Operand(size, "little").encode(number)
    with pytest.raises(TypeMismatch, match="takes an int, not float"):
        Operand(size, "little").encode(cast("int", 1.5))


def test_operands_in_a_column_are_as_one_by_one() -> None:
    codec = Operand(8, "little")
    for numbers in ([1, 2, 3], [1, -2, 2**64 - 1], []):
        assert codec.encode_many(numbers) == b"".join(map(codec.encode, numbers))
    with pytest.raises(SizeMismatch):
        codec.encode_many([1, 2**64])


def test_one_operand_stands_for_all_keys_and_others_are_as_many() -> None:
    codec = Operand(8, "little")
    batches = list(of_columns([1, 2, 3], -1, U32, codec, 2, "operand"))
    assert [batch.values for batch in batches] == [b"\xff" * 16, b"\xff" * 8]
    with pytest.raises(BadElement, match="3 keys and 2 operands"):
        list(of_columns([1, 2, 3], [1, 2], U32, codec, 2, "operand"))
    arrays = list(of_columns(np.arange(3), np.array([5, 6, 7]), U32, I64, 2, "operand"))
    assert arrays[1].values == (7).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("op", "element"),
    [(Op.FETCH_ADD, 4 + 8), (Op.COMPARE_EXCHANGE, 4 + 16), (Op.COMPARE_UPDATE, 4 + 2 * 40_000)],
)
def test_a_message_is_cut_by_what_its_operation_takes(op: Op, element: int) -> None:
    bounds = Limits(message_bytes=4 << 20, chunk_bytes=1 << 20, batch_elements=1 << 30)
    found = message_elements(op, info(40_000), bounds, ASKED)
    assert found * element <= 4 << 20 < (found + found // 8 + 2) * element
