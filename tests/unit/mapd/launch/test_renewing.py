"""A front goes on with another opener, or says that it cannot; it never goes on without one."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mapd.isolation import Isolation
from mapd.launch.openerprocess import Greeting
from mapd.launch.renewing import Renewing
from mapd.opener.renewed import RenewedKernel
from mapd.openerwatch import watching_opener

pytestmark = pytest.mark.usefixtures("leaves_nothing")

GREETING = Greeting(uid=0, capabilities=("CAP_BPF",), landlock=7, names_root="/x", memory=0)


class Openers:
    """What systemd has: a socket, behind which an opener greets each who connects; and a front of one of them."""

    def __init__(self, folder: Path) -> None:
        path = str(folder / "opener.sock")
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(path)
        self.listening.listen()
        ours, self.its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ended = select.epoll()
        self.ended.register(ours, select.EPOLLHUP | select.EPOLLRDHUP)
        self.renewing = Renewing(
            path=path, kernel=RenewedKernel(ours), ended=self.ended, sock=ours, first=GREETING
        )
        self.isolation = Isolation(
            kernel=self.renewing.kernel,
            capabilities=frozenset(),
            names_root="/x",
            names_owner=0,
            lines=(),
            ended=self.ended,
            renewing=self.renewing,
        )

    async def next_one(self) -> socket.socket:
        """An opener is asked for, and greets."""
        self.listening.setblocking(False)
        sock, _ = await asyncio.get_running_loop().sock_accept(self.listening)
        sock.send(GREETING.pack())
        return sock

    def close(self) -> None:
        self.renewing.kernel.close()
        for one in (self.listening, self.its, self.ended):
            one.close()


@pytest.fixture
def openers() -> Generator[Openers]:
    with tempfile.TemporaryDirectory(prefix="mapd") as folder:  # a short path: a socket's has 107 bytes
        made = Openers(Path(folder))
        yield made
        made.close()


@contextmanager
def no_descriptors() -> Generator[None]:
    """This process can open none inside the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_front_without_descriptors_tries_again_until_there_are_some(openers: Openers) -> None:
    with no_descriptors():
        renewal = asyncio.create_task(openers.renewing.renew())
        done, _ = await asyncio.wait({renewal}, timeout=0.25)
        assert not done
    opener = await openers.next_one()
    await asyncio.wait_for(renewal, 10)
    assert not openers.ended.poll(0)
    opener.close()
    assert openers.ended.poll(10)


async def test_a_fault_while_an_opener_is_taken_stops_the_daemon(openers: Openers) -> None:
    """Nobody would connect to another one, and everything be refused as draining, for ever."""
    gone = asyncio.Event()
    openers.renewing.ended = select.epoll()  # in which nothing of it is registered
    with capture_logs() as lines:
        async with watching_opener(openers.isolation, gone.set):
            openers.its.close()
            opener = await openers.next_one()
            await asyncio.wait_for(gone.wait(), 10)
    assert [line["event"] for line in lines if line.get("exc_info")] == ["no other opener could be taken"]
    opener.close()
    openers.renewing.ended.close()
