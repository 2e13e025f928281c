"""Maps in section ``.maps``, which BTF defines: the section's bytes are zero, all is said by types. Sans-I/O.

Source: parse_btf_map_def(), tools/lib/bpf/libbpf.c, and its strict reading: what is not known is an error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapFlag, MapType
from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.elf.declared import Declared, Slot
from mapd_client.elf.definitions import SECTION_NAME, Definition, Definitions
from mapd_client.elf.image import FUNCTION, LOCAL, Image, Section, Symbol
from mapd_client.elf.samples import OUTER
from mapd_client.elf.structs import MAPS_MAX

_POINTER: Final = 8
"""Bytes of a slot: pointers of eBPF."""
_U32: Final = 0xFFFF_FFFF

_BY_NAME: Final = 1
"""LIBBPF_PIN_BY_NAME."""


@dataclass(frozen=True, slots=True)
class _Variable:
    """One map's variable: where it lies, and its struct."""

    name: str
    offset: int
    struct: int
    size: int


def declared(image: Image, section: Section) -> Sequence[Declared]:
    """The maps, in the order that they lie in.

    Raises:
        BadObject: no BTF; a variable that is no struct, local, or has no symbol; a member that libbpf does not know or
            has another form; a slot outside of its map, or of what is no map and no program.
    """
    if image.types is None:
        raise image.bad("maps are defined by .BTF, which is not there: compile with -g", section=SECTION_NAME)
    return _Reader(image, image.types, section).maps()


class _Reader:
    """One object's ``.maps``."""

    def __init__(self, image: Image, types: Types, section: Section) -> None:
        self._image = image
        self._types = types
        self._section = section
        self._said = Definitions(image, types)
        self._kind = self._said.kind
        self._bad = self._said.bad

    def maps(self) -> Sequence[Declared]:
        """All maps; wrong BTF is told with the object's name."""
        try:
            variables = sorted(self._variables(), key=lambda one: one.offset)
            found = [self._map(index, one) for index, one in enumerate(variables)]
            return self._with_slots(variables, found)
        except BadBtf as error:
            raise self._image.bad(str(error), section=".BTF", number=error.number) from None

    # The section's variables

    def _variables(self) -> Iterator[_Variable]:
        symbols: dict[str, Symbol] = {one.name: one for one in self._image.symbols_in(self._section)}
        ids = self._types.ids(SECTION_NAME, kinds.Datasec)
        if len(ids) != 1:
            raise self._bad("", f".BTF has {len(ids)} sections of this name, not one", len(ids))
        section = self._kind(ids[0])
        assert isinstance(section, kinds.Datasec)
        if len(section.vars) > MAPS_MAX:
            raise self._bad("", f"{len(section.vars)} maps, more than {MAPS_MAX}", len(section.vars))
        seen: dict[int, str] = {}
        names: set[str] = set()
        for one in section.vars:
            variable = self._kind(one.type)
            if not isinstance(variable, kinds.Var):
                raise self._bad(
                    "", f"type {one.type} of .BTF is a {type(variable).__name__}, no variable", one.type
                )
            name = variable.name
            if name in names:
                raise self._bad(name, "there are two maps of this name")
            names.add(name)
            symbol = symbols.get(name)
            if variable.linkage != 1 or (symbol is not None and symbol.binding == LOCAL):
                raise self._bad(name, f"linkage {variable.linkage}: a map is not static", variable.linkage)
            if symbol is None:
                raise self._bad(name, "it has no symbol in the section: do not strip the object")
            struct_id = self._said.resolved(variable.type)
            struct = self._kind(struct_id)
            if not isinstance(struct, kinds.Struct):
                raise self._bad(name, f"its type is a {type(struct).__name__}, not a struct", struct_id)
            if symbol.value + struct.size > self._section.size:
                raise self._bad(
                    name,
                    f"bytes {symbol.value} to {symbol.value + struct.size}, the section has {self._section.size}",
                    symbol.value,
                )
            if symbol.value in seen:
                raise self._bad(name, f"it lies where {seen[symbol.value]!r} lies", symbol.value)
            seen[symbol.value] = name
            yield _Variable(name, symbol.value, struct_id, struct.size)

    # One map

    def _map(self, index: int, variable: _Variable) -> Declared:
        name = variable.name
        said = self._said.definition(name, variable.struct, inner=False)
        one = self._declared(name, index, said)
        if not said.template:
            return one
        inner = self._said.definition(f"{name}.inner", said.template, inner=True)
        return replace(one, inner=self._declared(f"{name}.inner", 0, inner))

    def _declared(self, name: str, index: int, said: Definition) -> Declared:
        numbers = said.numbers
        if "type" not in numbers:
            raise self._bad(name, "it has no type: __uint(type, BPF_MAP_TYPE_...)")
        kind = numbers["type"]
        if said.values_at is not None:
            self._check_values(name, kind, said)
        pinned = numbers.get("pinning", 0)
        if pinned > _BY_NAME:
            raise self._bad(
                name, f"pinning {pinned}; known are 0 (none) and {_BY_NAME} (LIBBPF_PIN_BY_NAME)", pinned
            )
        flags = numbers.get("map_flags", 0)
        return Declared(
            name=name,
            kernel_name=name[:OBJ_NAME_LENGTH],
            index=index,
            type=kind,
            key_size=self._size(name, "key", said),
            value_size=_POINTER // 2 if said.values_at is not None else self._size(name, "value", said),
            max_entries=numbers.get("max_entries", 0),
            flags=flags,
            map_extra=numbers.get("map_extra", 0),
            # Without its flag the kernel looks at no node, and libbpf does not set it.
            numa_node=numbers.get("numa_node", 0) if flags & MapFlag.NUMA_NODE else None,
            pinning="by name" if pinned else "none",
            # libbpf's sanitize_pin_path(): bpffs takes no dots.
            pin=name.replace(".", "_") if pinned else "",
            key_type_id=said.ids.get("key", 0),
            value_type_id=said.ids.get("value", 0),
        )

    def _size(self, name: str, what: str, said: Definition) -> int:
        """Of ``key`` and ``key_size``: one, or both alike."""
        by_number, by_type = said.numbers.get(f"{what}_size"), said.sizes.get(what)
        if by_number is not None and by_type is not None and by_number != by_type:
            raise self._bad(name, f"{what}_size is {by_number}, its {what} has {by_type} bytes", by_number)
        return by_type if by_type is not None else by_number or 0

    def _check_values(self, name: str, kind: int, said: Definition) -> None:
        wanted = (MapType.PROG_ARRAY,) if said.programs else OUTER
        if kind not in wanted:
            raise self._bad(
                name,
                f"values are {'programs' if said.programs else 'maps'}, which type {kind} does not hold",
                kind,
            )
        size = said.numbers.get("value_size", 4)
        if size != 4:
            raise self._bad(name, f"value_size is {size}; slots have 4 bytes", size)

    # Slots

    def _with_slots(self, variables: Sequence[_Variable], maps: Sequence[Declared]) -> Sequence[Declared]:
        places = {one.name: at for at, one in enumerate(variables)}
        slots: dict[int, list[Slot]] = {}
        for offset, symbol in self._image.relocations(self._section):
            at = _holder(variables, offset)
            if at is None:
                raise self._bad("", f"a relocation at byte {offset}, where no map lies", offset)
            slots.setdefault(at, []).append(self._slot(variables[at], maps[at], offset, symbol, places))
        return [replace(one, slots=tuple(slots[at])) if at in slots else one for at, one in enumerate(maps)]

    def _slot(
        self,
        variable: _Variable,
        one: Declared,
        offset: int,
        symbol: Symbol,
        places: Mapping[str, int],
    ) -> Slot:
        values_at = self._values_at(variable)
        number, left = divmod(offset - variable.offset - values_at, _POINTER)
        if values_at < 0 or number < 0 or left:
            raise self._bad(one.name, f"a relocation at its byte {offset - variable.offset}, no slot", offset)
        if one.max_entries and number >= one.max_entries and one.type != MapType.HASH_OF_MAPS:
            raise self._bad(one.name, f"slot {number}, max_entries is {one.max_entries}", number)
        if number > _U32:
            raise self._bad(one.name, f"slot {number}, a key has 32 bits", number)
        key = number.to_bytes(4, self._image.byteorder)
        if one.type == MapType.PROG_ARRAY:
            if symbol.type != FUNCTION:
                raise self._bad(one.name, f"slot {number} holds {symbol.name!r}, which is no program", number)
            return Slot(key=key, program=symbol.name)
        if symbol.section != self._section.index or symbol.name not in places:
            raise self._bad(one.name, f"slot {number} holds {symbol.name!r}, which is no map", number)
        return Slot(key=key, map=places[symbol.name])

    def _values_at(self, variable: _Variable) -> int:
        """Where its slots begin; -1 for none."""
        struct = self._kind(variable.struct)
        assert isinstance(struct, kinds.Struct)
        last = struct.members[-1] if struct.members else None
        return last.bit_offset // 8 if last is not None and last.name == "values" else -1


def _holder(variables: Sequence[_Variable], offset: int) -> int | None:
    """The map that a byte of the section lies in: the last one that begins before it."""
    at = bisect_right(variables, offset, key=lambda one: one.offset) - 1
    return at if at >= 0 else None
