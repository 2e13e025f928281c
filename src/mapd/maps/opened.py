"""An open map: its descriptor, its facts, and how it may be used through this opening."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mapd.bpf.fd import FdLease, OwnedFd
from mapd.bpf.kernel import RawMapInfo
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef
from mapd.maps.programs import MapPrograms
from mapd.maps.traits import TypeTraits
from mapd.maps.types import TYPES, type_name
from mapd_api import limits
from mapd_api.layout import round_up8, value_stride
from mapd_api.ops import MUTATES, Op
from mapd_api.reasons import Reason

if TYPE_CHECKING:
    from mapd.maps.vector import Vector  # which is about maps and their facts, and imports this


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFacts:
    """What is true of a map as long as it lives. Sizes and strides in bytes.

    ``label`` is how messages name it: "map 41 (flows)". ``has_lock``: its values have a bpf_spin_lock, as
    the kernel was found to say (``locks``).
    """

    info: RawMapInfo
    value_stride: int
    traits: TypeTraits | None
    has_lock: bool = False

    @property
    def id(self) -> int:
        """The kernel's id."""
        return self.info.id

    @property
    def key_stride(self) -> int:
        """Bytes of one key in a column."""
        return self.info.key_size

    @property
    def slot_stride(self) -> int:
        """Bytes from one CPU's slot of a per-CPU value to the next."""
        return round_up8(self.info.value_size)

    @property
    def label(self) -> str:
        """For messages."""
        return f"map {self.info.id} ({self.info.name})" if self.info.name else f"map {self.info.id}"

    @property
    def type_name(self) -> str:
        """As bpftool spells it."""
        return type_name(self.info.map_type)

    def about(self, operation: str) -> dict[str, object]:
        """Metadata that every refusal concerning this map carries."""
        return {"operation": operation, "map": self.label, "map_type": self.type_name}

    def supports(self, op: Op, operation: str) -> TypeTraits:
        """The traits of a type that has ``op``; ``operation`` is the caller's word for it.

        Raises:
            MapError: OPERATION_UNSUPPORTED, with type and operation; no syscall was made.
        """
        if self.traits is None or op not in self.traits.ops:
            if self.traits is None:
                why = f"this daemon does not know {self.type_name}; it knows 1 to {max(TYPES)}"
            elif self.traits.refused:
                why = f"{self.type_name} maps: {self.traits.refused}"
            else:
                why = (
                    f"{self.type_name} maps have no {op.name.lower()}; they have "
                    f"{', '.join(self.traits.operations)}"
                )
            raise MapError(
                Reason.OPERATION_UNSUPPORTED, f"{operation} {self.label}: {why}", **self.about(operation)
            )
        return self.traits

    def check_message(self, operation: str) -> None:
        """Refuse a map whose elements are larger than a message (made by others; mapd creates none)."""
        element = self.key_stride + self.value_stride
        if element > limits.COLUMN_BYTES:
            raise MapError(
                Reason.BAD_COLUMNS,
                f"{operation} {self.label}: an element has {element} bytes, a message holds {limits.COLUMN_BYTES}; "
                "read this map on its host",
                **self.about(operation),
            )

    def access_refusal(self, operation: str, *, writes: bool) -> MapError:
        """What EPERM says of a map that is not frozen: its creator's descriptor has one direction only."""
        only, flag, wanted = (
            ("read", "BPF_F_RDONLY", "write") if writes else ("write", "BPF_F_WRONLY", "read")
        )
        return MapError(
            Reason.READ_ONLY if writes else Reason.OPERATION_UNSUPPORTED,
            f"{operation} {self.label}: this handle can only {only}: the map was created through it with {flag}, "
            f"which binds its creator alone; open the map again to {wanted} it [EPERM]",
            **self.about(operation),
            errno="EPERM",
        )

    def check_freezes(self) -> None:
        """Refuse to freeze what the kernel has no BPF_MAP_FREEZE for (524); no syscall was made."""
        if self.traits is not None and not self.traits.freezes:
            raise MapError(
                Reason.OPERATION_UNSUPPORTED,
                f"freeze {self.label}: {self.type_name} maps cannot be frozen"
                + (f": {self.traits.refused}" if self.traits.refused else ""),
                **self.about("freeze"),
            )

    def iterable(self, operation: str) -> TypeTraits:
        """The traits of a type that can be dumped."""
        if self.traits is None or not self.traits.iterable:
            why = self.traits.refused if self.traits else ""
            raise MapError(
                Reason.OPERATION_UNSUPPORTED,
                f"{operation} {self.label}: {self.type_name} maps cannot be iterated"
                + (f": {why}" if why else ""),
                **self.about(operation),
            )
        return self.traits


def operation_of(op: Op) -> str:
    """The caller's word for an operation: "update" and "push" whatever their flag."""
    return op.name.lower().removesuffix("_noexist").removesuffix("_exist")


def facts(
    info: RawMapInfo,
    possible_cpus: int,
    types: Mapping[int, TypeTraits] = TYPES,
    *,
    has_lock: bool = False,
) -> MapFacts:
    """The facts behind a map's info. ``types``: the table, less what this kernel was found to lack."""
    return MapFacts(
        info=info,
        value_stride=value_stride(info.map_type, info.value_size, possible_cpus),
        traits=types.get(info.map_type),
        has_lock=has_lock,
    )


@dataclass(frozen=True, slots=True)
class Described:
    """What is told of a map. Holds no descriptor.

    Attributes:
        name: "namespace/name" where it has one that is known, else "".
        pin_path: a pin of it, else "".
        leased: what keeps that pin, where it is one of a lease.
    """

    facts: MapFacts
    name: str = ""
    pin_path: str = ""
    leased: LeasedRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMap:
    """One opening of a map. Whoever holds it closes ``fd``.

    Attributes:
        read_only: every mutation through this opening is refused (READ_ONLY).
        name: "namespace/name" where it was opened by name, else "".
        pin_path: the pin it was opened by, else "".
        leased: what keeps that pin, where it is one of a lease.
        programs: those over the map, shared by all its openings.
        vector: vector programs, where this opening may use any.
    """

    fd: OwnedFd
    facts: MapFacts
    read_only: bool = False
    name: str = ""
    pin_path: str = ""
    leased: LeasedRef | None = None
    programs: MapPrograms = field(repr=False, compare=False)
    vector: Vector | None = field(default=None, repr=False, compare=False)

    @property
    def described(self) -> Described:
        """As it was when it was opened."""
        return Described(self.facts, self.name, self.pin_path, self.leased)

    def lease(self) -> FdLease:
        """Borrow the descriptor for one call.

        Raises:
            MapError: STALE_HANDLE, the map was closed meanwhile.
        """
        try:
            return self.fd.lease()
        except OSError:
            raise MapError(
                Reason.STALE_HANDLE,
                f"{self.facts.label} was closed; open it again",
                **self.facts.about("resolve"),
            ) from None

    def check_writable(self, op: Op, operation: str) -> None:
        """Refuse a mutation through a read-only opening; ``operation`` is the caller's word for it."""
        if self.read_only and op in MUTATES:
            raise MapError(
                Reason.READ_ONLY,
                f"{operation} {self.facts.label}: opened read-only; open it again without read_only",
                **self.facts.about(operation),
            )
