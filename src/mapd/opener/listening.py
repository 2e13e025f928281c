"""The opener as a service of its own: a socket at a path, on which one front is served, and nobody else.

Who may connect the modes of the socket say, and the kernel's word on who did: the uid that it had then (SO_PEERCRED).
One opener serves one front and ends with it, and whoever started it starts the next: nothing that one front left
behind is there for another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from mapd.opener.limits import Limits
from mapd.opener.log import Log
from mapd.opener.server import serve

MODE: Final = 0o660
_RETRY_S: Final = 0.05
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred


@contextlib.contextmanager
def listening(path: str, gid: int | None = None) -> Generator[socket.socket]:
    """A socket at ``path``, 0660 and of the group ``gid``; gone after the block.

    Bound beside it and renamed, so that nobody connects before it has its modes.

    Raises:
        OSError: the folder is missing, may not be written, or something that is no socket is at ``path``.
    """
    place, staged, inode = Path(path), Path(f"{path}.new"), 0
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(place.lstat().st_mode):
            raise FileExistsError(f"{path} is there, and no socket: remove it, or choose another path")
    staged.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(staged))
        try:
            if gid is not None:
                os.chown(staged, -1, gid)
            staged.chmod(MODE)
            listener.listen(1)
            staged.rename(place)
            inode = place.lstat().st_ino
            yield listener
        finally:
            staged.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if place.lstat().st_ino == inode:  # not another opener's by now
                    place.unlink()


def accept_front(listener: socket.socket, uid: int, log: Log) -> socket.socket:
    """The connection of the front, a process with the uid ``uid``; others are closed, and logged. Blocks."""
    while True:
        sock, _ = listener.accept()
        pid, peer, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if peer == uid:
            return sock
        sock.close()
        log.write("warning", "a stranger has connected", uid=peer, pid=pid, wanted=uid)


def serve_at(path: str, uid: int, limits: Limits, *, gid: int | None = None, log: Log | None = None) -> None:
    """Wait at ``path`` for a front with the uid ``uid``, serve it, and return when it is gone. Blocks."""
    log = log or Log()
    with listening(path, gid) as listener:
        sock = accept_front(listener, uid, log)
    serve(sock, limits, log=log)


def connect(path: str, within_s: float) -> socket.socket:
    """The front's end of a connection to the opener at ``path``, which may still be starting.

    Raises:
        OSError: what connect(2) said last, ``within_s`` seconds after the first attempt.
    """
    until = time.monotonic() + within_s
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            passing = isinstance(error, (FileNotFoundError, ConnectionRefusedError, BlockingIOError))
            if not passing or time.monotonic() >= until:
                raise
            time.sleep(_RETRY_S)
        else:
            return sock
