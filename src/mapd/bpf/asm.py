"""A mini assembler for eBPF: enough to write small programs without a compiler.

Knows encodings, no programs and no syscalls. Registers are ``R0`` to ``R10``: R0 the result, R1 to R5
arguments (lost by a call), R6 to R9 kept, R10 the frame pointer.

Source: Documentation/bpf/standardization/instruction-set.rst (RFC 9669).
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final


class Reg(IntEnum):
    """A register."""

    R0 = 0
    R1 = 1
    R2 = 2
    R3 = 3
    R4 = 4
    R5 = 5
    R6 = 6
    R7 = 7
    R8 = 8
    R9 = 9
    R10 = 10


class Size(IntEnum):
    """The width of a load or store: 4, 2, 1, 8 bytes."""

    W = 0x00
    H = 0x08
    B = 0x10
    DW = 0x18


class Alu(IntEnum):
    """64-bit arithmetic; the operand is a register or a 32-bit immediate, sign-extended."""

    ADD = 0x07
    SUB = 0x17
    MUL = 0x27
    OR = 0x47
    AND = 0x57
    LSH = 0x67
    RSH = 0x77
    NEG = 0x87
    XOR = 0xA7
    MOV = 0xB7


class Jump(IntEnum):
    """A 64-bit comparison, unsigned."""

    EQ = 0x15
    GT = 0x25
    GE = 0x35
    NE = 0x55
    LT = 0xA5
    LE = 0xB5


class Atomic(IntEnum):
    """An atomic operation on memory; the FETCH forms leave the old value in the source register."""

    ADD = 0x00
    FETCH_ADD = 0x01
    FETCH_OR = 0x41
    FETCH_AND = 0x51
    FETCH_XOR = 0xA1
    XCHG = 0xE1
    CMPXCHG = 0xF1


class Helper(IntEnum):
    """Helper functions by number (uapi linux/bpf.h, ___BPF_FUNC_MAPPER)."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    SKB_LOAD_BYTES = 26
    GET_STACKID = 27
    SPIN_LOCK = 93
    SPIN_UNLOCK = 94
    LOOP = 181
    MAP_LOOKUP_PERCPU_ELEM = 195


_FROM_REGISTER: Final = 0x08
_PSEUDO_MAP_FD: Final = 1
_PSEUDO_KFUNC: Final = 2
_PSEUDO_FUNC: Final = 4


class Assembler:
    """Instructions in order; jumps name labels, which may come later."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []
        self._callbacks: list[tuple[int, str]] = []

    def label(self, name: str) -> None:
        """Name the next instruction."""
        if name in self._labels:
            raise ValueError(f"label {name!r} is there already")
        self._labels[name] = self._here

    def alu(self, op: Alu, dst: Reg, operand: Reg | int) -> None:
        """``dst = dst op operand``; for MOV ``dst = operand``."""
        self._emit(op, dst, operand)

    def mov(self, dst: Reg, operand: Reg | int) -> None:
        """``dst = operand``."""
        self.alu(Alu.MOV, dst, operand)

    def load(self, size: Size, dst: Reg, src: Reg, offset: int) -> None:
        """``dst = *(src + offset)``, zero-extended."""
        self._slot(0x61 | size, dst, src, offset)

    def store(self, size: Size, dst: Reg, offset: int, operand: Reg | int) -> None:
        """``*(dst + offset) = operand``."""
        if isinstance(operand, Reg):
            self._slot(0x63 | size, dst, operand, offset)
        else:
            self._slot(0x62 | size, dst, Reg.R0, offset, operand)

    def atomic(self, op: Atomic, size: Size, dst: Reg, offset: int, src: Reg) -> None:
        """``*(dst + offset) op= src``; 4 or 8 bytes. Linux 5.12 but for ADD."""
        if size not in (Size.W, Size.DW):
            raise ValueError("atomics take 4 or 8 bytes")
        self._slot(0xC3 | size, dst, src, offset, op)

    def jump(self, label: str) -> None:
        """Go to ``label``."""
        self._jumps.append((self._here, label))
        self._slot(0x05)

    def jump_if(self, condition: Jump, dst: Reg, operand: Reg | int, label: str) -> None:
        """Go to ``label`` if ``dst condition operand``."""
        self._jumps.append((self._here, label))
        self._emit(condition, dst, operand)

    def call(self, helper: Helper) -> None:
        """R0 = helper(R1 .. R5)."""
        self._slot(0x85, imm=helper)

    def call_kernel(self, type_id: int) -> None:
        """R0 = a function of the kernel's own (kfunc), by the id of its type in vmlinux BTF. Linux 5.13."""
        self._slot(0x85, src=_PSEUDO_KFUNC, imm=type_id)

    def exit(self) -> None:
        """Return R0."""
        self._slot(0x95)

    def map_pointer(self, dst: Reg, map_fd: int) -> None:
        """``dst`` = the map, as helpers want it. The program holds the map for as long as it lives."""
        self._slot(0x18, dst, _PSEUDO_MAP_FD, imm=map_fd)
        self._slot(0)

    def callback(self, dst: Reg, label: str) -> None:
        """``dst`` = the function that begins at ``label``, for a helper that calls it.

        Code from a callback's label on, up to the next one's, is a function of its own: no jump leads in or out. A
        program with callbacks needs function information (``callbacks``). Linux 5.13.
        """
        self._callbacks.append((self._here, label))
        self._slot(0x18, dst, _PSEUDO_FUNC)
        self._slot(0)

    @property
    def callbacks(self) -> tuple[int, ...]:
        """Where callbacks begin, in slots, each once and in order.

        Raises:
            ValueError: one names no label.
        """
        return tuple(sorted({self._target(label) for _, label in self._callbacks}))

    def assemble(self) -> bytes:
        """The instructions, 8 bytes each.

        Raises:
            ValueError: a jump names no label.
        """
        code = bytearray(self._code)
        for at, label in self._jumps:
            struct.pack_into("=h", code, at * 8 + 2, self._target(label) - at - 1)
        for at, label in self._callbacks:
            struct.pack_into("=i", code, at * 8 + 4, self._target(label) - at - 1)
        return bytes(code)

    def _target(self, label: str) -> int:
        if label not in self._labels:
            raise ValueError(f"no label {label!r}")
        return self._labels[label]

    @property
    def _here(self) -> int:
        return len(self._code) // 8

    def _emit(self, code: int, dst: Reg, operand: Reg | int) -> None:
        if isinstance(operand, Reg):
            self._slot(code | _FROM_REGISTER, dst, operand)
        else:
            self._slot(code, dst, imm=operand)

    def _slot(self, code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> None:
        self._code += struct.pack("=BBhi", code, _registers(dst, src), offset, imm)


def _registers(dst: int, src: int) -> int:
    """Both in one byte; which nibble is which follows the byte order (struct bpf_insn's bit-fields)."""
    return src << 4 | dst if _LITTLE else dst << 4 | src


_LITTLE: Final = struct.pack("=H", 1)[0] == 1
