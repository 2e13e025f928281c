"""What BPF_MAP_CREATE accepts, and the table that it makes: by type, in the kernel's order of checks."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from mapd.bpf.kernel import CreateMap
from mapd.memory.arrays import ArrayTable, StackTraceTable
from mapd.memory.btf import BtfBlob
from mapd.memory.hashes import HashTable, LruTable
from mapd.memory.lpm import LpmTable
from mapd.memory.queues import BloomTable, QueueTable
from mapd.memory.table import Shape, Table
from mapd_api.layout import round_up8
from mapd_api.uapi import ENOTSUPP, OBJ_NAME_LENGTH, PER_CPU_TYPES, MapFlag, MapType

_NAME: Final = re.compile(rf"[A-Za-z0-9_.]{{0,{OBJ_NAME_LENGTH}}}")
_KMALLOC_MAX: Final = 1 << 22
_INT_MAX: Final = (1 << 31) - 1
_PCPU_MIN_UNIT: Final = 32 << 10
_MOST_BUCKETS: Final = 1 << 27
"""More need a table of 4 GiB (kernel/bpf/hashtab.c, htab_map_alloc())."""
_MAX_STACK_DEPTH: Final = 127
_SHA256_BYTES: Final = 32

# Numbers, for ``~`` of a MapFlag leaves unknown bits out.
_ACCESS: Final = int(MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG)
_HASH_FLAGS: Final = _ACCESS | int(
    MapFlag.NO_PREALLOC | MapFlag.NO_COMMON_LRU | MapFlag.NUMA_NODE | MapFlag.ZERO_SEED
)
_ARRAY_FLAGS: Final = _ACCESS | int(
    MapFlag.NUMA_NODE | MapFlag.MMAPABLE | MapFlag.PRESERVE_ELEMS | MapFlag.INNER_MAP
)
_QUEUE_FLAGS: Final = _ACCESS | int(MapFlag.NUMA_NODE)
_LPM_FLAGS: Final = _QUEUE_FLAGS | int(MapFlag.NO_PREALLOC)
_BLOOM_FLAGS: Final = _QUEUE_FLAGS | int(MapFlag.ZERO_SEED)
_STACK_TRACE_FLAGS: Final = int(MapFlag.NUMA_NODE | MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.STACK_BUILD_ID)
_LRU: Final = (MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
_ARRAYS: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_LOCKABLE: Final = (MapType.HASH, MapType.ARRAY)
_CHECK_BTF: Final = (*_ARRAYS, MapType.LPM_TRIE, MapType.BLOOM_FILTER)
"""Types with a look of their own at BTF; the others ask for a type of the key."""


class Refused(Exception):
    """Creation answers ``errno``."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.errno: Final = number


def _bad_access(flags: int) -> bool:
    both = MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
    return flags & both == both


def _hash(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/hashtab.c, htab_map_alloc_check() and htab_map_alloc()."""
    flags, lru, per_cpu = request.flags, request.map_type in _LRU, request.map_type in PER_CPU_TYPES
    own_lists = bool(flags & MapFlag.NO_COMMON_LRU)
    if flags & ~_HASH_FLAGS or _bad_access(flags) or (own_lists and not lru):
        raise Refused(errno.EINVAL)
    if lru and flags & MapFlag.NO_PREALLOC:
        raise Refused(ENOTSUPP)
    if _on_a_node(request) and (per_cpu or own_lists):
        raise Refused(errno.EINVAL)
    if 0 in (request.max_entries, request.key_size, request.value_size):
        raise Refused(errno.EINVAL)
    if request.key_size + request.value_size >= _KMALLOC_MAX - 48:  # struct htab_elem goes before them
        raise Refused(errno.E2BIG)
    if per_cpu and round_up8(request.value_size) > _PCPU_MIN_UNIT:
        raise Refused(errno.E2BIG)
    if shape.max_entries > _MOST_BUCKETS:
        raise Refused(errno.E2BIG)
    return LruTable(shape) if lru else HashTable(shape)


def _array(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/arraymap.c, array_map_alloc_check() and array_map_alloc()."""
    flags, per_cpu = request.flags, request.map_type == MapType.PERCPU_ARRAY
    if request.max_entries == 0 or request.key_size != 4 or request.value_size == 0:
        raise Refused(errno.EINVAL)
    if flags & ~_ARRAY_FLAGS or _bad_access(flags) or (per_cpu and _on_a_node(request)):
        raise Refused(errno.EINVAL)
    if flags & MapFlag.PRESERVE_ELEMS or (per_cpu and flags & (MapFlag.MMAPABLE | MapFlag.INNER_MAP)):
        raise Refused(errno.EINVAL)
    if request.value_size > _INT_MAX:
        raise Refused(errno.E2BIG)
    if per_cpu and round_up8(request.value_size) > _PCPU_MIN_UNIT:
        raise Refused(errno.E2BIG)
    return ArrayTable(shape)


def _trie(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/lpm_trie.c, trie_alloc()."""
    flags = request.flags
    if not flags & MapFlag.NO_PREALLOC or flags & ~_LPM_FLAGS or _bad_access(flags):
        raise Refused(errno.EINVAL)
    value_room = _KMALLOC_MAX - 256 - 40  # struct lpm_trie_node and the longest prefix go before it
    if (
        request.max_entries == 0
        or not 5 <= request.key_size <= 260
        or not 1 <= request.value_size <= value_room
    ):
        raise Refused(errno.EINVAL)
    return LpmTable(shape)


def _queue(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/queue_stack_maps.c, queue_stack_map_alloc_check()."""
    if request.max_entries == 0 or request.key_size or request.value_size == 0:
        raise Refused(errno.EINVAL)
    if request.flags & ~_QUEUE_FLAGS or _bad_access(request.flags):
        raise Refused(errno.EINVAL)
    if request.value_size > _KMALLOC_MAX:
        raise Refused(errno.E2BIG)
    return QueueTable(shape)


def _bloom(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/bloom_filter.c, bloom_map_alloc_check() and bloom_map_alloc()."""
    if request.value_size > _KMALLOC_MAX:
        raise Refused(errno.E2BIG)
    if request.key_size or request.value_size == 0 or request.max_entries == 0 or request.map_extra > 15:
        raise Refused(errno.EINVAL)
    if request.flags & ~_BLOOM_FLAGS or _bad_access(request.flags):
        raise Refused(errno.EINVAL)
    return BloomTable(shape, request.map_extra)


def _stack_trace(request: CreateMap, shape: Shape) -> Table:
    """Kernel/bpf/stackmap.c, stack_map_alloc()."""
    frame = 32 if request.flags & MapFlag.STACK_BUILD_ID else 8
    if request.flags & ~_STACK_TRACE_FLAGS or request.max_entries == 0 or request.key_size != 4:
        raise Refused(errno.EINVAL)
    if request.value_size < 8 or request.value_size % frame or request.value_size // frame > _MAX_STACK_DEPTH:
        raise Refused(errno.EINVAL)
    if request.max_entries > 1 << 31:
        raise Refused(errno.E2BIG)
    return StackTraceTable(shape)


_MAKERS: Final[Mapping[int, Callable[[CreateMap, Shape], Table]]] = MappingProxyType(
    {
        MapType.HASH: _hash,
        MapType.PERCPU_HASH: _hash,
        MapType.LRU_HASH: _hash,
        MapType.LRU_PERCPU_HASH: _hash,
        MapType.ARRAY: _array,
        MapType.PERCPU_ARRAY: _array,
        MapType.LPM_TRIE: _trie,
        MapType.QUEUE: _queue,
        MapType.STACK: _queue,
        MapType.BLOOM_FILTER: _bloom,
        MapType.STACK_TRACE: _stack_trace,
    }
)

TYPES: Final = frozenset(MapType(number) for number in _MAKERS)
"""Types that can be created in memory. Others of Linux 6.18 are ENOTSUPP, and EINVAL what it has not."""


def _on_a_node(request: CreateMap) -> bool:
    return bool(request.flags & MapFlag.NUMA_NODE)


def make_table(request: CreateMap, btf: BtfBlob | None, possible_cpus: int) -> Table:
    """The empty table of a new map; ``request.flags`` has NUMA_NODE where a node is given.

    Raises:
        Refused: with the errno that BPF_MAP_CREATE answers.

    Source: kernel/bpf/syscall.c, map_create().
    """
    if request.btf_key_type_id and not request.btf_value_type_id:
        raise Refused(errno.EINVAL)
    if request.btf_vmlinux_value_type_id:  # of STRUCT_OPS
        raise Refused(errno.EINVAL)
    if request.map_extra and request.map_type not in (MapType.BLOOM_FILTER, MapType.ARENA):
        raise Refused(errno.EINVAL)
    access = MapFlag.RDONLY | MapFlag.WRONLY
    if request.flags & access == access:
        raise Refused(errno.EINVAL)
    if _on_a_node(request) and request.numa_node:
        raise Refused(errno.EINVAL)  # there is one node
    maker = _MAKERS.get(request.map_type)
    if maker is None:
        raise Refused(ENOTSUPP if 0 < request.map_type <= max(MapType) else errno.EINVAL)
    shape = Shape.of(replace(request, max_entries=entries(request, possible_cpus)), possible_cpus)
    table = maker(request, shape)
    if _NAME.fullmatch(request.kernel_name) is None:
        raise Refused(errno.EINVAL)
    if btf is not None:
        table = maker(request, replace(shape, lock=_check_btf(request, btf)))
    elif request.btf_value_type_id:
        raise Refused(errno.EINVAL)  # fd 0 is read then, and is none of BTF
    if len(request.exclusive_program_hash) not in (0, _SHA256_BYTES):
        raise Refused(errno.EINVAL)
    return table


def entries(request: CreateMap, possible_cpus: int) -> int:
    """What max_entries becomes: an LRU list per CPU needs as many for each (htab_map_alloc())."""
    wanted = request.max_entries
    if not request.flags & MapFlag.NO_COMMON_LRU or not wanted:
        return wanted
    up = -(-wanted // possible_cpus) * possible_cpus
    return up if up < 1 << 32 else wanted // possible_cpus * possible_cpus


def _check_btf(request: CreateMap, btf: BtfBlob) -> int | None:
    """Where the value's spin lock is, in bytes, if it has one; ``request`` names the value's type.

    Source: kernel/bpf/syscall.c, map_check_btf(); map_check_btf of each type's operations.
    """
    key, value = request.btf_key_type_id, request.btf_value_type_id
    if key and btf.size(key) != request.key_size:
        raise Refused(errno.EINVAL)
    if btf.size(value) != request.value_size:
        raise Refused(errno.EINVAL)
    if not key and request.map_type not in _CHECK_BTF:
        raise Refused(errno.EINVAL)
    lock = btf.spin_lock(value)
    if lock is not None:
        if request.flags & (MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG):
            raise Refused(errno.EACCES)
        if request.map_type not in _LOCKABLE:
            raise Refused(errno.EOPNOTSUPP)
    match request.map_type:
        case MapType.ARRAY | MapType.PERCPU_ARRAY:
            accepted = bool(key) and btf.is_int(key)
        case MapType.LPM_TRIE:
            accepted = bool(key) and btf.is_struct(key)
        case MapType.BLOOM_FILTER:
            accepted = not key
        case _:
            accepted = True
    if not accepted:
        raise Refused(errno.EINVAL)
    return lock
