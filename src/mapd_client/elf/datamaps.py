"""Maps of an object's global variables: sections .data, .rodata and .bss, as libbpf makes them. Sans-I/O.

Each is an ARRAY of one element that is the whole section. Source: bpf_object__init_global_data_maps(),
internal_map_name(), map_is_mmapable(), bpf_object__collect_externs(), tools/lib/bpf/libbpf.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapFlag, MapType
from mapd_client.btf import BadBtf, kinds
from mapd_client.elf.datasec import Placed
from mapd_client.elf.declared import Declared
from mapd_client.elf.image import EXECUTABLE, NOBITS, PROGBITS, Image, Section

_KCONFIG: Final = ".kconfig"
_SHOWN: Final = 8
"""Variables that a sentence names."""

_RESERVED: Final = 7
"""Characters of the section's name that the object's leaves room for, at least."""

_SECTIONS_MAX: Final = 256
_U32: Final = 0xFFFF_FFFF

_STATIC: Final = 0
"""Linkage of a variable."""

_NOT_MADE: Final = (
    (".struct_ops", "struct_ops maps hold programs, which mapd does not load"),
    (".addr_space.1", "variables of an arena are a loader's, which maps it into its own memory"),
    (".arena.1", "variables of an arena are a loader's, which maps it into its own memory"),
)


def kernel_name(object_name: str, section: str) -> str:
    """As libbpf calls it: the object's name before the section's, in 15 characters; ``.data.x`` stays as it is."""
    if "." in section[1:]:
        return section[:OBJ_NAME_LENGTH]
    behind = min(max(_RESERVED, len(section)), OBJ_NAME_LENGTH)
    name = object_name[: OBJ_NAME_LENGTH - behind] + section[:behind]
    return "".join(one if one.isascii() and (one.isalnum() or one in "_.") else "_" for one in name)


def object_name(label: str) -> str:
    """Of a file ``dir/my_prog.bpf.o`` it is "my_prog", at most 15 characters."""
    return label.rpartition("/")[2][:OBJ_NAME_LENGTH].partition(".")[0]


def declared(image: Image, first: int, notes: list[str]) -> Sequence[Declared]:
    """The maps of all such sections, in the file's order.

    Args:
        image: the object.
        first: the index of the first of them.
        notes: gets a sentence for each section that asks for what mapd does not make.

    Raises:
        BadObject: sections that are not in the file, or lie in each other.
    """
    for section in image.sections:
        for name, why in _NOT_MADE:
            if section.name == name or section.name.startswith(f"{name}."):
                notes.append(f"section {section.name}: {why}")
    found: list[Declared] = []
    left = len(image.data)
    types = _datasecs(image)
    for section in _data_sections(image):
        raw = image.bytes_of(section)
        left -= len(raw)
        if left < 0:
            raise image.bad("it lies in another section of data", section=section.name, number=section.offset)
        found.append(_of_section(image, section, raw, first + len(found), types.get(section.name, 0)))
    _note_kconfig(image, types.get(_KCONFIG, 0), notes)
    return found


def placed(image: Image) -> dict[str, Placed]:
    """What .BTF leaves to loaders: sizes of data sections, offsets of their variables."""
    modern = image.find(".maps")
    sections = [*_data_sections(image), *((modern,) if modern is not None else ())]
    return {
        section.name: Placed(
            size=section.size,
            symbols={one.name: one.value for one in image.symbols_in(section) if one.value <= section.size},
        )
        for section in sections
        if section.size <= _U32
    }


def _data_sections(image: Image) -> Sequence[Section]:
    found = [one for one in image.sections if _is_data(one)]
    if len(found) > _SECTIONS_MAX:
        raise image.bad(f"{len(found)} sections of data, more than {_SECTIONS_MAX}", number=len(found))
    for one in found:
        image.find(one.name)  # two of one name would be two maps of one name
        if one.size > _U32:
            raise image.bad(
                f"{one.size} bytes, a value has less than 4 GiB", section=one.name, number=one.size
            )
    return found


def _is_data(section: Section) -> bool:
    if not section.size or not section.name.startswith("."):
        return False
    base = "." + section.name[1:].partition(".")[0]
    if section.type == NOBITS:
        return base == ".bss"
    return section.type == PROGBITS and not section.flags & EXECUTABLE and base in (".data", ".rodata")


def _of_section(image: Image, section: Section, raw: bytes, index: int, of: int) -> Declared:
    read_only = section.name.startswith(".rodata")
    flags = MapFlag.RDONLY_PROG if read_only else 0
    if _mmapable(image, of):
        flags |= MapFlag.MMAPABLE
    return Declared(
        name=section.name,
        kernel_name=kernel_name(object_name(image.label), section.name),
        index=index,
        type=MapType.ARRAY,
        key_size=4,
        value_size=section.size,
        max_entries=1,
        flags=int(flags),
        contents=raw if raw.count(0) != len(raw) else b"",
        frozen=read_only,
        value_type_id=of,
    )


def _datasecs(image: Image) -> dict[str, int]:
    """Type ids of the sections of .BTF by their names, the first of each."""
    found: dict[str, int] = {}
    types = image.types
    if types is None:
        return found
    try:
        for at in range(1, len(types)):
            if types.kind(at) is kinds.Datasec:
                found.setdefault(types.name(at), at)
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", number=error.number) from None
    return found


def _mmapable(image: Image, datasec: int) -> bool:
    """Whether user space would look for a variable in it: one that is not static."""
    if image.types is None or not datasec:
        return False
    try:
        section = image.types[datasec]
        assert isinstance(section, kinds.Datasec)
        found = [image.types[one.type] for one in section.vars]
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", number=error.number) from None
    return any(isinstance(one, kinds.Var) and one.linkage != _STATIC for one in found)


def _note_kconfig(image: Image, of: int, notes: list[str]) -> None:
    """Say that there is such a map: a loader fills it in with what it knows of its kernel."""
    if image.types is None or not of:
        return
    try:
        section = image.types[of]
        assert isinstance(section, kinds.Datasec)
        names = [image.types.name(one.type) for one in section.vars[:_SHOWN]]
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", symbol=_KCONFIG, number=error.number) from None
    more = f" and {len(section.vars) - _SHOWN} more" if len(section.vars) > _SHOWN else ""
    notes.append(
        f"map {kernel_name(object_name(image.label), _KCONFIG)}, for {', '.join(names)}{more}: a loader fills it in "
        "from the configuration of the host's kernel, which the object does not say"
    )
