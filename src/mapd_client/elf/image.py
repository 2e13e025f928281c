"""An ELF file's sections, symbols and relocations, every number checked before it is followed. Sans-I/O.

Tables are read as columns of ``struct``, once each. Source: the gABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from mapd_client.btf import Types
from mapd_client.codec import ORDER
from mapd_client.elf.bad import BadObject
from mapd_client.info import ByteOrder

_SYMBOLS_MAX: Final = 1 << 18
_RELOCATIONS_MAX: Final = 1 << 16
_NAME_MAX: Final = 512
"""Bytes of a section's or symbol's name: KSYM_NAME_LEN, the longest that the kernel's own tables take."""

_SYM_BYTES: Final = 24
_REL_BYTES: Final = 16
_SHN_LORESERVE: Final = 0xFF00
_SHF_COMPRESSED: Final = 1 << 11

PROGBITS: Final = 1
SYMTAB: Final = 2
NOBITS: Final = 8
REL: Final = 9
RELA: Final = 4
EXECUTABLE: Final = 1 << 2

NOTYPE, OBJECT, FUNCTION, SECTION = 0, 1, 2, 3
LOCAL: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section's header.

    Attributes:
        index: its number, which symbols say.
        name: "" where it has none.
        type: SHT_*.
        flags: SHF_*.
        offset: of its bytes in the file.
        size: bytes; of .bss, in memory.
        link: another section that it goes with.
        info: of relocations, the section that they change.
    """

    index: int
    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """One symbol that lies in a section.

    Attributes:
        name: "" where it has none.
        type: STT_*.
        binding: STB_*; 0 is local.
        section: index of the section that it lies in; 0 for one that lies elsewhere.
        value: where it lies there, in bytes.
        size: bytes.
    """

    name: str
    type: int
    binding: int
    section: int
    value: int
    size: int


@dataclass(slots=True)
class Image:
    """One file.

    Attributes:
        label: the file, for messages.
        data: all bytes.
        byteorder: as its header says.
        sections: in their order; the first is the empty one.
        types: of its .BTF; None where it has none.
        annotations: type ids of its structs ``____btf_map_NAME``; None until they are looked for.
    """

    label: str
    data: bytes
    byteorder: ByteOrder
    sections: Sequence[Section]
    types: Types | None = None
    annotations: dict[str, int] | None = None
    _symbols: Sequence[tuple[int, int, int, int, int, int]] | None = None
    _symbol_names: Section | None = None
    _by_section: dict[int, list[int]] | None = None
    _strings: dict[int, bytes] = field(default_factory=dict[int, bytes])

    def bad(
        self, message: str, *, section: str = "", symbol: str = "", number: int | None = None
    ) -> BadObject:
        """The error, with the file, section and symbol before the message."""
        where = "".join(
            (self.label, f": section {section}" if section else "", f": {symbol!r}" if symbol else "")
        )
        return BadObject(f"{where}: {message}", section=section, symbol=symbol, number=number)

    def find(self, name: str) -> Section | None:
        """The section of that name, None for none.

        Raises:
            BadObject: there are two.
        """
        found = [one for one in self.sections if one.name == name]
        if len(found) > 1:
            raise self.bad(
                f"there are {len(found)} sections of this name: link them into one with bpftool gen object",
                section=name,
                number=len(found),
            )
        return found[0] if found else None

    def bytes_of(self, section: Section) -> bytes:
        """The section's bytes; none of .bss.

        Raises:
            BadObject: not in the file, or compressed.
        """
        if section.type == NOBITS:
            return b""
        if section.flags & _SHF_COMPRESSED:
            raise self.bad(
                "it is compressed; loaders read it as it is: build without -gz, or objcopy --decompress-debug-sections",
                section=section.name,
            )
        end = section.offset + section.size
        if end > len(self.data):
            raise self.bad(
                f"bytes {section.offset} to {end}, the file has {len(self.data)}: it was cut off, or is none",
                section=section.name,
                number=end,
            )
        return self.data[section.offset : end]

    def symbols_in(self, section: Section) -> Iterator[Symbol]:
        """Its symbols, in the table's order, without those that stand for the section itself."""
        if self._by_section is None:
            self._by_section = {}
            for at, one in enumerate(self._table()):
                if one[1] & 15 != SECTION:
                    self._by_section.setdefault(one[3], []).append(at)
        yield from map(self.symbol, self._by_section.get(section.index, ()))

    def symbol(self, at: int) -> Symbol:
        """The symbol of that number.

        Raises:
            BadObject: there is none.
        """
        table = self._table()
        if at >= len(table):
            raise self.bad(f"symbol {at} is wanted, there are {len(table)}", section=".symtab", number=at)
        name, info, _, index, value, size = table[at]
        return Symbol(
            name=self.string(self._symbol_names, name),
            type=info & 15,
            binding=info >> 4,
            section=index if index < _SHN_LORESERVE else 0,
            value=value,
            size=size,
        )

    def _table(self) -> Sequence[tuple[int, int, int, int, int, int]]:
        if self._symbols is not None:
            return self._symbols
        tables = [one for one in self.sections if one.type == SYMTAB]
        if not tables:
            raise self.bad("it has no symbols, so its maps have no names: do not strip it", section=".symtab")
        if len(tables) > 1:
            raise self.bad(f"{len(tables)} symbol tables; an object has one", number=len(tables))
        raw = self.bytes_of(tables[0])
        name = tables[0].name
        if len(raw) % _SYM_BYTES or len(raw) // _SYM_BYTES > _SYMBOLS_MAX:
            raise self.bad(
                f"{len(raw)} bytes; a symbol has {_SYM_BYTES}, and at most {_SYMBOLS_MAX} are read",
                section=name,
                number=len(raw),
            )
        if tables[0].link >= len(self.sections):
            raise self.bad(f"its names are in section {tables[0].link}, which is not there", section=name)
        self._symbol_names = self.sections[tables[0].link]
        form = ORDER[self.byteorder] + "IBBHQQ"
        self._symbols = cast(
            "Sequence[tuple[int, int, int, int, int, int]]", tuple(struct.iter_unpack(form, raw))
        )
        return self._symbols

    def relocations(self, section: Section) -> Iterator[tuple[int, Symbol]]:
        """Of that section: the byte in it, and the symbol that is wanted there.

        Raises:
            BadObject: a table of half records, or of addends, which eBPF objects do not have.
        """
        read = 0
        for table in self.sections:
            if table.info != section.index or table.type not in (REL, RELA):
                continue
            raw = self.bytes_of(table)
            if table.type == RELA or len(raw) % _REL_BYTES:
                raise self.bad(
                    f"{len(raw)} bytes of type {table.type}; relocations of eBPF objects are type {REL} (REL), "
                    f"{_REL_BYTES} bytes each",
                    section=table.name,
                    number=len(raw),
                )
            read += len(raw) // _REL_BYTES
            if read > _RELOCATIONS_MAX:
                raise self.bad(
                    f"more than {_RELOCATIONS_MAX} relocations", section=table.name, number=len(raw)
                )
            for offset, info in struct.iter_unpack(ORDER[self.byteorder] + "QQ", raw):
                yield offset, self.symbol(info >> 32)

    def string(self, table: Section | None, at: int) -> str:
        """A name in a table of strings; "" at 0.

        Raises:
            BadObject: outside of the table, or longer than any.
        """
        if table is None or at == 0:
            return ""
        if table.index not in self._strings:
            self._strings[table.index] = self.bytes_of(table)
        strings = self._strings[table.index]
        end = strings.find(0, at, at + _NAME_MAX)
        if end < 0:
            raise self.bad(
                f"a name at {at} does not end within {_NAME_MAX} bytes and the {len(strings)} that there are",
                section=table.name,
                number=at,
            )
        return strings[at:end].decode("utf-8", "backslashreplace")
