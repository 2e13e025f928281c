"""eBPF objects word by word, right or wrong: what clang does not write any more, and what it never wrote."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mapd_client.info import ByteOrder
from tests.support.rawbtf import FUNC_PROTO, PTR, VAR, Raw

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL = 1, 2, 3, 4, 8, 9
WRITE, ALLOC, EXEC, COMPRESSED = 1, 2, 4, 1 << 11
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
LOCAL, GLOBAL = 0, 1

EXIT: Final = bytes.fromhex("b700000000000000 9500000000000000")
"""A program: r0 = 0; exit. The same bytes in both orders."""

_EHDR: Final = "HHIQQQIHHHHHH"
_SHDR: Final = "IIQQQQIIQQ"


@dataclass
class Object:
    """An object in the making; sections and symbols are numbered from 1 as they are added.

    Each ``dict`` of header fields that ``build`` takes puts other numbers there.
    """

    order: ByteOrder = "little"
    sections: list[dict[str, int | bytes | str]] = field(default_factory=list[dict[str, int | bytes | str]])
    symbols: list[tuple[str, int, int, int, int]] = field(
        default_factory=list[tuple[str, int, int, int, int]]
    )

    def pack(self, form: str, *numbers: int | bytes) -> bytes:
        """Numbers in this object's byte order."""
        return struct.pack({"little": "<", "big": ">"}[self.order] + form, *numbers)

    def section(
        self, name: str, data: bytes = b"", kind: int = PROGBITS, flags: int = ALLOC, **fields: int
    ) -> int:
        """A section; ``fields`` (size, offset, link, info, entsize) in place of what they are."""
        self.sections.append({"name": name, "data": data, "type": kind, "flags": flags, **fields})
        return len(self.sections)

    def symbol(
        self,
        name: str,
        section: int,
        value: int = 0,
        size: int = 0,
        kind: int = OBJECT,
        binding: int = GLOBAL,
    ) -> int:
        """A symbol in that section."""
        self.symbols.append((name, binding << 4 | kind, section, value, size))
        return len(self.symbols)

    def relocations(self, section: int, *wanted: tuple[int, int], kind: int = REL) -> int:
        """REL entries (byte, symbol) of a section."""
        data = b"".join(self.pack("QQ", at, symbol << 32 | 2) for at, symbol in wanted)
        name = ".rel" + str(self.sections[section - 1]["name"])
        return self.section(name, data, kind, 0, info=section)

    def program(self, name: str, function: str = "") -> int:
        """A section with a program that does nothing; answers the symbol of its function."""
        at = self.section(name, EXIT, PROGBITS, ALLOC | EXEC)
        return self.symbol(function or f"program_{at}", at, 0, len(EXIT), FUNC)

    def build(self, **header: int | bytes) -> bytes:
        """All of it: headers, sections, symbols, names; ``header`` in place of the ELF header's own fields."""
        strings = bytearray(1)
        names: dict[str, int] = {"": 0}

        def name(text: str) -> int:
            if text not in names:
                names[text] = len(strings)
                strings.extend(text.encode() + b"\0")
            return names[text]

        symbols = bytes(24) + b"".join(
            self.pack("IBBHQQ", name(text), info, 0, at, value, size)
            for text, info, at, value, size in self.symbols
        )
        strtab = len(self.sections) + 2
        own: dict[str, int | bytes | str] = {
            "name": ".symtab", "data": symbols, "type": SYMTAB, "flags": 0, "link": strtab, "entsize": 24,
        }  # fmt: skip
        table = [*self.sections, own]
        name_at = [name(str(one["name"])) for one in table] + [name(".strtab")]
        table.append({"name": ".strtab", "data": bytes(strings), "type": STRTAB, "flags": 0})
        body, headers = bytearray(), [bytes(64)]
        for at, one in zip(name_at, table, strict=True):
            data = one["data"]
            assert isinstance(data, bytes)
            body += bytes(-len(body) % 8)
            fields = {
                "offset": 64 + len(body),
                "size": len(data),
                "link": 0,
                "info": 0,
                "entsize": 0,
            } | {key: value for key, value in one.items() if isinstance(value, int)}
            headers.append(
                self.pack(
                    _SHDR, at, fields["type"], fields["flags"], 0, fields["offset"], fields["size"],
                    fields["link"], fields["info"], 8, fields["entsize"],
                )
            )  # fmt: skip
            body += data
        body += bytes(-len(body) % 8)
        ident = b"\x7fELF" + bytes((2, {"little": 1, "big": 2}[self.order], 1)) + bytes(9)
        ehdr: dict[str, int | bytes] = {
            "type": 1, "machine": 247, "version": 1, "entry": 0, "phoff": 0, "shoff": 64 + len(body),
            "flags": 0, "ehsize": 64, "phentsize": 0, "phnum": 0, "shentsize": 64,
            "shnum": len(headers), "shstrndx": strtab,
        }  # fmt: skip
        assert header.keys() <= ehdr.keys() | {"ident"}
        ident = bytes(header.pop("ident", ident))
        return ident + self.pack(_EHDR, *(ehdr | header).values()) + body + b"".join(headers)


def structs(
    maps: Mapping[str, Sequence[int]],
    order: ByteOrder = "little",
    programs: Sequence[str] = (),
    *,
    sized: bool = True,
) -> Object:
    """An object with section ``maps``: the words of each map's struct, in their order.

    Args:
        maps: by the symbols' names.
        order: of the words.
        programs: names of program sections.
        sized: symbols say their size; those of old compilers do not.
    """
    made = Object(order)
    data = b"".join(made.pack(f"{len(words)}I", *words) for words in maps.values())
    at = made.section("maps", data, PROGBITS, WRITE | ALLOC)
    made.section("license", b"GPL\0", PROGBITS, WRITE | ALLOC)
    place = 0
    for name, words in maps.items():
        made.symbol(name, at, place, 4 * len(words) if sized else 0, OBJECT if sized else NOTYPE)
        place += 4 * len(words)
    for program in programs:
        made.program(program)
    return made


@dataclass
class BtfMaps:
    """BTF that defines maps, as the macros of bpf_helpers.h make it."""

    raw: Raw

    def number(self, value: int) -> int:
        """``__uint``: a pointer to an array of so many ints."""
        element = self.raw.integer("int", 4, 1)
        return self.pointer(self.raw.array(element, value, element))

    def long(self, name: str, value: int) -> int:
        """``__ulong``: an enum of 64 bits with one value."""
        return self.raw.enum64("", 8, (name, value))

    def pointer(self, to: int) -> int:
        """``__type``."""
        return self.raw.add(PTR, "", to)

    def slots(self, of: int) -> int:
        """``__array``: pointers, without a number."""
        return self.raw.array(self.pointer(of), 0)

    def function(self) -> int:
        """``int (void *)``."""
        return self.raw.add(FUNC_PROTO, "", self.raw.integer("int", 4, 1), 0, 0, vlen=1)

    def struct(self, members: Mapping[str, int | str], **types: int) -> int:
        """A map's struct: numbers as ``__uint``, and ``types`` that are other members, in their order."""
        found = [(name, self.number(value)) for name, value in members.items() if isinstance(value, int)]
        found += types.items()
        size = 8 * len(found) - (8 if "values" in types else 0)
        return self.raw.struct("", size, *((name, of, 64 * place) for place, (name, of) in enumerate(found)))

    def variable(self, name: str, of: int, linkage: int = 1) -> int:
        """A VAR."""
        return self.raw.add(VAR, name, of, linkage)
