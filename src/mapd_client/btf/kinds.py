"""The 19 kinds of BTF, as include/uapi/linux/btf.h has them: plain values, nothing resolved. Sans-I/O.

``type`` and its like are type ids; 0 is void. Sizes are bytes, offsets of members bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

Flag: TypeAlias = bool
"""``bool`` inside of Int, which has a field of that name."""


@dataclass(frozen=True, slots=True)
class Void:
    """Type id 0."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer: ``bits`` of ``size`` bytes, from bit ``offset``; fewer bits are a bit-field of old compilers."""

    name: str
    size: int
    bits: int
    offset: int
    signed: Flag
    char: Flag
    bool: Flag

    @property
    def regular(self) -> Flag:
        """Whether all bits of all bytes are the number's."""
        return self.offset == 0 and self.bits == 8 * self.size


@dataclass(frozen=True, slots=True)
class Ptr:
    """A pointer."""

    type: int


@dataclass(frozen=True, slots=True)
class Array:
    """``nelems`` elements; 0 for a flexible array at a struct's end."""

    type: int
    index_type: int
    nelems: int


@dataclass(frozen=True, slots=True)
class StructMember:
    """A member of a struct or union.

    Attributes:
        bit_offset: from the struct's beginning.
        bits: width of a bit-field as the member says it; 0 where its type says it, or it is none.
    """

    name: str
    type: int
    bit_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct."""

    name: str
    size: int
    members: tuple[StructMember, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """A union."""

    name: str
    size: int
    members: tuple[StructMember, ...]


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum whose values have 32 bits, whatever its size."""

    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Fwd:
    """A struct, or union, that is only declared."""

    name: str
    union: bool


@dataclass(frozen=True, slots=True)
class Typedef:
    """Another name of a type."""

    name: str
    type: int


@dataclass(frozen=True, slots=True)
class Volatile:
    """A qualifier."""

    type: int


@dataclass(frozen=True, slots=True)
class Const:
    """A qualifier."""

    type: int


@dataclass(frozen=True, slots=True)
class Restrict:
    """A qualifier."""

    type: int


@dataclass(frozen=True, slots=True)
class Func:
    """A function; ``type`` is its FUNC_PROTO, ``linkage`` 0 static, 1 global, 2 extern."""

    name: str
    type: int
    linkage: int


@dataclass(frozen=True, slots=True)
class FuncProto:
    """A function's type: parameters as (name, type id); the last is ("", 0) where more may follow."""

    type: int
    params: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Var:
    """A variable; ``linkage`` as of Func."""

    name: str
    type: int
    linkage: int


@dataclass(frozen=True, slots=True)
class SectionVar:
    """Where a variable (``type`` is a VAR) lies in its section, in bytes."""

    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Datasec:
    """A section of variables; in an object that no loader has seen, size and offsets may be 0."""

    name: str
    size: int
    vars: tuple[SectionVar, ...]


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point number."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class DeclTag:
    """A tag on a declaration; ``component_idx`` -1 means all of ``type``.

    ``attribute``: the name is a whole compiler attribute (Linux 6.14).
    """

    name: str
    type: int
    component_idx: int
    attribute: bool


@dataclass(frozen=True, slots=True)
class TypeTag:
    """A tag on a type, which qualifies like const; ``attribute`` as of DeclTag."""

    name: str
    type: int
    attribute: bool


@dataclass(frozen=True, slots=True)
class Enum64:
    """An enum whose values have 64 bits."""

    name: str
    size: int
    signed: bool
    values: tuple[tuple[str, int], ...]


Kind: TypeAlias = (
    Void
    | Int
    | Ptr
    | Array
    | Struct
    | Union
    | Enum
    | Fwd
    | Typedef
    | Volatile
    | Const
    | Restrict
    | Func
    | FuncProto
    | Var
    | Datasec
    | Float
    | DeclTag
    | TypeTag
    | Enum64
)

KINDS: Final[tuple[type[Kind], ...]] = (
    Void,
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
)
"""Each kind at its own number (BTF_KIND_INT is 1)."""
