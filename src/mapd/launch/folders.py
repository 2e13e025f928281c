"""Folders that the processes need, made and handed over before rights are given up. Standard library alone.

No symbolic link is followed below a folder that is handed over: whoever owned it before may have put one there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from mapd.launch import LaunchError
from mapd.sandbox import Account


def make(path: str, mode: int, owner: Account | None) -> None:
    """Make a folder and those above it, and give it with what is in it to ``owner``; None: as it is.

    Only what belongs to who runs this is given away: a restart must not take over others' files.

    Raises:
        LaunchError: it cannot be, or something else is there.
    """
    try:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):  # of a link too, which hand_over refuses
            Path(path).mkdir(mode)
        if owner is not None:
            hand_over(path, owner)
    except OSError as error:
        raise LaunchError(
            f"{path}: {error.strerror}; it must be a folder of mapd's: make it "
            "(deploy/tmpfiles.d does), start mapd as root, or set [daemon] state_dir, runtime_dir or pin_root"
        ) from error


def hand_over(path: str, owner: Account) -> None:
    """Give a folder of ours, and all of ours in it, to ``owner``.

    Raises:
        OSError: ENOTDIR or ELOOP, no folder is there; any errno.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _give(fd, owner, os.fstat(fd).st_dev)
    finally:
        os.close(fd)


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


def make_names_root(bpffs: str, names_root: str, owner: Account | None) -> None:
    """The folder for names, on a bpffs.

    Raises:
        LaunchError: no bpffs is there; the message has the line that mounts one.
    """
    from mapd.bpf.host import is_bpffs

    try:
        mounted = is_bpffs(bpffs)
    except OSError as error:
        raise LaunchError(f"{bpffs}: {_words(error)}; mount a bpffs there, or set [daemon] bpffs") from error
    if not mounted:
        raise LaunchError(
            f"{bpffs} is not a bpffs, and names are pins: mount one (mount -t bpf bpf {bpffs}) in the mount namespace "
            "of the programs that shall share maps, or set [daemon] bpffs"
        )
    make(names_root, 0o700, owner)


def _words(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO)
