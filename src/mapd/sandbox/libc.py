"""The one place where libc is entered: prctl(2) and syscall(2) by number."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

_syscall = _LIBC.syscall
_syscall.restype = ctypes.c_long
# syscall(2) is variadic: without these, ctypes would pass 32-bit ints in 64-bit registers.
_syscall.argtypes = (ctypes.c_long, *(ctypes.c_ulong,) * 4)

_prctl = _LIBC.prctl
_prctl.restype = ctypes.c_int
_prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class UnknownMachineError(OSError):
    """No filter is written for this architecture."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What differs between architectures.

    Attributes:
        audit_arch: AUDIT_ARCH_* that seccomp tells of a call (include/uapi/linux/audit.h).
        column: in the table of syscall numbers.
        capset, seccomp: numbers of calls made here.
        x32: numbers from here on are a second ABI of the same audit_arch; 0: there is none.
    """

    audit_arch: int
    column: int
    capset: int
    seccomp: int
    x32: int = 0


MACHINES: Final = MappingProxyType(
    {
        "x86_64": Machine(audit_arch=0xC000003E, column=0, capset=126, seccomp=317, x32=0x40000000),
        "aarch64": Machine(audit_arch=0xC00000B7, column=1, capset=91, seccomp=277),
    }
)
"""By the name that uname(2) gives. Source: arch/x86/entry/syscalls/syscall_64.tbl; asm-generic/unistd.h."""


def machine() -> Machine:
    """Of this process.

    Raises:
        UnknownMachineError: no syscall numbers are known for it.
    """
    name = os.uname().machine
    found = MACHINES.get(name)
    if found is None or struct.calcsize("P") != 8:
        raise UnknownMachineError(
            f"no seccomp filter is written for {name} with {struct.calcsize('P') * 8}-bit pointers; 64-bit processes "
            f"on these can be locked in: {', '.join(sorted(MACHINES))}"
        )
    return found


def syscall(name: str, number: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """Enter the kernel once.

    Raises:
        OSError: any errno, with ``name``.
    """
    result: int = _syscall(number, a, b, c, d)
    if result < 0:
        raise _failed(name)
    return result


def prctl(name: str, option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """Change something of this process, or of the calling thread.

    Raises:
        OSError: any errno, with ``name``.
    """
    result: int = _prctl(option, a, b, c, d)
    if result < 0:
        raise _failed(name)
    return result


def _failed(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")
