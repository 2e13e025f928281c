"""A map as somebody wants it: checked before any syscall, compared with what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mapd.bpf.kernel import RawMapInfo
from mapd.maps.errors import MapError
from mapd.maps.types import TYPES, TypeTraits, type_name
from mapd_api import limits
from mapd_api.layout import value_stride
from mapd_api.names import KERNEL_NAME
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag

_CREATORS: Final = MapFlag.RDONLY | MapFlag.WRONLY
"""Flags of the creator's fd: the kernel does not keep them (kernel/bpf/syscall.c,
bpf_map_flags_retain_permanent())."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfSpec:
    """Type information to create a map with: blob and the ids of key and value in it."""

    blob: bytes
    key_type_id: int
    value_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """The shape of a map. Sizes in bytes; ``value_size`` of one CPU's slot for per-CPU types."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    kernel_name: str = ""
    map_extra: int = 0
    numa_node: int | None = None
    btf: BtfSpec | None = None

    def __str__(self) -> str:
        return f"{type_name(self.map_type)} map of {self.max_entries} x ({self.key_size}, {self.value_size}) bytes"


def check(spec: MapSpec, possible_cpus: int) -> TypeTraits:
    """The traits of a spec that can be created here.

    Raises:
        MapError: OPERATION_UNSUPPORTED for a type not served; BAD_SPEC naming the field, the value given
            and what is accepted.
    """
    traits = TYPES.get(spec.map_type)
    if traits is None:
        served = ", ".join(type_name(number) for number in sorted(TYPES))
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"create: this daemon does not serve map type {type_name(spec.map_type)}; it serves {served}",
            operation="create",
            map_type=type_name(spec.map_type),
        )
    _check_sizes(spec, traits, possible_cpus)
    _check_flags(spec, traits)
    if KERNEL_NAME.fullmatch(spec.kernel_name) is None:
        raise _bad(spec, "kernel_name", repr(spec.kernel_name), "at most 15 of A-Z, a-z, 0-9, '_', '.'")
    if spec.map_extra:
        raise _bad(spec, "map_extra", str(spec.map_extra), "0 for this type")
    return traits


def _check_sizes(spec: MapSpec, traits: TypeTraits, possible_cpus: int) -> None:
    keys = traits.key_sizes
    if spec.key_size not in keys:
        bounds = str(keys.start) if len(keys) == 1 else f"{keys.start} to {keys.stop - 1}"
        raise _bad(spec, "key_size", str(spec.key_size), f"{bounds} bytes")
    if spec.value_size < 1:
        raise _bad(spec, "value_size", str(spec.value_size), "at least 1 byte")
    if traits.max_value_size is not None and spec.value_size > traits.max_value_size:
        raise _bad(spec, "value_size", str(spec.value_size), f"at most {traits.max_value_size} bytes")
    element = spec.key_size + value_stride(spec.map_type, spec.value_size, possible_cpus)
    if element > limits.COLUMN_BYTES:
        raise _bad(
            spec,
            "key_size + value_size",
            f"{element} bytes on the wire",
            f"at most {limits.COLUMN_BYTES} bytes",
        )
    if not 1 <= spec.max_entries < 1 << 32:
        raise _bad(spec, "max_entries", str(spec.max_entries), "1 to 4294967295")


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


def differences(spec: MapSpec, info: RawMapInfo, kernel_name: str, possible_cpus: int) -> list[str]:
    """Fields in which an existing map is not what creating ``spec`` makes, as "field: wanted x, is y".

    The numa node is not compared, only that there is one: the kernel does not tell it. Types are compared
    where ``spec`` has some, by their ids: the blob may be laid out otherwise, and the kernel's is not ours
    to read.

    Args:
        kernel_name: what a map gets whose spec gives none.
    """
    wanted = {
        "type": type_name(spec.map_type),
        "key_size": spec.key_size,
        "value_size": spec.value_size,
        "max_entries": _made_entries(spec, possible_cpus),
        "flags": hex(spec.flags & ~int(_CREATORS)),
        "map_extra": spec.map_extra,
        "kernel_name": spec.kernel_name or kernel_name,
    }
    there = {
        "type": type_name(info.map_type),
        "key_size": info.key_size,
        "value_size": info.value_size,
        "max_entries": info.max_entries,
        "flags": hex(info.map_flags & ~int(_CREATORS)),
        "map_extra": info.map_extra,
        "kernel_name": info.name,
    }
    if spec.btf is not None:
        wanted["btf"] = _types(spec.btf.key_type_id, spec.btf.value_type_id)
        there["btf"] = _types(info.btf_key_type_id, info.btf_value_type_id)
    return [
        f"{name}: wanted {wanted[name]}, is {there[name]}" for name in wanted if wanted[name] != there[name]
    ]


def _made_entries(spec: MapSpec, possible_cpus: int) -> int:
    """The max_entries that the kernel makes of those asked for.

    Lists of each CPU's own are of one length: a multiple of the CPUs, the next one that fits in 32 bits
    (kernel/bpf/hashtab.c, htab_map_alloc()).
    """
    if not spec.flags & MapFlag.NO_COMMON_LRU:
        return spec.max_entries
    lists, over = divmod(spec.max_entries, possible_cpus)
    rounded = (lists + bool(over)) * possible_cpus
    return rounded if rounded < 1 << 32 else lists * possible_cpus


def _types(key: int, value: int) -> str:
    """Without either, no BTF is kept (kernel/bpf/syscall.c, map_create())."""
    return f"types {key} and {value}" if key or value else "none"
