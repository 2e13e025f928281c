"""The front's end of the socket to its opener: started here, or by somebody else (systemd)."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Self

from mapd.launch import LaunchError
from mapd.launch.openerprocess import GREETING_BYTES, Greeting
from mapd.launch.settings import ENVIRONMENT, OpenerSettings, command

GREETING_S: Final = 10.0
"""An interpreter starts in a tenth of a second; ten of them on a machine with much to do."""

END_S: Final = 2.0
"""What the opener may take to end after its front has let go of it; a syscall of its own may take longer."""


@dataclass(slots=True)
class OpenerLink:
    """One opener.

    Attributes:
        sock: to it; ``mapd.opener.OpenerKernel`` takes it over.
        process: where it is this process' child.
    """

    sock: socket.socket
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, settings: OpenerSettings) -> Self:
        """Start an opener, on a new socket. To be called before this process has a thread and is locked in.

        Raises:
            LaunchError: the interpreter cannot be started.
        """
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own settings
                    command(replace(settings, fd=its.fileno())),
                    pass_fds=(its.fileno(),),
                    env=ENVIRONMENT,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
            except OSError as error:
                ours.close()
                raise LaunchError(f"the opener cannot be started: {error}") from error
        return cls(ours, process)

    @classmethod
    def connect(cls, path: str) -> Self:
        """Connect to an opener that listens.

        Raises:
            LaunchError: nobody does, or not for this user.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
        except OSError as error:
            sock.close()
            raise LaunchError(
                f"the opener's socket {path}: {error.strerror}; systemctl status mapd-opener.socket says whether it "
                "is there, and for whom"
            ) from error
        return cls(sock)

    def greeting(self) -> Greeting:
        """Wait until the opener is locked in.

        Raises:
            LaunchError: it is not, or said nothing in time.
        """
        self.sock.settimeout(GREETING_S)
        try:
            message = self.sock.recv(GREETING_BYTES)
        except OSError as error:
            raise LaunchError(
                f"the opener said nothing within {GREETING_S:.0f} s ({error}); its log says why"
            ) from error
        self.sock.settimeout(None)
        return greeted(message)

    def watch(self) -> select.epoll:
        """A descriptor that is readable once the opener has gone: answers on the socket are not ours to read."""
        ended = select.epoll()
        ended.register(self.sock, select.EPOLLHUP | select.EPOLLRDHUP)
        return ended

    def end(self) -> int | None:
        """Let go of the opener, and wait until it has ended; its exit status where it was a child.

        None where it still runs: it ends by itself, since nobody else holds its socket.
        """
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self.process is None:
            return None
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(END_S)
        return None


def greeted(message: bytes) -> Greeting:
    """How an opener is locked in, by its first message.

    Raises:
        LaunchError: it is not.
    """
    try:
        found = Greeting.unpack(message)
    except ValueError as error:
        raise LaunchError("the opener ended before it was locked in; its log says why") from error
    if found.error:
        raise LaunchError(found.error)
    return found


def received() -> int:
    """The connection that systemd accepted for this process (sd_listen_fds(3)).

    Raises:
        LaunchError: it was started otherwise.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise LaunchError(
            "mapd opener is started by systemd for each connection to mapd-opener.socket; `mapd serve` starts its own"
        )
    return 3
