"""The one table of what each map type can do. Everything that depends on the type asks it.

A row for each of the 33 types that Linux 6.18 creates; what the columns mean is in ``traits``. The facts
are those of Linux 6.18, derived again on the running kernel by tests/kernel; newer kernels are asked
by trial (``trials``), never by version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from mapd.maps.traits import Btf, Cursor, Entries, Iteration, TypeTraits, Value
from mapd_api.ops import ATOMICS, Op
from mapd_api.uapi import MapFlag as F
from mapd_api.uapi import MapType as T

_NUMA_FD: Final = F.NUMA_NODE | F.RDONLY | F.WRONLY
_ACCESS: Final = F.RDONLY | F.WRONLY | F.RDONLY_PROG | F.WRONLY_PROG
_UPDATES: Final = frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})
_KEYED: Final = _UPDATES | {Op.LOOKUP, Op.DELETE}
_READ: Final = frozenset({Op.LOOKUP})
_LOCKED_ATOMICS: Final = ATOMICS | {Op.COMPARE_UPDATE}
"""Of types whose values may have a bpf_spin_lock; a map whose values have none compares and updates no whole value."""
_TAKE: Final = _KEYED | {Op.LOOKUP_AND_DELETE}
_KEYS: Final = range(1, 1 << 22)
_VALUES: Final = range(1, 1 << 31)
_PER_CPU_VALUES: Final = range(1, 32_769)
"""PCPU_MIN_UNIT_SIZE: larger is E2BIG (kernel/bpf/hashtab.c, arraymap.c)."""
_U32: Final = range(4, 5)
_U32_OR_PAIR: Final = range(4, 9, 4)
_KEYS_OF_PROGRAMS: Final = range(1, 513)
"""MAX_BPF_STACK: what programs can hold a key in (net/core/sock_map.c, sock_hash_alloc())."""
_STORED: Final = range(1, 1 << 16)
"""Below U16_MAX, less what the kernel puts beside it (include/linux/bpf_local_storage.h): the rest is E2BIG."""
_CGROUP_KEYS: Final = range(8, 17, 8)
"""A cgroup's id, or struct bpf_cgroup_storage_key."""

_SOCKETS: Final = (
    "its values are sockets, and a socket cannot be named over RPC: update it where the socket is open"
)
_RECORDS: Final = "it holds records, not elements: reading them comes later"

_HASH: Final = TypeTraits(
    type=T.HASH,
    ops=_TAKE | _LOCKED_ATOMICS,
    flags=F.NO_PREALLOC | F.NUMA_NODE | F.ZERO_SEED | _ACCESS,
    key_sizes=_KEYS,
    value_sizes=_VALUES,
    cursor=Cursor.BUCKET,
    iteration=Iteration.EXACT,
    btf=Btf.ACCEPTED,
    batch_update=True,
    batch_delete=True,
    counted=True,
)
_ARRAY: Final = TypeTraits(
    type=T.ARRAY,
    ops=_READ | _UPDATES | _LOCKED_ATOMICS,
    flags=F.NUMA_NODE | F.MMAPABLE | F.INNER_MAP | _ACCESS,
    key_sizes=_U32,
    value_sizes=_VALUES,
    cursor=Cursor.INDEX,
    iteration=Iteration.EXACT,
    btf=Btf.ACCEPTED,
    indexed=True,
    batch_update=True,
)
_INDEXED_OBJECTS: Final = TypeTraits(
    type=T.PROG_ARRAY,
    flags=_NUMA_FD,
    key_sizes=_U32,
    value_sizes=_U32,
    sparse=True,
)
_DEVICES: Final = TypeTraits(
    type=T.DEVMAP,
    ops=_READ | {Op.DELETE},
    flags=_NUMA_FD,
    key_sizes=_U32,
    value_sizes=_U32_OR_PAIR,
    value=Value.DEVICE,
    cursor=Cursor.INDEXES,
    iteration=Iteration.EXACT,
    sparse=True,
    capability="CAP_NET_ADMIN",
)
_SOCKET_VALUES: Final = TypeTraits(
    type=T.SOCKMAP,
    ops=_READ | {Op.DELETE},
    refused=_SOCKETS,
    flags=_NUMA_FD,
    key_sizes=_U32,
    value_sizes=_U32_OR_PAIR,
    value=Value.SOCKET,
    cursor=Cursor.INDEXES,
    iteration=Iteration.EXACT,
    sparse=True,
    capability="CAP_NET_ADMIN",
)
_QUEUE: Final = TypeTraits(
    type=T.QUEUE,
    ops=frozenset({Op.PUSH, Op.PUSH_EXIST, Op.POP, Op.PEEK}),
    flags=F.NUMA_NODE | _ACCESS,
    value_sizes=_VALUES,
    btf=Btf.ACCEPTED,
)
_STORAGE: Final = TypeTraits(
    type=T.SK_STORAGE,
    refused="its keys are descriptors of the owner's process: element access comes later",
    flags=F.NO_PREALLOC | F.CLONE,
    required_flags=F.NO_PREALLOC,
    key_sizes=_U32,
    value_sizes=_STORED,
    entries=Entries.ZERO,
    value=Value.OBJECT,
    btf=Btf.REQUIRED,
)
_CGROUP_STORAGE: Final = TypeTraits(
    type=T.CGROUP_STORAGE,
    refused="its elements are made by attaching a program to a cgroup: element access comes later",
    flags=F.NUMA_NODE | _ACCESS,
    key_sizes=_CGROUP_KEYS,
    value_sizes=_STORED,
    entries=Entries.ZERO,
    value=Value.OBJECT,
    btf=Btf.ACCEPTED,
)
_RINGBUF: Final = TypeTraits(
    type=T.RINGBUF,
    refused=_RECORDS,
    flags=F.NUMA_NODE,
    entries=Entries.POWER_OF_TWO_PAGES,
    value=Value.RING,
    btf=Btf.ACCEPTED,
)

_ROWS: Final = (
    _HASH,
    replace(
        _HASH,
        type=T.LRU_HASH,
        ops=_TAKE | ATOMICS,
        flags=F.NO_COMMON_LRU | F.NUMA_NODE | F.ZERO_SEED | _ACCESS,
    ),
    replace(
        _HASH,
        type=T.PERCPU_HASH,
        ops=_TAKE,
        flags=F.NO_PREALLOC | F.ZERO_SEED | _ACCESS,
        value_sizes=_PER_CPU_VALUES,
        value=Value.PER_CPU,
    ),
    replace(
        _HASH,
        type=T.LRU_PERCPU_HASH,
        ops=_TAKE,
        flags=F.NO_COMMON_LRU | F.ZERO_SEED | _ACCESS,
        value_sizes=_PER_CPU_VALUES,
        value=Value.PER_CPU,
    ),
    replace(
        _HASH,
        type=T.HASH_OF_MAPS,
        ops=_READ | {Op.DELETE},
        value_sizes=_U32,
        value=Value.MAP,
        btf=Btf.REFUSED,
        batch_update=False,
        template=True,
        slow=True,
    ),
    _ARRAY,
    replace(
        _ARRAY,
        type=T.PERCPU_ARRAY,
        ops=_READ | _UPDATES,
        flags=_ACCESS,
        value_sizes=_PER_CPU_VALUES,
        value=Value.PER_CPU,
    ),
    replace(
        _ARRAY,
        type=T.ARRAY_OF_MAPS,
        ops=_READ | {Op.DELETE},
        flags=_NUMA_FD,
        value_sizes=_U32,
        value=Value.MAP,
        btf=Btf.REFUSED,
        indexed=False,
        sparse=True,
        batch_update=False,
        template=True,
        slow=True,
    ),
    TypeTraits(
        type=T.LPM_TRIE,
        ops=_KEYED | {Op.LOOKUP_EXACT},
        flags=F.NO_PREALLOC | F.NUMA_NODE | _ACCESS,
        required_flags=F.NO_PREALLOC,
        key_sizes=range(5, 4 + 256 + 1),
        value_sizes=_VALUES,
        cursor=Cursor.KEY,
        iteration=Iteration.BEST_EFFORT,
        btf=Btf.ACCEPTED,
        batch_update=True,
        batch_delete=True,
    ),
    _QUEUE,
    replace(_QUEUE, type=T.STACK),
    TypeTraits(
        type=T.BLOOM_FILTER,
        ops=frozenset({Op.ADD, Op.CONTAINS}),
        flags=F.NUMA_NODE | F.ZERO_SEED | _ACCESS,
        value_sizes=_VALUES,
        btf=Btf.ACCEPTED,
        map_extra=range(16),
    ),
    TypeTraits(
        type=T.STACK_TRACE,
        ops=_READ | {Op.DELETE, Op.LOOKUP_AND_DELETE},
        flags=F.STACK_BUILD_ID | _NUMA_FD,
        key_sizes=_U32,
        value_sizes=range(8, 127 * 8 + 1, 8),
        cursor=Cursor.NEXT_KEY,
        iteration=Iteration.BEST_EFFORT,
    ),
    replace(
        _INDEXED_OBJECTS,
        ops=_READ | {Op.DELETE},
        value=Value.PROGRAM,
        cursor=Cursor.INDEXES,
        iteration=Iteration.EXACT,
        btf=Btf.ACCEPTED,
    ),
    replace(
        _INDEXED_OBJECTS,
        type=T.PERF_EVENT_ARRAY,
        refused=_RECORDS,
        flags=F.PRESERVE_ELEMS | _NUMA_FD,
        value=Value.PERF_EVENT,
    ),
    replace(
        _INDEXED_OBJECTS,
        type=T.CGROUP_ARRAY,
        ops=frozenset({Op.DELETE}),
        refused="its values are cgroup directories, which the kernel does not give back: element access comes later",
        value=Value.CGROUP,
    ),
    _DEVICES,
    replace(
        _DEVICES, type=T.DEVMAP_HASH, cursor=Cursor.NEXT_KEY, iteration=Iteration.BEST_EFFORT, sparse=False
    ),
    TypeTraits(
        type=T.CPUMAP,
        ops=_READ | {Op.DELETE},
        flags=F.NUMA_NODE,
        key_sizes=_U32,
        value_sizes=_U32_OR_PAIR,
        entries=Entries.CPUS,
        value=Value.CPU,
        cursor=Cursor.INDEXES,
        iteration=Iteration.EXACT,
        sparse=True,
        slow=True,
    ),
    _SOCKET_VALUES,
    replace(
        _SOCKET_VALUES,
        type=T.SOCKHASH,
        key_sizes=_KEYS_OF_PROGRAMS,
        cursor=Cursor.NEXT_KEY,
        iteration=Iteration.BEST_EFFORT,
        sparse=False,
    ),
    replace(
        _SOCKET_VALUES,
        type=T.XSKMAP,
        ops=frozenset({Op.DELETE}),
        value_sizes=_U32,
        cursor=Cursor.NONE,
        iteration=Iteration.NONE,
    ),
    replace(
        _SOCKET_VALUES,
        type=T.REUSEPORT_SOCKARRAY,
        flags=F.NUMA_NODE | _ACCESS,
        btf=Btf.ACCEPTED,
        capability="CAP_BPF",
    ),
    replace(
        _STORAGE,
        refused="its keys are sockets, and a socket cannot be named over RPC: use it where the socket is",
    ),
    replace(_STORAGE, type=T.INODE_STORAGE),
    replace(_STORAGE, type=T.TASK_STORAGE),
    replace(_STORAGE, type=T.CGRP_STORAGE),
    _CGROUP_STORAGE,
    replace(_CGROUP_STORAGE, type=T.PERCPU_CGROUP_STORAGE, value_sizes=_PER_CPU_VALUES),
    _RINGBUF,
    replace(_RINGBUF, type=T.USER_RINGBUF),
    TypeTraits(
        type=T.ARENA,
        refused="it is memory, not elements: mapping it comes later",
        flags=F.MMAPABLE | F.SEGV_ON_FAULT | F.NO_USER_CONV,
        required_flags=F.MMAPABLE,
        entries=Entries.PAGES,
        value=Value.RING,
        btf=Btf.ACCEPTED,
        map_extra=range(0, 1 << 47, 4096),
    ),
    TypeTraits(
        type=T.STRUCT_OPS,
        refused="its value is a kernel structure of functions: a loader registers it",
        flags=F.LINK,
        key_sizes=_U32,
        value_sizes=_VALUES,
        entries=Entries.ONE,
        value=Value.KERNEL,
        btf=Btf.REQUIRED,
        freezes=False,
    ),
)

TYPES: Final[Mapping[int, TypeTraits]] = MappingProxyType({row.type: row for row in _ROWS})
"""Every type by the kernel's number."""


def type_name(number: int) -> str:
    """``percpu_hash`` for 5, as bpftool spells it; ``type 77`` for what nobody knows."""
    try:
        return T(number).name.lower()
    except ValueError:
        return f"type {number}"
