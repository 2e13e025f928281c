"""An ELF file as sections, symbols and relocations, every number checked before it is followed. Sans-I/O.

pyelftools knows the header's and the sections' fields; its higher layers follow whatever a file says, so what is
followed is followed here. Tables are read as columns of ``struct``. Source: the gABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final, cast

from mapd_client.btf import Types
from mapd_client.codec import ORDER
from mapd_client.elf.bad import BadObject
from mapd_client.errors import Unsupported
from mapd_client.info import ByteOrder

FILE_BYTES_MAX: Final = 16 << 20
"""Of an object; those of large projects have a few MiB, most of them debug information."""

_SECTIONS_MAX: Final = 4096
_SYMBOLS_MAX: Final = 1 << 18
_NAME_MAX: Final = 512
"""Bytes of a section's or symbol's name: KSYM_NAME_LEN, the longest that the kernel's own tables take."""

_EHDR_BYTES: Final = 64
_SHDR_BYTES: Final = 64
_SYM_BYTES: Final = 24
_REL_BYTES: Final = 16
_EM_BPF: Final = 247
_SHN_LORESERVE: Final = 0xFF00
_SHF_COMPRESSED: Final = 1 << 11
_KNOWN_MACHINES: Final = {
    3: "x86",
    8: "MIPS",
    21: "PowerPC 64",
    22: "s390",
    40: "ARM",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}

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
    """

    label: str
    data: bytes
    byteorder: ByteOrder
    sections: Sequence[Section]
    types: Types | None = None
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
            if read > _SYMBOLS_MAX:
                raise self.bad(f"more than {_SYMBOLS_MAX} relocations", section=table.name, number=len(raw))
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


def read_image(data: bytes, label: str) -> Image:
    """An eBPF object's headers.

    Raises:
        BadObject: no ELF, not for eBPF, not relocatable, cut off, or numbers that do not fit the file.
        Unsupported: pyelftools is not installed.
    """
    byteorder = _identity(data, label)
    try:
        from elftools.construct import ConstructError
        from elftools.elf.structs import ELFStructs
    except ModuleNotFoundError:
        raise Unsupported(
            f"{label}: reading an object file needs pyelftools: pip install 'bpf-mapd[elf]'"
        ) from None
    structs = ELFStructs(little_endian=byteorder == "little", elfclass=64)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    try:
        header = _parsed(structs.Elf_Ehdr, data, 0)
        _check_header(header, data, label)
        sections = _sections(structs, header, data)
    except ConstructError as error:
        raise BadObject(f"{label}: headers that do not fit the file: {error}") from None
    image = Image(label, data, byteorder, sections)
    names = sections[int(header["e_shstrndx"])]
    return Image(label, data, byteorder, list(_named(image, sections, names)))


def _parsed(form: Any, data: bytes, at: int) -> Mapping[str, Any]:
    stream = BytesIO(data[at : at + form.sizeof()])
    return cast("Mapping[str, Any]", form.parse_stream(stream))


def _identity(data: bytes, label: str) -> ByteOrder:
    """What has to be right before anything else is read."""
    if len(data) > FILE_BYTES_MAX:
        raise BadObject(
            f"{label}: {len(data)} bytes; objects of up to {FILE_BYTES_MAX} are read", number=len(data)
        )
    if data[:4] != b"\x7fELF":
        raise BadObject(f"{label}: no ELF file: it begins with {data[:4].hex() or 'nothing'}, not 7f454c46")
    if len(data) < _EHDR_BYTES:
        raise BadObject(
            f"{label}: {len(data)} bytes, an ELF header has {_EHDR_BYTES}: it was cut off", number=len(data)
        )
    if data[4] != 2:
        raise BadObject(
            f"{label}: ELF class {data[4]}; eBPF objects are of class 2 (64 bits): clang -target bpf",
            number=data[4],
        )
    if data[5] not in (1, 2):
        raise BadObject(f"{label}: byte order {data[5]}, known are 1 (little) and 2 (big)", number=data[5])
    return "little" if data[5] == 1 else "big"


def _check_header(header: Mapping[str, Any], data: bytes, label: str) -> None:
    raw = data[16:20]
    order: ByteOrder = "little" if data[5] == 1 else "big"
    kind, machine = int.from_bytes(raw[:2], order), int.from_bytes(raw[2:], order)
    if machine != _EM_BPF:
        known = _KNOWN_MACHINES.get(machine, "another")
        raise BadObject(
            f"{label}: compiled for machine {machine} ({known}), not {_EM_BPF} (eBPF): clang -target bpf",
            number=machine,
        )
    if kind != 1:
        raise BadObject(
            f"{label}: ELF type {kind}, not 1 (relocatable): it is what clang -c writes that is read",
            number=kind,
        )
    count, each, at = header["e_shnum"], header["e_shentsize"], header["e_shoff"]
    if each != _SHDR_BYTES or not 0 < count <= _SECTIONS_MAX:
        raise BadObject(
            f"{label}: {count} sections of {each} bytes; an object has 1 to {_SECTIONS_MAX} of {_SHDR_BYTES}",
            number=count,
        )
    if at + count * each > len(data):
        raise BadObject(
            f"{label}: section headers at bytes {at} to {at + count * each}, the file has {len(data)}: it was cut off",
            number=at + count * each,
        )
    if header["e_shstrndx"] >= count:
        raise BadObject(
            f"{label}: the sections' names are in section {header['e_shstrndx']}, there are {count}",
            number=header["e_shstrndx"],
        )


def _sections(structs: Any, header: Mapping[str, Any], data: bytes) -> list[Section]:
    found: list[Section] = []
    for index in range(header["e_shnum"]):
        at = header["e_shoff"] + index * _SHDR_BYTES
        one = _parsed(structs.Elf_Shdr, data, at)
        # pyelftools has words for the types it knows; the number is what everything here is told by.
        kind = int.from_bytes(data[at + 4 : at + 8], "little" if structs.little_endian else "big")
        found.append(
            Section(
                index=index,
                name=str(one["sh_name"]),
                type=kind,
                flags=one["sh_flags"],
                offset=one["sh_offset"],
                size=one["sh_size"],
                link=one["sh_link"],
                info=one["sh_info"],
            )
        )
    return found


def _named(image: Image, sections: Sequence[Section], names: Section) -> Iterator[Section]:
    strings = Section(
        index=names.index,
        name=".shstrtab",
        type=names.type,
        flags=names.flags,
        offset=names.offset,
        size=names.size,
        link=0,
        info=0,
    )
    for one in sections:
        yield Section(
            index=one.index,
            name=image.string(strings, int(one.name)),
            type=one.type,
            flags=one.flags,
            offset=one.offset,
            size=one.size,
            link=one.link,
            info=one.info,
        )
