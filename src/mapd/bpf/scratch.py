"""Memory that programs and this process share: columns go in and come out without a syscall.

An array map, made BPF_F_MMAPABLE and mapped once. Each of its elements is a slot, for one run at a time: a program
is told the slot's number in its context and looks it up, so that the verifier knows its bounds.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import queue
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size
from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import CreateMap, Kernel
from mapd.bpf.program import ProgramType
from mapd_api.uapi import MapFlag, MapType

KERNEL_NAME: Final = "mapd_scratch"

CONTEXT: Final = struct.Struct("=I4x")
"""What a program that works in a scratch gets: the number of its slot."""

NO_SLOT: Final = 0xFFFF_FFFF
"""R0 of a program that did not find its slot, which does not happen."""


class Slot:
    """One slot, for whoever has it in a ``with`` block. What the last run left is in it: write before you read.

    Attributes:
        number: from 0.
        memory: its bytes.
        run: runs a SYSCALL program (its fd) in this slot; R0.
        run_packet: the same for a SOCKET_FILTER program.
    """

    __slots__ = ("_owner", "memory", "number", "run", "run_packet")

    def __init__(self, owner: Scratch, number: int, memory: Buffer, kernel: Kernel) -> None:
        self._owner = owner
        self.number: Final = number
        self.memory: Final = memory
        context = Buffer.allocate(CONTEXT.size)
        CONTEXT.pack_into(context.view, 0, number)
        self.run: Final[Callable[[int], int]] = kernel.runner(context)
        self.run_packet: Final[Callable[[int], int]] = kernel.runner(context, packet=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owner.give_back(self)


class Scratch:
    """Slots of one size. Whoever made it closes it; memory is unmapped when the last slot is given back.

    Args:
        kernel: makes and maps the array, and runs the programs.
        slots: how many; one for each thread that runs programs, so that none waits.
        slot_bytes: of each; a multiple of the page size.

    Raises:
        SyscallError: EPERM without CAP_BPF; the kernel, or the backend, maps no arrays (Linux 5.5).
        ValueError: ``slot_bytes`` is no multiple of the page size.
    """

    def __init__(self, kernel: Kernel, slots: int, slot_bytes: int) -> None:
        if slots < 1 or slot_bytes < 1 or slot_bytes % mmap.PAGESIZE:
            raise ValueError(f"{slots} slots of {slot_bytes} bytes; slots are pages of {mmap.PAGESIZE} bytes")
        self.slots: Final = slots
        self.slot_bytes: Final = slot_bytes
        self.fd: Final[OwnedFd] = kernel.control(
            CreateMap(
                map_type=MapType.ARRAY,
                key_size=4,
                value_size=slot_bytes,
                max_entries=slots,
                flags=MapFlag.MMAPABLE,
                kernel_name=KERNEL_NAME,
            )
        )
        try:
            with self.fd.lease() as number:
                memory = kernel.map_memory(number, slots * slot_bytes)
        except BaseException:
            self.fd.close()
            raise
        self._free: queue.SimpleQueue[Slot | None] = queue.SimpleQueue()  # None: there will be none any more
        for index in range(slots):
            part = Buffer(
                memory, memory.address + index * slot_bytes, memory.view[index * slot_bytes :][:slot_bytes]
            )
            self._free.put(Slot(self, index, part, kernel))

    def slot(self) -> Slot:
        """A free slot, given back at the end of its ``with`` block. Waits for one: a run takes well below 1 ms.

        Raises:
            OSError: EBADF, the scratch was closed.
        """
        slot = self._free.get()
        if slot is None:
            self._free.put(None)
            raise OSError(errno.EBADF, "the scratch was closed")
        return slot

    def give_back(self, slot: Slot) -> None:
        """End the use of a slot (its ``with`` block calls it)."""
        self._free.put(slot)
        if self.fd.closed:
            self._empty()

    def close(self) -> None:
        """Let go of the array; slots in use stay mapped until they are given back. Again does nothing."""
        self.fd.close()
        self._empty()

    def _empty(self) -> None:
        """Slots lead here, and would keep themselves in memory: none stays in the queue."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait()
        self._free.put(None)


def slot_pointer(asm: Assembler, kind: ProgramType, scratch_fd: int, room: int) -> None:
    """Code that begins a program: R0 = its slot, and R6 = its context.

    Uses the 8 bytes of the stack at ``room`` (negative) until then. Ends the program where there is no such slot.
    """
    asm.mov(Reg.R6, Reg.R1)
    if kind is ProgramType.SOCKET_FILTER:
        asm.mov(Reg.R2, 0)
        asm.mov(Reg.R3, Reg.R10)
        asm.alu(Alu.ADD, Reg.R3, room)
        asm.mov(Reg.R4, 4)
        asm.call(Helper.SKB_LOAD_BYTES)
        asm.jump_if(Jump.NE, Reg.R0, 0, "no slot")
    else:
        asm.load(Size.W, Reg.R2, Reg.R6, 0)
        asm.store(Size.W, Reg.R10, room, Reg.R2)
    asm.map_pointer(Reg.R1, scratch_fd)
    asm.mov(Reg.R2, Reg.R10)
    asm.alu(Alu.ADD, Reg.R2, room)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.jump_if(Jump.NE, Reg.R0, 0, "slot")
    asm.label("no slot")
    asm.mov(Reg.R0, -1)
    asm.exit()
    asm.label("slot")
