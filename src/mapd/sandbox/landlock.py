"""Landlock: which files, ports and processes a process can still reach. Read landlock(7).

It does not judge bpf(2): OBJ_GET goes through it, only OBJ_PIN is MAKE_REG. ``mapd.sandbox.seccomp`` has the rest.
Rights of descriptors that are open already stay as they are.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final

from mapd.sandbox.libc import syscall

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
"""The same on every architecture."""

_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

ABI_NEEDED: Final = 2
"""ABI 1 (Linux 5.13) refuses every rename between folders, by which sockets are put in their place."""


class Access(IntFlag):
    """LANDLOCK_ACCESS_FS_* (include/uapi/linux/landlock.h)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ: Final = Access.READ_FILE | Access.READ_DIR
CHANGE_NAMES: Final = (
    Access.MAKE_REG | Access.MAKE_DIR | Access.REMOVE_FILE | Access.REMOVE_DIR | Access.REFER | READ
)
"""Making, renaming and removing pins and their folders."""
WRITE: Final = CHANGE_NAMES | Access.MAKE_SOCK | Access.WRITE_FILE | Access.TRUNCATE
_OF_FILES: Final = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
"""All that a rule for a file may have (security/landlock/syscalls.c, add_rule_path_beneath())."""

_BIND_TCP: Final = 1 << 0
_CONNECT_TCP: Final = 1 << 1
_SCOPE_ABSTRACT_UNIX: Final = 1 << 0
_SCOPE_SIGNAL: Final = 1 << 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What stays allowed; all else is refused.

    Attributes:
        read: folders and files.
        write: folders in which files, folders and sockets may be made, changed and removed.
        names: folders in which names may be made and removed, and no file be written: those of pins.
        lists: folders whose names may be read, and of no file its content.
        devices: character devices, to read and write.
        bind_tcp: ports that may be listened on. None may be connected to.
        abstract_sockets: whether sockets of other processes without a path may be reached.

    A path that is not there when the rules are made is never reached.
    """

    read: Sequence[str] = ()
    write: Sequence[str] = ()
    names: Sequence[str] = ()
    lists: Sequence[str] = ()
    devices: Sequence[str] = ()
    bind_tcp: Sequence[int] = ()
    abstract_sockets: bool = False


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


class _NetPort(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """What this kernel knows of landlock: 0, nothing, or it is switched off; else from 1 up."""
    try:
        return syscall("landlock_create_ruleset", _CREATE_RULESET, 0, 0, _VERSION)
    except OSError as error:
        # EPERM: a container's own filter forbids the call.
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:
            return 0
        raise


def missing_of(version: int) -> tuple[str, ...]:
    """What of it a kernel lacks, and since when kernels have it."""
    if version < ABI_NEEDED:
        return (
            "landlock: files can be reached as the user's rights allow (ABI 2, Linux 5.19, lsm=landlock)",
        )
    since = (
        (3, "truncating files (Linux 6.2)"),
        (4, "TCP ports (Linux 6.7)"),
        (5, "device ioctls (Linux 6.10)"),
        (6, "signals and abstract sockets (Linux 6.12)"),
    )
    return tuple(f"landlock: {what}" for needed, what in since if version < needed)


@dataclass(slots=True)
class Ruleset:
    """Rules that are made and not yet in force. Made with the rights to find each path, before they are given up."""

    version: int
    _fd: int = -1
    _kept: list[int] = field(default_factory=list[int])

    @classmethod
    def make(cls, rules: Rules) -> Ruleset:
        """From ``rules``, with all that this kernel knows.

        Raises:
            OSError: the kernel refused a rule.
        """
        version = abi()
        made = cls(version)
        if version < ABI_NEEDED:
            return made
        attr = _Ruleset(
            fs=_known(version),
            net=_BIND_TCP | _CONNECT_TCP if version >= 4 else 0,
            scoped=_scopes(rules) if version >= 6 else 0,
        )
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        made._fd = syscall("landlock_create_ruleset", _CREATE_RULESET, ctypes.addressof(attr), size)
        os.set_inheritable(made._fd, False)
        kinds = (
            (rules.read, READ),
            (rules.write, WRITE),
            (rules.names, CHANGE_NAMES),
            (rules.lists, Access.READ_DIR),
        )
        for paths, access in (*kinds, (rules.devices, Access.READ_FILE | Access.WRITE_FILE)):
            for path in paths:
                made._allow(path, access)
        for port in rules.bind_tcp if version >= 4 else ():
            made._add(_RULE_NET_PORT, _NetPort(allowed=_BIND_TCP, port=port))
        return made

    def enforce(self) -> None:
        """Put them in force for this thread and those that it will start, for ever. Needs no_new_privs.

        Raises:
            OSError: the kernel refused.
        """
        if self._fd >= 0:
            syscall("landlock_restrict_self", _RESTRICT_SELF, self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def _allow(self, path: str, access: Access) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            return  # it is not there for us: nothing to allow
        try:
            found = os.fstat(fd)
            allowed = access if stat.S_ISDIR(found.st_mode) else access & _OF_FILES
            self._add(_RULE_PATH_BENEATH, _PathBeneath(allowed=allowed & _known(self.version), parent_fd=fd))
        finally:
            if path.startswith("/proc/"):
                # A rule is the inode's. One of /proc that nobody holds is made anew when memory was short.
                self._kept.append(fd)
            else:
                os.close(fd)

    def _add(self, kind: int, attr: ctypes.Structure) -> None:
        syscall("landlock_add_rule", _ADD_RULE, self._fd, kind, ctypes.addressof(attr))


def _known(version: int) -> int:
    bits = 16 if version >= 5 else 15 if version >= 3 else 14
    return (1 << bits) - 1


def _scopes(rules: Rules) -> int:
    return _SCOPE_SIGNAL | (0 if rules.abstract_sockets else _SCOPE_ABSTRACT_UNIX)
