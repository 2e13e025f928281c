"""Maps in section ``.maps``, which BTF defines: the section's bytes are zero, all is said by types. Sans-I/O.

Source: parse_btf_map_def(), tools/lib/bpf/libbpf.c, and its strict reading: what is not known is an error.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapFlag, MapType
from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.elf.bad import BadObject
from mapd_client.elf.declared import Declared, Slot
from mapd_client.elf.image import FUNCTION, LOCAL, Image, Section, Symbol
from mapd_client.elf.samples import OUTER
from mapd_client.elf.structs import MAPS_MAX

SECTION_NAME: Final = ".maps"
_POINTER: Final = 8
"""Bytes of a slot: pointers of eBPF."""
_U32: Final = 0xFFFF_FFFF

_QUALIFIERS: Final = (kinds.Typedef, kinds.Const, kinds.Volatile, kinds.Restrict, kinds.TypeTag)
_CHAIN_MAX: Final = 32
"""Typedefs and qualifiers one after the other; MAX_RESOLVE_DEPTH of libbpf."""

_NUMBERS: Final = ("type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "pinning")
_BY_NAME: Final = 1
"""LIBBPF_PIN_BY_NAME."""


@dataclass(slots=True)
class _Definition:
    """What one struct says, member by member.

    Attributes:
        numbers: of ``__uint`` members and map_extra.
        sizes: of the types of ``key`` and ``value``.
        ids: of these types.
        values_at: where the slots begin, in bytes from the struct's; None without ``values``.
        template: of the inner maps, the struct that defines them.
        programs: the slots hold programs.
    """

    numbers: dict[str, int] = field(default_factory=dict[str, int])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    ids: dict[str, int] = field(default_factory=dict[str, int])
    values_at: int | None = None
    template: int = 0
    programs: bool = False


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
        self._kinds: dict[int, kinds.Kind] = {}

    def _kind(self, of: int) -> kinds.Kind:
        """Decoded once: many maps may be of one struct."""
        if of not in self._kinds:
            self._kinds[of] = self._types[of]
        return self._kinds[of]

    def maps(self) -> Sequence[Declared]:
        """All maps; wrong BTF is told with the object's name."""
        try:
            variables = sorted(self._variables(), key=lambda one: one.offset)
            found = [self._map(index, one) for index, one in enumerate(variables)]
            return self._with_slots(variables, found)
        except BadBtf as error:
            raise self._image.bad(str(error), section=".BTF", number=error.number) from None

    def _bad(self, name: str, message: str, number: int | None = None) -> BadObject:
        return self._image.bad(message, section=SECTION_NAME, symbol=name, number=number)

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
            struct_id = self._resolved(variable.type)
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

    def _resolved(self, of: int) -> int:
        """Behind typedefs and qualifiers."""
        for _ in range(_CHAIN_MAX):
            if not isinstance(self._kind(of), _QUALIFIERS):
                return of
            of = self._types.target(of)
        raise BadBtf(f"BTF: more than {_CHAIN_MAX} typedefs and qualifiers lead on to type {of}", number=of)

    def _pointee(self, name: str, member: str, of: int) -> int:
        """What a pointer points to."""
        pointer = self._kind(self._resolved(of))
        if not isinstance(pointer, kinds.Ptr):
            raise self._bad(name, f"{member} is a {type(pointer).__name__}, not a pointer", of)
        return pointer.type

    # One map

    def _map(self, index: int, variable: _Variable) -> Declared:
        name = variable.name
        said = self._definition(name, variable.struct, inner=False)
        one = self._declared(name, index, said)
        if not said.template:
            return one
        inner = self._definition(f"{name}.inner", said.template, inner=True)
        return replace(one, inner=self._declared(f"{name}.inner", 0, inner))

    def _declared(self, name: str, index: int, said: _Definition) -> Declared:
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
        if "numa_node" in numbers:
            flags |= int(MapFlag.NUMA_NODE)
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
            numa_node=numbers.get("numa_node", 0) if flags & MapFlag.NUMA_NODE else None,
            pinning="by name" if pinned else "none",
            # libbpf's sanitize_pin_path(): bpffs takes no dots.
            pin=name.replace(".", "_") if pinned else "",
            key_type_id=said.ids.get("key", 0),
            value_type_id=said.ids.get("value", 0),
        )

    def _size(self, name: str, what: str, said: _Definition) -> int:
        """Of ``key`` and ``key_size``: one, or both alike."""
        by_number, by_type = said.numbers.get(f"{what}_size"), said.sizes.get(what)
        if by_number is not None and by_type is not None and by_number != by_type:
            raise self._bad(name, f"{what}_size is {by_number}, its {what} has {by_type} bytes", by_number)
        return by_type if by_type is not None else by_number or 0

    def _check_values(self, name: str, kind: int, said: _Definition) -> None:
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

    # Members

    def _definition(self, name: str, struct_id: int, *, inner: bool) -> _Definition:
        struct = self._kind(struct_id)
        assert isinstance(struct, kinds.Struct)
        said = _Definition()
        names: set[str] = set()
        for place, member in enumerate(struct.members):
            if member.name in names:
                raise self._bad(name, f"there are two members {member.name!r}")
            names.add(member.name)
            if member.name in _NUMBERS:
                said.numbers[member.name] = self._number(name, member)
            elif member.name == "map_extra":
                said.numbers[member.name] = self._long(name, member)
            elif member.name in ("key", "value"):
                of = self._pointee(name, member.name, member.type)
                said.ids[member.name] = of
                said.sizes[member.name] = self._types.size(of)
            elif member.name == "values":
                if inner:
                    raise self._bad(
                        name, "the template of inner maps has values of its own: two levels at most"
                    )
                if place != len(struct.members) - 1:
                    raise self._bad(name, f"values is member {place}; it is the last one", place)
                self._values(name, member, said)
            else:
                known = ", ".join((*_NUMBERS, "map_extra", "key", "value", "values"))
                raise self._bad(name, f"member {member.name!r}; known are {known}")
        if inner and said.numbers.get("pinning", 0):
            raise self._bad(name, "the template of inner maps cannot be pinned", said.numbers["pinning"])
        if inner and said.numbers.get("type") in OUTER:
            raise self._bad(name, "the template of inner maps is a map of maps", said.numbers["type"])
        return said

    def _number(self, name: str, member: kinds.StructMember) -> int:
        """``__uint``: a pointer to an array, whose length is the number."""
        array = self._kind(self._resolved(self._pointee(name, member.name, member.type)))
        if not isinstance(array, kinds.Array):
            raise self._bad(
                name, f"{member.name} points to a {type(array).__name__}; numbers are __uint()", member.type
            )
        return array.nelems

    def _long(self, name: str, member: kinds.StructMember) -> int:
        """``__ulong``: an enum of one value; or as ``__uint``."""
        found = self._kind(self._resolved(member.type))
        if isinstance(found, kinds.Ptr):
            return self._number(name, member)
        if not isinstance(found, kinds.Enum | kinds.Enum64) or len(found.values) != 1:
            raise self._bad(
                name, f"{member.name} is a {type(found).__name__}; it is __ulong() or __uint()", member.type
            )
        return found.values[0][1] & 0xFFFF_FFFF_FFFF_FFFF

    def _values(self, name: str, member: kinds.StructMember, said: _Definition) -> None:
        """``__array(values, ...)``: pointers to a struct that defines a map, or to functions."""
        array = self._kind(self._resolved(member.type))
        if not isinstance(array, kinds.Array) or array.nelems:
            raise self._bad(name, "values is no array without a length: __array(values, ...)", member.type)
        of = self._resolved(self._pointee(name, "values[]", array.type))
        kind = self._kind(of)
        if isinstance(kind, kinds.Struct):
            said.template = of
        elif isinstance(kind, kinds.FuncProto):
            said.programs = True
        else:
            raise self._bad(name, f"values point to a {type(kind).__name__}, no struct and no function", of)
        said.values_at = member.bit_offset // 8

    # Slots

    def _with_slots(self, variables: Sequence[_Variable], maps: Sequence[Declared]) -> Sequence[Declared]:
        places = {one.name: at for at, one in enumerate(variables)}
        slots: dict[int, list[Slot]] = {}
        for offset, symbol in self._image.relocations(self._section):
            at = _holder(variables, offset)
            if at is None:
                raise self._bad("", f"a relocation at byte {offset}, where no map lies", offset)
            slots.setdefault(at, []).append(self._slot(variables[at], maps[at], offset, symbol, places))
        return [replace(one, slots=slots[at]) if at in slots else one for at, one in enumerate(maps)]

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
