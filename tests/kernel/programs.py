"""Programs for tests: the smallest of each kind, and their pins."""

from __future__ import annotations

from pathlib import Path

from mapd.bpf import Buffer, LinuxKernel, ProgramInfo
from mapd.bpf.abi import Command, ObjectAttr
from mapd.bpf.asm import Assembler, Reg
from mapd.bpf.syscall import bpf


def returning(number: int) -> bytes:
    """A program that returns a number and does nothing else."""
    asm = Assembler()
    asm.mov(Reg.R0, number)
    asm.exit()
    return asm.assemble()


def pin_program(path: Path, prog_fd: int) -> None:
    """Pin a program, which mapd itself never does."""
    pathname = Buffer.of(str(path).encode() + b"\0")
    bpf(Command.OBJ_PIN, ObjectAttr(pathname=pathname.address, bpf_fd=prog_fd))


def program_id(prog_fd: int) -> int:
    """The kernel's id of a program."""
    return LinuxKernel().control(ProgramInfo(), [prog_fd]).id
