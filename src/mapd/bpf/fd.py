"""File descriptors with an owner, and leases on them for running syscalls."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import warnings
from types import TracebackType
from typing import Protocol, Self


class Closes(Protocol):
    """What is closed once, with something else."""

    def close(self) -> None:
        """Close it."""
        ...


class OwnedFd:
    """A file descriptor that is closed once: by ``close``, when no lease is out any more.

    A syscall runs on a number, not on an object. Closing the number under it would let another
    thread's open() get the same number, and the syscall would act on a stranger; so a thread
    holds a lease for as long as it uses the number, and closing waits for the last one.
    """

    __slots__ = ("_attached", "_closing", "_fd", "_leases", "_lock")

    def __init__(self, fd: int) -> None:
        if fd == 0:
            # bpf_attr reads fd 0 as "not given", so an fd that lands on 0 is moved up.
            moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1)
            os.close(fd)
            fd = moved
        self._fd = fd
        self._leases = 0
        self._closing = False
        self._attached: list[Closes] = []
        self._lock = threading.Lock()

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called; the number itself may be open until leases end."""
        return self._closing

    def lease(self) -> FdLease:
        """Borrow the number.

        Raises:
            OSError: EBADF, it was closed.
        """
        with self._lock:
            if self._closing:
                raise OSError(errno.EBADF, "file descriptor was closed")
            self._leases += 1
        return FdLease(self, self._fd)

    def close(self) -> None:
        """Close it, now or when the last lease ends. Closing again does nothing."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            last = self._leases == 0
        if last:
            self._finish()

    def attach(self, other: Closes) -> None:
        """Close ``other`` when this is closed and its last lease has ended; now, if that has been."""
        with self._lock:
            if not self._closing or self._leases:
                self._attached.append(other)
                return
        other.close()

    def give_back(self) -> None:
        """End one lease (FdLease calls it)."""
        with self._lock:
            self._leases -= 1
            last = self._closing and self._leases == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        self._end()
        for other in self._attached:
            other.close()

    def _end(self) -> None:
        """Close the number, once: no lease is out, and there will be no other. For subclasses to extend."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Only where __init__ got as far as having a number to own.
        if getattr(self, "_closing", True):
            return
        warnings.warn(f"fd {self._fd} was not closed", ResourceWarning, source=self, stacklevel=2)
        self.close()


class FdLease:
    """The right to use an fd's number until ``release``, or the end of its ``with`` block."""

    __slots__ = ("_owner", "fd")

    def __init__(self, owner: OwnedFd, fd: int) -> None:
        self._owner: OwnedFd | None = owner
        self.fd = fd

    def release(self) -> None:
        """Give it back; again does nothing."""
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.give_back()

    def __enter__(self) -> int:
        return self.fd

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
