"""Programs that do atomics on fields of values: many elements in one run, an operation byte each.

They work in a slot of a scratch (``mapd.bpf.scratch``); ``AtomicLayout`` says what lies where in it. One instruction
of the CPU changes a field, so no other writer's change is lost, whether it is a program or user space.

A pointer that a lookup gave a program stays usable when another program, or user space, deletes the element
meanwhile; a preallocated hash may have used its memory for another key by then. That is so for every BPF program
that counts in place.

Source: Documentation/bpf/standardization/instruction-set.rst, atomic operations. Linux 5.12; bpf_loop() 5.17.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mapd.bpf.asm import Alu, Assembler, Atomic, Helper, Jump, Reg, Size
from mapd.bpf.program import ProgramType
from mapd.bpf.scratch import slot_pointer
from mapd.bpf.vector_columns import LOST_ERRNO, MAX_ELEMENTS
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.uapi import ElementFlag

HEAD: Final = struct.Struct("=III4x")
"""How many elements; the field's offset in a value; whether absent keys are created (1) or not (0)."""

CREATES: Final = 8
"""Where the last of these stands."""

TRIES: Final = 4
"""How often one element is looked up and created where others create and remove it meanwhile; then EBUSY.

Written out one behind the other: a count of them would be stored on the stack, and a program that was loaded without
CAP_PERFMON gets a speculation barrier behind such a store (kernel/bpf/verifier.c, check_stack_write_fixed_off())."""

_SIZES: Final = {4: Size.W, 8: Size.DW}
_INSTRUCTIONS: Final = {
    Op.FETCH_ADD: Atomic.FETCH_ADD,
    Op.FETCH_AND: Atomic.FETCH_AND,
    Op.FETCH_OR: Atomic.FETCH_OR,
    Op.FETCH_XOR: Atomic.FETCH_XOR,
    Op.EXCHANGE: Atomic.XCHG,
}
_SLOT: Final = -16
"""Where on the stack the slot's address is kept for the callback; -8 is ``slot_pointer``'s."""


@dataclass(frozen=True, slots=True)
class AtomicLayout:
    """What lies where in a slot: the head, then columns of ``rows`` elements. Sizes and offsets in bytes.

    Attributes:
        key_size, value_size, field_size: of one element.
        rows: elements of one run at most.
        operands: what is added, or-ed ...; of COMPARE_EXCHANGE what is new. field_size each.
        expected: of COMPARE_EXCHANGE; field_size each.
        old: what each field was, written where the errno is 0; field_size each.
        errnos: a byte each, 0: done; LOST_ERRNO for one that does not fit.
        ops: a byte each, ``mapd_api.ops``.
        keys: packed.
        blank: a whole value, zeros before and after each run that creates; None: none fits, and nothing is created.
    """

    key_size: int
    value_size: int
    field_size: int
    rows: int
    operands: int
    expected: int
    old: int
    errnos: int
    ops: int
    keys: int
    blank: int | None


@lru_cache(maxsize=256)
def atomic_layout(key_size: int, value_size: int, field_size: int, slot_bytes: int) -> AtomicLayout | None:
    """The layout for elements of these sizes; None where there is no such field, or no element fits into a slot."""
    row, blank = 3 * field_size + 2 + key_size, round_up8(value_size)
    room = slot_bytes - HEAD.size
    creates = blank + 8 * row <= room
    rows = (
        min(MAX_ELEMENTS, (room - blank * creates) // row) & ~7
    )  # so that every column begins at a multiple of 8
    if field_size not in _SIZES or value_size < field_size or rows < 1:
        return None
    operands = HEAD.size + blank * creates
    expected = operands + rows * field_size
    old = expected + rows * field_size
    errnos = old + rows * field_size
    ops = errnos + rows
    return AtomicLayout(
        key_size=key_size,
        value_size=value_size,
        field_size=field_size,
        rows=rows,
        operands=operands,
        expected=expected,
        old=old,
        errnos=errnos,
        ops=ops,
        keys=ops + rows,
        blank=HEAD.size if creates else None,
    )


def atomic(
    map_fd: int, scratch_fd: int, layout: AtomicLayout, *, field_offset: int | None = None
) -> Assembler:
    """The program for one map and one field size.

    Args:
        map_fd: HASH, LRU_HASH or ARRAY; with another slot for each CPU it would change the running CPU's.
        scratch_fd: of slots that ``layout`` is for.
        layout: of a slot.
        field_offset: fixed in the program; None: what the head says. The kernel takes no offset that varies for
            values with a bpf_spin_lock, a timer or a kptr (kernel/bpf/verifier.c, check_map_access()).
    """
    asm = Assembler()
    slot_pointer(asm, ProgramType.SYSCALL, scratch_fd, -8)
    each_row(asm)
    _Row(asm, map_fd, layout, field_offset).emit()
    return asm


def each_row(asm: Assembler) -> None:
    """Behind ``slot_pointer``: call "row" for as many rows as the slot's first word says. It ends the program."""
    asm.store(Size.DW, Reg.R10, _SLOT, Reg.R0)
    asm.load(Size.W, Reg.R1, Reg.R0, 0)
    asm.callback(Reg.R2, "row")
    asm.mov(Reg.R3, Reg.R10)
    asm.alu(Alu.ADD, Reg.R3, _SLOT)
    asm.mov(Reg.R4, 0)
    asm.call(Helper.LOOP)
    asm.mov(Reg.R0, 0)
    asm.exit()


def row_begins(asm: Assembler, rows: int) -> None:
    """The callback's first instructions: R6 = slot, R7 = row. Ends the loop at a row that is none."""
    asm.label("row")
    asm.load(Size.DW, Reg.R6, Reg.R2, 0)
    asm.mov(Reg.R7, Reg.R1)
    asm.mov(Reg.R0, 1)
    asm.jump_if(Jump.GE, Reg.R7, rows, "end")


def row_ends(asm: Assembler, errnos: int) -> None:
    """From "done" on: R9 is the row's errno, and the loop goes on."""
    asm.label("done")
    asm.jump_if(Jump.LE, Reg.R9, LOST_ERRNO, "fits")
    asm.mov(Reg.R9, LOST_ERRNO)
    asm.label("fits")
    row_pointer(asm, Reg.R1, errnos, 1)
    asm.store(Size.B, Reg.R1, 0, Reg.R9)
    asm.mov(Reg.R0, 0)
    asm.label("end")
    asm.exit()


def row_pointer(asm: Assembler, dst: Reg, column: int, width: int) -> None:
    """``dst`` = this row's place in a column of the slot. Takes no register but ``dst``.

    The row first, then the slot, then the column: with the column's offset in the pointer before the row is added, the
    verifier sees no way to keep a mispredicted row inside the slot, and puts a speculation barrier before the lookup
    of a program that was loaded without CAP_PERFMON. With one barrier a row, of this kind or behind a store to the
    stack, cache misses of neighbours do not overlap: 412 to 426 ns an element of a hash of 1,000,000, instead of 117.
    """
    asm.mov(dst, Reg.R7)
    asm.alu(Alu.MUL, dst, width)
    asm.alu(Alu.ADD, dst, Reg.R6)
    asm.alu(Alu.ADD, dst, column)


@dataclass(frozen=True, slots=True)
class _Row:
    """The code for one element. R6 slot, R7 row, R8 key, R9 the field, then the errno."""

    asm: Assembler
    map_fd: int
    layout: AtomicLayout
    field_offset: int | None

    def emit(self) -> None:
        asm, layout = self.asm, self.layout
        row_begins(asm, layout.rows)
        row_pointer(asm, Reg.R8, layout.keys, layout.key_size)
        for attempt in range(TRIES):
            asm.map_pointer(Reg.R1, self.map_fd)
            asm.mov(Reg.R2, Reg.R8)
            asm.call(Helper.MAP_LOOKUP_ELEM)
            asm.jump_if(Jump.NE, Reg.R0, 0, "there")
            if layout.blank is None:
                break
            self._create(layout.blank, attempt)
        else:
            self._refuse(errno.EBUSY)
        asm.label("never")
        self._refuse(errno.ENOENT)
        asm.label("there")
        self._change()
        asm.label("answer")
        row_pointer(asm, Reg.R1, layout.old, layout.field_size)
        asm.store(self._size, Reg.R1, 0, Reg.R3)
        asm.mov(Reg.R9, 0)
        row_ends(asm, layout.errnos)

    @property
    def _size(self) -> Size:
        return _SIZES[self.layout.field_size]

    def _refuse(self, number: int) -> None:
        self.asm.mov(Reg.R9, number)
        self.asm.jump("done")

    def _create(self, blank: int, attempt: int) -> None:
        """Create the element, if that is wanted; falls through where another has created it meanwhile."""
        asm = self.asm
        asm.load(Size.W, Reg.R1, Reg.R6, CREATES)
        asm.jump_if(Jump.EQ, Reg.R1, 0, "never")
        self._operand(Reg.R3)
        asm.jump_if(Jump.EQ, Reg.R4, Op.COMPARE_EXCHANGE, "never")
        asm.jump_if(Jump.NE, Reg.R4, Op.FETCH_AND, f"initial {attempt}")
        asm.mov(Reg.R3, 0)
        asm.label(f"initial {attempt}")
        asm.mov(Reg.R9, Reg.R6)
        asm.alu(Alu.ADD, Reg.R9, blank)
        self._field(Reg.R9)
        asm.store(self._size, Reg.R9, 0, Reg.R3)
        asm.map_pointer(Reg.R1, self.map_fd)
        asm.mov(Reg.R2, Reg.R8)
        asm.mov(Reg.R3, Reg.R6)
        asm.alu(Alu.ADD, Reg.R3, blank)
        asm.mov(Reg.R4, ElementFlag.NOEXIST)
        asm.call(Helper.MAP_UPDATE_ELEM)
        asm.store(self._size, Reg.R9, 0, 0)
        asm.mov(Reg.R3, 0)
        asm.jump_if(Jump.EQ, Reg.R0, 0, "answer")
        asm.jump_if(Jump.EQ, Reg.R0, -errno.EEXIST, f"again {attempt}")
        asm.mov(Reg.R9, 0)
        asm.alu(Alu.SUB, Reg.R9, Reg.R0)
        asm.jump("done")
        asm.label(f"again {attempt}")

    def _operand(self, dst: Reg) -> None:
        """``dst`` = the operand, R4 = the operation."""
        asm = self.asm
        row_pointer(asm, Reg.R1, self.layout.ops, 1)
        asm.load(Size.B, Reg.R4, Reg.R1, 0)
        row_pointer(asm, Reg.R1, self.layout.operands, self.layout.field_size)
        asm.load(self._size, dst, Reg.R1, 0)

    def _field(self, value: Reg) -> None:
        """``value``, the address of a whole value, becomes that of its field."""
        asm, layout = self.asm, self.layout
        if self.field_offset is not None:
            asm.alu(Alu.ADD, value, self.field_offset)
            return
        asm.load(Size.W, Reg.R1, Reg.R6, 4)
        asm.jump_if(Jump.GT, Reg.R1, layout.value_size - layout.field_size, "bad")
        asm.alu(Alu.AND, Reg.R1, -layout.field_size)
        asm.alu(Alu.ADD, value, Reg.R1)

    def _change(self) -> None:
        asm = self.asm
        asm.mov(Reg.R9, Reg.R0)
        self._field(Reg.R9)
        self._operand(Reg.R3)
        for op in (*_INSTRUCTIONS, Op.COMPARE_EXCHANGE):
            asm.jump_if(Jump.EQ, Reg.R4, op, op.name)
        asm.label("bad")
        self._refuse(errno.EINVAL)
        for op, instruction in _INSTRUCTIONS.items():
            asm.label(op.name)
            asm.atomic(instruction, self._size, Reg.R9, 0, Reg.R3)
            asm.jump("answer")
        asm.label(Op.COMPARE_EXCHANGE.name)
        self._compare_exchange()

    def _compare_exchange(self) -> None:
        asm, layout = self.asm, self.layout
        row_pointer(asm, Reg.R1, layout.expected, layout.field_size)
        asm.load(self._size, Reg.R0, Reg.R1, 0)
        asm.atomic(Atomic.CMPXCHG, self._size, Reg.R9, 0, Reg.R3)
        asm.mov(Reg.R3, Reg.R0)
