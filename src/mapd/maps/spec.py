"""A map as somebody wants it: checked before any syscall, compared with what is there."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Final

from mapd.bpf.kernel import RawMapInfo
from mapd.maps.errors import MapError
from mapd.maps.traits import Btf, Entries, TypeTraits, Value
from mapd.maps.types import TYPES, type_name
from mapd_api import limits
from mapd_api.layout import value_stride
from mapd_api.names import KERNEL_NAME
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag, MapType

_CREATORS: Final = MapFlag.RDONLY | MapFlag.WRONLY
"""Of the creator's descriptor alone: the kernel does not keep them (kernel/bpf/syscall.c,
bpf_map_flags_retain_permanent())."""

MOST_CPUS: Final = 8_192
"""No kernel is built for more (CONFIG_NR_CPUS); what this one was built for is E2BIG's to say."""

_DEVICES: Final = frozenset({MapType.DEVMAP, MapType.DEVMAP_HASH})
"""Their map_flags get BPF_F_RDONLY_PROG from the kernel (kernel/bpf/devmap.c, dev_map_alloc_check())."""

HASH_BYTES: Final = 32
"""Of an exclusive program: SHA-256 (kernel/bpf/syscall.c, map_create())."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BtfSpec:
    """Type information to create a map with: blob and the ids of key and value in it."""

    blob: bytes
    key_type_id: int
    value_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """The shape of a map. Sizes in bytes; ``value_size`` of one CPU's slot for per-CPU types.

    Attributes:
        inner: whether a template of its inner maps goes beside it.
        btf_vmlinux_value_type_id: in the kernel's own BTF, ``struct bpf_struct_ops_NAME``; STRUCT_OPS only.
        exclusive_program_hash: of the only program that may use the map; b"": any may.
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
    btf_vmlinux_value_type_id: int = 0
    exclusive_program_hash: bytes = b""

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
    _check_types(spec, traits)
    if traits.template != spec.inner:
        raise _bad(
            spec, "inner", "given" if spec.inner else "missing", "a template" if traits.template else "none"
        )
    if len(spec.exclusive_program_hash) not in (0, HASH_BYTES):
        given = f"{len(spec.exclusive_program_hash)} bytes long"
        raise _bad(spec, "exclusive_program_hash", given, f"{HASH_BYTES} bytes (SHA-256), or none")
    return traits


def _check_types(spec: MapSpec, traits: TypeTraits) -> None:
    """Type information: what must be there, and what only STRUCT_OPS has."""
    if traits.btf is Btf.REQUIRED and spec.btf is None:
        raise _bad(spec, "btf", "missing", "BTF with the types of key and value")
    vmlinux, kernel_type = spec.btf_vmlinux_value_type_id, traits.value is Value.KERNEL
    if bool(vmlinux) != kernel_type:
        accepted = "the id of a struct bpf_struct_ops_NAME in the kernel's BTF" if kernel_type else "0"
        raise _bad(spec, "btf_vmlinux_value_type_id", str(vmlinux), accepted)
    if spec.btf is None or kernel_type:
        return
    if not spec.btf.key_type_id and not spec.btf.value_type_id:
        raise _bad(spec, "btf", "without type ids", "BTF with the ids of key and value in it, or no BTF")


def _bounds(sizes: range, unit: str = "") -> str:
    """In words: 4, 5 to 260, 8 to 1016 in steps of 8."""
    if len(sizes) == 1:
        return f"{sizes.start}{unit}"
    steps = f" in steps of {sizes.step}" if sizes.step > 1 else ""
    return f"{sizes.start} to {sizes[-1]}{unit}{steps}"


def _check_sizes(spec: MapSpec, traits: TypeTraits, possible_cpus: int) -> None:
    for field, size, sizes in (
        ("key_size", spec.key_size, traits.key_sizes),
        ("value_size", spec.value_size, traits.value_sizes),
    ):
        if size not in sizes:
            raise _bad(spec, field, str(size), _bounds(sizes, " bytes"))
    if spec.flags & traits.flags & MapFlag.STACK_BUILD_ID and spec.value_size % 32:
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
        Entries.CPUS: (1 <= spec.max_entries <= MOST_CPUS, f"1 to {MOST_CPUS} CPUs"),
        Entries.PAGES: (1 <= spec.max_entries <= 1 << 20, f"1 to {1 << 20} pages"),
        Entries.POWER_OF_TWO_PAGES: (
            _is_ring_size(spec.max_entries),
            f"bytes: a power of two, {mmap.PAGESIZE} to {1 << 31}",
        ),
    }[traits.entries]
    if not accepted:
        raise _bad(spec, "max_entries", str(spec.max_entries), rule)


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


def differences(spec: MapSpec, info: RawMapInfo, kernel_name: str, possible_cpus: int) -> list[str]:
    """Fields in which an existing map is not what creating ``spec`` makes, as "field: wanted x, is y".

    Types are compared where ``spec`` has some, by their ids. A NUMA node (only that there is one) and the
    template of inner maps the kernel tells of no map: they cannot be compared. That a map is exclusive it
    does not tell either, and there the answer is that it is not known to be.

    Args:
        kernel_name: what a map gets whose spec gives none.
    """
    added = MapFlag.RDONLY_PROG if spec.map_type in _DEVICES else MapFlag(0)
    ignored = int(_CREATORS | added)
    pairs: list[tuple[str, object, object]] = [
        ("type", type_name(spec.map_type), type_name(info.map_type)),
        ("key_size", spec.key_size, info.key_size),
        ("value_size", spec.value_size, info.value_size),
        ("max_entries", _made_entries(spec, possible_cpus), info.max_entries),
        ("flags", hex(spec.flags & ~ignored), hex(info.map_flags & ~ignored)),
        ("map_extra", spec.map_extra, info.map_extra),
        ("kernel_name", spec.kernel_name or kernel_name, info.name),
        ("btf_vmlinux_value_type_id", spec.btf_vmlinux_value_type_id, info.btf_vmlinux_value_type_id),
    ]
    if spec.btf is not None and (info.btf_id or TYPES[spec.map_type].btf is not Btf.REFUSED):
        wanted = _types(spec.btf.key_type_id, spec.btf.value_type_id)
        pairs.append(("btf", wanted, _types(info.btf_key_type_id, info.btf_value_type_id)))
    if spec.exclusive_program_hash:
        pairs.append(("exclusive_program_hash", spec.exclusive_program_hash.hex(), "not told by the kernel"))
    return [f"{name}: wanted {wanted}, is {there}" for name, wanted, there in pairs if wanted != there]


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
    """Without either the kernel keeps no BTF, but for STRUCT_OPS (kernel/bpf/syscall.c, map_create())."""
    return f"types {key} and {value}" if key or value else "none"
