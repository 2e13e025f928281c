"""Vector programs: many elements of one map in one run, each with an operation and a status of its own.

Columns lie in a slot of a scratch (``mapd.bpf.scratch``), packed as they travel; ``vector_columns`` says where. A
run goes through the elements in order, by bpf_loop, so that one program serves any number up to the layout's capacity
and the verifier sees its body once. Every index is compared with the capacity before it is used: whatever stands in the
scratch, no program leaves its slot.

An element that the kernel refuses for the moment alone (EBUSY, EAGAIN, EINTR) ends the run at that element, so that
whoever runs the program may try it again and go on behind it: the order of operations is kept.

Values are copied by loads and stores of 8, 4, 2 and 1 bytes, which a program of CAP_BPF alone may do, so the size of
the program grows with that of the value.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.kernel import LoadTemplate
from mapd.bpf.program import ProgramType
from mapd.bpf.scratch import slot_pointer
from mapd.bpf.vector_columns import (
    ANSWERED_AT,
    COUNT_AT,
    LOST_ERRNO,
    MASK_AT,
    NEXT_AT,
    TAKEN_AT,
    TYPES,
    Layout,
    layout,
)
from mapd_api.layout import round_up8, value_stride
from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, ElementFlag, MapType

WARMED_TYPES: Final = frozenset({MapType.HASH, MapType.PERCPU_HASH})
"""Types of which a run that writes looks its keys up before it writes them. On LRU types that would count as a use."""

WARM_BLOCK: Final = 512
"""Elements that are looked up ahead of their writes. A large table is in no cache: a write waits for bucket and element
one after the other, under a lock, while lookups of different keys wait side by side. Of random keys of 1,000,000 an
update took 219 ns of CPU instead of 376 (249 with blocks of 4,096), a delete 187 instead of 348. Where all is in the
cache, with 10,000 keys, it costs 10 ns more."""

WARM_FROM: Final = 8
"""Elements from which it is worth it."""

PASSING: Final = (errno.EINTR, errno.EAGAIN, errno.EBUSY)
"""What the kernel says when only the moment is wrong."""


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector program for one map. Sizes in bytes.

    Attributes:
        cpus: slots of a per-CPU value.
        writes: whether it is the one that writes.
        passing: errnos at which a run ends, to be tried again.
    """

    map_type: int
    key_size: int
    value_size: int
    cpus: int
    slot_bytes: int
    writes: bool
    passing: tuple[int, ...] = PASSING

    @classmethod
    def of(cls, request: LoadTemplate, *, writes: bool) -> Self:
        """The program that was asked for."""
        return cls(
            request.map_type, request.key_size, request.value_size, request.cpus, request.slot_bytes, writes
        )

    @property
    def per_cpu(self) -> bool:
        """Whether values have a slot for each CPU."""
        return self.map_type in PER_CPU_TYPES

    @property
    def program_type(self) -> ProgramType:
        """What serves a map type: tries are for programs that do not sleep; of those this one needs CAP_BPF alone.

        Source: kernel/bpf/verifier.c, check_map_prog_compatibility().
        """
        return ProgramType.SOCKET_FILTER if self.map_type == MapType.LPM_TRIE else ProgramType.SYSCALL

    def layout(self) -> Layout:
        """Where its columns lie.

        Raises:
            ValueError: there is no vector program for the type, or for elements of this size.
        """
        if self.map_type not in TYPES:
            raise ValueError(f"no vector program for map type {self.map_type}")
        stride = value_stride(self.map_type, self.value_size, self.cpus)
        found = layout(self.key_size, stride, self.slot_bytes)
        if found is None:
            raise ValueError(
                f"key_size={self.key_size} value_size={self.value_size}: too large for a program"
            )
        return found

    def assemble(self, map_fd: int, scratch_fd: int) -> Assembler:
        """Its instructions. R0 is 0, or -1 where it found no slot.

        Source: kernel/bpf/bpf_iter.c, bpf_loop(). Linux 5.17; per-CPU values 5.19.
        """
        where = self.layout()
        warms = self.writes and self.map_type in WARMED_TYPES
        asm = Assembler()
        slot_pointer(asm, self.program_type, scratch_fd, -8)
        asm.store(Size.DW, Reg.R10, -8, Reg.R0)
        asm.mov(Reg.R6, Reg.R0)
        asm.mov(Reg.R7, Reg.R10)
        asm.alu(Alu.ADD, Reg.R7, -8)
        asm.load(Size.W, Reg.R8, Reg.R6, COUNT_AT)
        asm.load(Size.W, Reg.R1, Reg.R6, NEXT_AT)
        asm.alu(Alu.SUB, Reg.R8, Reg.R1)
        if warms:
            asm.jump_if(Jump.LT, Reg.R8, WARM_FROM, "few")
            asm.alu(Alu.ADD, Reg.R8, WARM_BLOCK - 1)
            asm.alu(Alu.RSH, Reg.R8, WARM_BLOCK.bit_length() - 1)
            _loop(asm, "block")
            asm.mov(Reg.R0, 0)
            asm.exit()
            asm.label("few")
        _loop(asm, "element")
        asm.mov(Reg.R0, 0)
        asm.exit()
        self._element(asm, where, map_fd)
        if warms:
            _block(asm)
            _warm(asm, where, map_fd)
        return asm

    def _element(self, asm: Assembler, where: Layout, map_fd: int) -> None:
        """One element: R6 the slot, R7 its number, R8 its key, R9 its operation."""
        asm.label("element")
        asm.load(Size.DW, Reg.R6, Reg.R2, 0)
        asm.load(Size.W, Reg.R7, Reg.R6, NEXT_AT)
        asm.jump_if(Jump.GE, Reg.R7, where.capacity, "stop")
        if self.writes:
            asm.load(Size.DW, Reg.R8, Reg.R6, MASK_AT)
            asm.alu(Alu.AND, Reg.R8, Reg.R7)
            asm.alu(Alu.ADD, Reg.R8, Reg.R6)
            asm.load(Size.B, Reg.R9, Reg.R8, where.ops)
        _address(asm, Reg.R8, Reg.R7, where.key_size, where.keys)
        if self.writes:
            asm.jump_if(Jump.NE, Reg.R9, Op.LOOKUP, "no lookup")
        self._lookup(asm, where, map_fd)
        if self.writes:
            self._writing(asm, where, map_fd)
        asm.label("done")
        asm.mov(Reg.R1, Reg.R6)
        asm.alu(Alu.ADD, Reg.R1, Reg.R7)
        asm.store(Size.B, Reg.R1, where.statuses, Reg.R0)
        asm.alu(Alu.ADD, Reg.R7, 1)
        asm.store(Size.W, Reg.R6, NEXT_AT, Reg.R7)
        asm.mov(Reg.R0, 0)
        asm.exit()
        asm.label("stop")
        asm.mov(Reg.R0, 1)
        asm.exit()

    def _lookup(self, asm: Assembler, where: Layout, map_fd: int) -> None:
        """Answer a value, zeros for a miss: what another run left there is nobody's to read. R9 is where."""
        if self.writes:
            _counter(asm, Reg.R9, ANSWERED_AT, where)
        else:
            asm.mov(Reg.R9, Reg.R7)
        _address(asm, Reg.R9, Reg.R9, where.stride, where.values)
        if not self.per_cpu:
            asm.map_pointer(Reg.R1, map_fd)
            asm.mov(Reg.R2, Reg.R8)
            asm.call(Helper.MAP_LOOKUP_ELEM)
            asm.jump_if(Jump.EQ, Reg.R0, 0, "miss")
            _copy(asm, self.value_size, 0)
        else:
            for cpu in range(self.cpus):
                asm.map_pointer(Reg.R1, map_fd)
                asm.mov(Reg.R2, Reg.R8)
                asm.mov(Reg.R3, cpu)
                asm.call(Helper.MAP_LOOKUP_PERCPU_ELEM)
                # Removed between two CPUs: a miss, as if it had been so before the first.
                asm.jump_if(Jump.EQ, Reg.R0, 0, "miss")
                _copy(asm, self.value_size, cpu * round_up8(self.value_size), padded=True)
        asm.mov(Reg.R0, 0)
        asm.jump("done")
        asm.label("miss")
        for size, at in _words(where.stride):
            asm.store(size, Reg.R9, at, 0)
        asm.mov(Reg.R0, errno.ENOENT)
        asm.jump("done")

    def _writing(self, asm: Assembler, where: Layout, map_fd: int) -> None:
        asm.label("no lookup")
        if not self.per_cpu:
            asm.jump_if(Jump.EQ, Reg.R9, Op.DELETE, "delete")
            # UPDATE, UPDATE_NOEXIST and UPDATE_EXIST follow each other as BPF_ANY, NOEXIST and EXIST do.
            asm.alu(Alu.SUB, Reg.R9, Op.UPDATE - ElementFlag.ANY)
            asm.jump_if(Jump.GT, Reg.R9, ElementFlag.EXIST, "stop")
            _counter(asm, Reg.R3, TAKEN_AT, where)
            _address(asm, Reg.R3, Reg.R3, where.stride, where.values)
            asm.map_pointer(Reg.R1, map_fd)
            asm.mov(Reg.R2, Reg.R8)
            asm.mov(Reg.R4, Reg.R9)
            asm.call(Helper.MAP_UPDATE_ELEM)
            asm.jump("answer")
        else:
            asm.jump_if(Jump.NE, Reg.R9, Op.DELETE, "stop")
        asm.label("delete")
        asm.map_pointer(Reg.R1, map_fd)
        asm.mov(Reg.R2, Reg.R8)
        asm.call(Helper.MAP_DELETE_ELEM)
        asm.label("answer")
        asm.jump_if(Jump.EQ, Reg.R0, 0, "done")
        asm.alu(Alu.NEG, Reg.R0, 0)
        for number in self.passing:
            asm.jump_if(Jump.EQ, Reg.R0, number, "stop")
        asm.jump_if(Jump.LT, Reg.R0, LOST_ERRNO, "done")
        asm.mov(Reg.R0, LOST_ERRNO)


def _loop(asm: Assembler, callback: str) -> None:
    """Call back R8 times, with what R7 points to."""
    asm.mov(Reg.R1, Reg.R8)
    asm.callback(Reg.R2, callback)
    asm.mov(Reg.R3, Reg.R7)
    asm.mov(Reg.R4, 0)
    asm.call(Helper.LOOP)


def _block(asm: Assembler) -> None:
    """The next elements, at most WARM_BLOCK: all looked up, then all executed. Ends the run where those do."""
    asm.label("block")
    asm.mov(Reg.R7, Reg.R2)
    asm.load(Size.DW, Reg.R6, Reg.R7, 0)
    asm.load(Size.W, Reg.R9, Reg.R6, NEXT_AT)
    asm.load(Size.W, Reg.R8, Reg.R6, COUNT_AT)
    asm.alu(Alu.SUB, Reg.R8, Reg.R9)
    asm.jump_if(Jump.LE, Reg.R8, WARM_BLOCK, "last block")
    asm.mov(Reg.R8, WARM_BLOCK)
    asm.label("last block")
    _loop(asm, "warm")
    _loop(asm, "element")
    asm.load(Size.W, Reg.R1, Reg.R6, NEXT_AT)
    asm.alu(Alu.SUB, Reg.R1, Reg.R9)
    asm.mov(Reg.R0, 0)
    asm.jump_if(Jump.EQ, Reg.R1, Reg.R8, "block done")
    asm.mov(Reg.R0, 1)
    asm.label("block done")
    asm.exit()


def _warm(asm: Assembler, where: Layout, map_fd: int) -> None:
    """Look one element of a block up, for the cache alone."""
    asm.label("warm")
    asm.load(Size.DW, Reg.R6, Reg.R2, 0)
    asm.load(Size.W, Reg.R8, Reg.R6, NEXT_AT)
    asm.alu(Alu.ADD, Reg.R8, Reg.R1)
    asm.jump_if(Jump.GE, Reg.R8, where.capacity, "warmed")
    _address(asm, Reg.R8, Reg.R8, where.key_size, where.keys)
    asm.map_pointer(Reg.R1, map_fd)
    asm.mov(Reg.R2, Reg.R8)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.label("warmed")
    asm.mov(Reg.R0, 0)
    asm.exit()


def _address(asm: Assembler, dst: Reg, index: Reg, stride: int, start: int) -> None:
    """Make ``dst`` the slot (R6) + start + index * stride; the index has been compared."""
    if dst is not index:
        asm.mov(dst, index)
    asm.alu(Alu.MUL, dst, stride)
    asm.alu(Alu.ADD, dst, Reg.R6)
    asm.alu(Alu.ADD, dst, start)


def _counter(asm: Assembler, dst: Reg, at: int, where: Layout) -> None:
    """Make ``dst`` a counter of the head, below the capacity; and count one on."""
    asm.load(Size.W, dst, Reg.R6, at)
    asm.jump_if(Jump.GE, dst, where.capacity, "stop")
    asm.mov(Reg.R1, dst)
    asm.alu(Alu.ADD, Reg.R1, 1)
    asm.store(Size.W, Reg.R6, at, Reg.R1)


def _copy(asm: Assembler, size: int, to: int, *, padded: bool = False) -> None:
    """Copy a value from R0 to R9 + ``to``; ``padded`` with zeros to a multiple of 8."""
    for width, at in _words(size):
        asm.load(width, Reg.R1, Reg.R0, at)
        asm.store(width, Reg.R9, to + at, Reg.R1)
    for at in range(size, round_up8(size) if padded else size):
        asm.store(Size.B, Reg.R9, to + at, 0)


def _words(size: int) -> Iterator[tuple[Size, int]]:
    """Words of 8, 4, 2 and 1 bytes that cover ``size`` bytes, and their offsets."""
    at = 0
    for width, count in ((Size.DW, 8), (Size.W, 4), (Size.H, 2), (Size.B, 1)):
        while size - at >= count:
            yield width, at
            at += count
