"""Reading an object's maps, by whichever convention it declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Final, get_args

from mapd_client.btf import BadBtf, Types
from mapd_client.elf import conventions, datamaps, definitions, libbpf, samples, structs, tc
from mapd_client.elf.datasec import filled_in
from mapd_client.elf.declared import Convention, Declared, ObjectFile
from mapd_client.elf.headers import FILE_BYTES_MAX, read_image
from mapd_client.elf.image import EXECUTABLE, PROGBITS, Image
from mapd_client.errors import Misuse

_CONVENTIONS: Final[Sequence[str]] = (*get_args(Convention), "auto")
_BTF_MAX: Final = 4 << 20
"""Bytes; the types of a whole kernel have 6 MiB, those of large objects some hundred KiB."""

_LICENSE_MAX: Final = 128
"""Bytes; MAX_LICENSE_LEN of loaders."""


def read_object(
    source: str | PathLike[str] | bytes,
    convention: str = "auto",
    *,
    pinnings: Mapping[int, str] | None = None,
    label: str = "",
) -> ObjectFile:
    """What maps an eBPF object declares. Blocking: reads a file; parsing it is bounded by its size.

    Args:
        source: a path, or the object's bytes.
        convention: "samples" (``struct bpf_map_def``), "tc" (``struct bpf_elf_map``), "libbpf" (``.maps``, and sections
            of global variables), or "auto": the section's name and the structs' size tell, and where two conventions
            share a size the rule of ``conventions.chosen``. The result's ``rule`` says which.
        pinnings: folders of tc's custom pinnings by their numbers (``tc.read_pinnings``).
        label: the object's name in messages and in names of data sections' maps; the path where it is "".

    Raises:
        BadObject: no eBPF object, or maps that no loader understands; says the section, symbol and number.
        Misuse: a convention of another name.
        Unsupported: pyelftools is not installed.
        OSError: the file cannot be read.
    """
    if convention not in _CONVENTIONS:
        raise Misuse(f"convention {convention!r}: it is one of {', '.join(map(repr, _CONVENTIONS))}")
    if isinstance(source, bytes):
        return read_bytes(source, label or "object", convention, pinnings=pinnings)
    with Path(source).open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    return read_bytes(data, label or str(Path(source)), convention, pinnings=pinnings)


def read_bytes(
    data: bytes, label: str, convention: str, *, pinnings: Mapping[int, str] | None = None
) -> ObjectFile:
    """As ``read_object``, of bytes alone: a pure function."""
    image = read_image(data, label)
    image.types = _types(image)
    programs = [
        one.name
        for one in image.sections
        if one.type == PROGBITS and one.flags & EXECUTABLE and one.size and one.name
    ]
    legacy, modern = image.find(structs.SECTION_NAME), image.find(definitions.SECTION_NAME)
    found = None if legacy is None or convention == "libbpf" else structs.read_structs(image, legacy)
    chosen, rule = conventions.chosen(image, convention, found, modern, programs)
    notes: list[str] = []
    maps: list[Declared] = []
    if chosen == "libbpf":
        image.types = _filled_in(image)
        maps += libbpf.declared(image, modern) if modern is not None else ()
        maps += datamaps.declared(image, len(maps), notes)
    elif found is not None:
        read = samples.declared(found, notes) if chosen == "samples" else None
        maps += read if read is not None else tc.declared(found, programs, pinnings or {}, notes)
    return ObjectFile(
        convention=chosen,
        rule=rule,
        maps=tuple(maps),
        license=_license(image),
        btf=image.types,
        byteorder=image.byteorder,
        programs=tuple(programs),
        left_out=tuple(notes),
    )


def _types(image: Image) -> Types | None:
    section = image.find(".BTF")
    if section is None:
        return None
    if section.size > _BTF_MAX:
        raise image.bad(
            f"{section.size} bytes; up to {_BTF_MAX} are read", section=".BTF", number=section.size
        )
    try:
        types = Types(image.bytes_of(section))
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", number=error.number) from None
    if types.byteorder != image.byteorder:
        raise image.bad(
            f"{types.byteorder} endian types in a {image.byteorder} endian object", section=".BTF"
        )
    return types


def _filled_in(image: Image) -> Types | None:
    if image.types is None:
        return None
    try:
        return filled_in(image.types, datamaps.placed(image))
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", number=error.number) from None


def _license(image: Image) -> str:
    section = image.find("license")
    if section is None:
        return ""
    raw = image.bytes_of(section).partition(b"\0")[0]
    if len(raw) >= _LICENSE_MAX:
        raise image.bad(
            f"{len(raw)} bytes, a license has less than {_LICENSE_MAX}", section="license", number=len(raw)
        )
    return raw.decode("utf-8", "backslashreplace")
