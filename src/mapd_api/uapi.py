"""Linux's own numbers, spelt as in uapi linux/bpf.h (enum members without their prefix)."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class MapType(IntEnum):
    """enum bpf_map_type, up to what Linux 6.18 creates."""

    UNSPEC = 0
    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


PER_CPU_TYPES: Final = frozenset(
    {MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH, MapType.PERCPU_CGROUP_STORAGE}
)
"""A value of these is one slot of round_up(value_size, 8) bytes per possible CPU."""


class MapFlag(IntFlag):
    """BPF_F_* of BPF_MAP_CREATE."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    STACK_BUILD_ID = 1 << 5
    ZERO_SEED = 1 << 6
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    PRESERVE_ELEMS = 1 << 11
    INNER_MAP = 1 << 12
    LINK = 1 << 13
    SEGV_ON_FAULT = 1 << 17
    NO_USER_CONV = 1 << 18


class ElementFlag(IntFlag):
    """Flags of element commands."""

    ANY = 0
    NOEXIST = 1
    EXIST = 2
    LOCK = 4


ENOTSUPP: Final = 524
"""The kernel's internal "not supported"; it leaks to user space and no libc names it."""

OBJ_NAME_LENGTH: Final = 15
"""Characters of a map's kernel name (BPF_OBJ_NAME_LEN is 16 with the NUL)."""
