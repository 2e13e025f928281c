"""A front goes on with another opener where somebody else starts them: systemd, for each connection.

The standard library, and what the front has imported already: it is locked in by now, and may connect to a path.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from dataclasses import dataclass, field
from typing import Final

from mapd.launch import LaunchError
from mapd.launch.link import GREETING_S, greeted
from mapd.launch.openerprocess import GREETING_BYTES, Greeting
from mapd.launch.supervisor import Restarts
from mapd.opener.renewed import RenewedKernel

TRIES_S: Final = 10.0
"""So long another opener is waited for: one that hangs in a syscall keeps the folder of names until it has ended."""

AGAIN_S: Final = 0.1
"""Between two tries. A socket unit refuses all when it is asked more than ten times in ten seconds."""


@dataclass(slots=True, kw_only=True)
class Renewing:
    """What a front needs to go on with another opener.

    Attributes:
        path: where openers listen.
        kernel: is given the next one.
        ended: tells when an opener has gone, and of the next one after ``renew``.
        sock: to the opener that there is now.
        first: how the first one was locked in. Clients were told so, and the next one has to be the same.
    """

    path: str
    kernel: RenewedKernel
    ended: select.epoll
    sock: socket.socket
    first: Greeting
    _restarts: Restarts = field(default_factory=Restarts)

    async def renew(self) -> None:
        """Connect to another opener, and ask that one from now on. Cancelled, it leaves everything as it was.

        Openers that end one after the other are asked for with longer and longer pauses.

        Raises:
            LaunchError: there is none within TRIES_S seconds, or it is not what the first one was.
        """
        await asyncio.sleep(self._restarts.pause())
        sock, greeting = await self._find()
        try:
            if greeting != self.first:
                raise LaunchError(
                    f"the opener at {self.path} is another than before: {_difference(self.first, greeting)}"
                )
            self.ended.unregister(self.sock)  # a thread that still reads from it keeps it open
            self.ended.register(sock, select.EPOLLHUP | select.EPOLLRDHUP)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
        self.kernel.renew(sock)

    async def _find(self) -> tuple[socket.socket, Greeting]:
        until = time.monotonic() + TRIES_S
        while True:
            try:
                return await self._connect()
            except LaunchError:
                if time.monotonic() >= until:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _connect(self) -> tuple[socket.socket, Greeting]:
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        except OSError as error:  # EMFILE: clients that close maps give some back
            raise LaunchError(f"no socket to ask for another opener: {error.strerror}") from error
        try:
            sock.connect(self.path)  # a path's is made or refused at once
            async with asyncio.timeout(GREETING_S):
                greeting = greeted(await asyncio.get_running_loop().sock_recv(sock, GREETING_BYTES))
        except OSError as error:  # TimeoutError is one
            sock.close()
            raise LaunchError(
                f"the opener's socket {self.path}: {error.strerror or 'it says nothing'}"
            ) from error
        except BaseException:
            sock.close()
            raise
        sock.setblocking(True)
        return sock, greeting


def _difference(first: Greeting, now: Greeting) -> str:
    """What of it is not the same, for people."""
    names = [name for name in Greeting.__slots__ if getattr(first, name) != getattr(now, name)]
    return "; ".join(f"{name} was {getattr(first, name)!r}, is {getattr(now, name)!r}" for name in names)
