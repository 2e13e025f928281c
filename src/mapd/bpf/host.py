"""What this host and this process are: boot, bpffs, capabilities. Reads only."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Final

from mapd.bpf.kernel import SyscallError

BPF_FS_MAGIC: Final = 0xCAFE4A11
"""statfs(2) f_type of bpffs (include/uapi/linux/magic.h)."""

# fmt: off
_CAPABILITIES: Final = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL",
    "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
    "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)
"""By bit, from 0 (include/uapi/linux/capability.h)."""
# fmt: on

# f_type is the first word of struct statfs on every 64-bit architecture, 4 bytes of it on s390x; 512
# bytes are more than any of them writes (120 on x86_64).
_STATFS_BYTES: Final = 512
_statfs = ctypes.CDLL(None, use_errno=True).statfs
_statfs.restype = ctypes.c_int
_statfs.argtypes = (ctypes.c_char_p, ctypes.c_void_p)


@cache
def boot_id() -> str:
    """A UUID that differs after each boot: map ids mean nothing beyond it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_bpffs(path: str) -> bool:
    """Whether ``path`` lies on a bpffs, where alone pins can be made.

    Raises:
        SyscallError: statfs(2) refused, ENOENT if there is no such path.
    """
    result = (ctypes.c_uint32 * (_STATFS_BYTES // 4))()
    if _statfs(os.fsencode(path), ctypes.addressof(result)) != 0:
        raise SyscallError(ctypes.get_errno(), "statfs", path)
    # Big-endian machines keep the low half of a 64-bit f_type in the second word.
    return BPF_FS_MAGIC in (result[0], result[1])


def bpffs_is_private(path: str, init: Path = Path("/proc/1/mountinfo")) -> bool:
    """Whether the bpffs of ``path`` is mounted nowhere in the mount namespace of PID 1.

    False also where that cannot be told: another user's PID 1 is closed to who lacks CAP_SYS_PTRACE. A PID 1 of a
    container tells of that container.

    Raises:
        OSError: there is no such path.

    Source: proc(5), mountinfo: the third field is the st_dev of every file on that mount.
    """
    device = Path(path).stat().st_dev
    try:
        mounts = init.read_text().splitlines()
    except OSError:
        return False
    return f"{os.major(device)}:{os.minor(device)}" not in {line.split()[2] for line in mounts}


def parse_capabilities(mask: str) -> frozenset[str]:
    """The names in a mask of /proc/<pid>/status: ``CAP_BPF``; ``CAP_63`` for one without a name here."""
    bits = int(mask, 16)
    names = (
        f"CAP_{_CAPABILITIES[bit]}" if bit < len(_CAPABILITIES) else f"CAP_{bit}"
        for bit in range(bits.bit_length())
        if bits >> bit & 1
    )
    return frozenset(names)


def effective_capabilities() -> frozenset[str]:
    """The capabilities that the kernel would let this thread use now, by name: ``CAP_BPF``."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return parse_capabilities(value.strip())
    return frozenset()
