"""Vector programs: many elements of one map in one run, each with an operation and a status of its own.

Columns lie in a slot of a scratch (``mapd.bpf.scratch``), packed as they travel; ``layout`` says where. A run goes
through the elements in order, by bpf_loop, so that one program serves any number up to the layout's capacity and the
verifier sees its body once. Every index is compared with the capacity before it is used: whatever stands in the
scratch, no program leaves its slot.

An element that the kernel refuses for the moment alone (EBUSY, EAGAIN, EINTR) ends the run at that element, so that
whoever runs the program may try it again and go on behind it: the order of operations is kept.

Values are copied by loads and stores of 8, 4, 2 and 1 bytes, which a program of CAP_BPF alone may do, so the size of
the program grows with that of the value.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final, Self

from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.kernel import LoadTemplate
from mapd.bpf.program import ProgramType
from mapd.bpf.scratch import slot_pointer
from mapd_api.layout import round_up8, value_stride
from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, ElementFlag, MapType

HEAD: Final = struct.Struct("=IIIIQ")
"""Begins a slot: the next element, how many there are, the next value to take, the next value to answer (both counted
in values from the beginning of the value column), and a mask of element numbers in the op column: 0 where its first
byte stands for all, all ones otherwise. A run leaves the first, third and fourth where it ended."""

NEXT_AT, COUNT_AT, TAKEN_AT, ANSWERED_AT, MASK_AT = 0, 4, 8, 12, 16
HEAD_BYTES: Final = 64

MAX_ELEMENTS: Final = 4_096
"""Of one run: below half a millisecond, so that nothing else on the CPU waits longer."""

MIN_ELEMENTS: Final = 8
"""Of one run: a slot that holds fewer is not worth a program."""

MAX_COPY_BYTES: Final = 8_192
"""Of all slots of one value: two instructions for each 8 of them, and one more for a miss."""

PASSING: Final = (errno.EINTR, errno.EAGAIN, errno.EBUSY)
"""What the kernel says when only the moment is wrong."""

LOST_ERRNO: Final = 255
"""In a status: an errno that does not fit into a byte."""

TYPES: Final = frozenset(
    {
        MapType.HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.LPM_TRIE,
    }
)
"""Types that there are vector programs for: values are bytes, and a program may read and write them all."""

UPDATE_OPS: Final = frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})


def write_ops(map_type: int) -> frozenset[Op]:
    """What the writing program of a type does; the reading one looks up alone.

    A program's update of a per-CPU value writes the slot of the CPU that it runs on and no other (helper 2).
    """
    if map_type in PER_CPU_TYPES:
        return frozenset({Op.LOOKUP, Op.DELETE})
    return UPDATE_OPS | {Op.LOOKUP, Op.DELETE}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a run lie in a slot. Sizes and offsets in bytes.

    Attributes:
        capacity: elements of one run at most.
        key_size, stride: of one key; of one value, per CPU with all its slots.
        statuses, ops, keys, values: where the columns begin. Values taken stand before values answered.
    """

    capacity: int
    key_size: int
    stride: int
    statuses: int
    ops: int
    keys: int
    values: int


@cache
def layout(key_size: int, stride: int, slot_bytes: int) -> Layout | None:
    """The layout for elements of these sizes; None where too few of them fit into a slot."""
    capacity = min(MAX_ELEMENTS, (slot_bytes - HEAD_BYTES) // (2 + key_size + stride + 1)) & ~7
    if capacity < MIN_ELEMENTS or stride > MAX_COPY_BYTES or key_size < 1 or stride < 1:
        return None
    ops = HEAD_BYTES + capacity
    keys = ops + capacity
    values = keys + capacity * key_size
    return Layout(capacity, key_size, stride, HEAD_BYTES, ops, keys, values)


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
        asm = Assembler()
        slot_pointer(asm, self.program_type, scratch_fd, -8)
        asm.store(Size.DW, Reg.R10, -8, Reg.R0)
        asm.load(Size.W, Reg.R1, Reg.R0, COUNT_AT)
        asm.load(Size.W, Reg.R2, Reg.R0, NEXT_AT)
        asm.alu(Alu.SUB, Reg.R1, Reg.R2)
        asm.callback(Reg.R2, "element")
        asm.mov(Reg.R3, Reg.R10)
        asm.alu(Alu.ADD, Reg.R3, -8)
        asm.mov(Reg.R4, 0)
        asm.call(Helper.LOOP)
        asm.mov(Reg.R0, 0)
        asm.exit()
        self._element(asm, where, map_fd)
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
