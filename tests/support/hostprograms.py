"""A program that writes down what only the kernel knows: its clocks, and the cgroup of who runs it."""

from __future__ import annotations

from typing import Final, cast

from mapd.bpf import Buffer, LinuxKernel, OpenPin, ProgramType, load_program, run_program
from mapd.bpf.asm import Alu, Assembler, Helper, Jump, Reg, Size

KTIME, BOOTTIME, CGROUP = 0, 1, 2
"""Indexes of the array whose elements it writes, of 8 bytes each."""

# uapi linux/bpf.h: bpf_ktime_get_ns, bpf_ktime_get_boot_ns, bpf_get_current_cgroup_id.
_WRITES: Final = ((KTIME, 5), (BOOTTIME, 125), (CGROUP, 80))


def _program(map_fd: int) -> bytes:
    asm = Assembler()
    for index, helper in _WRITES:
        asm.store(Size.W, Reg.R10, -4, index)
        asm.map_pointer(Reg.R1, map_fd)
        asm.mov(Reg.R2, Reg.R10)
        asm.alu(Alu.ADD, Reg.R2, -4)
        asm.call(Helper.MAP_LOOKUP_ELEM)
        asm.jump_if(Jump.EQ, Reg.R0, 0, "absent")
        asm.mov(Reg.R6, Reg.R0)
        asm.call(cast("Helper", helper))
        asm.store(Size.DW, Reg.R6, 0, Reg.R0)
    asm.mov(Reg.R0, 0)
    asm.exit()
    asm.label("absent")
    asm.mov(Reg.R0, 1)
    asm.exit()
    return asm.assemble()


def write_down(root: str, pin_path: str) -> None:
    """Run it once on a pinned array of at least three values of 8 bytes."""
    with LinuxKernel().control(OpenPin(root=root, path=pin_path)) as owned, owned.lease() as map_fd:
        code = _program(map_fd)
        with load_program(code, ProgramType.SYSCALL, "host") as program, program.lease() as prog_fd:
            assert run_program(prog_fd, Buffer.allocate(8)) == 0
