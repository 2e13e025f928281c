"""Folders that the processes need, made and handed over before rights are given up. Standard library alone.

No symbolic link is followed below a folder that is handed over: whoever owned it before may have put one there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from mapd.launch import LaunchError
from mapd.sandbox import Account

Known: TypeAlias = "Callable[[int, os.DirEntry[str]], bool]"
"""Whether something in the folder of a descriptor is mapd's."""


def make(path: str, mode: int, owner: Account | None, known: Known | None = None) -> None:
    """Make a folder and those above it, and give it with what is in it to ``owner``; None: as it is.

    Only what belongs to who runs this is given away: a restart must not take over others' files. And only a folder
    in which everything is ``known`` (None: whatever it is): somebody may have named /run.

    Raises:
        LaunchError: it cannot be, something else is there, or it is not mapd's alone.
    """
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # of a link too, which hand_over refuses
            Path(path).mkdir(mode)
        if owner is not None:
            hand_over(path, owner, known)
    except OSError as error:
        raise LaunchError(
            f"{path}: {error.strerror}; it must be a folder of mapd's: make it "
            "(deploy/tmpfiles.d does), start mapd as root, or set [daemon] state_dir, runtime_dir or pin_root"
        ) from error


def hand_over(path: str, owner: Account, known: Known | None = None) -> None:
    """Give a folder of ours, and all of ours in it, to ``owner``.

    Raises:
        OSError: ENOTDIR or ELOOP, no folder is there; any errno.
        LaunchError: there is something that is not ``known``.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        with os.scandir(fd) as entries:
            strange = sorted(entry.name for entry in entries if known is not None and not known(fd, entry))
        if found.st_uid == owner.uid and strange:
            return  # mapd's already, and it may have there what it likes
        if strange:
            raise LaunchError(
                f"{path} is to be mapd's own, and holds {strange[0]!r}: name a folder for mapd alone, or chown it"
            )
        _give(fd, owner, found.st_dev)
    finally:
        os.close(fd)


def of_sockets(folder: int, entry: os.DirEntry[str]) -> bool:
    """What a daemon leaves in its runtime folder."""
    if entry.name in {"mapd.lock", ".staging"}:
        return True
    if not entry.is_dir(follow_symlinks=False):
        return False
    fd = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        return set(os.listdir(fd)) <= {"mapd.sock", "mount"}  # noqa: PTH208 - of a descriptor
    finally:
        os.close(fd)


def of_state(folder: int, entry: os.DirEntry[str]) -> bool:
    """What a daemon leaves in its state folder."""
    del folder
    return entry.name == "btf"


def _give(folder: int, owner: Account, device: int) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            continue
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                inner = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
                try:
                    _give(inner, owner, device)
                finally:
                    os.close(inner)
            # A second name of a file may be outside, and the file not mapd's.
            elif not stat.S_ISLNK(found.st_mode) and found.st_nlink == 1:
                _chown(fd, found, owner)
        finally:
            os.close(fd)
    _chown(folder, os.fstat(folder), owner)


def _chown(fd: int, found: os.stat_result, owner: Account) -> None:
    if found.st_uid == os.geteuid() != owner.uid:
        # By the descriptor: the name may lead elsewhere by now.
        os.chown(f"/proc/self/fd/{fd}", owner.uid, owner.gid)


def make_names_root(bpffs: str, names_root: str, owner: Account | None, *, private: bool = False) -> None:
    """The folder for names, on a bpffs.

    Raises:
        LaunchError: as ``check_bpffs``; the folder cannot be made, or something else is there.
    """
    check_bpffs(bpffs, private=private)
    make(names_root, 0o700, owner)


def check_bpffs(bpffs: str, *, private: bool = False) -> None:
    """Refuse to serve maps that nobody else could find.

    Args:
        private: one that the host's own programs do not see will do.

    Raises:
        LaunchError: no bpffs is there, or another one than the host's; the message has the line that mends it.
    """
    from mapd.bpf.host import bpffs_is_private, is_bpffs

    try:
        mounted = is_bpffs(bpffs)
        hidden = mounted and not private and bpffs_is_private(bpffs)
    except OSError as error:
        raise LaunchError(f"{bpffs}: {_words(error)}; mount a bpffs there, or set [daemon] bpffs") from error
    if not mounted:
        raise LaunchError(
            f"{bpffs} is not a bpffs, and names are pins: mount one (mount -t bpf bpf {bpffs}) in the mount namespace "
            "of the programs that shall share maps, or set [daemon] bpffs"
        )
    if hidden:
        raise LaunchError(
            f"{bpffs} is a bpffs that is mounted in mapd's own mount namespace, and not in that of PID 1: the host's "
            "programs would not see the maps, which would go with the last process in here. Start mapd where the "
            "host's is (nsenter --mount=/proc/1/ns/mnt mapd serve; a container with --volume /sys/fs/bpf:/sys/fs/bpf; "
            "no 'ip netns exec', which mounts another /sys), or set [daemon] private_bpffs = true"
        )


def _words(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)
