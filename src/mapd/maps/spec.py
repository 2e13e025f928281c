"""A map as somebody wants it: checked before any syscall, compared with what is there."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from mapd.bpf.kernel import RawMapInfo
from mapd.maps.errors import MapError
from mapd.maps.traits import Btf, Entries, TypeTraits, Value
from mapd.maps.types import TYPES, type_name
from mapd_api import limits
from mapd_api.layout import value_stride
from mapd_api.names import KERNEL_NAME
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag

_NOT_COMPARED = MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG
"""RDONLY and WRONLY are of the creator's fd, and stay in map_flags; RDONLY_PROG the kernel adds to device maps."""


MOST_CPUS = 8_192
"""No kernel is built for more (CONFIG_NR_CPUS); what this one was built for is E2BIG's to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfSpec:
    """Type information to create a map with: blob and the ids of key and value in it."""

    blob: bytes
    key_type_id: int
    value_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """The shape of a map. Sizes in bytes; ``value_size`` of one CPU's slot for per-CPU types.

    ``inner``: whether a template of its inner maps goes beside it.
    """

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    kernel_name: str = ""
    map_extra: int = 0
    numa_node: int | None = None
    btf: BtfSpec | None = None
    inner: bool = False

    def __str__(self) -> str:
        return f"{type_name(self.map_type)} map of {self.max_entries} x ({self.key_size}, {self.value_size}) bytes"


def check(spec: MapSpec, possible_cpus: int) -> TypeTraits:
    """The traits of a spec that can be created here.

    Raises:
        MapError: OPERATION_UNSUPPORTED for a type that nobody knows; BAD_SPEC or BAD_FLAGS naming the field, the
            value given and what is accepted.
    """
    traits = TYPES.get(spec.map_type)
    if traits is None:
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"create: this daemon does not know map type {spec.map_type}; it knows 1 to {max(TYPES)}",
            operation="create",
            map_type=type_name(spec.map_type),
        )
    _check_sizes(spec, traits, possible_cpus)
    _check_entries(spec, traits)
    _check_flags(spec, traits)
    if KERNEL_NAME.fullmatch(spec.kernel_name) is None:
        raise _bad(spec, "kernel_name", repr(spec.kernel_name), "at most 15 of A-Z, a-z, 0-9, '_', '.'")
    if spec.map_extra not in traits.map_extra:
        raise _bad(spec, "map_extra", str(spec.map_extra), _bounds(traits.map_extra))
    if traits.btf is Btf.REQUIRED and spec.btf is None:
        raise _bad(spec, "btf", "missing", "BTF with the types of key and value")
    if traits.template != spec.inner:
        raise _bad(
            spec, "inner", "given" if spec.inner else "missing", "a template" if traits.template else "none"
        )
    return traits


def _bounds(sizes: range) -> str:
    """In words: 4, 5 to 260, 8 to 1016 in steps of 8."""
    if len(sizes) == 1:
        return str(sizes.start)
    steps = f" in steps of {sizes.step}" if sizes.step > 1 else ""
    return f"{sizes.start} to {sizes[-1]}{steps}"


def _check_sizes(spec: MapSpec, traits: TypeTraits, possible_cpus: int) -> None:
    for field, size, sizes in (
        ("key_size", spec.key_size, traits.key_sizes),
        ("value_size", spec.value_size, traits.value_sizes),
    ):
        if size not in sizes:
            raise _bad(spec, field, str(size), f"{_bounds(sizes)} bytes")
    if spec.flags & MapFlag.STACK_BUILD_ID and spec.value_size % 32:
        raise _bad(
            spec, "value_size", str(spec.value_size), "a multiple of 32 bytes with BPF_F_STACK_BUILD_ID"
        )
    element = spec.key_size + value_stride(spec.map_type, spec.value_size, possible_cpus)
    if element > limits.COLUMN_BYTES:
        raise _bad(
            spec,
            "key_size + value_size",
            f"{element} bytes on the wire",
            f"at most {limits.COLUMN_BYTES} bytes",
        )


def _check_entries(spec: MapSpec, traits: TypeTraits) -> None:
    most = (1 << 32) - 1
    accepted, rule = {
        Entries.ANY: (1 <= spec.max_entries <= most, f"1 to {most}"),
        Entries.ZERO: (spec.max_entries == 0, "0: they have an element per owner"),
        Entries.ONE: (spec.max_entries == 1, "1"),
        Entries.PAGES: (1 <= spec.max_entries <= 1 << 20, f"1 to {1 << 20} pages"),
        Entries.POWER_OF_TWO_PAGES: (
            _is_ring_size(spec.max_entries),
            f"bytes: a power of two, {mmap.PAGESIZE} to {1 << 31}",
        ),
    }[traits.entries]
    if not accepted:
        raise _bad(spec, "max_entries", str(spec.max_entries), rule)
    if traits.value is Value.CPU and spec.max_entries > MOST_CPUS:
        raise _bad(spec, "max_entries", str(spec.max_entries), f"at most {MOST_CPUS} CPUs")


def _is_ring_size(size: int) -> bool:
    return mmap.PAGESIZE <= size <= 1 << 31 and size & (size - 1) == 0


def _check_flags(spec: MapSpec, traits: TypeTraits) -> None:
    unknown = spec.flags & ~int(traits.flags)
    if unknown:
        known = MapFlag(unknown & sum(MapFlag)).name
        names = f" ({known})" if known else ""
        raise MapError(
            Reason.BAD_FLAGS,
            f"create {spec}: flags {unknown:#x}{names} are none of this type's; accepted: "
            + ", ".join(f"BPF_F_{flag.name}" for flag in traits.flags),
            operation="create",
            map_type=type_name(spec.map_type),
            flags=hex(spec.flags),
        )
    missing = traits.required_flags & ~MapFlag(spec.flags)
    if missing:
        raise MapError(
            Reason.BAD_FLAGS,
            f"create {spec}: this type needs BPF_F_{missing.name}",
            operation="create",
            map_type=type_name(spec.map_type),
            flags=hex(spec.flags),
        )
    if (spec.numa_node is not None) != bool(spec.flags & MapFlag.NUMA_NODE):
        raise _bad(spec, "numa_node", str(spec.numa_node), "a node together with BPF_F_NUMA_NODE, or neither")
    access = MapFlag.RDONLY | MapFlag.WRONLY
    if spec.flags & access == access:
        raise _bad(spec, "flags", "BPF_F_RDONLY | BPF_F_WRONLY", "one of them at most")


def _bad(spec: MapSpec, field: str, given: str, accepted: str) -> MapError:
    return MapError(
        Reason.BAD_SPEC,
        f"create {spec}: {field} is {given}; {type_name(spec.map_type)} maps take {accepted}",
        operation="create",
        map_type=type_name(spec.map_type),
        field=field,
    )


def differences(spec: MapSpec, info: RawMapInfo) -> list[str]:
    """Fields in which an existing map is not the one asked for, as "field: wanted x, is y"."""
    wanted = {
        "type": type_name(spec.map_type),
        "key_size": spec.key_size,
        "value_size": spec.value_size,
        "max_entries": spec.max_entries,
        "flags": hex(spec.flags & ~int(_NOT_COMPARED)),
        "map_extra": spec.map_extra,
    }
    there = {
        "type": type_name(info.map_type),
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": hex(info.map_flags & ~int(_NOT_COMPARED)),
        "map_extra": info.map_extra,
    }
    return [
        f"{name}: wanted {wanted[name]}, is {there[name]}" for name in wanted if wanted[name] != there[name]
    ]
