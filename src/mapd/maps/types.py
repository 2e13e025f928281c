"""The one table of what each map type can do. Everything that depends on the type asks it.

Facts are those of Linux 6.18, each checked on the running kernel by tests/kernel; newer kernels are
asked by trial, never by version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

NO_FLAGS: Final = MapFlag(0)


class Cursor(StrEnum):
    """What the kernel writes to out_batch, and so what a scan of this type goes by."""

    BUCKET = "bucket"  # u32, the next bucket: exact under writers, each bucket read under its lock
    INDEX = "index"  # u32, the last index returned: exact, an array's keys never change
    KEY = "key"  # the last key returned; the kernel restarts when that key has gone


class Iteration(StrEnum):
    """How exactly a dump of the type describes it (types.proto, enum Iteration)."""

    EXACT = "exact"
    BEST_EFFORT = "best_effort"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeTraits:
    """One map type.

    Attributes:
        ops: element operations from user space.
        flags: BPF_F_* accepted at creation; anything else is EINVAL.
        required_flags: without these creation is EINVAL.
        key_sizes: bytes, inclusive.
        max_value_size: bytes; None: the kernel's own limit near 4 MiB together with the key.
        indexed: keys are u32 indexes below max_entries, all present; none can be removed.
        batch_update, batch_delete: whether the kernel has the batch command.
    """

    type: MapType
    ops: frozenset[Op]
    flags: MapFlag
    required_flags: MapFlag = NO_FLAGS
    key_sizes: range
    max_value_size: int | None = None
    cursor: Cursor
    iteration: Iteration
    indexed: bool = False
    batch_update: bool = True
    batch_delete: bool = True

    @property
    def operations(self) -> tuple[str, ...]:
        """MapInfo.supported_operations."""
        names = [op.name.lower() for op in sorted(self.ops)]
        return (*names, "dump", "load", "freeze")


_ACCESS: Final = MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
_UPDATES: Final = frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})
_KEYED: Final = _UPDATES | {Op.LOOKUP, Op.DELETE}
_ANY_KEY: Final = range(1, 1 << 22)
_PERCPU_VALUE_MAX: Final = 32_768
"""PCPU_MIN_UNIT_SIZE: larger per-CPU values are E2BIG (kernel/bpf/hashtab.c, arraymap.c)."""


def _hash(map_type: MapType, flags: MapFlag, max_value_size: int | None = None) -> TypeTraits:
    return TypeTraits(
        type=map_type,
        ops=_KEYED | {Op.LOOKUP_AND_DELETE},
        flags=flags | _ACCESS | MapFlag.ZERO_SEED,
        key_sizes=_ANY_KEY,
        max_value_size=max_value_size,
        cursor=Cursor.BUCKET,
        iteration=Iteration.EXACT,
    )


def _array(map_type: MapType, flags: MapFlag, max_value_size: int | None = None) -> TypeTraits:
    return TypeTraits(
        type=map_type,
        ops=_UPDATES | {Op.LOOKUP},
        flags=flags | _ACCESS,
        key_sizes=range(4, 5),
        max_value_size=max_value_size,
        cursor=Cursor.INDEX,
        iteration=Iteration.EXACT,
        indexed=True,
        batch_delete=False,
    )


_LPM: Final = TypeTraits(
    type=MapType.LPM_TRIE,
    ops=_KEYED,
    flags=MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE | _ACCESS,
    required_flags=MapFlag.NO_PREALLOC,
    key_sizes=range(5, 4 + 256 + 1),
    cursor=Cursor.KEY,
    iteration=Iteration.BEST_EFFORT,
)

TYPES: Final[Mapping[int, TypeTraits]] = MappingProxyType(
    {
        traits.type: traits
        for traits in (
            _hash(MapType.HASH, MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE),
            _hash(MapType.LRU_HASH, MapFlag.NO_COMMON_LRU | MapFlag.NUMA_NODE),
            _hash(MapType.PERCPU_HASH, MapFlag.NO_PREALLOC, _PERCPU_VALUE_MAX),
            _array(MapType.ARRAY, MapFlag.NUMA_NODE | MapFlag.MMAPABLE | MapFlag.INNER_MAP),
            _array(MapType.PERCPU_ARRAY, MapFlag(0), _PERCPU_VALUE_MAX),
            _LPM,
        )
    }
)
"""The types whose elements this version serves."""


def type_name(number: int) -> str:
    """``percpu_hash`` for 5, as bpftool spells it; ``type 77`` for what nobody knows."""
    try:
        return MapType(number).name.lower()
    except ValueError:
        return f"type {number}"
