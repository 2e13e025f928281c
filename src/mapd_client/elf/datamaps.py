"""Maps of an object's global variables: sections .data, .rodata and .bss, as libbpf makes them. Sans-I/O.

Each is an ARRAY of one element that is the whole section. Source: bpf_object__init_global_data_maps(),
internal_map_name(), map_is_mmapable(), bpf_object__collect_externs(), tools/lib/bpf/libbpf.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapFlag, MapType
from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.elf.datasec import Placed
from mapd_client.elf.declared import Declared
from mapd_client.elf.image import EXECUTABLE, NOBITS, PROGBITS, Image, Section
from mapd_client.layouts import Array, Layout, Record

_KCONFIG: Final = ".kconfig"
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
    found: list[Declared] = []
    left = len(image.data)
    for section in image.sections:
        for name, why in _NOT_MADE:
            if section.name == name or section.name.startswith(f"{name}."):
                notes.append(f"section {section.name}: {why}")
        if not _is_data(section):
            continue
        raw = image.bytes_of(section)
        left -= len(raw)
        if left < 0 or len(found) >= _SECTIONS_MAX:
            raise image.bad("it lies in another section of data", section=section.name, number=section.offset)
        if section.size > _U32:
            raise image.bad(f"{section.size} bytes, a value has less than 4 GiB", section=section.name)
        found.append(_of_section(image, section, raw, first + len(found)))
    _note_kconfig(image, notes)
    return found


def placed(image: Image) -> dict[str, Placed]:
    """What .BTF leaves to loaders: sizes of data sections, offsets of their variables."""
    return {
        section.name: Placed(
            size=section.size,
            symbols={one.name: one.value for one in image.symbols_in(section) if one.value <= section.size},
        )
        for section in image.sections
        if section.size <= _U32 and (_is_data(section) or section.name == ".maps")
    }


def _is_data(section: Section) -> bool:
    if not section.size:
        return False
    base = "." + section.name[1:].partition(".")[0]
    if not section.name.startswith("."):
        return False
    if section.type == NOBITS:
        return base == ".bss"
    return section.type == PROGBITS and not section.flags & EXECUTABLE and base in (".data", ".rodata")


def _of_section(image: Image, section: Section, raw: bytes, index: int) -> Declared:
    read_only = section.name.startswith(".rodata")
    of = _datasec(image, section.name)
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
        contents=raw if any(raw) else b"",
        frozen=read_only,
        value_type_id=of,
    )


def _datasec(image: Image, name: str) -> int:
    ids = image.types.ids(name, kinds.Datasec) if image.types is not None else ()
    return ids[0] if ids else 0


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


# .kconfig: variables that a loader fills in with what it knows of the kernel


def _note_kconfig(image: Image, notes: list[str]) -> None:
    of = _datasec(image, _KCONFIG)
    if image.types is None or not of:
        return
    try:
        names, size = _externs(image.types, of)
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", symbol=_KCONFIG, number=error.number) from None
    if not size:
        return
    notes.append(
        f"map {kernel_name(object_name(image.label), _KCONFIG)}, {size} bytes, for {', '.join(names[:8])}: a loader "
        "fills it in from the configuration of the host's kernel, which the object does not say"
    )


def _externs(types: Types, of: int) -> tuple[Sequence[str], int]:
    """Names of the variables and their bytes, larger alignments first."""
    section = types[of]
    assert isinstance(section, kinds.Datasec)
    variables: list[tuple[int, int, str]] = []
    for one in section.vars:
        variable = types[one.type]
        if isinstance(variable, kinds.Var):
            layout = types.layout(variable.type)
            variables.append((-_alignment(layout), -layout.size, variable.name))
    size = 0
    for negative_alignment, negative_size, _ in sorted(variables):
        alignment = -negative_alignment
        size = -(-size // alignment) * alignment - negative_size
    return [name for *_, name in sorted(variables)], size


def _alignment(layout: Layout) -> int:
    match layout:
        case Array():
            return _alignment(layout.element)
        case Record():
            return max((_alignment(one.layout) for one in layout.members), default=1)
        case _:
            return min(layout.size, 8) or 1
