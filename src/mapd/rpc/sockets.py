"""Where clients connect: ``<runtime_dir>/<principal>/mapd.sock``, and the lock of the one daemon.

A socket is bound in a staging folder that only the daemon can search, given its ACL, and renamed
into place: nobody can connect before the ACL is there, and clients of the old name see either
the old socket or the new one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from mapd.rpc import acl

SOCKET_NAME: Final = "mapd.sock"
STAGING: Final = ".staging"
PATH_MAX: Final = 107
"""struct sockaddr_un.sun_path is 108 bytes with its NUL (uapi linux/un.h)."""


class SocketError(Exception):
    """The runtime folder cannot be used; the message says why and what to do."""


class InstanceLock:
    """Held from start to stop: one daemon per runtime folder."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def acquire(cls, runtime_dir: Path) -> Self:
        """Take it.

        Raises:
            SocketError: another daemon has it (its pid is in the message), or the folder cannot be made.
        """
        path = runtime_dir / "mapd.lock"
        try:
            runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SocketError(
                f"{runtime_dir}: {error.strerror}; start mapd as root, or set [daemon] runtime_dir to a folder of yours"
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise SocketError(
                f"{runtime_dir}: another mapd serves here (pid {owner}); stop it, or set another [daemon] runtime_dir"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return cls(path, fd)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would race with who opens it."""
        os.close(self._fd)


@dataclass(slots=True)
class PrincipalSocket:
    """The socket of one principal, from staging to removal.

    Attributes:
        staged: where grpc binds.
        path: where clients find it.
        users, groups: uids and gids admitted beside the daemon's own uid and root.
    """

    staged: Path
    path: Path
    users: Collection[int]
    groups: Collection[int]
    _published: os.stat_result | None = None

    @classmethod
    def prepare(
        cls, runtime_dir: Path, principal: str, users: Collection[int], groups: Collection[int]
    ) -> Self:
        """Make the folders; nothing can be connected to yet.

        Raises:
            SocketError: a path is too long, or a folder is not the daemon's own.
        """
        staging = runtime_dir / STAGING
        folder = runtime_dir / principal
        path = folder / SOCKET_NAME
        staged = staging / f"{principal}.{os.getpid()}"
        for each in (path, staged):
            if len(os.fsencode(each)) > PATH_MAX:
                raise SocketError(
                    f"{each}: {len(os.fsencode(each))} bytes; a socket's path has at most {PATH_MAX}: "
                    "choose a shorter [daemon] runtime_dir"
                )
        for each in (staging, folder):
            _own_folder(each)
        try:
            acl.admit(str(folder), 7, users, groups, 5)
        except OSError as error:
            raise SocketError(
                f"{folder}: cannot give it an ACL ({error.strerror}); put [daemon] runtime_dir on a file system "
                "with POSIX ACLs (tmpfs and ext4 have them)"
            ) from error
        staged.unlink(missing_ok=True)
        return cls(staged, path, users, groups)

    @property
    def address(self) -> str:
        """What grpc binds."""
        return f"unix:{self.staged}"

    def publish(self) -> None:
        """Open it to its principal: ACL, then rename. Replaces a dead daemon's socket."""
        acl.admit(str(self.staged), 6, self.users, self.groups, 6)
        self.staged.rename(self.path)
        self._published = self.path.stat()

    def withdraw(self) -> None:
        """Remove it, unless somebody has put another there.

        The folder stays: it may be mounted into a container, which would see a removed one for ever.
        """
        self.staged.unlink(missing_ok=True)
        if self._published is None:
            return
        with suppress(FileNotFoundError):
            now = self.path.stat(follow_symlinks=False)
            if (now.st_dev, now.st_ino) == (self._published.st_dev, self._published.st_ino):
                self.path.unlink()
        self._published = None


def _own_folder(folder: Path) -> None:
    """A folder of ours, 0700, that is no symbolic link."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SocketError(f"{folder}: not a folder of uid {os.geteuid()}; remove it, mapd makes its own")


def clean_staging(runtime_dir: Path) -> None:
    """Remove what earlier daemons left; only under the lock."""
    shutil.rmtree(runtime_dir / STAGING, ignore_errors=True)
