"""The program that compares and updates whole values, each while the bpf_spin_lock in it is held.

It works in a slot of a scratch, many elements in one run; ``CompareLayout`` says what lies where. The bytes of the
lock are neither compared nor written; in the old value they are as they were expected, so that it is equal to what
was expected if, and only if, the new value was written.

Source: kernel/bpf/verifier.c, process_spin_lock(). Linux 5.1; sleepable programs and bpf_loop() 5.17.
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.atomic import each_row, row_begins, row_ends, row_pointer
from mapd.bpf.fd import OwnedFd
from mapd.bpf.program import ProgramRefused, ProgramType, load_program
from mapd.bpf.scratch import slot_pointer
from mapd.bpf.vector_columns import MAX_ELEMENTS
from mapd_api.layout import round_up8

HEAD: Final = struct.Struct("=I4x")
"""How many elements."""

MAX_VALUE_BYTES: Final = 4096
"""Larger values would keep their lock, and interrupts off, for more than about a microsecond."""

LOCK_BYTES: Final = 4
_WIDTHS: Final = ((8, Size.DW), (4, Size.W), (2, Size.H), (1, Size.B))
_THE_LOCK_IS_AT: Final = re.compile(r"'struct bpf_spin_lock' that is at (\d+)")


@dataclass(frozen=True, slots=True)
class CompareLayout:
    """What lies where in a slot: the head, then columns of ``rows`` elements. Sizes and offsets in bytes.

    Attributes:
        key_size, value_size: of one element.
        value_room: of a value in a slot, a multiple of 8.
        rows: elements of one run at most.
        pairs: what is expected, and what is new behind it; twice value_room each.
        old: values as they were, written where the errno is 0; value_room each.
        errnos: a byte each, 0: the old value is there.
        keys: packed.
    """

    key_size: int
    value_size: int
    value_room: int
    rows: int
    pairs: int
    old: int
    errnos: int
    keys: int


@lru_cache(maxsize=256)
def compare_layout(key_size: int, value_size: int, slot_bytes: int) -> CompareLayout | None:
    """The layout for elements of these sizes; None where values are too large, or no element fits into a slot."""
    value_room = round_up8(value_size)
    rows = min(MAX_ELEMENTS, (slot_bytes - HEAD.size) // (3 * value_room + 1 + key_size))
    if not LOCK_BYTES < value_size <= MAX_VALUE_BYTES or rows < 1:
        return None
    old = HEAD.size + rows * 2 * value_room
    errnos = old + rows * value_room
    return CompareLayout(
        key_size=key_size,
        value_size=value_size,
        value_room=value_room,
        rows=rows,
        pairs=HEAD.size,
        old=old,
        errnos=errnos,
        keys=errnos + rows,
    )


def load_compare(map_fd: int, scratch_fd: int, layout: CompareLayout, kernel_name: str) -> OwnedFd:
    """Load the program for one map. The verifier lets it take the lock where the lock is, and nowhere else.

    So it is tried at 0. A refusal says where the lock is (since Linux 6.0); where it does not, every multiple of 4 is
    tried. From 0.2 ms for small values to 4 ms for the largest; without the kernel's word as much for each place.

    Raises:
        ProgramRefused: the values have no lock, or it cannot be loaded at all; EPERM without CAP_BPF.
    """

    def load(lock: int) -> OwnedFd:
        asm = compare(map_fd, scratch_fd, layout, lock)
        return load_program(asm.assemble(), ProgramType.SYSCALL, kernel_name, callbacks=asm.callbacks)

    try:
        return load(0)
    except ProgramRefused as refused:
        if refused.errno == errno.EPERM:
            raise
        for place in places(refused.log, layout.value_size):
            with suppress(ProgramRefused):
                return load(place)
        raise


def places(log: str, value_size: int) -> Sequence[int]:
    """Where the lock may be, when the verifier has refused to take it at 0 with this log."""
    said = _THE_LOCK_IS_AT.search(log)
    return (int(said[1]),) if said else range(LOCK_BYTES, value_size - LOCK_BYTES + 1, LOCK_BYTES)


def words(value_size: int, lock: int) -> Iterator[tuple[int, Size]]:
    """The bytes of a value beside its lock, in the widest pieces: (offset, size)."""
    at = 0
    while at < value_size:
        if at == lock:
            at += LOCK_BYTES
            continue
        end = lock if at < lock else value_size
        width, size = next(one for one in _WIDTHS if at % one[0] == 0 and at + one[0] <= end)
        yield at, size
        at += width


def compare(map_fd: int, scratch_fd: int, layout: CompareLayout, lock: int) -> Assembler:
    """The program for one map, HASH or ARRAY; ``lock`` is where the lock is in a value, in bytes."""
    asm = Assembler()
    room = layout.value_room
    pieces = tuple(words(layout.value_size, lock))
    slot_pointer(asm, ProgramType.SYSCALL, scratch_fd, -8)
    each_row(asm)

    row_begins(asm, layout.rows)
    asm.map_pointer(Reg.R1, map_fd)
    row_pointer(asm, Reg.R2, layout.keys, layout.key_size)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.mov(Reg.R9, errno.ENOENT)
    asm.jump_if(Jump.EQ, Reg.R0, 0, "done")
    asm.mov(Reg.R9, Reg.R0)
    row_pointer(asm, Reg.R8, layout.pairs, 2 * room)
    _with_lock(asm, Helper.SPIN_LOCK, lock)
    row_pointer(asm, Reg.R4, layout.old, room)
    asm.mov(Reg.R3, 0)  # bits that differ
    for at, size in pieces:
        asm.load(size, Reg.R1, Reg.R9, at)
        asm.store(size, Reg.R4, at, Reg.R1)
        asm.load(size, Reg.R2, Reg.R8, at)
        asm.alu(Alu.XOR, Reg.R1, Reg.R2)
        asm.alu(Alu.OR, Reg.R3, Reg.R1)
    asm.load(Size.W, Reg.R1, Reg.R8, lock)
    asm.store(Size.W, Reg.R4, lock, Reg.R1)
    asm.jump_if(Jump.NE, Reg.R3, 0, "unlock")
    for at, size in pieces:
        asm.load(size, Reg.R1, Reg.R8, room + at)
        asm.store(size, Reg.R9, at, Reg.R1)
    asm.label("unlock")
    _with_lock(asm, Helper.SPIN_UNLOCK, lock)
    asm.mov(Reg.R9, 0)
    row_ends(asm, layout.errnos)
    return asm


def _with_lock(asm: Assembler, helper: Helper, lock: int) -> None:
    asm.mov(Reg.R1, Reg.R9)
    asm.alu(Alu.ADD, Reg.R1, lock)
    asm.call(helper)
