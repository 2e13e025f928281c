"""What one map type is, as data: the columns of the table in ``types``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType

NO_FLAGS: Final = MapFlag(0)
EVERY_SIZE: Final = range(1, 1 << 32)
NO_SIZE: Final = range(1)


class Cursor(StrEnum):
    """What a scan of this type goes by."""

    BUCKET = "bucket"  # LOOKUP_BATCH, u32 next bucket: exact under writers, each bucket read under its lock
    INDEX = "index"  # LOOKUP_BATCH, u32 last index returned: exact, an array's keys never change
    KEY = "key"  # LOOKUP_BATCH, last key returned; the kernel restarts when that key has gone
    NEXT_KEY = "next_key"  # no batch; the same restart
    INDEXES = "indexes"  # no batch, but the keys are 0 to max_entries - 1: each looked up, exact
    NONE = "none"  # cannot be walked


class Iteration(StrEnum):
    """How exactly a dump of the type describes it (types.proto, enum Iteration)."""

    EXACT = "exact"
    BEST_EFFORT = "best_effort"
    NONE = "none"


class Value(StrEnum):
    """What a value is to user space."""

    PLAIN = "plain"  # bytes, written and read alike
    PER_CPU = "per_cpu"  # one slot of round_up(value_size, 8) bytes for each possible CPU
    MAP = "map"  # written as a map's fd, read as its id
    PROGRAM = "program"  # written as a program's fd, read as its id
    DEVICE = "device"  # {ifindex u32[, program]}
    CPU = "cpu"  # {qsize u32[, program]}
    SOCKET = "socket"  # written as a socket's fd; nobody can name one over RPC
    CGROUP = "cgroup"  # a cgroup directory's fd
    PERF_EVENT = "perf_event"  # a perf event's fd
    OBJECT = "object"  # found by a descriptor of the owner (socket, inode, task, cgroup)
    RING = "ring"  # records through mmap, no elements
    KERNEL = "kernel"  # what the kernel keeps there is not for user space to write


REFERENCES: Final = frozenset({Value.MAP, Value.PROGRAM, Value.DEVICE, Value.CPU})
"""Values that stand for kernel objects which a request can name."""


class Btf(StrEnum):
    """Type information at creation."""

    ACCEPTED = "accepted"
    REFUSED = "refused"  # ENOTSUPP: created without, as loaders do
    REQUIRED = "required"


class Entries(StrEnum):
    """What max_entries may be."""

    ANY = "any"
    ZERO = "zero"  # one element per owner, no bound of its own
    ONE = "one"
    POWER_OF_TWO_PAGES = "power of two, at least a page"
    PAGES = "pages"
    CPUS = "CPUs"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeTraits:
    """One map type.

    Attributes:
        ops: element operations from user space, as offered here.
        refused: why operations that the kernel may have are not offered; "" stands for all others.
        flags: BPF_F_* accepted at creation; anything else is EINVAL.
        required_flags: without these creation is EINVAL.
        key_sizes, value_sizes: bytes, inclusive, in the kernel's steps.
        entries: what max_entries may be.
        indexed: keys are u32 indexes below max_entries, all present; none can be removed.
        sparse: keys are u32 indexes below max_entries too, but an element may be absent.
        batch_update, batch_delete: whether the kernel has the batch command.
        template: needs an inner map at creation.
        map_extra: what map_extra may be.
        capability: what creation asks for.
        slow: updates and deletes wait for an RCU grace period or a kernel thread (2 to 16 ms): a lane of their own.
        freezes: BPF_MAP_FREEZE is for it.
        counted: bpf_map_sum_elem_count() knows how many elements there are.
    """

    type: MapType
    ops: frozenset[Op] = frozenset()
    refused: str = ""
    flags: MapFlag = NO_FLAGS
    required_flags: MapFlag = NO_FLAGS
    key_sizes: range = NO_SIZE
    value_sizes: range = NO_SIZE
    entries: Entries = Entries.ANY
    value: Value = Value.PLAIN
    cursor: Cursor = Cursor.NONE
    iteration: Iteration = Iteration.NONE
    btf: Btf = Btf.REFUSED
    indexed: bool = False
    sparse: bool = False
    batch_update: bool = False
    batch_delete: bool = False
    template: bool = False
    map_extra: range = NO_SIZE
    capability: str = "CAP_BPF"
    slow: bool = False
    freezes: bool = True
    counted: bool = False

    @property
    def iterable(self) -> bool:
        """Whether elements can be walked."""
        return self.cursor is not Cursor.NONE

    @property
    def operations(self) -> tuple[str, ...]:
        """MapInfo.supported_operations."""
        names = [op.name.lower() for op in sorted(self.ops)]
        if self.iterable:
            names.append("dump")
        if Op.UPDATE in self.ops:
            names.append("load")
        if self.value in REFERENCES:
            names.append("update_reference")
        if self.counted or self.iterable:
            names.append("count")
        if self.freezes:
            names.append("freeze")
        return tuple(names)
