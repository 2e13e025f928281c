"""The lock of the folder for names: of one daemon at a time. Standard library alone.

The lock in the runtime folder does not do: a second daemon with folders of its own would end the leases of the first,
which nobody keeps alive there. It is a lock of flock(2) on the folder itself, so it ends with its process, whatever
ends that, and no file is left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from mapd.launch import LaunchError

WAIT_S: Final = 3.0
"""A daemon that was killed leaves an opener that ends by itself, after the system call that it is in: a start waits
for it. So may a creation of 1 GiB, 2 s."""

TRY_S: Final = 0.005
"""Between two tries. flock(2) would wait by itself, but for no limited time."""


def lock_names(names_root: str, wait_s: float = WAIT_S) -> int:
    """Take the lock; the descriptor that holds it until it is closed, which no child gets.

    Blocks for ``wait_s`` where somebody has it.

    Raises:
        LaunchError: somebody still has it; or the folder cannot be opened.
    """
    try:
        fd = os.open(names_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LaunchError(f"{names_root}: {os.strerror(error.errno or errno.EIO)}") from error
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(TRY_S)
                continue
            holder = _holder(fd)
            os.close(fd)
            raise LaunchError(
                f"{names_root}: the names there are another mapd's{holder}, which keeps their leases alive; stop it, "
                "or set another [daemon] pin_root"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return fd


def _holder(fd: int) -> str:
    """Whose the lock is, where the kernel tells: proc_locks(5) names the file by device and inode."""
    found = os.fstat(fd)
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return ""
    for words in map(str.split, lines):
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == device:
            return f" (pid {words[4]})"
    return ""
