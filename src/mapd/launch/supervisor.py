"""``mapd serve --supervise``: a parent that starts the daemon again when a process of it dies. Standard library alone.

For where nobody else does it: containers, terminals. It has no socket and reads nothing that a client sends; what it
knows of the daemon is how it ended. The daemon ends with it, whatever ends it: its standard input is a pipe of this
process'.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

from mapd.launch import LaunchError
from mapd.opener.log import Log

OPENER_GONE: Final = 3
"""Exit status of a daemon whose opener died: it drained and ended, for without one it can open no map."""

CANNOT_START: Final = frozenset({1, 2})
"""Exit statuses of a daemon that says why it does not start: nothing changes by trying again."""

SETTLED_S: Final = 5.0
"""One that has run for so long had started."""

QUICK: Final = 5
"""So many starts within WINDOW_S are made at once; those beyond wait, each twice as long as the one before."""
WINDOW_S: Final = 10.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(slots=True)
class Restarts:
    """How long to wait before the next start, by those of the last seconds.

    Attributes:
        clock: seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _at: deque[float] = field(default_factory=deque[float])

    def pause(self) -> float:
        """Seconds before the start that is due now, which counts from now on."""
        now = self.clock()
        while self._at and self._at[0] <= now - WINDOW_S:
            self._at.popleft()
        beyond = len(self._at) - QUICK
        pause = 0.0 if beyond < 0 else min(FIRST_PAUSE_S * 2**beyond, LONGEST_PAUSE_S)
        self._at.append(now + pause)
        return pause


def supervise(arguments: Sequence[str], *, until_stdin_ends: bool) -> int:
    """Run ``mapd serve ARGUMENTS`` until it is told to stop; its exit status.

    SIGTERM, SIGINT and SIGHUP are passed on. It is started again when it was killed or lost its opener, and not where
    it says by itself that it cannot start.

    Raises:
        LaunchError: this interpreter cannot be started anew.
    """
    return _Supervisor(arguments, watch_stdin=until_stdin_ends).run()


class _Supervisor:
    """One daemon after the other. For the main thread of a process that has no other."""

    def __init__(self, arguments: Sequence[str], *, watch_stdin: bool) -> None:
        self._command = [sys.executable, "-m", "mapd", "serve", *arguments, "--until-stdin-ends"]
        self._watch_stdin = watch_stdin
        self._restarts = Restarts()
        self._log = Log(name="mapd.supervisor", every_s=0)
        self._stopping = False
        self._bell, ringing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(ringing, warn_on_full_buffer=False)
        for number in _PASSED_ON:
            signal.signal(number, _nothing)  # the byte in the pipe says which it was

    def run(self) -> int:
        """Until a daemon's end is the end."""
        settled = False
        pause = self._restarts.pause()
        while True:
            self._wait(None, pause)
            if self._told_to_stop():
                return 0
            began = time.monotonic()
            status = self._serve()
            seconds = time.monotonic() - began
            settled = settled or seconds >= SETTLED_S or status < 0 or status == OPENER_GONE
            if self._told_to_stop() or (status in CANNOT_START and not settled):
                return status if status >= 0 else 128 - status
            pause = self._restarts.pause()
            self._log.write(
                "warning",
                "the daemon has ended; starting it again",
                status=status,
                ran_s=round(seconds, 3),
                in_s=round(pause, 3),
            )

    def _told_to_stop(self) -> bool:
        return self._stopping

    def _serve(self) -> int:
        """One daemon from its start to its end; its exit status, negative the signal that killed it."""
        try:
            daemon = subprocess.Popen(  # noqa: S603 - this interpreter, and our own arguments
                self._command,
                stdin=subprocess.PIPE,
                process_group=0,  # Ctrl-C reaches all of a group, and a second signal ends the daemon at once
            )
        except OSError as error:
            raise LaunchError(f"--supervise: {sys.executable} cannot be started: {error}") from error
        try:
            self._wait(daemon, None)
            return daemon.wait()
        finally:
            # Whatever happens here: without its standard input the daemon ends by itself.
            if daemon.stdin is not None:
                daemon.stdin.close()

    def _wait(self, daemon: subprocess.Popen[bytes] | None, seconds: float | None) -> None:
        """Pass signals on, until the daemon has ended, or that time is over, or there is nobody to pass them on to."""
        until = None if seconds is None else time.monotonic() + seconds
        pidfd = None if daemon is None else os.pidfd_open(daemon.pid)
        try:
            while True:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return
                watched = [self._bell, *([pidfd] if pidfd is not None else [])]
                if self._watch_stdin and not self._stopping:
                    watched.append(sys.stdin.fileno())
                ready, _, _ = select.select(watched, [], [], left)
                if pidfd is not None and pidfd in ready:
                    return
                self._look(ready, daemon)
                if self._stopping and daemon is None:
                    return
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _look(self, ready: Sequence[int], daemon: subprocess.Popen[bytes] | None) -> None:
        if self._bell in ready:
            for number in os.read(self._bell, 64):
                self._pass_on(number, daemon)
        if self._watch_stdin and sys.stdin.fileno() in ready and not os.read(sys.stdin.fileno(), 4_096):
            self._pass_on(signal.SIGTERM, daemon)

    def _pass_on(self, number: int, daemon: subprocess.Popen[bytes] | None) -> None:
        self._stopping = self._stopping or number != signal.SIGHUP
        if daemon is not None:
            daemon.send_signal(number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal is told by the byte that it writes."""
