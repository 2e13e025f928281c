"""How much kernel memory a map can come to take, from what it is created with.

Computed before BPF_MAP_CREATE: afterwards the memory is taken, and an array of 1 GiB blocks its creator for 2 s. The
figure is a bound for a map that is full, never below what the kernel itself tells in fdinfo as ``memlock``, which
says what is in use: next to nothing for an empty map without preallocation, an LPM trie or an arena.

Standard library only: the helper process that makes maps computes the same.

Sources (Linux 6.18): kernel/bpf/hashtab.c htab_map_mem_usage(), arraymap.c array_map_mem_usage(), lpm_trie.c
trie_mem_usage(), stackmap.c, devmap.c, cpumap.c, queue_stack_maps.c, bloom_filter.c, ringbuf.c, arena.c,
bpf_local_storage.c, bpf_struct_ops.c, net/core/sock_map.c, net/xdp/xskmap.c; memalloc.c for what is made one by one.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mapd_api.uapi import MapFlag, MapType

MAP_BYTES: Final = 4 << 10
"""The map's own structure and what hangs on it, of any type: struct bpf_htab, the largest, has below 1 KiB."""

CPU_BYTES: Final = 512
"""A map's own structures of one CPU: free list, LRU lists, counters."""

CACHED_BYTES: Final = 24 << 10
"""Free elements that the kernel's BPF allocator keeps for a CPU: 96 of 256 bytes, or three larger ones
(kernel/bpf/memalloc.c, init_refill_work())."""

_POINTER: Final = 8
BUCKET: Final = 16
HASH_ELEMENT: Final = 48  # struct htab_elem
TRIE_NODE: Final = 24  # struct lpm_trie_node
STACK_BUCKET: Final = 16  # struct stack_map_bucket
DEVICE: Final = 96  # struct bpf_dtab_netdev
SOCKET_ELEMENT: Final = 48  # struct bpf_shtab_elem
_CPU_QUEUE: Final = (16_384 * _POINTER) + (
    32 << 10
)  # the longest queue of a CPU map's entry, its thread's stack
_STRUCT_OPS_PAGES: Final = 9  # MAX_TRAMP_IMAGE_PAGES and one


@dataclass(frozen=True, slots=True, kw_only=True)
class MapShape:
    """What a map is created with, as far as its memory depends on it. Sizes in bytes; ``flags`` are BPF_F_*."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    map_extra: int = 0


def map_bytes(shape: MapShape, cpus: int) -> int:
    """Bytes of kernel memory that a map of this shape takes when it is full, at most.

    Every possible CPU's slot of per-CPU values counts, though the kernel charges few of them to a cgroup. What is not
    the map's own does not: inner maps, sockets, programs. Elements of storage maps belong to sockets, inodes, tasks
    and cgroups, are bounded by those, and are not counted either.

    Args:
        cpus: possible ones (``mapd.bpf.possible_cpus``).

    Raises:
        ValueError: no formula is known for the type: who cannot count a map does not make it.
    """
    formula = _FORMULAS.get(shape.map_type)
    if formula is None:
        raise ValueError(f"map type {shape.map_type}: how much memory it takes is not known")
    return MAP_BYTES + CPU_BYTES * cpus + formula(shape, cpus)


def _hash(shape: MapShape, cpus: int) -> int:
    per_cpu = shape.map_type in (MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH)
    value = _words(shape.value_size)
    element = HASH_ELEMENT + _words(shape.key_size) + (_POINTER if per_cpu else value)
    slots = value * cpus if per_cpu else 0
    buckets = BUCKET * _power_of_two(shape.max_entries)
    if shape.flags & MapFlag.NO_PREALLOC:
        cells = 2 * _POINTER if per_cpu else 0
        return (
            buckets
            + shape.max_entries * (_allocated(element) + cells + slots)
            + _cached(element + slots, cpus)
        )
    # BPF_F_NO_COMMON_LRU rounds the entries up to as many for each CPU; a plain hash has one more for each.
    return buckets + (shape.max_entries + cpus) * (element + slots)


def _array(shape: MapShape, cpus: int) -> int:
    del cpus
    # Without CAP_PERFMON, which mapd's opener has not, the kernel makes room for a power of two of them
    # (array_map_alloc(), bpf_bypass_spec_v1()), and its own figure does not say so.
    return _pages(_words(shape.value_size) * _power_of_two(shape.max_entries))


def _per_cpu_array(shape: MapShape, cpus: int) -> int:
    return (_POINTER + _words(shape.value_size) * cpus) * _power_of_two(shape.max_entries)


def _pointers(shape: MapShape, cpus: int) -> int:
    del cpus
    return _pages(_POINTER * _power_of_two(shape.max_entries))


def _trie(shape: MapShape, cpus: int) -> int:
    # max_entries counts no branching nodes, of which there can be one less; each has room for a value.
    node = TRIE_NODE + max(shape.key_size - 4, 0) + shape.value_size
    return 2 * shape.max_entries * _allocated(node) + _cached(node, cpus)


def _stack_trace(shape: MapShape, cpus: int) -> int:
    buckets = _POINTER * _power_of_two(shape.max_entries)
    return buckets + (STACK_BUCKET + _words(shape.value_size)) * (shape.max_entries + cpus)


def _devices(shape: MapShape, cpus: int) -> int:
    del cpus
    return _POINTER * _power_of_two(shape.max_entries) + DEVICE * shape.max_entries


def _cpus(shape: MapShape, cpus: int) -> int:
    return _POINTER * shape.max_entries + _CPU_QUEUE * min(shape.max_entries, cpus)


def _socket_hash(shape: MapShape, cpus: int) -> int:
    del cpus
    element = _allocated(SOCKET_ELEMENT + _words(shape.key_size))
    return BUCKET * _power_of_two(shape.max_entries) + element * shape.max_entries


def _queue(shape: MapShape, cpus: int) -> int:
    del cpus
    return _pages((shape.max_entries + 1) * shape.value_size)


def _bloom(shape: MapShape, cpus: int) -> int:
    del cpus
    bits = shape.max_entries * (shape.map_extra & 0xF or 5) // 5 * 7 + 7
    return min(_power_of_two(max(bits, 64)), 1 << 32) // 8


def _ring(shape: MapShape, cpus: int) -> int:
    del cpus
    # Data pages are there once and mapped twice, behind one page for the kernel and two for the positions.
    page = mmap.PAGESIZE
    data = -(-shape.max_entries // page)
    return (data + 4) * page + _POINTER * (2 * data + 4)


def _arena(shape: MapShape, cpus: int) -> int:
    del cpus
    return shape.max_entries * mmap.PAGESIZE


def _storage(shape: MapShape, cpus: int) -> int:
    del shape
    return BUCKET * 2 * _power_of_two(cpus)


def _struct_ops(shape: MapShape, cpus: int) -> int:
    del cpus
    return 4 * shape.value_size + _STRUCT_OPS_PAGES * mmap.PAGESIZE


def _words(size: int) -> int:
    return -(-size // 8) * 8


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _power_of_two(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()


def _allocated(size: int) -> int:
    """What kmalloc gives for an element that is made by itself, with the pointer of its free list."""
    size += _POINTER
    for between in (96, 192):
        if _power_of_two(between) // 2 < size <= between:
            return between
    return _power_of_two(size)


def _cached(size: int, cpus: int) -> int:
    return cpus * max(CACHED_BYTES, 3 * _allocated(size))


_FORMULAS: Final[Mapping[int, Callable[[MapShape, int], int]]] = MappingProxyType(
    {
        MapType.HASH: _hash,
        MapType.PERCPU_HASH: _hash,
        MapType.LRU_HASH: _hash,
        MapType.LRU_PERCPU_HASH: _hash,
        MapType.HASH_OF_MAPS: _hash,
        MapType.ARRAY: _array,
        MapType.PERCPU_ARRAY: _per_cpu_array,
        MapType.PROG_ARRAY: _pointers,
        MapType.PERF_EVENT_ARRAY: _pointers,
        MapType.CGROUP_ARRAY: _pointers,
        MapType.ARRAY_OF_MAPS: _pointers,
        MapType.XSKMAP: _pointers,
        MapType.SOCKMAP: _pointers,
        MapType.REUSEPORT_SOCKARRAY: _pointers,
        MapType.STACK_TRACE: _stack_trace,
        MapType.LPM_TRIE: _trie,
        MapType.DEVMAP: _devices,
        MapType.DEVMAP_HASH: _devices,
        MapType.CPUMAP: _cpus,
        MapType.SOCKHASH: _socket_hash,
        MapType.QUEUE: _queue,
        MapType.STACK: _queue,
        MapType.BLOOM_FILTER: _bloom,
        MapType.RINGBUF: _ring,
        MapType.USER_RINGBUF: _ring,
        MapType.ARENA: _arena,
        MapType.CGROUP_STORAGE: _storage,
        MapType.PERCPU_CGROUP_STORAGE: _storage,
        MapType.SK_STORAGE: _storage,
        MapType.INODE_STORAGE: _storage,
        MapType.TASK_STORAGE: _storage,
        MapType.CGRP_STORAGE: _storage,
        MapType.STRUCT_OPS: _struct_ops,
    }
)
