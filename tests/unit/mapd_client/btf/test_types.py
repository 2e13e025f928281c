"""Types: each kind as it was written, in both byte orders, by its id and by its name."""

from __future__ import annotations

import copy
import pickle
import struct

import pytest

from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.info import ByteOrder
from tests.support import rawbtf
from tests.support.btfsamples import ORDERS, every_kind
from tests.support.rawbtf import Raw


@pytest.mark.parametrize("order", ORDERS)
def test_every_kind_is_read_as_it_was_written(order: ByteOrder) -> None:
    raw, expected = every_kind(order)
    types = Types(raw.blob())
    assert {type(kind) for kind in expected} == set(kinds.KINDS) - {kinds.Void}
    assert list(types) == [kinds.Void(), *expected]
    assert [types.kind(number) for number in range(len(types))] == [type(kind) for kind in types]
    assert types.byteorder == order


@pytest.mark.parametrize("order", ORDERS)
def test_a_split_blob_continues_the_ids_and_the_strings_of_its_base(order: ByteOrder) -> None:
    base_raw, in_base = every_kind(order)
    base = Types(base_raw.blob())
    raw, expected = every_kind(order, base)
    borrowed = raw.add(rawbtf.TYPEDEF, base_raw.strings.index(b"pair\0"), 5)
    types = Types(raw.blob(), base)
    assert list(types) == [kinds.Void(), *in_base, *expected, kinds.Typedef("pair", 5)]
    assert types.ids("pair") == (5, len(base) + 4, borrowed)
    assert types.ids("pair", kinds.Struct) == (5, len(base) + 4)
    assert types.ids("pair", kinds.Typedef) == (borrowed,)
    assert types.size(borrowed) == 8
    assert types.layout(borrowed) == base.layout(5)


def test_a_split_blob_on_a_split_blob_reaches_down_to_the_first() -> None:
    base = Types(every_kind("little")[0].blob())
    middle = Types(every_kind("little", base)[0].blob(), base)
    raw = Raw("little", len(middle), middle.strings_end)
    last = raw.add(rawbtf.CONST, "", 1)
    top = Types(raw.blob(), middle)
    assert (top[last], top[1], len(top)) == (kinds.Const(1), base[1], len(middle) + 1)
    assert top.ids("pair") == (*base.ids("pair"), len(base) + 4)


def test_a_split_blob_may_have_no_strings_of_its_own() -> None:
    base = Types(every_kind("little")[0].blob())
    raw = Raw("little", len(base), base.strings_end)
    raw.add(rawbtf.PTR, "", 1)
    assert not raw.strings
    assert Types(raw.blob(), base)[len(base)] == kinds.Ptr(1)


def test_a_base_in_the_other_byte_order_is_refused() -> None:
    base = Types(every_kind("big")[0].blob())
    with pytest.raises(BadBtf, match="a little endian blob cannot continue a big endian one"):
        Types(every_kind("little", base)[0].blob(), base)


def test_a_name_is_found_by_all_of_it_and_by_its_kind() -> None:
    raw, _ = every_kind("little")
    types = Types(raw.blob())
    assert types.ids("u32") == types.ids("u32", kinds.Typedef) == (11,)
    assert types.ids("u32", kinds.Struct) == types.ids("u3") == types.ids("32") == types.ids("") == ()
    assert types.ids("a\0b") == types.ids("\udc80") == ()


def test_a_name_may_be_another_ones_tail() -> None:
    raw = Raw()
    at = raw.string("unsigned int")
    raw.add(rawbtf.TYPEDEF, at + 9, 0)
    raw.add(rawbtf.TYPEDEF, at, 0)
    types = Types(raw.blob())
    assert (types.ids("int"), types.ids("unsigned int")) == ((1,), (2,))
    assert types[1] == kinds.Typedef("int", 0)


def test_a_blob_without_types_has_void() -> None:
    types = Types(Raw().blob())
    assert list(types) == [kinds.Void()]
    assert len(types) == 1


def test_no_such_id_is_said_with_those_that_are() -> None:
    types = Types(every_kind("little")[0].blob())
    for number in (-1, len(types), 1 << 40):
        for ask in (types.__getitem__, types.kind, types.size, types.layout):
            with pytest.raises(
                BadBtf, match=rf"no type {number}; ids are 0 \(void\) to {len(types) - 1}"
            ) as caught:
                ask(number)
            assert caught.value.number == number


def test_a_longer_header_is_taken_as_libbpf_takes_it() -> None:
    """Later kernels may append to it; what these fields say does not change."""
    raw, expected = every_kind("little")
    plain = raw.blob()
    longer = struct.pack("<HBBI", 0xEB9F, 1, 0, 32) + plain[8:24] + bytes(range(8)) + plain[24:]
    assert list(Types(longer)) == [kinds.Void(), *expected]


def test_strings_may_lie_apart_from_the_types() -> None:
    raw, expected = every_kind("little")
    types_len = sum(map(len, raw.types))
    blob = raw.blob(str_off=types_len + 16)
    blob = blob[: 24 + types_len] + b"\xff" * 16 + blob[24 + types_len :]
    assert list(Types(blob)) == [kinds.Void(), *expected]


def test_a_refusal_names_offset_and_number_and_travels() -> None:
    with pytest.raises(BadBtf) as caught:
        Types(Raw().blob(version=2))
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 -- our own
    assert (str(error), error.offset, error.number) == ("BTF: version 2, known is 1", 2, 2)
    assert copy.copy(error).metadata == {"offset": "2", "number": "2"}
