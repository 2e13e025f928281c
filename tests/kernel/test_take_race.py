"""Why LOOKUP_AND_DELETE is no operation of the vector programs: in a program it is two steps.

A writer replaces one element over and over, and says of each write whether it went through; a taker on another CPU
takes the element away, and the writer makes it anew. Whenever it is gone, the value that was taken must be the last
that was written: nothing that was acknowledged may have been thrown away unseen.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable

import pytest

from mapd.bpf import Buffer, Columns, ProgramType, load_program
from mapd.bpf.asm import Assembler, Helper, Jump, Reg, Size
from mapd.bpf.scratch import Scratch, slot_pointer
from mapd.maps.groups import Group
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.kernel.vectors import served, vectors

VALUE_SIZE = 512
WRITES = 400
TAKES = 3_000
KEY = bytes(8)
SLOT_BYTES = mmap.PAGESIZE
VALUE_AT = VALUE_SIZE


@pytest.fixture
def cpus() -> tuple[int, int]:
    """One to write on, one to take on."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU: nothing is written during a take")
    return usable[0], usable[1]


def taking(map_fd: int, scratch_fd: int) -> bytes:
    """Look the key up, copy the value into the slot, delete the key: what a program can do."""
    asm = Assembler()
    slot_pointer(asm, ProgramType.SYSCALL, scratch_fd, -8)
    asm.mov(Reg.R7, Reg.R0)
    asm.map_pointer(Reg.R1, map_fd)
    asm.mov(Reg.R2, Reg.R7)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.jump_if(Jump.EQ, Reg.R0, 0, "miss")
    for at in range(0, VALUE_SIZE, 8):
        asm.load(Size.DW, Reg.R1, Reg.R0, at)
        asm.store(Size.DW, Reg.R7, VALUE_AT + at, Reg.R1)
    asm.map_pointer(Reg.R1, map_fd)
    asm.mov(Reg.R2, Reg.R7)
    asm.call(Helper.MAP_DELETE_ELEM)
    asm.mov(Reg.R0, 0)
    asm.exit()
    asm.label("miss")
    asm.mov(Reg.R0, 1)
    asm.exit()
    return asm.assemble()


class Writer:
    """Replaces the element without a pause, notes what was last written where it has gone, and makes it anew.

    By the vector program: a syscall and the interpreter's lock between two writes would leave others no time.
    """

    def __init__(self, made: TestMap, cpu: int) -> None:
        self._map, self._cpu = made, cpu
        self._stop = threading.Event()
        self.last_written: list[int] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        os.sched_setaffinity(0, {self._cpu})
        numbers = range(1, 1 + WRITES)
        group = Group(
            count=WRITES,
            ops=bytes([Op.UPDATE_EXIST, Op.UPDATE_NOEXIST]) * (WRITES // 2),
            keys=KEY * WRITES,
            values=b"".join(number.to_bytes(8, "little").ljust(VALUE_SIZE, b"\1") for number in numbers),
        )
        last = 0
        with vectors() as programs, served(self._map.fd, programs) as writer:
            while not self._stop.is_set():
                for number, status in zip(numbers, writer.run(group).statuses, strict=True):
                    if status == Reason.KEY_MISSING or (status == Reason.DONE and number % 2 == 0):
                        # It has gone since it was written last: found so by EXIST, or by NOEXIST that made it.
                        self.last_written.extend([last] if last else [])
                        last = 0
                    if status == Reason.DONE:
                        last = number
        self.last_written.extend([last] if last else [])  # what is there in the end is taken in the end


def lost(made: TestMap, cpus: tuple[int, int], take: Callable[[], bytes | None]) -> int:
    """Of many takes, how many threw something away that had been written and acknowledged."""
    usable, taken = os.sched_getaffinity(0), list[int]()
    os.sched_setaffinity(0, {cpus[1]})
    try:
        with Writer(made, cpus[0]) as writer:
            while len(taken) < TAKES:
                value = take()
                if value is not None:
                    taken.append(int.from_bytes(value, "little"))
        value = take()
        if value is not None:
            taken.append(int.from_bytes(value, "little"))
    finally:
        os.sched_setaffinity(0, usable)
    assert len(taken) == len(writer.last_written)
    return sum(one != written for one, written in zip(taken, writer.last_written, strict=True))


def test_a_program_that_looks_up_and_deletes_loses_what_is_written_between(
    maps: Maps, cpus: tuple[int, int]
) -> None:
    """The canary: it is why the operation is left to the kernel's own command."""
    made = maps.create(MapType.HASH, value_size=VALUE_SIZE, max_entries=2)
    scratch = Scratch(KERNEL, 1, SLOT_BYTES)
    with scratch.fd.lease() as scratch_fd:
        program = load_program(taking(made.fd, scratch_fd), ProgramType.SYSCALL)
    with program, program.lease() as prog_fd, scratch.slot() as slot:
        slot.memory.view[: len(KEY)] = KEY

        def take() -> bytes | None:
            return bytes(slot.memory.view[VALUE_AT : VALUE_AT + 8]) if slot.run(prog_fd) == 0 else None

        assert lost(made, cpus, take) > 0
    scratch.close()


def test_the_kernels_own_command_loses_nothing(maps: Maps, cpus: tuple[int, int]) -> None:
    made = maps.create(MapType.HASH, value_size=VALUE_SIZE, max_entries=2)
    answer = Buffer.allocate(VALUE_SIZE)
    columns = Columns(1, Buffer.of(KEY), len(KEY), answer, VALUE_SIZE)

    def take() -> bytes | None:
        (number,) = KERNEL.each(made.fd, Op.LOOKUP_AND_DELETE, columns)
        return answer.take(8) if number == 0 else None

    assert lost(made, cpus, take) == 0
