"""BTF types to layouts: what the bytes of a key or a value mean. Sans-I/O.

Everything is bounded by the blob. Each type is built once and kept; its tree is counted as if nothing were shared,
since those who walk a layout walk it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mapd_client.btf import kinds
from mapd_client.btf.blob import told
from mapd_client.btf.resolving import CHAIN, LEVELS, Resolved, Resolver
from mapd_client.btf.scalars import SPECIAL_STRUCTS, bit_field, enumeration, integer, is_char, pointer, real
from mapd_client.layouts import Array, Layout, Member, Record, Special, Text

if TYPE_CHECKING:
    from mapd_client.btf.index import Types

__all__ = ["CHAIN", "LEVELS", "NODES", "Builder"]

NODES: Final = 16_384
"""Fields of one layout as a tree; Linux's largest, a section of per-CPU variables, has 4,965."""


@dataclass(frozen=True, slots=True)
class _Built:
    """A layout, and what it adds to those that contain it."""

    layout: Layout
    nodes: int = 1
    levels: int = 0


class Builder:
    """Layouts of one index of types."""

    __slots__ = ("_built", "_resolver")

    def __init__(self, types: Types) -> None:
        self._resolver: Final = Resolver(types)
        self._built: Final[dict[int, _Built]] = {}

    def layout(self, id: int) -> Layout:
        """As Types.layout."""
        return self._build(id, ()).layout

    def size(self, id: int) -> int:
        """As Types.size."""
        return self._resolver.size(id)

    def _build(self, id: int, path: tuple[int, ...]) -> _Built:
        """The layout of a type inside of those of ``path``."""
        built = self._built.get(id)
        if built is None:
            if id in path:
                raise self._resolver.bad(id, "it contains itself", id)
            if len(path) > LEVELS:
                raise self._resolver.bad(path[0], f"more than {LEVELS} arrays and structs in one another", id)
            built = self._new(id, path)
            if built.nodes > NODES:
                raise self._resolver.bad(
                    id, f"{built.nodes} fields in all, at most {NODES} are read", built.nodes
                )
            self._built[id] = built
        if len(path) + built.levels > LEVELS:
            raise self._resolver.bad(path[0], f"more than {LEVELS} arrays and structs in one another", id)
        return built

    def _new(self, id: int, path: tuple[int, ...]) -> _Built:
        resolver = self._resolver
        found = resolver.resolve(id)
        match found.kind:
            case kinds.Int():
                return _Built(integer(found, found.kind))
            case kinds.Float():
                return _Built(real(found, found.kind))
            case kinds.Ptr():
                return _Built(pointer(resolver, found, found.kind))
            case kinds.Enum() | kinds.Enum64():
                # Whoever walks the tree may make a table of the names.
                return _Built(enumeration(resolver, found, found.kind), 1 + len(found.kind.values) // 16)
            case kinds.Array():
                return self._array(id, found, found.kind, path)
            case kinds.Struct(name=name, size=size) if name in SPECIAL_STRUCTS:
                return _Built(Special(size=size, type_name=name))
            case kinds.Struct() | kinds.Union():
                return self._record(id, found, found.kind, path)
            case kinds.Datasec():
                return self._section(id, found.kind, path)
            case _:
                size = resolver.own_size(id, found.kind)
                raise AssertionError(f"{found.kind} of {size} bytes has no layout")

    def _array(self, id: int, found: Resolved, kind: kinds.Array, path: tuple[int, ...]) -> _Built:
        built = self._build(kind.type, (*path, id))
        element = built.layout
        self._resolver.bounded(id, element.size * kind.nelems)
        if is_char(self._resolver, kind.type):
            return _Built(Text(size=kind.nelems, type_name=found.name))
        # Elements of no bytes are bounded by no bytes, so each of them counts.
        nodes = built.nodes if element.size else built.nodes * kind.nelems
        return _Built(
            Array(element=element, count=kind.nelems, type_name=found.name), 1 + nodes, 1 + built.levels
        )

    def _record(
        self, id: int, found: Resolved, kind: kinds.Struct | kinds.Union, path: tuple[int, ...]
    ) -> _Built:
        inside = (*path, id)
        members, nodes, levels = list[Member](), 1, 0
        for each in kind.members:
            built, member = self._member(found.id, kind.size, each, inside)
            nodes += built.nodes
            levels = max(levels, built.levels)
            if nodes > NODES:
                raise self._resolver.bad(id, f"more than {NODES} fields in all", nodes)
            # C has no way to reach what has neither a name nor members: padding.
            if member.name or isinstance(member.layout, Record):
                members.append(member)
        record = Record(
            size=kind.size,
            members=tuple(members),
            union=isinstance(kind, kinds.Union),
            type_name=found.name,
        )
        self._no_name_twice(id, record)
        return _Built(record, nodes, 1 + levels)

    def _no_name_twice(self, id: int, record: Record) -> None:
        seen, left = set[str](), [record]
        while left:
            for member in left.pop().members:
                if not member.name and isinstance(member.layout, Record):
                    left.append(member.layout)
                elif member.name in seen:
                    raise self._resolver.bad(id, f"two members are called {told(member.name)}")
                else:
                    seen.add(member.name)

    def _member(
        self, id: int, size: int, member: kinds.StructMember, path: tuple[int, ...]
    ) -> tuple[_Built, Member]:
        found = self._resolver.resolve(member.type)
        bits, at = member.bits, member.bit_offset
        if isinstance(found.kind, kinds.Int) and not bits:
            if not found.kind.regular:
                bits, at = found.kind.bits, at + found.kind.offset
            elif at % 8:
                bits = found.kind.bits
        if not bits or isinstance(found.kind, kinds.Enum | kinds.Enum64):
            built = self._build(member.type, path)
            if bits > 8 * built.layout.size:
                raise self._resolver.bad(
                    id, f"member {told(member.name)} has {bits} bits of {built.layout.size} bytes", bits
                )
            if at % 8 and not bits:
                raise self._resolver.bad(
                    id, f"member {told(member.name)} begins at bit {at}, and is no bit-field", at
                )
        else:
            built = _Built(bit_field(self._resolver, id, found, member.name, bits))
        end = at + (bits or 8 * built.layout.size)
        if end > 8 * size:
            raise self._resolver.bad(
                id,
                f"member {told(member.name)}, bits {at} to {end}, lies outside of {size} bytes",
                member.bit_offset,
            )
        return built, Member(
            name=member.name, offset=at // 8, layout=built.layout, bits=bits or None, bit_offset=at
        )

    def _section(self, id: int, kind: kinds.Datasec, path: tuple[int, ...]) -> _Built:
        """A DATASEC: .data, .bss or .rodata as one value."""
        if kind.size == 0:
            raise self._resolver.bad(
                id,
                f"the section {told(kind.name)} has size 0, as in an object that no loader has filled in; its ELF"
                " section says its size, its symbols the offsets",
                0,
            )
        members, names, nodes, levels = list[Member](), dict[str, int](), 1, 0
        for each in kind.vars:
            var = self._resolver.kind(each.type)
            if not isinstance(var, kinds.Var) or not var.name:
                raise self._resolver.bad(
                    id, f"type {each.type} in the section {told(kind.name)} is no named VAR", each.type
                )
            built = self._build(each.type, (*path, id))
            nodes += built.nodes
            levels = max(levels, built.levels)
            if nodes > NODES:
                raise self._resolver.bad(id, f"more than {NODES} fields in all", nodes)
            if each.size < built.layout.size or each.offset + each.size > kind.size:
                raise self._resolver.bad(
                    id,
                    f"{told(var.name)} of {built.layout.size} bytes has bytes {each.offset} to "
                    f"{each.offset + each.size} of {kind.size}",
                    each.offset,
                )
            members.append(
                Member(
                    name=_numbered(var.name, names),
                    offset=each.offset,
                    layout=built.layout,
                    bit_offset=8 * each.offset,
                )
            )
        return _Built(Record(size=kind.size, members=tuple(members), type_name=kind.name), nodes, 1 + levels)


def _numbered(name: str, names: dict[str, int]) -> str:
    """``name``, or name.2, name.3 ...: linked objects may have static variables of one name in one section."""
    chosen, count = name, names.get(name, 1)
    while chosen in names:
        count += 1
        chosen = f"{name}.{count}"
    names[name] = count
    names.setdefault(chosen, 1)
    return chosen
