"""What the bytes of a key or a value mean: a tree, wherever it comes from. Sans-I/O.

BTF, an object file, a dataclass, a ctypes.Structure and a struct format each become such a tree; codecs, numpy and
Arrow types, JSON and comparisons are made from it. A tree says what C says, and no more: qualifiers and typedefs are
resolved, and the name that a person would read stays in ``type_name``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Order: TypeAlias = Literal["host", "big", "little"]
"""Byte order of a number: of the daemon's host, or fixed by its type (``__be32``)."""

SPECIAL: Final = frozenset(
    {
        "bpf_spin_lock",
        "bpf_res_spin_lock",
        "bpf_timer",
        "bpf_wq",
        "bpf_task_work",
        "bpf_refcount",
        "bpf_list_head",
        "bpf_list_node",
        "bpf_rb_root",
        "bpf_rb_node",
        "kptr",
        "kptr_untrusted",
        "percpu_kptr",
        "uptr",
    }
)
"""Fields that belong to the kernel: it hides them from user space, and ignores what is written there.

Structs by their names, pointers by their type tags (``btf_parse_fields()``, kernel/bpf/btf.c).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integer:
    """A two's complement or unsigned integer of 1, 2, 4, 8 or 16 bytes."""

    size: int
    signed: bool
    order: Order = "host"
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boolean:
    """A C bool, nearly always of 1 byte; any byte but 0 is true."""

    size: int = 1
    order: Order = "host"
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Float:
    """An IEEE 754 number of 2, 4 or 8 bytes; those of 12 and 16 bytes stay bytes."""

    size: int
    order: Order = "host"
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """An address in the kernel or in a program: a number here, which nobody may follow."""

    size: int = 8
    order: Order = "host"
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumeration:
    """An integer whose values have names; two names may have one value, and a value may have no name."""

    size: int
    signed: bool
    members: tuple[tuple[str, int], ...]
    order: Order = "host"
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """An array of char: a string that ends before its first NUL, or fills its ``size`` bytes."""

    size: int
    type_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """``count`` elements of one layout, one after the other."""

    element: Layout
    count: int
    type_name: str = ""

    @property
    def size(self) -> int:
        """Bytes of all elements."""
        return self.element.size * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A field of a record.

    Attributes:
        name: "" for an anonymous struct or union, whose own members are reached as if they were the outer's.
        offset: bytes from the record's beginning; of a bit-field, of its first bit's byte.
        layout: what is there; of a bit-field, its declared type.
        bits: width of a bit-field; None for other members.
        bit_offset: from the record's beginning, as BTF counts: on a little-endian host bit 0 is the first byte's
            lowest, on a big-endian host the first byte's highest. 8 * offset for other members.
    """

    name: str
    offset: int
    layout: Layout
    bits: int | None = None
    bit_offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A struct, or a union, whose members share their bytes."""

    size: int
    members: tuple[Member, ...]
    union: bool = False
    type_name: str = ""

    def named(self) -> Iterator[Member]:
        """The members as a person names them: those of anonymous records in their place, by their full offset."""
        for member in self.members:
            if member.name or not isinstance(member.layout, Record):
                yield member
                continue
            for inner in member.layout.named():
                yield Member(
                    name=inner.name,
                    offset=member.offset + inner.offset,
                    layout=inner.layout,
                    bits=inner.bits,
                    bit_offset=8 * member.offset + inner.bit_offset,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Special:
    """A field of the kernel's own (``SPECIAL``): read as zeros (a refcount as 1), never written by user space."""

    size: int
    type_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """Bytes that nothing is known of, or that no Python value stands for."""

    size: int
    type_name: str = ""


Layout: TypeAlias = (
    Integer | Boolean | Float | Pointer | Enumeration | Text | Array | Record | Special | Opaque
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLayout:
    """What a map's keys and values are made of.

    Attributes:
        key: of one key; None where nothing is known of it, or the map has no keys.
        value: of one value, of one CPU's slot for per-CPU types; None where nothing is known of it.
        source: where it is from, for messages: "BTF of the map", "prog.o", "class Flow".
    """

    key: Layout | None
    value: Layout | None
    source: str
