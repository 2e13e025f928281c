"""Blobs that lie: each is refused with where and what, after no more work than its bytes are worth."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mapd_client.btf import BadBtf, Types
from mapd_client.btf.layouts import CHAIN, LEVELS, NODES
from mapd_client.layouts import Array, Record
from tests.support import rawbtf
from tests.support.rawbtf import Raw
from tests.unit.mapd_client.btf.steps import steps

U32_MAX = 0xFFFF_FFFF


def refused(blob: bytes, ask: int | None = None) -> BadBtf:
    """What Types says to the blob, or to a layout of it."""
    with pytest.raises(BadBtf) as caught:
        _ask(blob, ask)
    assert str(caught.value).startswith("BTF: ")
    assert len(str(caught.value)) < 400
    return caught.value


def _ask(blob: bytes, number: int | None) -> None:
    types = Types(blob)
    if number is not None:
        types.layout(number)


def sound() -> Raw:
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    raw.struct("pair", 8, ("a", number, 0), ("b", number, 32))
    return raw


HEADER_LIES = {
    "another magic": ({"magic": 0x1234}, "the magic is 3412, not 9feb", 0, 0x1234),
    "a later version": ({"version": 2}, "version 2, known is 1", 2, 2),
    "flags": ({"flags": 0x80}, "flags 0x80", 3, 0x80),
    "a short header": ({"hdr_len": 23}, "a header of 23 bytes", 4, 23),
    "a header longer than the blob": ({"hdr_len": 1 << 31}, "a header of 2147483648 bytes", 4, 1 << 31),
    "types between words": ({"type_off": 2}, "multiples of 4", 8, 2),
    "part of a word": ({"type_len": 7}, "multiples of 4", 8, 7),
    "types behind the end": ({"type_off": 1 << 30}, "types at bytes 1073741848", 8, 24 + (1 << 30) + 52),
    "too many types": ({"type_len": U32_MAX - 3}, "it was cut off", 8, 24 + U32_MAX - 3),
    "strings behind the end": ({"str_off": U32_MAX}, "strings at bytes", 16, 24 + U32_MAX + 14),
    "too many strings": ({"str_len": U32_MAX}, "strings at bytes", 16, 24 + 52 + U32_MAX),
    "no strings": ({"str_len": 0}, "no strings", 20, 0),
    "strings in the types": ({"str_off": 8}, "overlap", 16, 8),
    "strings without an end": ({"str_len": 11}, "without a NUL", 24 + 52 + 10, ord("a")),
    "strings without the empty one": ({"str_off": 53, "str_len": 13}, "is not empty", 24 + 53, ord("i")),
}


@pytest.mark.parametrize("lie", HEADER_LIES)
def test_each_number_of_the_header_is_checked(lie: str) -> None:
    fields, words, offset, number = HEADER_LIES[lie]
    error = refused(sound().blob(**fields))
    assert words in str(error)
    assert (error.offset, error.number) == (offset, number)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_beginning_of_a_blob_is_refused_and_the_whole_is_not(order: str) -> None:
    raw = sound() if order == "<" else Raw("big", types=[], strings=bytearray())
    raw.add(rawbtf.TYPEDEF, "t", 0)
    blob = raw.blob()
    Types(blob)
    for end in range(len(blob)):
        refused(blob[:end])


def test_a_record_is_within_its_section() -> None:
    raw = sound()
    whole = sum(map(len, raw.types))
    for type_len in range(4, whole, 4):
        if type_len == len(raw.types[0]):
            continue
        error = refused(raw.blob(type_len=type_len))
        assert "left" in str(error)
        assert error.offset in (24, 24 + len(raw.types[0]))


@pytest.mark.parametrize("kind", [0, 20, 31])
def test_a_kind_that_is_none_is_named(kind: int) -> None:
    raw = sound()
    raw.add(kind, "", 0)
    error = refused(raw.blob())
    assert f"type 3 at byte {24 + 52}: kind {kind}, known are 1 to 19" in str(error)
    assert (error.offset, error.number) == (24 + 52, kind)


@pytest.mark.parametrize(
    "kind", [rawbtf.STRUCT, rawbtf.ENUM, rawbtf.FUNC_PROTO, rawbtf.DATASEC, rawbtf.ENUM64]
)
def test_a_vlen_beyond_the_section_is_refused_at_once(kind: int) -> None:
    raw = Raw()
    raw.add(kind, "", 4, vlen=0xFFFF)
    error = refused(raw.blob())
    assert "type 1 at byte 24" in str(error)
    assert "with vlen 65535 has" in str(error)
    assert "12 are left" in str(error)


@pytest.mark.parametrize("kind", [rawbtf.INT, rawbtf.PTR, rawbtf.TYPEDEF, rawbtf.FLOAT, rawbtf.VAR])
def test_a_vlen_where_there_is_none_is_refused(kind: int) -> None:
    raw = Raw()
    raw.add(kind, "x", 4, *((32,) if kind in (rawbtf.INT, rawbtf.VAR) else ()), vlen=1)
    assert "vlen 1, this kind has none" in str(refused(raw.blob(), 1))


def test_bits_of_info_that_are_not_known_are_refused() -> None:
    raw = Raw()
    raw.types.append(raw.pack("3I", 0, rawbtf.PTR << 24 | 1 << 16, 0))
    assert "info 0x02010000 has bits that are not known" in str(refused(raw.blob(), 1))


@pytest.mark.parametrize("at", [14, 1000, U32_MAX])
def test_a_name_outside_of_the_strings_is_refused_where_it_is_asked_for(at: int) -> None:
    raw = sound()
    raw.add(rawbtf.TYPEDEF, at, 1)
    types = Types(raw.blob())
    assert types.size(1) == 4
    assert types.ids("pair") == (2,)
    error = refused(raw.blob(), 3)
    assert "has its name at" in str(error)
    assert (error.offset, error.number) == (24 + 52, at)


def test_a_member_or_a_value_with_a_name_outside_is_refused() -> None:
    for kind in (rawbtf.STRUCT, rawbtf.ENUM, rawbtf.ENUM64, rawbtf.FUNC_PROTO):
        raw = Raw()
        raw.add(kind, "", 4, 500, 0, *((0,) if kind in (rawbtf.STRUCT, rawbtf.ENUM64) else ()), vlen=1)
        with pytest.raises(BadBtf, match="name at 500 of the strings, which have 1 bytes"):
            Types(raw.blob())[1]


def test_a_name_that_is_no_utf_8_is_refused() -> None:
    raw = Raw()
    at = raw.string(b"caf\xe9")
    raw.add(rawbtf.TYPEDEF, at, 0)
    error = refused(raw.blob(), 1)
    assert r"the name b'caf\xe9' at byte 37 is no UTF-8" in str(error)
    assert error.offset == 37


NAMING: dict[str, Callable[[Raw, int], int]] = {
    "a typedef": lambda raw, number: raw.add(rawbtf.TYPEDEF, "t", number),
    "a pointer": lambda raw, number: raw.add(rawbtf.PTR, "", number),
    "an array": lambda raw, number: raw.array(number, 1),
    "a struct": lambda raw, number: raw.struct("s", 4, ("a", number, 0)),
    "a section": lambda raw, number: raw.datasec(".bss", 4, (number, 0, 4)),
    "a variable": lambda raw, number: raw.add(rawbtf.VAR, "v", number, 1),
}


@pytest.mark.parametrize("naming", NAMING)
@pytest.mark.parametrize("number", [2, 99, U32_MAX])
def test_a_type_that_is_not_there_is_refused_by_all_who_name_it(naming: str, number: int) -> None:
    raw = Raw()
    NAMING[naming](raw, number)
    error = refused(raw.blob(), 1)
    assert f"there is no type {number}; ids are 0 (void) to 1" in str(error)
    assert error.number == number


CYCLES: dict[str, Callable[[Raw], int]] = {
    "a typedef of itself": lambda raw: raw.add(rawbtf.TYPEDEF, "t", 1),
    "a const of itself": lambda raw: raw.add(rawbtf.CONST, "", 1),
    "two qualifiers of each other": lambda raw: (
        raw.add(rawbtf.CONST, "", 2),
        raw.add(rawbtf.VOLATILE, "", 1),
    )[0],
    "an array of itself": lambda raw: raw.array(1, 1),
    "an array of none of itself": lambda raw: raw.array(1, 0),
    "two arrays of each other": lambda raw: (raw.array(2, 2), raw.array(1, 2))[0],
    "a struct in itself": lambda raw: raw.struct("s", 8, ("s", 1, 0)),
    "a union in itself": lambda raw: raw.record(rawbtf.UNION, "s", 8, ("s", 1, 0)),
    "two structs in each other": lambda raw: (
        raw.struct("a", 8, ("b", 2, 0)),
        raw.struct("b", 8, ("a", 1, 0)),
    )[0],
    "a struct in its typedef's array": lambda raw: (
        raw.struct("a", 8, ("b", 3, 0)),
        raw.add(rawbtf.TYPEDEF, "t", 1),
        raw.array(2, 1),
    )[0],
    "a variable of itself": lambda raw: raw.add(rawbtf.VAR, "v", 1, 1),
}


@pytest.mark.parametrize("cycle", CYCLES)
def test_a_type_that_contains_itself_is_refused(cycle: str) -> None:
    raw = Raw()
    asked = CYCLES[cycle](raw)
    error = refused(raw.blob(), asked)
    assert any(words in str(error) for words in ("contains itself", "a circle of them")), str(error)
    if "struct" not in cycle and "union" not in cycle:
        with pytest.raises(BadBtf, match=r"circle|or of itself"):
            Types(raw.blob()).size(asked)


def test_a_pointer_to_itself_is_no_cycle_of_bytes() -> None:
    raw = Raw()
    raw.add(rawbtf.PTR, "", 1)
    assert Types(raw.blob()).layout(1).size == 8


def chain(links: int, kind: int) -> bytes:
    raw = Raw()
    at = raw.integer("int", 4)
    for _ in range(links):
        at = raw.add(kind, "t" if kind == rawbtf.TYPEDEF else "", at)
    return raw.blob()


@pytest.mark.parametrize("kind", [rawbtf.TYPEDEF, rawbtf.CONST])
def test_typedefs_and_qualifiers_are_followed_so_far_and_no_further(kind: int) -> None:
    assert Types(chain(CHAIN, kind)).layout(CHAIN + 1).size == 4
    assert "more than 64 typedefs and qualifiers" in str(refused(chain(CHAIN + 1, kind), CHAIN + 2))


def nested(levels: int, width: int = 1) -> bytes:
    """Structs in structs, each with ``width`` members of the one before."""
    raw = Raw()
    at, size = raw.integer("int", 4), 4
    for level in range(levels):
        members = [(f"m{one}", at, 8 * one * size % (1 << 32)) for one in range(width)]
        size = min(size * width, U32_MAX)
        at = raw.struct(f"s{level}", size, *members)
    return raw.blob()


def test_structs_nest_as_deep_as_the_kernel_follows_and_no_deeper() -> None:
    assert Types(nested(LEVELS)).layout(LEVELS + 1).size == 4
    assert "more than 32 arrays and structs in one another" in str(refused(nested(LEVELS + 1), LEVELS + 2))
    assert "more than 32 arrays and structs in one another" in str(refused(nested(5000), 5001))


def test_depth_does_not_depend_on_what_was_asked_for_before() -> None:
    types = Types(nested(LEVELS + 1))
    for number in range(2, LEVELS + 2):
        types.layout(number)
    with pytest.raises(BadBtf, match="more than 32"):
        types.layout(LEVELS + 2)


def test_structs_that_double_at_each_level_are_counted_as_trees() -> None:
    """20 structs of two are a million fields to whoever walks the layout."""
    assert Types(nested(12, width=2)).layout(13).size == 4 << 12
    assert f"more than {NODES} fields in all" in str(refused(nested(20, width=2), 21))


def test_arrays_of_arrays_are_bounded_by_their_bytes_and_their_number() -> None:
    raw = Raw()
    at = raw.integer("int", 4)
    for _ in range(8):
        at = raw.array(at, 1 << 16)
    blob = raw.blob()
    types = Types(blob)
    for ask in (types.size, types.layout):
        with pytest.raises(BadBtf, match=f"bytes; a type has at most {U32_MAX}"):
            ask(at)
    raw = Raw()
    at = raw.integer("int", 4)
    for _ in range(LEVELS + 1):
        at = raw.array(at, 1)
    with pytest.raises(BadBtf, match="more than 32 arrays"):
        Types(raw.blob()).layout(at)
    with pytest.raises(BadBtf, match="more than 32 dimensions"):
        Types(raw.blob()).size(at)


@pytest.mark.parametrize("count", [1 << 30, U32_MAX])
def test_an_array_of_2_to_the_32_bytes_is_refused(count: int) -> None:
    raw = Raw()
    array = raw.array(raw.integer("int", 4), count)
    assert refused(raw.blob(), array).number == 4 * count


def test_an_array_is_never_larger_in_memory_for_its_count() -> None:
    raw = Raw()
    array = raw.array(raw.integer("octet", 1), U32_MAX)
    found = Types(raw.blob()).layout(array)
    assert isinstance(found, Array)
    assert (found.count, found.size) == (U32_MAX, U32_MAX)


def test_an_array_of_nothing_is_bounded_by_its_count() -> None:
    """Its elements have no bytes, so no value bounds how many somebody would make."""
    raw = Raw()
    empty = raw.struct("empty", 0)
    few, many = raw.array(empty, 8), raw.array(empty, U32_MAX)
    types = Types(raw.blob())
    assert types.layout(few) == Array(element=Record(size=0, members=(), type_name="empty"), count=8)
    with pytest.raises(BadBtf, match=f"at most {NODES} are read"):
        types.layout(many)


def test_a_large_enum_counts_by_its_values() -> None:
    raw = Raw()
    enum = raw.enum("e", 4, *((f"E{value}", value) for value in range(4000)))
    struct_ = raw.struct("s", 400, *((f"m{one}", enum, 32 * one) for one in range(100)))
    assert f"more than {NODES} fields in all" in str(refused(raw.blob(), struct_))


OUTSIDE: dict[str, tuple[Callable[[Raw, int], int], str]] = {
    "a member behind the end": (lambda raw, number: raw.struct("s", 4, ("a", number, 32)), "bits 32 to 64"),
    "a member over the end": (lambda raw, number: raw.struct("s", 6, ("a", number, 24)), "bits 24 to 56"),
    "a member far away": (
        lambda raw, number: raw.struct("s", 4, ("a", number, U32_MAX - 7)),
        "bits 4294967288 to 4294967320",
    ),
    "a union smaller than its member": (
        lambda raw, number: raw.record(rawbtf.UNION, "u", 2, ("a", number, 0)),
        "bits 0 to 32, lies outside of 2 bytes",
    ),
    "a bit-field over the end": (
        lambda raw, number: raw.bit_struct("s", 4, ("a", number, 30, 3)),
        "bits 30 to 33",
    ),
    "a struct in a smaller one": (
        lambda raw, number: raw.struct("s", 4, ("a", raw.struct("t", 8, ("b", number, 0)), 0)),
        "bits 0 to 64",
    ),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_a_member_lies_within_its_struct(case: str) -> None:
    build, words = OUTSIDE[case]
    raw = Raw()
    number = raw.integer("int", 4, rawbtf.SIGNED)
    asked = build(raw, number)
    assert words in str(refused(raw.blob(), asked))


def test_a_bit_field_is_of_an_integer_and_no_wider() -> None:
    raw = Raw()
    number = raw.integer("short", 2)
    pointer = raw.add(rawbtf.PTR, "", 0)
    wide = raw.bit_struct("s", 8, ("a", number, 0, 17))
    strange = raw.bit_struct("s", 8, ("a", pointer, 0, 3))
    types = Types(raw.blob())
    with pytest.raises(BadBtf, match="member 'a' has 17 bits of 2 bytes"):
        types.layout(wide)
    with pytest.raises(BadBtf, match="member 'a' has 3 bits of a PTR, not of an integer"):
        types.layout(strange)


def test_what_is_no_bit_field_begins_at_a_byte() -> None:
    raw = Raw()
    pointer = raw.add(rawbtf.PTR, "", 0)
    asked = raw.struct("s", 16, ("a", pointer, 3))
    assert "member 'a' begins at bit 3, and is no bit-field" in str(refused(raw.blob(), asked))


def test_two_members_have_two_names_through_anonymous_structs_too() -> None:
    raw = Raw()
    number = raw.integer("int", 4)
    inner = raw.struct("", 4, ("a", number, 0))
    twice = raw.struct("s", 8, ("a", number, 0), ("a", number, 32))
    through = raw.struct("s", 8, ("a", number, 0), ("", inner, 32))
    types = Types(raw.blob())
    for asked in (twice, through):
        with pytest.raises(BadBtf, match="two members are called 'a'"):
            types.layout(asked)


@pytest.mark.parametrize(
    ("bits", "offset", "size", "encoding", "words"),
    [
        (33, 0, 4, 0, "33 bits from bit 0 of 4 bytes"),
        (32, 1, 4, 0, "32 bits from bit 1 of 4 bytes"),
        (0, 0, 4, 0, "0 bits"),
        (136, 0, 17, 0, "136 bits"),
        (32, 0, 0, 0, "of 0 bytes"),
        (32, 0, 4, 8, "encoding 0x8"),
    ],
)
def test_the_numbers_of_an_integer_agree(
    bits: int, offset: int, size: int, encoding: int, words: str
) -> None:
    raw = Raw()
    raw.integer("n", size, encoding, bits=bits, offset=offset)
    assert words in str(refused(raw.blob(), 1))


@pytest.mark.parametrize("size", [0, 3, 16, U32_MAX])
def test_floats_and_enums_have_sizes_that_there_are(size: int) -> None:
    for kind in (rawbtf.FLOAT, rawbtf.ENUM, rawbtf.ENUM64):
        if kind == rawbtf.FLOAT and size == 16:
            continue
        raw = Raw()
        raw.add(kind, "x", size)
        assert f"{size} bytes" in str(refused(raw.blob(), 1))


def test_a_value_fits_in_its_enum() -> None:
    for values in ((("A", 256),), (("A", -1), ("B", 200))):
        raw = Raw()
        raw.enum("e", 1, *values)
        assert "does not fit in an enum of 1 bytes" in str(refused(raw.blob(), 1))


def test_an_enums_value_has_a_name_and_no_name_two_values() -> None:
    """Else what is read by its name were written as another number; two names of one value are C."""
    raw = Raw()
    twice, unnamed = raw.enum("e", 4, ("A", 0), ("A", 1)), raw.enum("e", 4, ("", 3))
    wide = raw.enum64("e", 8, ("A", 0), ("A", 1 << 40))
    again = raw.enum("e", 4, ("A", 1), ("B", 1), ("A", 1))
    types = Types(raw.blob())
    assert types.layout(again).size == 4
    for asked, words in (
        (twice, "value 1 has the name 'A'"),
        (unnamed, "value 3 has the name ''"),
        (wide, "'A'"),
    ):
        with pytest.raises(BadBtf, match=words):
            types.layout(asked)


def test_a_section_holds_its_variables_and_nothing_else() -> None:
    raw = Raw()
    number = raw.integer("int", 4)
    var = raw.add(rawbtf.VAR, "v", number, 1)
    cases = {
        raw.datasec(".unlinked", 0, (var, 0, 4)): "has size 0, as in an object that no loader has filled in",
        raw.datasec(".bss", 4, (var, 4, 4)): "'v' of 4 bytes has bytes 4 to 8 of 4",
        raw.datasec(".bss", 4, (var, 0, 3)): "'v' of 4 bytes has bytes 0 to 3 of 4",
        raw.datasec(".bss", 4, (number, 0, 4)): "is no named VAR",
    }
    types = Types(raw.blob())
    for asked, words in cases.items():
        with pytest.raises(BadBtf, match=words):
            types.layout(asked)


def test_refusing_a_large_lie_takes_no_more_steps_than_its_bytes() -> None:
    """A struct of 65,535 members in itself, and 32 levels of arrays: each record is looked at once."""
    raw = Raw()
    raw.add(rawbtf.STRUCT, "", 8, *(0, 1, 0) * 0xFFFF, vlen=0xFFFF)
    blob = raw.blob()
    assert steps(lambda: refused(blob, 1)) < 40 * 0xFFFF
    doubled = nested(31, width=2)
    assert steps(lambda: refused(doubled, 32)) < 40 * len(doubled)
    long = chain(20_000, rawbtf.TYPEDEF)
    types = Types(long)
    with pytest.raises(BadBtf):
        types.layout(20_001)
    assert steps(lambda: refused(long, 20_001)) < 10 * len(long)


def test_a_large_struct_is_decoded_once_for_all_who_name_it() -> None:
    """Else 65,535 pointers to a struct of 65,535 members were four thousand million names."""
    raw = Raw()
    word = raw.integer("int", 4)
    large = raw.add(rawbtf.STRUCT, "", 4, *(0, word, 0) * 0x1000, vlen=0x1000)
    pointers = [raw.add(rawbtf.PTR, "", large) for _ in range(1000)]
    arrays = [raw.array(large, 1) for _ in range(3)]
    members = [(f"p{one}", pointer, 64 * one) for one, pointer in enumerate(pointers)]
    members += [(f"a{one}", array, 64_000 + 32 * one) for one, array in enumerate(arrays)]
    asked = raw.struct("s", 8012, *members)
    blob = raw.blob()
    assert steps(lambda: Types(blob).layout(asked)) < 100 * (0x1000 + len(members))


def test_a_large_enum_is_checked_once_for_all_its_bit_fields() -> None:
    raw = Raw()
    enum = raw.enum("e", 4, *((f"E{value}", value) for value in range(1000)))
    asked = raw.bit_struct("s", 4000, *((f"m{one}", enum, 32 * one, 10) for one in range(250)))
    blob = raw.blob()
    assert steps(lambda: Types(blob).layout(asked)) < 30 * 1000 + 60 * 250


def test_a_large_struct_in_anonymous_ones_is_walked_once_for_each() -> None:
    raw = Raw()
    word = raw.integer("int", 4)
    at = raw.struct("", 4000, *((f"m{one}", word, 32 * one) for one in range(1000)))
    for _ in range(LEVELS - 1):
        at = raw.struct("", 4000, ("", at, 0))
    blob = raw.blob()
    assert steps(lambda: Types(blob).layout(at)) < 60 * 1000 + LEVELS * 5 * 1000


def test_a_name_is_found_once_in_strings_that_are_all_alike() -> None:
    raw = Raw()
    raw.strings += b"a\0" * 50_000
    for at in range(1, 2000, 2):
        raw.add(rawbtf.TYPEDEF, at, 0)
    types = Types(raw.blob())
    assert len(types.ids("a")) == 1000
    assert steps(lambda: types.ids("a")) < 10 * 50_000
