"""BTF types to layouts: what the bytes of a key or a value mean. Sans-I/O.

Everything is bounded by the blob. Each type is built once and kept; its tree is counted as if nothing were shared,
since those who walk a layout walk it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from mapd_client.btf import kinds
from mapd_client.btf.blob import BadBtf
from mapd_client.btf.kinds import Kind
from mapd_client.layouts import (
    SPECIAL,
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Order,
    Pointer,
    Record,
    Special,
    Text,
)

if TYPE_CHECKING:
    from mapd_client.btf.index import Types

LEVELS: Final = 32
"""Arrays and structs in one another: MAX_RESOLVE_DEPTH of kernel/bpf/btf.c."""
NODES: Final = 16_384
"""Fields of one layout as a tree; Linux's largest, a section of per-CPU variables, has 4,965."""
CHAIN: Final = 64
"""Typedefs and qualifiers before a type."""
SIZE_MAX: Final = 0xFFFF_FFFF
"""Bytes of one type, as btf_array_resolve() bounds them."""
POINTER_BYTES: Final = 8

_ORDERS: Final[dict[str, tuple[Order, int]]] = {
    "__be16": ("big", 2),
    "__be32": ("big", 4),
    "__be64": ("big", 8),
    "__le16": ("little", 2),
    "__le32": ("little", 4),
    "__le64": ("little", 8),
}
_SPECIAL_STRUCTS: Final = frozenset(name for name in SPECIAL if name.startswith("bpf_"))
_SPECIAL_TAGS: Final = SPECIAL - _SPECIAL_STRUCTS
_INTEGER_SIZES: Final = (1, 2, 4, 8, 16)
_FLOAT_SIZES: Final = (2, 4, 8)

_ON_THE_WAY: Final = (kinds.Ptr, kinds.Volatile, kinds.Const, kinds.Restrict, kinds.TypeTag)
_WORDS: Final[dict[type[Kind], str]] = {
    kinds.Void: "void",
    kinds.Struct: "struct",
    kinds.Union: "union",
    kinds.Enum: "enum",
    kinds.Enum64: "enum",
    kinds.FuncProto: "function",
    kinds.Array: "array",
}

_Qualifier: TypeAlias = kinds.Volatile | kinds.Const | kinds.Restrict | kinds.TypeTag


@dataclass(frozen=True, slots=True)
class Resolved:
    """A type behind its typedefs and qualifiers.

    Attributes:
        id: of the type itself.
        kind: neither typedef nor qualifier.
        name: the first typedef's, else its own, else "".
        order: what a typedef such as __be32 says of its bytes, together with the size it says it of.
    """

    id: int
    kind: Kind
    name: str
    order: tuple[Order, int] | None


@dataclass(frozen=True, slots=True)
class _Built:
    """A layout, and what it adds to those that contain it."""

    layout: Layout
    nodes: int = 1
    levels: int = 0


class Builder:
    """Layouts of one index of types."""

    __slots__ = ("_built", "_kinds", "_types")

    def __init__(self, types: Types) -> None:
        self._types: Final = types
        self._built: Final[dict[int, _Built]] = {}
        # Decoded once: 65,535 members of one type would decode it as often.
        self._kinds: Final[dict[int, Kind]] = {}

    def layout(self, id: int) -> Layout:
        """As Types.layout."""
        return self._build(id, ()).layout

    def size(self, id: int) -> int:
        """As Types.size."""
        count, inner = 1, id
        for _ in range(LEVELS + 1):
            kind = self.resolve(inner).kind
            if not isinstance(kind, kinds.Array):
                return self._bounded(id, count * self._own_size(inner, kind))
            count *= kind.nelems
            inner = kind.type
        raise self._bad(id, f"an array of more than {LEVELS} dimensions, or of itself", inner)

    def resolve(self, id: int) -> Resolved:
        """The type behind typedefs, qualifiers and variables.

        Raises:
            BadBtf: there are more than 64 of them, or they lead back to themselves.
        """
        name, order, at = "", None, id
        for _ in range(CHAIN + 1):
            kind = self._kind(at)
            if isinstance(kind, kinds.Typedef):
                name = name or kind.name
                order = order or _ORDERS.get(kind.name)
            elif not isinstance(kind, _Qualifier | kinds.Var):
                return Resolved(at, kind, name or getattr(kind, "name", ""), order)
            at = kind.type
        raise self._bad(id, f"more than {CHAIN} typedefs and qualifiers, or a circle of them", at)

    def _kind(self, id: int) -> Kind:
        kind = self._kinds.get(id)
        if kind is None:
            kind = self._kinds[id] = self._types[id]
        return kind

    def _own_size(self, id: int, kind: Kind) -> int:
        match kind:
            case kinds.Ptr():
                return POINTER_BYTES
            case (
                kinds.Int()
                | kinds.Float()
                | kinds.Struct()
                | kinds.Union()
                | kinds.Enum()
                | kinds.Enum64()
                | kinds.Datasec()
            ):
                return kind.size
            case kinds.Fwd():
                raise self._bad(id, f"{kind.name!r} is only declared in this BTF; its size is not known", id)
            case _:
                raise self._bad(id, f"a {type(kind).__name__.upper()} is no data", id)

    def _bounded(self, id: int, size: int) -> int:
        if size > SIZE_MAX:
            raise self._bad(id, f"{size} bytes; a type has at most {SIZE_MAX}", size)
        return size

    def _bad(self, id: int, what: str, number: int | None = None) -> BadBtf:
        offset = self._types.offset(id)
        return BadBtf(f"BTF: type {id} (at byte {offset}): {what}", offset=offset, number=number)

    def _build(self, id: int, path: tuple[int, ...]) -> _Built:
        """The layout of a type inside of those of ``path``."""
        built = self._built.get(id)
        if built is None:
            if id in path:
                raise self._bad(id, "it contains itself", id)
            if len(path) > LEVELS:
                raise self._bad(path[0], f"more than {LEVELS} arrays and structs in one another", id)
            built = self._new(id, path)
            if built.nodes > NODES:
                raise self._bad(id, f"{built.nodes} fields in all, at most {NODES} are read", built.nodes)
            self._built[id] = built
        if len(path) + built.levels > LEVELS:
            raise self._bad(path[0], f"more than {LEVELS} arrays and structs in one another", id)
        return built

    def _new(self, id: int, path: tuple[int, ...]) -> _Built:
        found = self.resolve(id)
        match found.kind:
            case kinds.Int():
                return _Built(_integer(found, found.kind))
            case kinds.Float(size=size):
                real = size in _FLOAT_SIZES
                return _Built(
                    Float(size=size, type_name=found.name)
                    if real
                    else Opaque(size=size, type_name=found.name)
                )
            case kinds.Ptr():
                return _Built(self._pointer(found, found.kind))
            case kinds.Enum() | kinds.Enum64():
                # Whoever walks the tree may make a table of the names.
                return _Built(self._enumeration(found, found.kind), 1 + len(found.kind.values) // 16)
            case kinds.Array():
                return self._array(id, found, found.kind, path)
            case kinds.Struct(name=name, size=size) if name in _SPECIAL_STRUCTS:
                return _Built(Special(size=size, type_name=name))
            case kinds.Struct() | kinds.Union():
                return self._record(id, found, found.kind, path)
            case kinds.Datasec():
                return self._section(id, found.kind, path)
            case _:
                size = self._own_size(id, found.kind)
                raise AssertionError(f"{found.kind} of {size} bytes has no layout")

    def _pointer(self, found: Resolved, kind: kinds.Ptr) -> Layout:
        # btf_find_kptr() looks at the tag next to the pointer, and at no other.
        if self._types.kind(kind.type) is kinds.TypeTag:
            tag = self._kind(kind.type)
            if isinstance(tag, kinds.TypeTag) and not tag.attribute and tag.name in _SPECIAL_TAGS:
                return Special(size=POINTER_BYTES, type_name=tag.name)
        return Pointer(size=POINTER_BYTES, type_name=found.name or self._pointer_name(kind.type))

    def _pointer_name(self, target: int) -> str:
        """As C writes it, without qualifiers. What it leads to is not decoded: it may be large."""
        stars = "*"
        for _ in range(CHAIN):
            kind = self._types.kind(target)
            if kind not in _ON_THE_WAY:
                word = _WORDS.get(kind, "")
                if kind is kinds.Fwd:
                    forward = self._kind(target)
                    word = "union" if isinstance(forward, kinds.Fwd) and forward.union else "struct"
                return f"{word} {self._types.name(target)}".strip() + f" {stars}"
            stars += "*" * (kind is kinds.Ptr)
            target = self._types.target(target)
        return f"... {stars}"

    def _enumeration(self, found: Resolved, kind: kinds.Enum | kinds.Enum64) -> Enumeration:
        signed, values = kind.signed, kind.values
        bits = 8 * kind.size
        if (
            isinstance(kind, kinds.Enum)
            and bits < 32
            and not signed
            and any(value >> 31 for _, value in values)
        ):
            # Compilers that knew no kind_flag wrote the -1 of a packed enum as 0xffffffff.
            signed, values = True, tuple((name, value - (value >> 31 << 32)) for name, value in values)
        low, high = (-1 << bits - 1, 1 << bits - 1) if signed else (0, 1 << bits)
        for name, value in values:
            if not low <= value < high:
                raise self._bad(
                    found.id, f"{name} = {value} does not fit in an enum of {kind.size} bytes", value
                )
        return Enumeration(size=kind.size, signed=signed, members=values, type_name=found.name)

    def _array(self, id: int, found: Resolved, kind: kinds.Array, path: tuple[int, ...]) -> _Built:
        built = self._build(kind.type, (*path, id))
        element = built.layout
        self._bounded(id, element.size * kind.nelems)
        if self._is_char(kind.type):
            return _Built(Text(size=kind.nelems, type_name=found.name))
        # Elements of no bytes are bounded by no bytes, so each of them counts.
        nodes = built.nodes if element.size else built.nodes * kind.nelems
        return _Built(
            Array(element=element, count=kind.nelems, type_name=found.name), 1 + nodes, 1 + built.levels
        )

    def _is_char(self, id: int) -> bool:
        """Whether it is C's plain char: a typedef of char is a number to bpftool too (is_str_array())."""
        at = id
        for _ in range(CHAIN):
            kind = self._kind(at)
            if not isinstance(kind, _Qualifier):
                break
            at = kind.type
        else:
            return False
        if not isinstance(kind, kinds.Int) or kind.size != 1 or not kind.regular:
            return False
        return kind.name == "char" or (kind.char and kind.name == "")

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
                raise self._bad(id, f"more than {NODES} fields in all", nodes)
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
                    raise self._bad(id, f"two members are called {member.name!r}")
                else:
                    seen.add(member.name)

    def _member(
        self, id: int, size: int, member: kinds.StructMember, path: tuple[int, ...]
    ) -> tuple[_Built, Member]:
        found = self.resolve(member.type)
        bits, at = member.bits, member.bit_offset
        if isinstance(found.kind, kinds.Int) and not bits:
            if not found.kind.regular:
                bits, at = found.kind.bits, at + found.kind.offset
            elif at % 8:
                bits = found.kind.bits
        if bits:
            built = _Built(self._bit_field_type(id, found, member.name, bits))
        else:
            built = self._build(member.type, path)
            if at % 8:
                raise self._bad(id, f"member {member.name!r} begins at bit {at}, and is no bit-field", at)
        end = at + (bits or 8 * built.layout.size)
        if end > 8 * size:
            raise self._bad(
                id,
                f"member {member.name!r}, bits {at} to {end}, lies outside of {size} bytes",
                member.bit_offset,
            )
        return built, Member(
            name=member.name, offset=at // 8, layout=built.layout, bits=bits or None, bit_offset=at
        )

    def _bit_field_type(self, id: int, found: Resolved, name: str, bits: int) -> Layout:
        kind = found.kind
        if isinstance(kind, kinds.Enum | kinds.Enum64):
            layout: Layout = self._enumeration(found, kind)
        elif isinstance(kind, kinds.Int):
            size = max(_whole(kind.size), _whole((kind.bits + 7) // 8))
            if kind.bool:
                layout = Boolean(size=size, type_name=found.name)
            else:
                # A bit-field lies in bits of the host's numbers, whatever its typedef is called.
                layout = Integer(size=size, signed=kind.signed, type_name=found.name)
        else:
            raise self._bad(
                id,
                f"member {name!r} has {bits} bits of a {type(kind).__name__.upper()}, not of an integer",
                bits,
            )
        if bits > 8 * layout.size:
            raise self._bad(id, f"member {name!r} has {bits} bits of {layout.size} bytes", bits)
        return layout

    def _section(self, id: int, kind: kinds.Datasec, path: tuple[int, ...]) -> _Built:
        """A DATASEC: .data, .bss or .rodata as one value."""
        if kind.size == 0:
            raise self._bad(
                id,
                f"the section {kind.name!r} has size 0, as in an object that no loader has filled in; its ELF"
                " section says its size, its symbols the offsets",
                0,
            )
        members, names, nodes, levels = list[Member](), dict[str, int](), 1, 0
        for each in kind.vars:
            var = self._kind(each.type)
            if not isinstance(var, kinds.Var) or not var.name:
                raise self._bad(
                    id, f"type {each.type} in the section {kind.name!r} is no named VAR", each.type
                )
            built = self._build(each.type, (*path, id))
            nodes += built.nodes
            levels = max(levels, built.levels)
            if nodes > NODES:
                raise self._bad(id, f"more than {NODES} fields in all", nodes)
            if each.size < built.layout.size or each.offset + each.size > kind.size:
                raise self._bad(
                    id,
                    f"{var.name!r} of {built.layout.size} bytes has bytes {each.offset} to {each.offset + each.size}"
                    f" of {kind.size}",
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


def _integer(found: Resolved, kind: kinds.Int) -> Layout:
    if not kind.regular or kind.size not in _INTEGER_SIZES:
        return Opaque(size=kind.size, type_name=found.name)
    if kind.bool:
        return Boolean(size=kind.size, type_name=found.name)
    order: Order = "host"
    if found.order is not None and found.order[1] == kind.size:
        order = found.order[0]
    return Integer(size=kind.size, signed=kind.signed, order=order, type_name=found.name)


def _whole(size: int) -> int:
    """The next size that an integer has."""
    return next((whole for whole in _INTEGER_SIZES if whole >= size), _INTEGER_SIZES[-1])


def _numbered(name: str, names: dict[str, int]) -> str:
    """``name``, or name.2, name.3 ...: functions may have static variables of one name in one section."""
    chosen, count = name, names.get(name, 1)
    while chosen in names:
        count += 1
        chosen = f"{name}.{count}"
    names[name] = count
    names.setdefault(chosen, 1)
    return chosen
