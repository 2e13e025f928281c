"""Openers for tests: in a thread of this process, which starts at once, or as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapd.opener import Limits, OpenerKernel, serve
from mapd.opener.log import Log

ROOT = Path(__file__).parents[2]


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends: the opener's, the front's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@contextlib.contextmanager
def raw_opener(limits: Limits, written: io.StringIO | None = None) -> Generator[socket.socket]:
    """The front's end of a socket to an opener in a thread, which has ended after the block."""
    theirs, ours = pair()
    log = Log(written if written is not None else io.StringIO())
    thread = threading.Thread(target=serve, args=(theirs, limits), kwargs={"log": log}, name="opener")
    thread.start()
    try:
        with ours:
            yield ours
    finally:
        thread.join()


@contextlib.contextmanager
def opener(limits: Limits, written: io.StringIO | None = None) -> Generator[OpenerKernel]:
    """A kernel by an opener in a thread of this process."""
    with raw_opener(limits, written) as sock:
        kernel = OpenerKernel(sock)
        try:
            yield kernel
        finally:
            kernel.close()


@dataclass(frozen=True)
class Process:
    """An opener process: the front's end of its socket, itself, and its log."""

    sock: socket.socket
    popen: subprocess.Popen[bytes]
    log: Path

    def logged(self) -> list[dict[str, Any]]:
        """The lines so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def fds(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.popen.pid}/fd").iterdir()))

    def lowest_free(self) -> int:
        """The number that its next descriptor would have."""
        taken = {int(entry.name) for entry in Path(f"/proc/{self.popen.pid}/fd").iterdir()}
        return min(set(range(len(taken) + 1)) - taken)

    def resident_bytes(self) -> int:
        """Memory that it has now."""
        return int(Path(f"/proc/{self.popen.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def ended(self, within_s: float = 20.0) -> int:
        """Its exit status; fails if it does not end."""
        return self.popen.wait(within_s)


@contextlib.contextmanager
def opener_process(limits: Limits, *, prefix: Sequence[str] = ()) -> Generator[Process]:
    """``python -m mapd.opener``, by the command ``prefix`` if there is one; it has ended after the block."""
    theirs, ours = pair()
    with tempfile.NamedTemporaryFile(prefix="mapd-opener-", suffix=".log") as log, ours:
        with theirs:
            popen = subprocess.Popen(
                [
                    *prefix,
                    sys.executable,
                    "-m",
                    "mapd.opener",
                    "--fd",
                    str(theirs.fileno()),
                    "--limits",
                    limits.to_json(),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=log,
                # One heap for all threads: with one for each, memory is flat only after 60 MiB.
                env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "MALLOC_ARENA_MAX": "1"},
            )
        try:
            yield Process(ours, popen, Path(log.name))
            ours.close()
            popen.wait(20)
        finally:
            popen.kill()
            popen.wait()


def writable(sock: socket.socket, within_s: float) -> bool:
    """Whether the other side comes to take something."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(within_s * 1_000))
