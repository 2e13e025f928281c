"""Programs that mapd loads: each is named and takes sizes, so that nobody hands instructions over.

They hold one map, some a scratch beside it, and are run with a context of which the layout stands here. They
ignore that a map is frozen, or that a descriptor may only read: who runs one that writes asks the kernel first.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.atomic import atomic, atomic_layout
from mapd.bpf.cpus import check_cpus
from mapd.bpf.kernel import LoadTemplate
from mapd.bpf.program import STACK_BYTES, ProgramType
from mapd.bpf.vector import Vector
from mapd.bpf.vmlinux import function_id
from mapd_api.layout import round_up8
from mapd_api.uapi import PER_CPU_TYPES

COUNT_FUNCTION: Final = "bpf_map_sum_elem_count"
"""The kernel's own count of a map's elements (kernel/bpf/map_iter.c). Linux 6.6."""

ONE_CPU_HEAD: Final = struct.Struct("=I4x")
"""The CPU; then the key, and then the value, each padded to a multiple of 8."""

COUNTED: Final = struct.Struct("=q")
"""How many elements there are."""

MAX_KEY_BYTES: Final = STACK_BYTES - 8
"""Of a key that a program looks up: helpers take it from the stack alone."""


MAX_CONTEXT_BYTES: Final = 1 << 15
"""Of a context: an instruction reaches no further, and a pointer to a context cannot be moved."""


class Template(StrEnum):
    """A program by name."""

    WRITE_ONE_CPU = "write_one_cpu"  # ctx: ONE_CPU_HEAD, key, value; R0: 0, or ENOENT
    COUNT_ENTRIES = "count_entries"  # ctx: COUNTED, written; R0: 0
    ATOMIC = "atomic"  # over map and scratch, atomic.AtomicLayout; the field's offset is in the slot
    ATOMIC_AT = "atomic_at"  # the same at field_offset, for values with a lock, a timer or a kptr
    COMPARE_UPDATE = "compare_update"  # over map and scratch, compare.CompareLayout; by load_compare()
    VECTOR_READ = "vector_read"  # over map and scratch, vector.layout(): lookups
    VECTOR_WRITE = "vector_write"  # the same, vector.write_ops()


READING: Final = frozenset({Template.COUNT_ENTRIES, Template.VECTOR_READ})
MUTATING: Final = frozenset(Template) - READING
"""Programs that write the map they are loaded over; those that read leave it as it is."""

IN_SCRATCH: Final = frozenset(Template) - {Template.WRITE_ONE_CPU, Template.COUNT_ENTRIES}
"""Programs over a map and a scratch; the others have their columns in the context."""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A program to load; ``callbacks`` as ``Assembler.callbacks``."""

    code: bytes
    kind: ProgramType = ProgramType.SYSCALL
    callbacks: Sequence[int] = ()


def assemble(request: LoadTemplate, fds: Sequence[int]) -> Assembled:
    """The instructions of a template for one map.

    Raises:
        ValueError: no such template; key or value are too large for it; ``fds`` are not those that it takes.
        NoSuchFunction: COUNT_ENTRIES, and this kernel does not count.
    """
    match Template(request.template):
        case Template.WRITE_ONE_CPU:
            (map_fd,) = fds
            return Assembled(_write_one_cpu(map_fd, request.key_size, request.value_size))
        case Template.COUNT_ENTRIES:
            (map_fd,) = fds
            return Assembled(_count_entries(map_fd, function_id(COUNT_FUNCTION)))
        case Template.ATOMIC | Template.ATOMIC_AT:
            map_fd, scratch_fd = fds
            layout = atomic_layout(
                request.key_size, request.value_size, request.field_size, request.slot_bytes
            )
            if layout is None:
                raise ValueError("too large for an atomic program, or no field")
            at = request.field_offset if request.template == Template.ATOMIC_AT else None
            asm = atomic(map_fd, scratch_fd, layout, field_offset=at)
            return Assembled(asm.assemble(), callbacks=asm.callbacks)
        case Template.VECTOR_READ | Template.VECTOR_WRITE:
            map_fd, scratch_fd = fds
            if request.map_type in PER_CPU_TYPES:
                check_cpus(request.cpus)
            vector = Vector.of(request, writes=request.template == Template.VECTOR_WRITE)
            asm = vector.assemble(map_fd, scratch_fd)
            return Assembled(asm.assemble(), vector.program_type, asm.callbacks)
        case Template.COMPARE_UPDATE:
            raise ValueError("compare_update is made by trial: load_compare")


def one_cpu_context(key_size: int, value_size: int) -> int:
    """Bytes of the context of WRITE_ONE_CPU."""
    return ONE_CPU_HEAD.size + round_up8(key_size) + round_up8(value_size)


def fits_one_cpu(key_size: int, value_size: int) -> bool:
    """Whether WRITE_ONE_CPU can be made for a map of these sizes."""
    return 1 <= key_size <= MAX_KEY_BYTES and one_cpu_context(key_size, value_size) <= MAX_CONTEXT_BYTES


def _write_one_cpu(map_fd: int, key_size: int, value_size: int) -> bytes:
    """Write one CPU's slot of an element that is there, in words of 8 bytes; no other slot is touched.

    Source: kernel/bpf/helpers.c, bpf_map_lookup_percpu_elem(). Linux 5.19.
    """
    if not fits_one_cpu(key_size, value_size):
        raise ValueError(f"key_size={key_size} value_size={value_size}: too large for a program")
    key_room = round_up8(key_size)
    asm = Assembler()
    asm.mov(Reg.R6, Reg.R1)
    for offset in range(0, key_room, 8):
        asm.load(Size.DW, Reg.R2, Reg.R6, ONE_CPU_HEAD.size + offset)
        asm.store(Size.DW, Reg.R10, offset - key_room, Reg.R2)
    asm.map_pointer(Reg.R1, map_fd)
    asm.mov(Reg.R2, Reg.R10)
    asm.alu(Alu.ADD, Reg.R2, -key_room)
    asm.load(Size.W, Reg.R3, Reg.R6, 0)
    asm.call(Helper.MAP_LOOKUP_PERCPU_ELEM)
    asm.jump_if(Jump.NE, Reg.R0, 0, "write")
    asm.mov(Reg.R0, errno.ENOENT)
    asm.exit()

    asm.label("write")
    start, at = ONE_CPU_HEAD.size + key_room, 0
    for size, width in ((Size.DW, 8), (Size.W, 4), (Size.H, 2), (Size.B, 1)):
        while value_size - at >= width:
            asm.load(size, Reg.R2, Reg.R6, start + at)
            asm.store(size, Reg.R0, at, Reg.R2)
            at += width
    asm.mov(Reg.R0, 0)
    asm.exit()
    return asm.assemble()


def _count_entries(map_fd: int, function: int) -> bytes:
    asm = Assembler()
    asm.mov(Reg.R6, Reg.R1)
    asm.map_pointer(Reg.R1, map_fd)
    asm.call_kernel(function)
    asm.store(Size.DW, Reg.R6, 0, Reg.R0)
    asm.mov(Reg.R0, 0)
    asm.exit()
    return asm.assemble()
