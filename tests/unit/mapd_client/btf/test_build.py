"""BTF that is written reads as the same layouts, has each type once, and refuses what the kernel would."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from mapd_client.btf import Types
from mapd_client.btf.build import blob_of
from mapd_client.errors import Misuse, TypeMismatch
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
from tests.support.structs import Wanted, layouts

U32 = Integer(size=4, signed=False, type_name="unsigned int")
I32 = Integer(size=4, signed=True, type_name="int")
U8 = Integer(size=1, signed=False, type_name="unsigned char")


def read_again(layout: Layout, byteorder: ByteOrder = "little") -> Layout:
    """What is read of the BTF that is written of it."""
    btf = blob_of(None, layout, byteorder)
    assert btf.key_type_id == 0
    return Types(btf.blob).layout(btf.value_type_id)


def struct_of(*layouts: Layout, name: str = "s") -> Record:
    """The layouts one after the other, packed; their members are a, b ..."""
    members: list[Member] = []
    end = 0
    for letter, layout in zip("abcdefgh", layouts, strict=False):
        members.append(Member(name=letter, offset=end, layout=layout, bit_offset=8 * end))
        end += layout.size
    return Record(size=end, members=tuple(members), type_name=name)


def nested(levels: int) -> Layout:
    """An integer in so many structs."""
    return struct_of(nested(levels - 1)) if levels else U32


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_a_layout_is_read_as_it_was_written(byteorder: ByteOrder) -> None:
    # The strategy names every type but pointers, which lead to void.
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(layouts(Wanted(byteorder=byteorder, pointers=False)))
    def round_trip(layout: Layout) -> None:
        assert read_again(layout, byteorder) == layout

    round_trip()


@pytest.mark.parametrize(
    "layout",
    [
        *(Special(size=size, type_name=name) for name, size in (("bpf_spin_lock", 4), ("bpf_timer", 16))),
        Special(size=4, type_name="bpf_refcount"),
        Pointer(type_name="void *"),
        Pointer(type_name="address_t"),
        Text(size=16, type_name="name_t"),
        Array(element=U32, count=0),
        Array(element=Array(element=U8, count=3), count=2, type_name="matrix_t"),
        Opaque(size=16, type_name="long double"),
        Integer(size=4, signed=True, order="big", type_name="__be32"),
        Integer(size=2, signed=False, order="big", type_name="port_t"),
        Integer(size=8, signed=False, type_name="long unsigned int"),
        Integer(size=1, signed=True, type_name="char"),
        Boolean(size=4, type_name="bool32"),
        Enumeration(size=4, signed=False, members=(), type_name="empty"),
        Record(size=8, members=(), type_name="reserved"),
        nested(31),
        Record(
            size=8,
            type_name="odd",
            union=True,
            members=(
                Member(name="low", offset=0, layout=U32, bits=3),
                Member(name="", offset=0, layout=struct_of(U32, U32, name="")),
            ),
        ),
    ],
)
def test_each_kind_of_layout_is_read_as_it_was_written(layout: Layout) -> None:
    # A bpf_spin_lock alone is no value, but BTF can say it.
    assert read_again(struct_of(layout)) == struct_of(layout)


@pytest.mark.parametrize(
    ("given_", "read"),
    [
        (Integer(size=4, signed=False), U32),
        (
            Integer(size=8, signed=False, order="big"),
            Integer(size=8, signed=False, order="big", type_name="__be64"),
        ),
        (Integer(size=1, signed=False, order="big"), U8),
        (Boolean(), Boolean(type_name="_Bool")),
        (Float(size=8, order="little"), Float(size=8, type_name="double")),
        (Pointer(type_name="struct sock *"), Pointer(type_name="void *")),
        (Opaque(size=5), Array(element=U8, count=5)),
        (Opaque(size=6, type_name="mac_t"), Array(element=U8, count=6, type_name="mac_t")),
    ],
)
def test_what_btf_cannot_say_is_what_is_nearest_to_it(given_: Layout, read: Layout) -> None:
    assert read_again(given_) == read


def test_an_anonymous_member_is_of_a_struct_without_a_tag() -> None:
    """C declares nothing by ``struct inner { ... };`` in another struct, and so bpftool would print it."""
    hidden = Member(name="", offset=0, layout=struct_of(U32, name="inner"))
    read = read_again(Record(size=4, members=(hidden,), type_name="outer"))

    assert isinstance(read, Record)
    assert [member.layout.type_name for member in read.members] == [""]


def test_each_type_and_each_name_is_there_once() -> None:
    point = struct_of(U32, U32, name="point")
    both = blob_of(
        struct_of(point, point, name="key"), struct_of(point, Array(element=point, count=2)), "little"
    )
    types = Types(both.blob)
    assert len(types.ids("unsigned int")) == len(types.ids("point")) == 1
    assert both.blob.count(b"\0point\0") == both.blob.count(b"\0a\0") == 1
    # int, point, key, array of point, value, and void before them.
    assert len(types) == 6


def test_one_type_serves_as_key_and_value() -> None:
    btf = blob_of(U32, U32, "little")
    assert (btf.key_type_id, btf.value_type_id) == (1, 1)


def test_a_blob_is_in_the_byte_order_of_its_host() -> None:
    assert blob_of(U32, U32, "little").blob[:3] == b"\x9f\xeb\1"
    assert blob_of(U32, U32, "big").blob[:3] == b"\xeb\x9f\1"


def test_neither_key_nor_value_is_misuse() -> None:
    with pytest.raises(Misuse, match="create the map without"):
        blob_of(None, None, "little")


def member(
    layout: Layout, *, size: int = 64, name: str = "x", offset: int = 0, bits: int | None = None
) -> Record:
    """A struct of that one member."""
    one = Member(name=name, offset=offset, layout=layout, bits=bits, bit_offset=8 * offset)
    return Record(size=size, members=(one,), type_name="s")


ENUM = Enumeration(size=4, signed=False, members=(("on", 1),), type_name="e")


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            member(U32, name="with-dash"),
            r"value\.with-dash: its name is 'with-dash', and BTF takes C identifiers",
        ),
        (member(U32, name="9th"), r"value\.9th: its name is"),
        (member(U32, name="größe"), r"value\.größe: its name is"),
        (member(U32, name="x" * 129), r"its name has 129 characters, and the kernel takes 128"),
        (replace(member(U32), type_name="struct flow"), r"value: its type's name is 'struct flow'"),
        (struct_of(replace(ENUM, members=(("a b", 1),))), r"value\.a: a name of the enum is 'a b'"),
        (struct_of(replace(ENUM, members=(("n", -1),))), r"value\.a: n = -1 is outside its 4 bytes"),
        (struct_of(replace(ENUM, size=3)), r"value\.a: C has no enum of 3 bytes"),
        (struct_of(Integer(size=3, signed=False)), r"value\.a: C has no integer of 3 bytes"),
        (struct_of(Float(size=3)), r"value\.a: C has no float of 3 bytes"),
        (struct_of(Pointer(size=4)), r"value\.a: the kernel has no pointer of 4 bytes"),
        (
            struct_of(Integer(size=16, signed=False, order="big")),
            r"no big-endian integer of 16 bytes for a little",
        ),
        (struct_of(Float(size=8, order="big")), r"value\.a: BTF has no big-endian float of 8 bytes"),
        (Opaque(size=-1), r"value: no type has -1 bytes"),
        (member(U32, size=4, offset=1), r"value\.x: it lies in bits 8 to 40, its record has 32"),
        (member(U32, bits=33), r"value\.x: a bit-field of 33 bits, and its type takes 1 to 32"),
        (member(U32, bits=0), r"value\.x: a bit-field of 0 bits"),
        (member(Text(size=1), bits=3), r"value\.x: no bit-field of Text exists"),
        (member(replace(ENUM, size=8), bits=33), r"a bit-field of 33 bits, and its type takes 1 to 32"),
        (member(U32, size=1 << 22, offset=1 << 21, bits=3), r"BTF has room for offsets below 16777216"),
        (member(Opaque(size=16, type_name="long double"), offset=4), r"a float of 16 bytes at offset 4"),
        (
            member(Float(size=8), offset=4),
            r"value\.x: a float of 8 bytes at offset 4: the kernel wants it aligned to 8",
        ),
        (
            replace(member(U32, offset=4), union=True),
            r"a union's members lie at its beginning, not at bit 32",
        ),
        (
            struct_of(U32, replace(member(U32), members=member(U32).members * 2)),
            r"value\.b: two members are called 'x'",
        ),
        (struct_of(Special(size=8, type_name="kptr")), r"value\.a: a kptr cannot be described: .* points to"),
        (
            struct_of(Special(size=16, type_name="bpf_list_head")),
            r"value\.a: a bpf_list_head cannot .* contains",
        ),
        (nested(33), r"arrays and structs in one another, more than 32 deep"),
        (Array(element=U8, count=-1), r"value: no type has -1 bytes"),
        (Array(element=Record(size=0, members=()), count=-1), r"value: no array has -1 elements"),
    ],
)
def test_what_the_kernel_would_refuse_is_refused_by_field(layout: Layout, message: str) -> None:
    with pytest.raises(TypeMismatch, match=message):
        blob_of(U32, layout, "little")


def test_a_small_enum_among_bit_fields_needs_four_bytes() -> None:
    small = Enumeration(size=1, signed=False, members=(("on", 1),))
    members = (
        Member(name="bits", offset=0, layout=U8, bits=3),
        Member(name="state", offset=1, layout=small, bit_offset=8),
    )
    with pytest.raises(
        TypeMismatch, match=r"value\.state: an enum of 1 bytes among bit-fields, 1 bytes before the end"
    ):
        blob_of(None, Record(size=2, members=members), "little")
    assert read_again(Record(size=5, members=members)) == Record(size=5, members=members)
