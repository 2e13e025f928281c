"""Elements served by vector programs: a run for thousands of them, where a syscall serves one.

What a program does not ask, this module asks for it. Programs ignore that a map is frozen, and how a descriptor may
be used: before each run that writes, an UPDATE_BATCH of no elements asks the kernel (EPERM), and mapd's own freeze
waits for the run; an opening that only reads gets the program that only looks up. On LRU types a program's lookup
counts as a use of the element and a syscall's does not, so only groups that say ``touch`` are looked up so. A
program's update of a per-CPU value writes the slot of its own CPU alone, so those stay with the syscall.

LOOKUP_AND_DELETE stays with the syscall too, which does it in one step under the bucket's lock
(kernel/bpf/hashtab.c, __htab_map_lookup_and_delete_elem()). In a program it is two, and what somebody writes
between them is lost and never answered (tests/kernel/test_take_race.py provokes it).
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from dataclasses import replace
from typing import Final, TypeAlias

from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import FdLease
from mapd.bpf.kernel import BatchCommand, Columns, Kernel, LoadTemplate, SyscallError
from mapd.bpf.scratch import Scratch
from mapd.bpf.templates import Template
from mapd.bpf.vector_columns import TYPES, Layout, layout, write_ops
from mapd.maps.errors import UNSUPPORTED, MapError
from mapd.maps.groups import Group, Plan
from mapd.maps.opened import MapFacts
from mapd.maps.programs import Loaded, MapPrograms
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType

LOAD_FROM: Final = 256
"""Elements that syscalls serve before a program is loaded: loading costs as much as it saves for so many."""

LRU_TYPES: Final = frozenset({MapType.LRU_HASH, MapType.LRU_PERCPU_HASH})
"""Types on which a program's lookup is a use of the element."""

LPM_NAME: Final = "vector_lpm"
"""Both programs for tries, as one name in ServerInfo.programs: they are of another type than the others."""

_READS: Final = frozenset({Op.LOOKUP})
_NONE: Final[frozenset[Op]] = frozenset()
_NOT_FOR_PROGRAMS: Final = MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
NO_ELEMENTS: Final = Columns(0, Buffer.allocate(0), 0, Buffer.allocate(0), 0)

Wanted: TypeAlias = dict[bool, LoadTemplate]
"""What programs are asked for with, by whether they write."""


def requests(facts: MapFacts, scratch: Scratch) -> tuple[Layout, Wanted] | None:
    """The programs of a map and where their columns lie; None where there are none for it."""
    info = facts.info
    if info.map_type not in TYPES or facts.has_lock or info.map_flags & _NOT_FOR_PROGRAMS:
        return None
    where = layout(info.key_size, facts.value_stride, scratch.slot_bytes)
    if where is None:
        return None
    reads = LoadTemplate(
        template=Template.VECTOR_READ,
        key_size=info.key_size,
        value_size=info.value_size,
        map_type=info.map_type,
        cpus=facts.value_stride // facts.slot_stride if info.map_type in PER_CPU_TYPES else 0,
        slots=scratch.slots,
        slot_bytes=scratch.slot_bytes,
    )
    return where, {False: reads, True: replace(reads, template=Template.VECTOR_WRITE)}


def check_touch(group: Group, plan: Plan, facts: MapFacts) -> None:
    """Refuse a group whose lookups were to refresh recency, and that no program serves.

    Raises:
        MapError: OPERATION_UNSUPPORTED; the kernel's own lookups refresh nothing, so nothing was executed.
    """
    if not group.touch or facts.info.map_type not in LRU_TYPES or Op.LOOKUP not in plan.ops:
        return
    if group.cpu is not None:
        why = "name no CPU, or do not touch: one CPU's slot is looked up by syscall"
    else:
        why = (
            "the kernel refuses the BPF program that does it (the daemon needs CAP_BPF, the kernel Linux 5.17, 5.19 "
            "for per-CPU maps, the map must not be BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG or another program's alone, "
            "and its elements not too large); look up without touch"
        )
    raise MapError(
        Reason.OPERATION_UNSUPPORTED,
        f"{group.operation} {facts.label}: touch refreshes recency on {facts.type_name} maps, which the kernel's own "
        f"lookups do not: {why}",
        **facts.about(group.operation),
    )


class Vector:
    """The vector programs of one opening of a map. Safe to use from many threads.

    Attributes:
        facts: the map's.
        layout: where the columns of a run lie.
        scratch: the memory they lie in.
    """

    __slots__ = ("_loaded", "_lru", "_ops", "_programs", "_requests", "facts", "layout", "packet", "scratch")

    def __init__(
        self, programs: MapPrograms, facts: MapFacts, scratch: Scratch, where: Layout, wanted: Wanted
    ) -> None:
        self.facts: Final = facts
        self.layout: Final = where
        self.scratch: Final = scratch
        self.packet: Final = facts.info.map_type == MapType.LPM_TRIE
        self._programs: Final = programs
        self._requests: Final = wanted
        self._loaded: Final[dict[bool, Loaded]] = {}
        self._lru: Final = facts.info.map_type in LRU_TYPES
        ops = _READS | (write_ops(facts.info.map_type) if True in wanted else _NONE)
        self._ops: Final = {True: ops, False: ops - _READS if self._lru else ops}  # by ``touch``

    @classmethod
    def of(cls, programs: MapPrograms, facts: MapFacts, map_fd: int) -> Vector | None:
        """For one more opening of a map; None where the map, its descriptor or this kernel has no use for one."""
        scratch, names = programs.owner.scratch, programs.owner.names
        if scratch is None or (found := requests(facts, scratch)) is None:
            return None
        access = fcntl.fcntl(map_fd, fcntl.F_GETFL) & os.O_ACCMODE  # kernel/bpf/syscall.c, bpf_map_new_fd()
        where, wanted = found
        if access == os.O_RDONLY:
            del wanted[True]
        is_trie = facts.info.map_type == MapType.LPM_TRIE
        for writes, request in list(wanted.items()):
            if (LPM_NAME if is_trie else request.template) not in names:
                del wanted[writes]
        if access == os.O_WRONLY or False not in wanted:
            return None
        return cls(programs, facts, scratch, where, wanted)

    @property
    def writing(self) -> threading.Lock:
        """``MapPrograms.writing``."""
        return self._programs.writing

    def serves(self, group: Group) -> frozenset[Op]:
        """What of a group a program does as the syscall would; nothing of a group with flags or for one CPU."""
        if group.flags or group.cpu is not None:
            return _NONE
        return self._ops[group.touch]

    def program(self, kernel: Kernel, map_fd: int, group: Group, *, writes: bool) -> FdLease | None:
        """A lease on the program for a run; None where syscalls are to serve, now or for good.

        It is loaded when no syscall can do what a group wants (``touch``), or when LOAD_FROM elements of the map
        have come.
        """
        loaded = self._loaded.get(writes)
        if loaded is not None:
            try:
                return loaded.lease()
            except OSError:  # closed to make room for others
                self._loaded.pop(writes, None)
        request = self._requests.get(writes)
        if request is None:
            return None
        if request not in self._programs.loaded and not (group.touch and self._lru):
            self._programs.seen += group.count
            if self._programs.seen < LOAD_FROM:
                return None
        return self.load(kernel, map_fd, writes=writes)

    def load(self, kernel: Kernel, map_fd: int, *, writes: bool) -> FdLease | None:
        """A lease on the program, loaded now if it is not; None where the kernel refuses it."""
        request = self._requests.get(writes)
        if request is None:
            return None
        try:
            # Asked before each run that writes; a type without the command (before Linux 5.13) cannot be asked.
            if writes and kernel.batch(map_fd, BatchCommand.UPDATE, NO_ELEMENTS).errno in UNSUPPORTED:
                raise SyscallError(errno.EOPNOTSUPP, "BPF_MAP_UPDATE_BATCH")
            loaded = self._programs.load(kernel, request, map_fd, scratch=True)
            lease = loaded.lease()
        except OSError:
            return None
        self._loaded[writes] = loaded
        return lease
