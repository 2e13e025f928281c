"""The headers of an ELF file, checked against the file before anything is followed. Sans-I/O.

pyelftools knows the fields; its higher layers follow whatever a file says, so what is followed is followed here and in
``image``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any, Final, cast

from mapd_client.elf.bad import BadObject
from mapd_client.elf.image import Image, Section
from mapd_client.errors import Unsupported
from mapd_client.info import ByteOrder

FILE_BYTES_MAX: Final = 16 << 20
"""Of an object; those of large projects have a few MiB, most of them debug information."""

_SECTIONS_MAX: Final = 4096
_EHDR_BYTES: Final = 64
_SHDR_BYTES: Final = 64
_EM_BPF: Final = 247
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
    """The sections with their names; until here they have the places of these."""
    strings = replace(names, name=".shstrtab")
    for one in sections:
        yield replace(one, name=image.string(strings, int(one.name)))
