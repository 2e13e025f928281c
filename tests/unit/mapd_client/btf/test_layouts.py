"""Types.layout: what C says of the bytes, for every kind and its odd cases."""

from __future__ import annotations

import pytest

from mapd_client.btf import BadBtf, Types
from mapd_client.info import ByteOrder
from mapd_client.layouts import (
    SPECIAL,
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Order,
    Pointer,
    Record,
    Special,
    Text,
)
from tests.support import rawbtf
from tests.support.rawbtf import Raw

INT = Integer(size=4, signed=True, type_name="int")
U8 = Integer(size=1, signed=False, type_name="unsigned char")


def layout(raw: Raw, number: int) -> Layout:
    types = Types(raw.blob())
    found = types.layout(number)
    assert found.size == types.size(number), "a layout has its type's size"
    assert types.layout(number) is found, "and is made once"
    return found


def member(
    name: str, offset: int, of: Layout, bits: int | None = None, bit_offset: int | None = None
) -> Member:
    at = 8 * offset if bit_offset is None else bit_offset
    return Member(name=name, offset=offset, layout=of, bits=bits, bit_offset=at)


@pytest.mark.parametrize("order", ["little", "big"])
def test_an_integer_is_of_the_hosts_order_and_keeps_its_first_name(order: ByteOrder) -> None:
    raw = Raw(order)
    number = raw.integer("int", 4, rawbtf.SIGNED)
    name = raw.add(rawbtf.TYPEDEF, "s32", raw.add(rawbtf.TYPEDEF, "__s32", number))
    assert layout(raw, number) == INT
    assert layout(raw, raw.add(rawbtf.CONST, "", name)) == Integer(size=4, signed=True, type_name="s32")


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("__be16", 2, "big"),
        ("__be32", 4, "big"),
        ("__be64", 8, "big"),
        ("__le16", 2, "little"),
        ("__le32", 4, "little"),
        ("__le64", 8, "little"),
        ("__be32", 2, "host"),  # somebody else's name
        ("be32", 4, "host"),
    ],
)
@pytest.mark.parametrize("order", ["little", "big"])
def test_linux_names_of_a_fixed_order_fix_it(order: ByteOrder, name: str, size: int, expected: Order) -> None:
    raw = Raw(order)
    number = raw.integer("unsigned", size)
    plain = raw.add(rawbtf.TYPEDEF, name, raw.add(rawbtf.TYPEDEF, "__uX", number))
    outer = raw.add(rawbtf.TYPEDEF, "address", raw.add(rawbtf.VOLATILE, "", plain))
    assert layout(raw, plain) == Integer(size=size, signed=False, order=expected, type_name=name)
    assert layout(raw, outer) == Integer(size=size, signed=False, order=expected, type_name="address")
    assert layout(raw, raw.array(plain, 2)) == Array(element=layout(raw, plain), count=2)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16])
def test_integers_have_up_to_128_bits(size: int) -> None:
    raw = Raw()
    assert layout(raw, raw.integer("n", size)) == Integer(size=size, signed=False, type_name="n")


def test_an_integer_of_three_bytes_or_of_some_bits_alone_stays_bytes() -> None:
    raw = Raw()
    assert layout(raw, raw.integer("u24", 3)) == Opaque(size=3, type_name="u24")
    assert layout(raw, raw.integer("five", 4, bits=5)) == Opaque(size=4, type_name="five")


@pytest.mark.parametrize("size", [1, 4])
def test_bool_is_no_number(size: int) -> None:
    raw = Raw()
    assert layout(raw, raw.integer("_Bool", size, rawbtf.BOOL)) == Boolean(size=size, type_name="_Bool")


def test_floats_are_what_struct_can_read_and_the_long_ones_bytes() -> None:
    raw = Raw()
    for size in (2, 4, 8):
        assert layout(raw, raw.add(rawbtf.FLOAT, "f", size)) == Float(size=size, type_name="f")
    for size in (12, 16):
        assert layout(raw, raw.add(rawbtf.FLOAT, "long double", size)) == Opaque(
            size=size, type_name="long double"
        )


def test_a_pointer_is_a_number_named_as_c_writes_it() -> None:
    raw = Raw()
    task = raw.add(rawbtf.FWD, "task_struct", 0)
    char = raw.integer("char", 1, rawbtf.SIGNED)
    proto = raw.add(rawbtf.FUNC_PROTO, "", 0)
    named = raw.add(rawbtf.TYPEDEF, "handler", raw.add(rawbtf.PTR, "", proto))
    targets = {
        0: "void *",
        task: "struct task_struct *",
        raw.add(rawbtf.CONST, "", char): "char *",
        raw.add(rawbtf.PTR, "", char): "char **",
        raw.add(rawbtf.FWD, "u", 0, kflag=True): "union u *",
        raw.record(rawbtf.UNION, "", 0): "union *",
        raw.enum("mode", 4): "enum mode *",
        proto: "function *",
        raw.array(char, 4): "array *",
        raw.add(rawbtf.TYPEDEF, "name_t", char): "name_t *",
    }
    for target, name in targets.items():
        assert layout(raw, raw.add(rawbtf.PTR, "", target)) == Pointer(type_name=name)
    assert layout(raw, named) == Pointer(type_name="handler")


def test_a_pointer_may_lead_back_to_its_own_struct() -> None:
    raw = Raw()
    raw.add(rawbtf.PTR, "", 2)
    node = raw.struct("node", 8, ("next", 1, 0))
    expected = Record(
        size=8, members=(member("next", 0, Pointer(type_name="struct node *")),), type_name="node"
    )
    assert layout(raw, node) == expected


@pytest.mark.parametrize("tag", sorted(name for name in SPECIAL if not name.startswith("bpf_")))
def test_a_tagged_pointer_is_the_kernels(tag: str) -> None:
    raw = Raw()
    task = raw.add(rawbtf.FWD, "task_struct", 0)
    tagged = raw.add(rawbtf.PTR, "", raw.add(rawbtf.TYPE_TAG, tag, task))
    assert layout(raw, tagged) == Special(size=8, type_name=tag)
    assert layout(raw, raw.array(tagged, 3)) == Array(element=Special(size=8, type_name=tag), count=3)
    attribute = raw.add(rawbtf.PTR, "", raw.add(rawbtf.TYPE_TAG, tag, task, kflag=True))
    assert layout(raw, attribute) == Pointer(type_name="struct task_struct *")
    further = raw.add(rawbtf.PTR, "", raw.add(rawbtf.CONST, "", raw.add(rawbtf.TYPE_TAG, tag, task)))
    assert layout(raw, further) == Pointer(type_name="struct task_struct *")
    other = raw.add(rawbtf.PTR, "", raw.add(rawbtf.TYPE_TAG, "user", task))
    assert layout(raw, other) == Pointer(type_name="struct task_struct *")


@pytest.mark.parametrize("name", sorted(name for name in SPECIAL if name.startswith("bpf_")))
def test_a_struct_of_the_kernels_name_is_the_kernels(name: str) -> None:
    raw = Raw()
    word = raw.integer("unsigned int", 4)
    own = raw.struct(name, 16, ("opaque", word, 0))
    lock = raw.add(rawbtf.TYPEDEF, "lock_t", own)
    value = raw.struct("value", 24, ("lock", lock, 0), ("n", word, 128))
    found = layout(raw, value)
    assert isinstance(found, Record)
    assert found.members[0] == member("lock", 0, Special(size=16, type_name=name))
    assert isinstance(layout(raw, raw.record(rawbtf.UNION, name, 4, ("x", word, 0))), Record)


def test_a_char_array_is_text_and_an_array_of_unsigned_char_numbers() -> None:
    raw = Raw()
    char = raw.integer("char", 1, rawbtf.SIGNED)
    plain = raw.array(raw.add(rawbtf.CONST, "", char), 16)
    assert layout(raw, plain) == Text(size=16)
    assert layout(raw, raw.add(rawbtf.TYPEDEF, "name_t", plain)) == Text(size=16, type_name="name_t")
    assert layout(raw, raw.array(plain, 3)) == Array(element=Text(size=16), count=3)
    assert layout(raw, char) == Integer(size=1, signed=True, type_name="char")
    octet = raw.integer("unsigned char", 1)
    assert layout(raw, raw.array(octet, 6)) == Array(element=U8, count=6)
    named = raw.add(rawbtf.TYPEDEF, "letter", char)
    element = Integer(size=1, signed=True, type_name="letter")
    assert layout(raw, raw.array(named, 6)) == Array(element=element, count=6)


@pytest.mark.parametrize(("name", "encoding"), [("char", 0), ("char", rawbtf.CHAR), ("", rawbtf.CHAR)])
def test_char_is_known_by_its_name_or_its_encoding(name: str, encoding: int) -> None:
    raw = Raw()
    assert layout(raw, raw.array(raw.integer(name, 1, encoding), 8)) == Text(size=8)


def test_an_unsigned_char_that_is_encoded_as_char_stays_a_number() -> None:
    raw = Raw()
    assert layout(raw, raw.array(raw.integer("unsigned char", 1, rawbtf.CHAR), 8)) == Array(
        element=U8, count=8
    )


def test_arrays_nest_outermost_first() -> None:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    table = raw.array(raw.array(number, 3), 2)
    assert layout(raw, table) == Array(element=Array(element=INT, count=3), count=2)
    assert layout(raw, raw.add(rawbtf.TYPEDEF, "grid", table)) == Array(
        element=Array(element=INT, count=3), count=2, type_name="grid"
    )


def test_a_flexible_array_has_no_elements() -> None:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    found = layout(raw, raw.struct("s", 4, ("n", number, 0), ("rest", raw.array(number, 0), 32)))
    assert found == Record(
        size=4, members=(member("n", 0, INT), member("rest", 4, Array(element=INT, count=0))), type_name="s"
    )


def test_structs_and_unions_nest_and_anonymous_ones_are_reached_through_the_outer() -> None:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    inner = raw.struct("inner", 4, ("a", number, 0))
    choice = raw.record(rawbtf.UNION, "", 4, ("b", number, 0), ("c", number, 0))
    outer = raw.add(
        rawbtf.TYPEDEF, "outer_t", raw.struct("", 12, ("in", inner, 0), ("", choice, 32), ("d", number, 64))
    )
    union = Record(size=4, members=(member("b", 0, INT), member("c", 0, INT)), union=True)
    found = layout(raw, outer)
    assert found == Record(
        size=12,
        members=(
            member("in", 0, Record(size=4, members=(member("a", 0, INT),), type_name="inner")),
            member("", 4, union),
            member("d", 8, INT),
        ),
        type_name="outer_t",
    )
    assert isinstance(found, Record)
    assert [(one.name, one.offset, one.bit_offset) for one in found.named()] == [
        ("in", 0, 0),
        ("b", 4, 32),
        ("c", 4, 32),
        ("d", 8, 64),
    ]


def test_what_has_neither_name_nor_members_is_padding() -> None:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    found = layout(raw, raw.bit_struct("s", 8, ("a", number, 0, 3), ("", number, 3, 5), ("b", number, 32, 0)))
    assert found == Record(size=8, members=(member("a", 0, INT, bits=3), member("b", 4, INT)), type_name="s")


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_bit_field_has_its_width_its_first_bit_and_that_bits_byte(order: ByteOrder) -> None:
    raw = Raw(order)
    number = raw.integer("int", 4, rawbtf.SIGNED)
    flag = raw.integer("_Bool", 1, rawbtf.BOOL)
    mode = raw.enum("mode", 4, ("OFF", 0), ("ON", 1))
    be32 = raw.add(rawbtf.TYPEDEF, "__be32", raw.integer("unsigned int", 4))
    found = layout(
        raw,
        raw.bit_struct(
            "s",
            8,
            ("a", number, 0, 3),
            ("b", number, 3, 17),
            ("c", flag, 20, 1),
            ("d", mode, 21, 2),
            ("e", be32, 32, 9),
        ),
    )
    enum = Enumeration(size=4, signed=False, members=(("OFF", 0), ("ON", 1)), type_name="mode")
    assert found == Record(
        size=8,
        members=(
            member("a", 0, INT, bits=3),
            member("b", 0, INT, bits=17, bit_offset=3),
            member("c", 2, Boolean(type_name="_Bool"), bits=1, bit_offset=20),
            member("d", 2, enum, bits=2, bit_offset=21),
            member("e", 4, Integer(size=4, signed=False, type_name="__be32"), bits=9),
        ),
        type_name="s",
    )


def test_a_bit_field_of_old_compilers_has_its_width_in_its_type() -> None:
    raw = Raw()
    three = raw.integer("int", 4, rawbtf.SIGNED, bits=3)
    shifted = raw.integer("int", 4, rawbtf.SIGNED, bits=5, offset=2)
    whole = raw.integer("short", 2, rawbtf.SIGNED)
    found = layout(raw, raw.struct("s", 8, ("a", three, 0), ("b", shifted, 3), ("c", whole, 19)))
    short = Integer(size=2, signed=True, type_name="short")
    assert found == Record(
        size=8,
        members=(
            member("a", 0, INT, bits=3),
            member("b", 0, INT, bits=5, bit_offset=5),
            member("c", 2, short, bits=16, bit_offset=19),
        ),
        type_name="s",
    )


def test_enums_are_signed_as_they_say_and_have_up_to_64_bits() -> None:
    raw = Raw()
    values = (("A", -1), ("B", 5), ("C", 5))
    assert layout(raw, raw.enum("e", 4, *values, signed=True)) == Enumeration(
        size=4, signed=True, members=values, type_name="e"
    )
    assert layout(raw, raw.enum("u", 4, ("A", -1))) == Enumeration(
        size=4, signed=False, members=(("A", 0xFFFF_FFFF),), type_name="u"
    )
    assert layout(raw, raw.enum("tiny", 1, ("A", 255))) == Enumeration(
        size=1, signed=False, members=(("A", 255),), type_name="tiny"
    )
    assert layout(raw, raw.enum64("w", 8, ("TOP", 1 << 63))) == Enumeration(
        size=8, signed=False, members=(("TOP", 1 << 63),), type_name="w"
    )
    assert layout(raw, raw.enum64("n", 8, ("LOW", -1 << 63), signed=True)) == Enumeration(
        size=8, signed=True, members=(("LOW", -1 << 63),), type_name="n"
    )
    assert layout(raw, raw.enum("declared", 4)) == Enumeration(
        size=4, signed=False, members=(), type_name="declared"
    )


def test_a_small_enum_with_a_negative_value_is_signed_whatever_an_old_compiler_said() -> None:
    raw = Raw()
    assert layout(raw, raw.enum("e", 1, ("MINUS", -1), ("PLUS", 1))) == Enumeration(
        size=1, signed=True, members=(("MINUS", -1), ("PLUS", 1)), type_name="e"
    )


def test_a_section_is_a_record_of_its_variables() -> None:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    rest = raw.struct("log", 4, ("n", number, 0), ("words", raw.array(number, 0), 32))
    one = raw.add(rawbtf.VAR, "hits", number, 1)
    static = raw.add(rawbtf.VAR, "hits", number, 0)
    log = raw.add(rawbtf.VAR, "log", rest, 1)
    found = layout(raw, raw.datasec(".data", 24, (one, 0, 4), (static, 4, 4), (log, 8, 16)))
    assert isinstance(found, Record)
    assert (found.size, found.type_name) == (24, ".data")
    assert [(one.name, one.offset, one.layout.size) for one in found.members] == [
        ("hits", 0, 4),
        ("hits.2", 4, 4),  # of another object that was linked to it
        ("log", 8, 4),  # with 12 bytes of its flexible array
    ]


def test_a_variable_has_the_layout_of_its_type() -> None:
    raw = Raw()
    assert layout(raw, raw.add(rawbtf.VAR, "v", raw.integer("int", 4, rawbtf.SIGNED), 1)) == INT


def test_a_struct_that_is_only_declared_has_no_layout() -> None:
    raw = Raw()
    later = raw.add(rawbtf.FWD, "later", 0)
    types = Types(raw.blob())
    for ask in (types.layout, types.size):
        with pytest.raises(BadBtf, match=r"type 1 \(at byte 24\): 'later' is only declared in this BTF"):
            ask(later)


@pytest.mark.parametrize("kind", [rawbtf.FUNC, rawbtf.FUNC_PROTO])
def test_functions_are_no_data(kind: int) -> None:
    raw = Raw()
    number = raw.add(kind, "f" if kind == rawbtf.FUNC else "", 0)
    types = Types(raw.blob())
    for ask in (types.layout, types.size):
        with pytest.raises(BadBtf, match="is no data"):
            ask(number)
    with pytest.raises(BadBtf, match="a VOID is no data"):
        types.layout(0)
