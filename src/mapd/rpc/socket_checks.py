"""Whether a socket admits whom it shall and nobody else, by what the kernel has kept. ``socket_trials`` tries it.

A mistake here would be everybody's way in, so what does not match keeps a socket from being served. Blocking.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mapd.rpc.acl import Access, Admitted

SEARCH: Final = 1
WRITE: Final = 2
OUTSIDERS: Final = 0x7FFF_FF00
"""From here on, the first id that a socket does not admit stands for everybody else."""


class SocketError(Exception):
    """The runtime folder or a socket in it cannot be used; the message says why and what to do."""


def safe_folder(folder: Path) -> None:
    """Make sure that nobody but root and this user can put another folder in the place of this one.

    Raises:
        SocketError: it is a symbolic link, or somebody else may write it or a folder above it; one with the sticky
            bit, as /tmp, may be written.
    """
    if folder.is_symlink():
        raise SocketError(f"{folder}: a symbolic link; name the folder itself in [daemon] runtime_dir")
    real = folder.resolve()
    # Who owns "/" is trusted as root is: in a user namespace it is no uid of this process' own.
    trusted = {0, os.geteuid(), Path("/").stat().st_uid}
    for each in (real, *real.parents):
        found = each.stat()
        if found.st_uid not in trusted:
            raise SocketError(
                f"{each}: belongs to uid {found.st_uid}, who could replace the sockets below it; "
                f"chown root {each}, or set [daemon] runtime_dir to a folder elsewhere"
            )
        shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if shared and (each == real or not found.st_mode & stat.S_ISVTX):
            raise SocketError(
                f"{each}: mode {stat.S_IMODE(found.st_mode):04o}, others may write it, and replace the sockets below "
                f"it; chmod go-w {each}, or set [daemon] runtime_dir to a folder elsewhere"
            )


def read_back(folder: Path, inner: Path, socket: Path, who: Admitted) -> None:
    """Compare what the kernel keeps of a socket and its folders with whom they shall admit.

    Args:
        folder: the principal's.
        inner: where the socket is; another one below ``folder`` only for one that is mounted.

    Raises:
        SocketError: somebody is admitted who shall not be, or the other way round.
    """
    outside, within = _access(folder), _access(inner)
    opened = _access(socket)
    for path, access in ((folder, outside), (inner, within), (socket, opened)):
        if access.owner != os.geteuid():
            raise SocketError(
                f"{path}: belongs to uid {access.owner} instead of {os.geteuid()}; it is not served"
            )
    for uid, gids, admitted in questions(who):
        if uid == os.geteuid():
            continue
        if who.mount:
            # From this side nobody; by the mounted folder everybody.
            found = (
                outside.permits(uid, gids, SEARCH),
                within.permits(uid, gids, SEARCH) and opened.permits(uid, gids, WRITE),
            )
            wanted = (False, True)
        else:
            found = (outside.permits(uid, gids, SEARCH), opened.permits(uid, gids, WRITE))
            wanted = (admitted, admitted)
        if found != wanted:
            more = any(does and not shall for does, shall in zip(found, wanted, strict=True))
            raise SocketError(
                f"{socket}: uid {uid} with groups {list(gids)} {'would be admitted' if more else 'would be refused'}, "
                "against the policy: the file system keeps other rights than were set; it is not served. Put [daemon] "
                "runtime_dir on a tmpfs"
            )


def questions(who: Admitted) -> Iterable[tuple[int, tuple[int, ...], bool]]:
    """(uid, groups, whether the path admits it): each that is admitted, by itself, and an outsider."""
    outsider = next(
        number for number in itertools.count(OUTSIDERS) if number not in who.uids and number not in who.gids
    )
    for uid in sorted(who.uids):
        yield uid, (outsider,), True
    for gid in sorted(who.gids):
        yield outsider, (gid,), True
    yield outsider, (outsider,), False


def _access(path: Path) -> Access:
    try:
        return Access.of(str(path))
    except (OSError, ValueError) as error:
        raise SocketError(f"{path}: cannot be checked ({error}); it is not served") from error
