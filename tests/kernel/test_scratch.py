"""Slots that a program and this process share, each for one run at a time."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Generator

import pytest

from mapd.bpf import Buffer, OwnedFd, SyscallError
from mapd.bpf.asm import Alu, Assembler, Helper, Reg, Size
from mapd.bpf.program import ProgramType, load_program
from mapd.bpf.scratch import KERNEL_NAME, NO_SLOT, Scratch, slot_pointer
from mapd.memory import MemoryKernel
from tests.kernel.maps import KERNEL
from tests.support.counts import no_map_left_behind, nothing_left_behind

pytestmark = pytest.mark.alone  # counts maps by a name that each daemon gives

PAGE = mmap.PAGESIZE
KINDS = (ProgramType.SYSCALL, ProgramType.SOCKET_FILTER)


@pytest.fixture
def scratch() -> Generator[Scratch]:
    made = Scratch(KERNEL, 3, PAGE)
    yield made
    made.close()


def doubling(scratch: Scratch, kind: ProgramType) -> OwnedFd:
    """A program that writes twice its slot's first word into the second, and answers 7."""
    asm = Assembler()
    with scratch.fd.lease() as scratch_fd:
        slot_pointer(asm, kind, scratch_fd, -8)
        asm.load(Size.DW, Reg.R1, Reg.R0, 0)
        asm.alu(Alu.ADD, Reg.R1, Reg.R1)
        asm.store(Size.DW, Reg.R0, 8, Reg.R1)
        asm.mov(Reg.R0, 7)
        asm.exit()
        return load_program(asm.assemble(), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_works_in_the_slot_that_it_is_run_with(scratch: Scratch, kind: ProgramType) -> None:
    with (
        doubling(scratch, kind) as program,
        program.lease() as prog_fd,
        scratch.slot() as one,
        scratch.slot() as two,
        scratch.slot() as three,
    ):
        slots = (one, two, three)
        for slot in slots:
            slot.memory.view[:16] = (slot.number + 100).to_bytes(8, "little") + b"untouched"[:8]
        for slot in (three, one):
            run = slot.run if kind is ProgramType.SYSCALL else slot.run_packet
            assert run(prog_fd) == 7
        written = {slot.number: int.from_bytes(slot.memory.view[8:16], "little") for slot in (one, three)}
        assert written == {slot.number: 2 * (slot.number + 100) for slot in (one, three)}
        assert bytes(two.memory.view[8:16]) == b"untouche"
        assert len({slot.number for slot in slots}) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_of_another_scratch_finds_no_slot_beyond_its_own(
    scratch: Scratch, kind: ProgramType
) -> None:
    small = Scratch(KERNEL, 1, PAGE)
    with (
        doubling(small, kind) as program,
        program.lease() as prog_fd,
        scratch.slot(),
        scratch.slot() as second,
    ):
        run = second.run if kind is ProgramType.SYSCALL else second.run_packet
        assert run(prog_fd) == NO_SLOT
    small.close()


def test_a_slot_is_nobody_elses_until_it_is_given_back(scratch: Scratch) -> None:
    with scratch.slot() as one, scratch.slot() as two, scratch.slot() as three:
        assert {one.number, two.number, three.number} == {0, 1, 2}
    with scratch.slot() as again:
        assert again in (one, two, three)


def test_a_closed_scratch_leaves_neither_map_nor_descriptor_nor_memory() -> None:
    with no_map_left_behind(KERNEL_NAME), nothing_left_behind():
        made = Scratch(KERNEL, 2, PAGE)
        with made.slot() as slot:
            made.close()
            slot.memory.view[:4] = b"held"  # in use: still there
        with pytest.raises(OSError, match="closed"):
            made.slot()
        with pytest.raises(OSError, match="closed"):
            made.slot()
        made.close()
        del slot, made


@pytest.mark.parametrize(("slots", "slot_bytes"), [(0, PAGE), (1, 0), (1, PAGE + 8), (1, 64)])
def test_slots_are_whole_pages(slots: int, slot_bytes: int) -> None:
    with pytest.raises(ValueError, match="slots"):
        Scratch(KERNEL, slots, slot_bytes)


class Mapless(MemoryKernel):
    """A kernel before Linux 5.5."""

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        del map_fd, size
        raise SyscallError(errno.EINVAL, "mmap")


def test_a_kernel_that_maps_no_memory_leaves_nothing_behind() -> None:
    with nothing_left_behind(), pytest.raises(SyscallError, match="EINVAL"):
        Scratch(Mapless(2), 1, PAGE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_is_called_as_often_as_it_is_told(scratch: Scratch, kind: ProgramType) -> None:
    asm = Assembler()
    asm.store(Size.DW, Reg.R10, -8, 0)
    asm.mov(Reg.R1, 1_000)
    asm.callback(Reg.R2, "count")
    asm.mov(Reg.R3, Reg.R10)
    asm.alu(Alu.ADD, Reg.R3, -8)
    asm.mov(Reg.R4, 0)
    asm.call(Helper.LOOP)
    asm.load(Size.DW, Reg.R0, Reg.R10, -8)
    asm.exit()
    asm.label("count")
    asm.load(Size.DW, Reg.R1, Reg.R2, 0)
    asm.alu(Alu.ADD, Reg.R1, 1)
    asm.alu(Alu.AND, Reg.R1, 0xFFFF)
    asm.store(Size.DW, Reg.R2, 0, Reg.R1)
    asm.mov(Reg.R0, 0)
    asm.exit()
    with (
        load_program(asm.assemble(), kind, callbacks=asm.callbacks) as program,
        program.lease() as prog_fd,
        scratch.slot() as slot,
    ):
        assert (slot.run if kind is ProgramType.SYSCALL else slot.run_packet)(prog_fd) == 1_000
