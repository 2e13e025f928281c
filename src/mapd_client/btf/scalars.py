"""Types that contain no others, as layouts. Sans-I/O."""

from __future__ import annotations

from typing import Final

from mapd_client.btf import kinds
from mapd_client.btf.blob import told
from mapd_client.btf.kinds import Kind
from mapd_client.btf.resolving import CHAIN, POINTER_BYTES, Qualifier, Resolved, Resolver
from mapd_client.layouts import (
    SPECIAL,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Opaque,
    Order,
    Pointer,
    Special,
)

SPECIAL_STRUCTS: Final = frozenset(name for name in SPECIAL if name.startswith("bpf_"))
_SPECIAL_TAGS: Final = SPECIAL - SPECIAL_STRUCTS
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


def integer(found: Resolved, kind: kinds.Int) -> Layout:
    """An INT that is no bit-field; bytes where it has some bits of them alone."""
    if not kind.regular or kind.size not in _INTEGER_SIZES:
        return Opaque(size=kind.size, type_name=found.name)
    if kind.bool:
        return Boolean(size=kind.size, type_name=found.name)
    order: Order = "host"
    if found.order is not None and found.order[1] == kind.size:
        order = found.order[0]
    return Integer(size=kind.size, signed=kind.signed, order=order, type_name=found.name)


def real(found: Resolved, kind: kinds.Float) -> Layout:
    """A FLOAT; those of 12 and 16 bytes stay bytes."""
    if kind.size in _FLOAT_SIZES:
        return Float(size=kind.size, type_name=found.name)
    return Opaque(size=kind.size, type_name=found.name)


def pointer(resolver: Resolver, found: Resolved, kind: kinds.Ptr) -> Layout:
    """A PTR, or a field of the kernel's own."""
    # btf_find_kptr() looks at the tag next to the pointer, and at no other.
    if resolver.types.kind(kind.type) is kinds.TypeTag:
        tag = resolver.kind(kind.type)
        if isinstance(tag, kinds.TypeTag) and not tag.attribute and tag.name in _SPECIAL_TAGS:
            return Special(size=POINTER_BYTES, type_name=tag.name)
    return Pointer(size=POINTER_BYTES, type_name=found.name or _pointer_name(resolver, kind.type))


def _pointer_name(resolver: Resolver, target: int) -> str:
    """As C writes it, without qualifiers. What it leads to is not decoded: it may be large."""
    stars = "*"
    for _ in range(CHAIN):
        kind = resolver.types.kind(target)
        if kind not in _ON_THE_WAY:
            word = _WORDS.get(kind, "")
            if kind is kinds.Fwd:
                forward = resolver.kind(target)
                word = "union" if isinstance(forward, kinds.Fwd) and forward.union else "struct"
            return f"{word} {resolver.types.name(target)}".strip() + f" {stars}"
        stars += "*" * (kind is kinds.Ptr)
        target = resolver.types.target(target)
    return f"... {stars}"


def enumeration(resolver: Resolver, found: Resolved, kind: kinds.Enum | kinds.Enum64) -> Enumeration:
    """An ENUM or ENUM64; raises BadBtf for a value that it cannot hold, and for a name of two values."""
    signed, values = kind.signed, kind.values
    bits = 8 * kind.size
    if isinstance(kind, kinds.Enum) and bits < 32 and not signed and any(value >> 31 for _, value in values):
        # Compilers that knew no kind_flag wrote the -1 of a packed enum as 0xffffffff.
        signed, values = True, tuple((name, value - (value >> 31 << 32)) for name, value in values)
    low, high = (-1 << bits - 1, 1 << bits - 1) if signed else (0, 1 << bits)
    seen: dict[str, int] = {}
    for name, value in values:
        if not low <= value < high:
            raise resolver.bad(
                found.id, f"{told(name)} = {value} does not fit in an enum of {kind.size} bytes", value
            )
        # Else what is read by its name were written as another number.
        if not name or seen.setdefault(name, value) != value:
            raise resolver.bad(
                found.id, f"value {value} has the name {told(name)}, which is none of its own", value
            )
    return Enumeration(size=kind.size, signed=signed, members=values, type_name=found.name)


def is_char(resolver: Resolver, id: int) -> bool:
    """Whether it is C's plain char: a typedef of char is a number to bpftool too (is_str_array())."""
    at = id
    for _ in range(CHAIN):
        kind = resolver.kind(at)
        if not isinstance(kind, Qualifier):
            break
        at = kind.type
    else:
        return False
    if not isinstance(kind, kinds.Int) or kind.size != 1 or not kind.regular:
        return False
    return kind.name == "char" or (kind.char and kind.name == "")


def bit_field(resolver: Resolver, id: int, found: Resolved, name: str, bits: int) -> Layout:
    """The declared type of a bit-field; raises BadBtf where it is no integer, or narrower."""
    kind = found.kind
    layout: Layout
    if isinstance(kind, kinds.Int):
        size = max(_whole(kind.size), _whole((kind.bits + 7) // 8))
        if kind.bool:
            layout = Boolean(size=size, type_name=found.name)
        else:
            # A bit-field lies in bits of the host's numbers, whatever its typedef is called.
            layout = Integer(size=size, signed=kind.signed, type_name=found.name)
    else:
        raise resolver.bad(
            id,
            f"member {told(name)} has {bits} bits of a {type(kind).__name__.upper()}, not of an integer",
            bits,
        )
    if bits > 8 * layout.size:
        raise resolver.bad(id, f"member {told(name)} has {bits} bits of {layout.size} bytes", bits)
    return layout


def _whole(size: int) -> int:
    """The next size that an integer has."""
    return next((whole for whole in _INTEGER_SIZES if whole >= size), _INTEGER_SIZES[-1])
