"""Objects that are none, or that lie: told by file, section, symbol and number, and with bounded work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Final

import pytest

from mapd_client.elf import BadObject, read_object
from mapd_client.errors import Misuse
from tests.support.elfwriter import (
    COMPRESSED,
    FUNC,
    LOCAL,
    NOBITS,
    PROGBITS,
    REL,
    RELA,
    SYMTAB,
    BtfMaps,
    Object,
    structs,
)
from tests.support.rawbtf import TYPEDEF, VAR, Raw
from tests.unit.mapd_client.elf.fixtures.make import made

WORDS = (1, 4, 8, 16, 0)


def refused(data: bytes, convention: str = "auto") -> BadObject:
    with pytest.raises(BadObject) as caught:
        read_object(data, convention, label="x.o")
    assert str(caught.value).startswith("x.o: ")
    return caught.value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no ELF file: it begins with nothing"),
        (b"#!/bin/sh\n", "no ELF file: it begins with 23212f62"),
        (b"\x7fELF\x02\x01", "6 bytes, an ELF header has 64: it was cut off"),
        (b"\x7fELF\x01\x01" + bytes(100), "ELF class 1; eBPF objects are of class 2"),
        (b"\x7fELF\x02\x03" + bytes(100), "byte order 3"),
    ],
)
def test_what_is_no_object_is_told(data: bytes, said: str) -> None:
    assert said in str(refused(data))


@pytest.mark.parametrize(
    ("fields", "said", "number"),
    [
        ({"machine": 62}, "compiled for machine 62 (x86-64), not 247 (eBPF): clang -target bpf", 62),
        ({"machine": 9999}, "machine 9999 (another)", 9999),
        ({"type": 2}, "ELF type 2, not 1 (relocatable)", 2),
        ({"shentsize": 0}, "5 sections of 0 bytes", 5),
        ({"shnum": 0}, "0 sections of 64 bytes", 0),
        ({"shnum": 65535}, "65535 sections of 64 bytes; an object has 1 to 4096", 65535),
        ({"shoff": 1 << 63}, "section headers at bytes 9223372036854775808", (1 << 63) + 5 * 64),
        ({"shstrndx": 77}, "the sections' names are in section 77, there are 5", 77),
    ],
)
def test_a_header_that_does_not_fit_is_told(fields: dict[str, int], said: str, number: int) -> None:
    error = refused(structs({"one": WORDS}).build(**fields))
    assert said in str(error)
    assert error.number == number


@pytest.mark.parametrize("name", ["samples20.little.o", "tc36.big.o", "libbpf.little.o", "data.big.o"])
def test_an_object_that_was_cut_off_anywhere_is_refused(name: str) -> None:
    data = made()[name]
    for size in range(0, len(data) - 1, 7):
        refused(data[:size])


def test_a_section_outside_of_the_file_is_named() -> None:
    made_of = Object()
    made_of.symbol("one", made_of.section("maps", bytes(20), offset=1 << 40))
    error = refused(made_of.build())
    assert "section maps: bytes 1099511627776 to 1099511627796, the file has" in str(error)
    assert (error.section, error.number) == ("maps", (1 << 40) + 20)


def test_a_compressed_section_is_refused_and_not_unpacked() -> None:
    made_of = Object()
    made_of.symbol("one", made_of.section("maps", bytes(20), flags=COMPRESSED))
    assert "it is compressed" in str(refused(made_of.build()))


def one_map(section: str = "maps", **symbol: int) -> bytes:
    made_of = Object()
    made_of.symbol("one", made_of.section(section, bytes(20)), **symbol)
    return made_of.build()


NO_MAPS: Final[list[tuple[Callable[[], bytes], str]]] = [
    (lambda: one_map(binding=LOCAL), "'one': a local symbol: loaders look for global ones"),
    (lambda: one_map(kind=FUNC), "'one': a symbol of type 2; maps are variables"),
    (lambda: one_map(value=24), "'one': bytes 24 to 24, the section has 20"),
    (lambda: one_map(value=4), "'one': it lies at byte 4, the struct of 20 bytes before it ends at 0"),
    (lambda: one_map(size=16), "'one': it has 16 bytes, and the section 20 bytes for 1 maps"),
    (lambda: one_map(size=1 << 63), "'one': bytes 0 to 9223372036854775808, the section has 20"),
    (lambda: structs({"one": WORDS[:3]}).build(), "12 bytes for 1 maps (one): that is no whole number"),
]


@pytest.mark.parametrize(("build", "said"), NO_MAPS)
def test_a_symbol_that_is_no_map_is_named(build: Callable[[], bytes], said: str) -> None:
    error = refused(build())
    assert f"x.o: section maps: {said}" in str(error)
    assert error.section == "maps"


def two_maps(first: int, second: int, size: int, name: str = "two") -> bytes:
    made_of = Object()
    at = made_of.section("maps", bytes(size))
    made_of.symbol("one", at, first)
    made_of.symbol(name, at, second)
    return made_of.build()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (two_maps(0, 0, 40), "'two': it lies at byte 0, where 'one' lies: two names for one struct"),
        (two_maps(0, 20, 64), "'two': it lies at byte 20, the struct of 32 bytes before it ends at 32"),
        (two_maps(0, 24, 40), "'two': it lies at byte 24, the struct of 20 bytes before it ends at 20"),
        (two_maps(0, 20, 41), "41 bytes for 2 maps (one, two): that is no whole number of words"),
        (two_maps(0, 20, 40, "one"), "'one': there are two maps of this name"),
    ],
)
def test_structs_with_holes_overlaps_or_two_names_are_refused(data: bytes, said: str) -> None:
    assert said in str(refused(data, "samples"))


def test_a_section_without_symbols_says_why_that_is() -> None:
    made_of = Object()
    made_of.section("maps", bytes(20))
    assert "20 bytes and no symbol" in str(refused(made_of.build()))


def test_a_stripped_object_says_so() -> None:
    data = structs({"one": WORDS}).build()
    at = data.rindex(SYMTAB.to_bytes(4, "little") + bytes(8))
    stripped = data[:at] + PROGBITS.to_bytes(4, "little") + data[at + 4 :]
    assert "it has no symbols, so its maps have no names: do not strip it" in str(refused(stripped))


def test_maps_in_a_section_without_bytes_are_refused() -> None:
    made_of = Object()
    made_of.symbol("one", made_of.section("maps", kind=NOBITS, size=1 << 50))
    assert "it has no bytes in the file" in str(refused(made_of.build()))


def test_too_many_maps_are_refused_at_a_bound() -> None:
    assert "more than 256 maps" in str(refused(structs({f"m{at}": WORDS for at in range(257)}).build()))


@pytest.mark.parametrize("inner", [1, 2, 9])
def test_a_template_that_is_none_is_told_by_its_number(inner: int) -> None:
    maps = {"in": (1, 4, 4, 1, 0, 0, 0), "out": (12, 4, 4, 1, 0, inner, 0), "more": (13, 4, 4, 1, 0, 0, 0)}
    error = refused(structs(maps).build())
    assert (error.symbol, error.number) == ("out", inner)


def test_tcs_template_has_to_be_another_map() -> None:
    maps = {"in": (1, 4, 4, 1, 0, 5, 0, 0, 0), "out": (12, 4, 4, 1, 0, 6, 0, 6, 0)}
    error = refused(structs(maps).build())
    assert "'out': inner_id 6" in str(error)
    assert "ids are 5 (in), 6 (out)" in str(error)


# .maps


def modern(raw: Raw, *, size: int = 64, section: bool = True) -> Object:
    made_of = Object()
    at = made_of.section(".maps", bytes(size))
    made_of.symbol("one", at, 0, size)
    if section:
        made_of.section(".BTF", raw.blob(), PROGBITS, 0)
    return made_of


def defined(build: Callable[[Raw, BtfMaps], int], linkage: int = 1) -> Object:
    """An object with one map, whose struct ``build`` makes."""
    raw = Raw()
    maps = BtfMaps(raw)
    variable = maps.variable("one", build(raw, maps), linkage)
    raw.datasec(".maps", 0, (variable, 0, 0))
    return modern(raw)


U32 = "unsigned int"


NO_DEFINITIONS: Final[list[tuple[Callable[[Raw, BtfMaps], int], str]]] = [
    (lambda _, maps: maps.struct({"max_entries": 1}), "it has no type: __uint(type"),
    (lambda _, maps: maps.struct({"type": 1, "colour": 3}), "member 'colour'; known are type,"),
    (lambda _, maps: maps.struct({"type": 1, "pinning": 2}), "pinning 2; known are 0"),
    (lambda raw, maps: maps.struct({}, type=raw.integer(U32, 4)), "type is a Int, not a pointer"),
    (
        lambda raw, maps: maps.struct({}, type=maps.pointer(raw.integer(U32, 4))),
        "type points to a Int; numbers are __uint()",
    ),
    (
        lambda raw, maps: maps.struct({"type": 1, "key_size": 8}, key=maps.pointer(raw.integer(U32, 4))),
        "key_size is 8, its key has 4 bytes",
    ),
    (
        lambda raw, maps: maps.struct({"type": 1}, map_extra=raw.enum("", 4, ("a", 1), ("b", 2))),
        "map_extra is a Enum; it is __ulong()",
    ),
    (
        lambda raw, maps: maps.struct({"type": 1}, values=maps.slots(raw.struct("", 0))),
        "values are maps, which type 1 does not hold",
    ),
    (
        lambda _, maps: maps.struct({"type": 12}, values=maps.slots(maps.struct({"type": 12}))),
        "'one.inner': the template of inner maps is a map of maps",
    ),
    (
        lambda _, maps: maps.struct({"type": 12}, values=maps.slots(maps.struct({"type": 1, "pinning": 1}))),
        "'one.inner': the template of inner maps cannot be pinned",
    ),
    (
        lambda raw, maps: maps.struct({"type": 12}, values=maps.slots(raw.integer(U32, 4))),
        "values point to a Int, no struct and no function",
    ),
    (
        lambda raw, maps: raw.struct("", 16, ("type", maps.number(1), 0), ("type", maps.number(2), 64)),
        "there are two members 'type'",
    ),
    (lambda raw, _: raw.integer(U32, 4), "its type is a Int, not a struct"),
    (lambda raw, _: raw.struct("", 72), "bytes 0 to 72, the section has 64"),
]


@pytest.mark.parametrize(("build", "said"), NO_DEFINITIONS)
def test_a_definition_that_libbpf_would_not_take_is_told_by_map_and_member(
    build: Callable[[Raw, BtfMaps], int], said: str
) -> None:
    error = refused(defined(build).build())
    assert said in str(error)
    assert str(error).startswith("x.o: section .maps: 'one")


def test_a_static_map_is_refused() -> None:
    error = refused(defined(lambda _, maps: maps.struct({"type": 1}), linkage=0).build())
    assert "'one': linkage 0: a map is not static" in str(error)


def test_maps_without_btf_say_how_to_compile() -> None:
    assert "compile with -g" in str(refused(modern(Raw(), section=False).build()))


def test_types_in_a_circle_end() -> None:
    def circle(raw: Raw, _: BtfMaps) -> int:
        first = raw.add(TYPEDEF, "a", 2)
        return raw.add(TYPEDEF, "b", first)

    error = refused(defined(circle).build())
    assert "section .BTF: BTF: more than 32 typedefs and qualifiers" in str(error)


def test_a_section_of_what_are_no_variables_is_refused() -> None:
    raw = Raw()
    raw.datasec(".maps", 0, (raw.integer(U32, 4), 0, 0))
    assert "type 1 of .BTF is a Int, no variable" in str(refused(modern(raw).build()))
    raw = Raw()
    raw.datasec(".maps", 0, (raw.add(VAR, "one", 99, 1), 0, 0))
    assert "section .BTF: BTF: there is no type 99" in str(refused(modern(raw).build()))


def test_types_of_the_other_byte_order_are_refused() -> None:
    assert "big endian types in a little endian object" in str(refused(modern(Raw("big")).build()))


def with_slots(*wanted: tuple[int, int], kind: int = REL) -> bytes:
    made_of = defined(
        lambda _, maps: maps.struct(
            {"type": 12, "max_entries": 2}, values=maps.slots(maps.struct({"type": 1}))
        )
    )
    made_of.relocations(1, *wanted, kind=kind)
    return made_of.build()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (with_slots((0, 1)), "a relocation at its byte 0, no slot"),
        (with_slots((17, 1)), "a relocation at its byte 17, no slot"),
        (with_slots((16 + 8 * 2, 1)), "slot 2, max_entries is 2"),
        (with_slots((16, 77)), "symbol 77 is wanted, there are 2"),
        (with_slots((16, 0)), "slot 0 holds '', which is no map"),
        (with_slots((16, 1), kind=RELA), "relocations of eBPF objects are type 9 (REL)"),
    ],
)
def test_a_slot_that_is_none_is_told_by_its_number(data: bytes, said: str) -> None:
    assert said in str(refused(data))


def test_sections_of_data_that_lie_in_each_other_do_not_multiply_the_file() -> None:
    made_of = Object()
    for at in range(200):
        made_of.section(f".data.{at}", b"", offset=64, size=8192)
    made_of.section("filler", bytes(10_000))
    assert "it lies in another section of data" in str(refused(made_of.build()))
    made_of = Object()
    made_of.section(".data", bytes(8))
    made_of.section(".data", bytes(8))
    assert "there are 2 sections of this name" in str(refused(made_of.build()))


def test_more_types_than_any_object_has_are_refused_unread() -> None:
    made_of = structs({"one": WORDS})
    made_of.section(".BTF", bytes((4 << 20) + 1), PROGBITS, 0)
    error = refused(made_of.build())
    assert (error.section, error.number) == (".BTF", (4 << 20) + 1)


def test_more_relocations_than_any_object_has_are_refused() -> None:
    assert "more than 65536 relocations" in str(refused(with_slots(*[(16, 1)] * 65537)))


def test_a_file_that_is_too_large_is_refused() -> None:
    assert "16777217 bytes; objects of up to 16777216 are read" in str(refused(bytes((16 << 20) + 1)))


def test_a_name_without_an_end_is_refused() -> None:
    data = bytearray(structs({"m" * 600: WORDS}).build())
    assert "does not end within 512 bytes" in str(refused(bytes(data)))


def test_without_pyelftools_the_line_that_installs_it_is_told() -> None:
    code = (
        "import sys; sys.modules['elftools'] = None; sys.modules['elftools.construct'] = None\n"
        "from mapd_client.elf import read_object\n"
        "from mapd_client.errors import Unsupported\n"
        "try: read_object(sys.stdin.buffer.read())\n"
        "except Unsupported as error: print(error)\n"
    )
    data = structs({"one": WORDS}).build()
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert b"pip install 'bpf-mapd[elf]'" in done.stdout


def test_a_bad_object_is_a_fault_of_the_call() -> None:
    assert issubclass(BadObject, Misuse)
