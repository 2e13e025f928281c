"""Giving up rights: capabilities, securebits, user and groups, core dumps, and looking whether it was done.

Order counts. The bounding set and the securebits need CAP_SETPCAP, the groups CAP_SETGID, the user CAP_SETUID; so the
permitted set is the last that shrinks. NO_SETUID_FIXUP lets capabilities outlive the change of user.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapd.sandbox.libc import machine, prctl, syscall
from mapd.sandbox.users import Account

# fmt: off
NAMES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)
"""By bit, from 0 (include/uapi/linux/capability.h)."""
# fmt: on

_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_VERSION_3: Final = 0x20080522

SECUREBITS: Final = 0b1110_1111
"""NOROOT, NO_SETUID_FIXUP, KEEP_CAPS' lock, NO_CAP_AMBIENT_RAISE, and their locks (include/uapi/linux/securebits.h)."""

STATUS: Final = Path("/proc/thread-self/status")


class SandboxError(Exception):
    """A process could not be locked in; it must not go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What /proc/PID/status says of a thread's rights. Sets of capabilities are bit masks."""

    effective: int
    permitted: int
    inheritable: int
    bounding: int
    ambient: int
    no_new_privs: bool
    seccomp: int


def held(status: Path = STATUS) -> Held:
    """The rights of one thread, by default of the calling one.

    Raises:
        OSError: there is no such thread any more.
    """
    found = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    return Held(
        effective=int(found["CapEff"], 16),
        permitted=int(found["CapPrm"], 16),
        inheritable=int(found["CapInh"], 16),
        bounding=int(found["CapBnd"], 16),
        ambient=int(found["CapAmb"], 16),
        no_new_privs=found["NoNewPrivs"].strip() == "1",
        seccomp=int(found["Seccomp"]),
    )


def bits_of(names: Iterable[str]) -> int:
    """The mask of capabilities.

    Raises:
        KeyError: no such capability.
    """
    numbers = {name: bit for bit, name in enumerate(NAMES)}
    return sum(1 << numbers[name] for name in set(names))


def names_of(mask: int) -> tuple[str, ...]:
    """The capabilities of a mask; CAP_63 for one without a name here."""
    return tuple(
        NAMES[bit] if bit < len(NAMES) else f"CAP_{bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )


def give_up(keep: int, user: Account | None) -> tuple[str, ...]:
    """Become ``user`` (None: stay who we are) with the capabilities ``keep`` and never any other.

    The result is what could not be done.
    Only the bounding set and the securebits may stay as they were, where the start had no CAP_SETPCAP: without
    no_new_privs, which is set too, they would let a set-user-id program gain rights.

    Raises:
        SandboxError: the user cannot be taken on, or the process has other capabilities than it should afterwards.
    """
    before = held()
    keep &= before.permitted
    try:
        missing = _bound(keep, before)
        prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        if user is not None:
            _become(user)
        _capset(keep)
        prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)
        no_dumps()
    except OSError as error:
        raise SandboxError(f"giving up rights: {error.strerror}") from error
    after = held()
    if (after.effective, after.permitted, after.inheritable, after.ambient) != (keep, keep, 0, 0):
        raise SandboxError(f"giving up rights: {after} instead of {keep:#x} alone")
    if not missing and after.bounding & ~keep:
        raise SandboxError(f"giving up rights: the bounding set still has {names_of(after.bounding & ~keep)}")
    return missing


def no_dumps() -> None:
    """Memory is written to no core file, and read by no process of the same user.

    /proc/PID of such a process belongs to root. It still reaches its own: fd and fdinfo may be read by who may trace
    the process, and a process may trace itself (fs/proc/fd.c, kernel/ptrace.c __ptrace_may_access()).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)


def _bound(keep: int, before: Held) -> tuple[str, ...]:
    """Shrink the bounding set and lock the securebits; what is left undone for want of CAP_SETPCAP."""
    if not before.effective & bits_of({"CAP_SETPCAP"}):
        spare = before.bounding & ~keep
        return (
            (f"the bounding set keeps {len(names_of(spare))} capabilities (no CAP_SETPCAP)",) if spare else ()
        )
    for bit in range(64):
        if keep >> bit & 1:
            continue
        try:
            prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, bit)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: beyond the kernel's last
                raise
            break
    prctl("PR_SET_SECUREBITS", _PR_SET_SECUREBITS, SECUREBITS)
    return ()


def _become(user: Account) -> None:
    uids, gids = os.getresuid(), os.getresgid()
    if uids == (user.uid,) * 3 and gids == (user.gid,) * 3 and not set(os.getgroups()) - {user.gid}:
        return
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)


def _capset(keep: int) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    low, high = keep & 0xFFFFFFFF, keep >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    syscall("capset", machine().capset, ctypes.addressof(header), ctypes.addressof(data))
