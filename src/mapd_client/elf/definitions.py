"""What the struct of a BTF-defined map says, member by member. Sans-I/O.

Source: parse_btf_map_def(), tools/lib/bpf/libbpf.c, and its strict reading: what is not known is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.elf.bad import BadObject
from mapd_client.elf.image import Image
from mapd_client.elf.samples import OUTER

SECTION_NAME: Final = ".maps"
_QUALIFIERS: Final = (kinds.Typedef, kinds.Const, kinds.Volatile, kinds.Restrict, kinds.TypeTag)
_CHAIN_MAX: Final = 32
"""Typedefs and qualifiers one after the other; MAX_RESOLVE_DEPTH of libbpf."""

_NUMBERS: Final = ("type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "pinning")


@dataclass(slots=True)
class Definition:
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


class Definitions:
    """The structs of one object; kinds are decoded once, for many maps may be of one struct."""

    def __init__(self, image: Image, types: Types) -> None:
        self._image = image
        self._types = types
        self._kinds: dict[int, kinds.Kind] = {}

    def kind(self, of: int) -> kinds.Kind:
        """The type of that id."""
        if of not in self._kinds:
            self._kinds[of] = self._types[of]
        return self._kinds[of]

    def bad(self, name: str, message: str, number: int | None = None) -> BadObject:
        """The error, of one map."""
        return self._image.bad(message, section=SECTION_NAME, symbol=name, number=number)

    def resolved(self, of: int) -> int:
        """Behind typedefs and qualifiers."""
        for _ in range(_CHAIN_MAX):
            if not isinstance(self.kind(of), _QUALIFIERS):
                return of
            of = self._types.target(of)
        raise BadBtf(f"BTF: more than {_CHAIN_MAX} typedefs and qualifiers lead on to type {of}", number=of)

    def pointee(self, name: str, member: str, of: int) -> int:
        """What a pointer points to."""
        pointer = self.kind(self.resolved(of))
        if not isinstance(pointer, kinds.Ptr):
            raise self.bad(name, f"{member} is a {type(pointer).__name__}, not a pointer", of)
        return pointer.type

    def definition(self, name: str, struct_id: int, *, inner: bool) -> Definition:
        """What a struct says; ``inner``: it is the template of another one's inner maps.

        Raises:
            BadObject: a member that is not known, that is there twice, or that has another form.
        """
        struct = self.kind(struct_id)
        assert isinstance(struct, kinds.Struct)
        said = Definition()
        names: set[str] = set()
        for place, member in enumerate(struct.members):
            if member.name in names:
                raise self.bad(name, f"there are two members {member.name!r}")
            names.add(member.name)
            if member.name in _NUMBERS:
                said.numbers[member.name] = self._number(name, member)
            elif member.name == "map_extra":
                said.numbers[member.name] = self._long(name, member)
            elif member.name in ("key", "value"):
                of = self.pointee(name, member.name, member.type)
                said.ids[member.name] = of
                said.sizes[member.name] = self._types.size(of)
            elif member.name == "values":
                if inner:
                    raise self.bad(
                        name, "the template of inner maps has values of its own: two levels at most"
                    )
                if place != len(struct.members) - 1:
                    raise self.bad(name, f"values is member {place}; it is the last one", place)
                self._values(name, member, said)
            else:
                known = ", ".join((*_NUMBERS, "map_extra", "key", "value", "values"))
                raise self.bad(name, f"member {member.name!r}; known are {known}")
        if inner and said.numbers.get("pinning", 0):
            raise self.bad(name, "the template of inner maps cannot be pinned", said.numbers["pinning"])
        if inner and said.numbers.get("type") in OUTER:
            raise self.bad(name, "the template of inner maps is a map of maps", said.numbers["type"])
        return said

    def _number(self, name: str, member: kinds.StructMember) -> int:
        """``__uint``: a pointer to an array, whose length is the number."""
        array = self.kind(self.resolved(self.pointee(name, member.name, member.type)))
        if not isinstance(array, kinds.Array):
            raise self.bad(
                name, f"{member.name} points to a {type(array).__name__}; numbers are __uint()", member.type
            )
        return array.nelems

    def _long(self, name: str, member: kinds.StructMember) -> int:
        """``__ulong``: an enum of one value; or as ``__uint``."""
        found = self.kind(self.resolved(member.type))
        if isinstance(found, kinds.Ptr):
            return self._number(name, member)
        if not isinstance(found, kinds.Enum | kinds.Enum64) or len(found.values) != 1:
            raise self.bad(
                name, f"{member.name} is a {type(found).__name__}; it is __ulong() or __uint()", member.type
            )
        return found.values[0][1] & 0xFFFF_FFFF_FFFF_FFFF

    def _values(self, name: str, member: kinds.StructMember, said: Definition) -> None:
        """``__array(values, ...)``: pointers to a struct that defines a map, or to functions."""
        array = self.kind(self.resolved(member.type))
        if not isinstance(array, kinds.Array) or array.nelems:
            raise self.bad(name, "values is no array without a length: __array(values, ...)", member.type)
        of = self.resolved(self.pointee(name, "values[]", array.type))
        kind = self.kind(of)
        if isinstance(kind, kinds.Struct):
            said.template = of
        elif isinstance(kind, kinds.FuncProto):
            said.programs = True
        else:
            raise self.bad(name, f"values point to a {type(kind).__name__}, no struct and no function", of)
        said.values_at = member.bit_offset // 8
