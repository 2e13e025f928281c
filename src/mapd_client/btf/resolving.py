"""A type behind its typedefs, its size, and what is said of one that is wrong. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from mapd_client.btf import kinds
from mapd_client.btf.blob import BadBtf, told
from mapd_client.btf.kinds import Kind
from mapd_client.layouts import Order

if TYPE_CHECKING:
    from mapd_client.btf.index import Types

LEVELS: Final = 32
"""Arrays and structs in one another: MAX_RESOLVE_DEPTH of kernel/bpf/btf.c."""
CHAIN: Final = 64
"""Typedefs and qualifiers before a type."""
SIZE_MAX: Final = 0xFFFF_FFFF
"""Bytes of one type, as btf_array_resolve() bounds them."""
POINTER_BYTES: Final = 8

Qualifier: TypeAlias = kinds.Volatile | kinds.Const | kinds.Restrict | kinds.TypeTag

_ORDERS: Final[dict[str, tuple[Order, int]]] = {
    "__be16": ("big", 2),
    "__be32": ("big", 4),
    "__be64": ("big", 8),
    "__le16": ("little", 2),
    "__le32": ("little", 4),
    "__le64": ("little", 8),
}


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


class Resolver:
    """Types of one index, each decoded once: 65,535 members of one type would decode it as often."""

    __slots__ = ("_kinds", "types")

    def __init__(self, types: Types) -> None:
        self.types: Final = types
        self._kinds: Final[dict[int, Kind]] = {}

    def kind(self, id: int) -> Kind:
        """As Types[id]."""
        kind = self._kinds.get(id)
        if kind is None:
            kind = self._kinds[id] = self.types[id]
        return kind

    def resolve(self, id: int) -> Resolved:
        """The type behind typedefs, qualifiers and variables.

        Raises:
            BadBtf: there are more than 64 of them, or they lead back to themselves.
        """
        name, order, at = "", None, id
        for _ in range(CHAIN + 1):
            kind = self.kind(at)
            if isinstance(kind, kinds.Typedef):
                name = name or kind.name
                order = order or _ORDERS.get(kind.name)
            elif not isinstance(kind, Qualifier | kinds.Var):
                return Resolved(at, kind, name or getattr(kind, "name", ""), order)
            at = kind.type
        raise self.bad(id, f"more than {CHAIN} typedefs and qualifiers, or a circle of them", at)

    def size(self, id: int) -> int:
        """As Types.size."""
        count, inner = 1, id
        for _ in range(LEVELS + 1):
            kind = self.resolve(inner).kind
            if not isinstance(kind, kinds.Array):
                return self.bounded(id, count * self.own_size(inner, kind))
            count *= kind.nelems
            inner = kind.type
        raise self.bad(id, f"an array of more than {LEVELS} dimensions, or of itself", inner)

    def own_size(self, id: int, kind: Kind) -> int:
        """Bytes of a type that is neither array nor typedef; raises BadBtf where there are none."""
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
                raise self.bad(
                    id, f"{told(kind.name)} is only declared in this BTF; its size is not known", id
                )
            case _:
                raise self.bad(id, f"a {type(kind).__name__.upper()} is no data", id)

    def bounded(self, id: int, size: int) -> int:
        """``size``, if a type may have so many bytes."""
        if size > SIZE_MAX:
            raise self.bad(id, f"{size} bytes; a type has at most {SIZE_MAX}", size)
        return size

    def bad(self, id: int, what: str, number: int | None = None) -> BadBtf:
        """The refusal of a type."""
        offset = self.types.offset(id)
        return BadBtf(f"BTF: type {id} (at byte {offset}): {what}", offset=offset, number=number)
