"""The file of the audit trail: opened safely, appended to in whole lines, found again after a restart."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Final, Self

from mapd.access.audit import digest

TAIL: Final = 1 << 20
"""Of a file that is there, so much is read for its last line. The daemon's own lines have some KiB at most."""


class AuditError(Exception):
    """The file cannot be used; the message says why and what to do."""


class AuditFile:
    """An open file that only this daemon writes. Blocks; for one thread at a time.

    Attributes:
        prev: the digest of the line that is last in it, "" where there is none.
        torn: whether that line was not ended when the file was opened; the next append ends it.
        unsynced: whether something was written that may not be on the disk.
    """

    __slots__ = ("_fd", "path", "prev", "torn", "unsynced")

    def __init__(self, path: str, fd: int) -> None:
        self.path: Final = path
        self._fd = fd
        self.unsynced = False
        size = os.fstat(fd).st_size
        begin = max(0, size - TAIL)
        tail = os.pread(fd, size - begin, begin)
        self.torn = bool(tail) and not tail.endswith(b"\n")
        last = tail.removesuffix(b"\n").rpartition(b"\n")[2]
        self.prev = digest(last) if tail else ""

    @classmethod
    def open(cls, path: str) -> Self:
        """The file, made with mode 0600 if it is missing. No symbolic link is followed.

        Raises:
            AuditError: it is no file of the daemon's own.
        """
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise AuditError(
                f'[audit] path = "{path}": {error.strerror}; make its folder for mapd\'s user and name no symbolic '
                'link, or set path = "" to do without an audit trail'
            ) from error
        try:
            _check(path, os.fstat(fd), fd)
            return cls(path, fd)
        except OSError as error:  # flock's ENOLCK, EIO
            os.close(fd)
            raise AuditError(f"{path}: {error.strerror}; name a file that can be locked and read") from error
        except BaseException:
            os.close(fd)
            raise

    @property
    def moved(self) -> bool:
        """Whether another file, or none, is at the path by now."""
        try:
            there = Path(self.path).lstat()
        except OSError:
            return True
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def append(self, lines: list[bytes]) -> int:
        """Write lines, each with its newline; how many were. What was written of a line that did not fit is taken back.

        Raises:
            OSError: not even one could be written.
        """
        before = os.fstat(self._fd).st_size
        tear = b"\n" if self.torn else b""
        content = tear + b"".join(lines)
        written = os.write(self._fd, content)
        whole, size = len(lines), len(content)
        if written < len(content):
            whole, size = 0, len(tear)
            for line in lines:
                if size + len(line) > written:
                    break
                size += len(line)
                whole += 1
            os.ftruncate(self._fd, before + (size if whole else 0))
        if not whole:
            # A write that was cut short says not why; what cuts it is space (a quota, a limit of the file's size).
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.path)
        self.torn, self.unsynced = False, True
        return whole

    def sync(self) -> None:
        """Let what was written reach the disk. Raises OSError."""
        if self.unsynced:
            os.fdatasync(self._fd)
            self.unsynced = False

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


def _check(path: str, found: os.stat_result, fd: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise AuditError(f"{path}: not a regular file; name a file of the daemon's own in [audit] path")
    if found.st_mode & 0o022:
        raise AuditError(f"{path}: others may write it, and so change what it says; chmod 600 {path}")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AuditError(
            f"{path}: another daemon writes it; each has a file of its own ([audit] path)"
        ) from None
