"""Where clients connect: ``<runtime_dir>/<principal>/mapd.sock``, and the lock of the one daemon.

A socket is bound in a staging folder that only the daemon can search, given its ACL, and renamed
into place: nobody can connect before the ACL is there, and clients of the old name see either
the old socket or the new one.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from mapd.rpc import acl
from mapd.rpc.acl import Admitted
from mapd.rpc.socket_checks import SocketError, read_back, safe_folder

__all__ = [
    "Admitted",
    "InstanceLock",
    "PrincipalSocket",
    "SocketError",
    "clean_dead",
    "clean_staging",
]

LOCK: Final = "mapd.lock"
SOCKET_NAME: Final = "mapd.sock"
MOUNTED: Final = "mount"
STAGING: Final = ".staging"
PATH_MAX: Final = 107
"""struct sockaddr_un.sun_path is 108 bytes with its NUL (uapi linux/un.h)."""


_numbers = itertools.count()


class InstanceLock:
    """Held from start to stop: one daemon per runtime folder."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def acquire(cls, runtime_dir: Path) -> Self:
        """Take it.

        Raises:
            SocketError: another daemon has it (its pid is in the message), or the folder cannot be made, or others
                could put their own sockets there.
        """
        path = runtime_dir / LOCK
        try:
            runtime_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            safe_folder(runtime_dir)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SocketError(
                f"{runtime_dir}: {error.strerror}; start mapd as root, or set [daemon] runtime_dir to a folder of yours"
            ) from error
        _lock(runtime_dir, fd)
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return cls(path, fd)

    @staticmethod
    def check(runtime_dir: Path) -> None:
        """Refuse a start that ``acquire`` would refuse, before anything is made for it.

        Raises:
            SocketError: another daemon has it.
        """
        try:
            fd = os.open(runtime_dir / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return  # there is none, or what is wrong ``acquire`` will say
        _lock(runtime_dir, fd)
        os.close(fd)

    def release(self) -> None:
        """Let the next one in. The file stays: removing it would race with who opens it."""
        os.close(self._fd)


def _lock(runtime_dir: Path, fd: int) -> None:
    """Lock the open file; closed where another daemon has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise SocketError(
            f"{runtime_dir}: another mapd serves here (pid {owner}); stop it, or set another [daemon] runtime_dir"
        ) from None


@dataclass(slots=True)
class PrincipalSocket:
    """The socket of one principal, from staging to removal.

    A folder that is mounted must be searchable by whoever has the mount, as every folder on the way to a file must.
    So a ``mount`` socket is in a folder of its own, MOUNTED, below the principal's, which is closed.

    Attributes:
        staged: where grpc binds.
        path: where clients find it.
        admitted: whom it admits.
    """

    staged: Path
    path: Path
    admitted: Admitted
    _published: os.stat_result | None = None

    @classmethod
    def prepare(cls, runtime_dir: Path, principal: str, admitted: Admitted) -> Self:
        """Make the folders; nothing can be connected to yet.

        Raises:
            SocketError: a path is too long, or a folder is not the daemon's own.
        """
        staging = runtime_dir / STAGING
        folder = runtime_dir / principal
        inner = folder / MOUNTED if admitted.mount else folder
        path = inner / SOCKET_NAME
        staged = staging / f"{principal}.{next(_numbers)}"
        for each in (path, staged):
            if len(os.fsencode(each)) > PATH_MAX:
                raise SocketError(
                    f"{each}: {len(os.fsencode(each))} bytes; a socket's path has at most {PATH_MAX}: "
                    "choose a shorter [daemon] runtime_dir"
                )
        for each in dict.fromkeys((staging, folder, inner)):
            _own_folder(each)
        staged.unlink(missing_ok=True)
        return cls(staged, path, admitted)

    @property
    def address(self) -> str:
        """What grpc binds."""
        return f"unix:{self.staged}"

    @property
    def folder(self) -> Path:
        """The principal's."""
        return self.path.parent.parent if self.admitted.mount else self.path.parent

    def publish(self) -> None:
        """Open it to its principal: folder, ACL, then rename. Replaces a dead daemon's socket, or an older one.

        Raises:
            SocketError: the file system keeps no ACLs, or what it keeps admits others than it shall; nobody can
                connect then.
        """
        self._admit(self.staged)
        self.staged.rename(self.path)
        self._published = self.path.stat()

    def admit(self, admitted: Admitted) -> None:
        """Admit these from now on; who is connected stays so. Raises as ``publish``."""
        self.admitted = admitted
        self._admit(self.path)

    def _admit(self, socket: Path) -> None:
        who, inner = self.admitted, self.path.parent
        try:
            if who.mount:
                acl.admit(str(self.folder), 7, (), (), 0)
                acl.open_to_all(str(inner), 0o755)
                acl.open_to_all(str(socket), 0o666)
            else:
                acl.admit(str(self.folder), 7, who.uids, who.gids, 5)
                acl.admit(str(socket), 6, who.uids, who.gids, 6)
        except OSError as error:
            raise SocketError(
                f"{error.filename or socket}: cannot give it an ACL ({error.strerror}); put [daemon] runtime_dir on a "
                "file system with POSIX ACLs (tmpfs and ext4 have them)"
            ) from error
        read_back(self.folder, inner, socket, who)

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


def clean_dead(runtime_dir: Path, kept: Collection[Path]) -> None:
    """Remove the sockets that an earlier daemon could not, but those ``kept`` are; only under the lock.

    A principal may be gone by now, or its socket be elsewhere. The folders stay, for they may be mounted.
    """
    for folder in runtime_dir.iterdir():
        if folder.name == STAGING or not stat.S_ISDIR(folder.lstat().st_mode):
            continue
        for path in (folder / SOCKET_NAME, folder / MOUNTED / SOCKET_NAME):
            with suppress(FileNotFoundError, NotADirectoryError):
                if path not in kept and stat.S_ISSOCK(path.lstat().st_mode):
                    path.unlink()
