"""Where bpf(2), openat2(2) and renameat2(2) are entered: the one choke point. Knows no map, no path rules.

ctypes gives up the interpreter lock during a call (CDLL, not PyDLL), so a long batch leaves the other
threads running; keeping the lock would save about 6% of a short call only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from mapd.bpf import abi
from mapd.bpf.abi import Command
from mapd.bpf.kernel import SyscallError

_NUMBERS: Final = abi.syscall_numbers(os.uname().machine)
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
# syscall(2) is variadic: without these, ctypes would pass 32-bit ints in 64-bit registers.
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
_openat2 = ctypes.CDLL(None, use_errno=True).syscall
_openat2.restype = ctypes.c_long
_openat2.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_renameat2 = ctypes.CDLL(None, use_errno=True).syscall
_renameat2.restype = ctypes.c_long
_renameat2.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)

last_errno: Final[Callable[[], int]] = ctypes.get_errno
"""The errno of this thread's last failed call through this module."""


def prepare(command: Command, attr: ctypes.Structure) -> Callable[[], int]:
    """A call of bpf(2) to be made many times while ``attr`` changes in place.

    The result is what bpf(2) returned, or -1, with ``last_errno``. Preparing the arguments once
    saves a quarter of an element's time in a loop. The caller keeps ``attr`` alive.
    """
    arguments = (
        ctypes.c_long(_NUMBERS.bpf),
        ctypes.c_long(command),
        ctypes.c_void_p(ctypes.addressof(attr)),
        ctypes.c_long(ctypes.sizeof(attr)),
    )
    call: Callable[[], int] = partial(_syscall, *arguments)
    return call


def attempt(command: Command, attr: ctypes.Structure) -> int:
    """Call bpf(2) once: its result, or -errno."""
    result: int = _syscall(_NUMBERS.bpf, int(command), ctypes.addressof(attr), ctypes.sizeof(attr))
    return result if result >= 0 else -ctypes.get_errno()


def bpf(command: Command, attr: ctypes.Structure, path: str | None = None) -> int:
    """Enter the kernel once; the result is often a file descriptor.

    Raises:
        SyscallError: any errno; ``path`` is named in it where one was meant.
    """
    result = attempt(command, attr)
    if result < 0:
        raise SyscallError(-result, command.uapi_name, path)
    return result


def openat2(dir_fd: int, path: str, flags: int, resolve: int) -> int:
    """Open ``path`` below ``dir_fd``, resolved as RESOLVE_* say; the fd closes on exec.

    Raises:
        SyscallError: any errno; EXDEV the path leaves ``dir_fd``, ELOOP a symbolic link is in it.

    Source: openat2(2). Linux 5.6.
    """
    how = abi.OpenHow(flags=flags | os.O_CLOEXEC, resolve=resolve)
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise ValueError("a path has no NUL")
    result: int = _openat2(_NUMBERS.openat2, dir_fd, raw, ctypes.addressof(how), ctypes.sizeof(how))
    if result < 0:
        raise SyscallError(ctypes.get_errno(), "openat2", path)
    return result


def rename_noreplace(old_dir_fd: int, old_name: str, new_dir_fd: int, new_name: str) -> None:
    """Rename a file in one step, unless the new name is taken.

    Raises:
        SyscallError: any errno; EEXIST the new name is taken, also where it is the old one.

    Source: renameat2(2). Linux 3.15; bpffs takes RENAME_NOREPLACE (fs/libfs.c, simple_rename()).
    """
    names = os.fsencode(old_name), os.fsencode(new_name)
    if any(b"\0" in name for name in names):
        raise ValueError("a name has no NUL")
    number = _NUMBERS.renameat2
    if _renameat2(number, old_dir_fd, names[0], new_dir_fd, names[1], abi.RENAME_NOREPLACE) < 0:
        raise SyscallError(ctypes.get_errno(), "renameat2", new_name)
