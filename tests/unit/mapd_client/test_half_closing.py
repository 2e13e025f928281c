"""The end of a stream that this side says: the daemon hears it, and nothing of grpc's own reaches the caller."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2
from mapd_client.channel import Conversation, Transport
from mapd_client.failures import Asked
from mapd_client.methods import SESSION
from mapd_client.session import Session
from tests.unit.mapd_client.daemon import EPOCH, Daemon
from tests.unit.mapd_client.pipes import Scripted, held, key, terms, value


@pytest.fixture
async def silent(short_folder: Path) -> AsyncIterator[Transport]:
    """To a socket that takes connections and says nothing: what is sent waits in grpc."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_folder / "silent.sock"))
        listening.listen()
        transport = Transport(f"unix:{short_folder}/silent.sock")
        yield transport
        await transport.aclose()


async def begun(work: asyncio.Task[Any]) -> None:
    """Let it come as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not work.done()


async def test_the_end_of_a_stream_that_is_cancelled_meanwhile_is_no_error(silent: Transport) -> None:
    stream = silent.converse(SESSION, Asked("open a session"), None)
    ending = asyncio.create_task(stream.end())
    await begun(ending)
    stream.cancel()
    await asyncio.wait_for(ending, 10)


async def test_a_session_that_is_closed_while_a_write_is_yet_to_be_told_ends_at_the_daemon(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer may be there before grpc says that the question has left.

    A stream that is cancelled breaks for the daemon: it keeps the session, and all that is open in it, for its return.
    """
    scripted, told, said = Scripted(), asyncio.Event(), list[str]()

    async def converse(requests: AsyncIterator[Any], context: Any) -> None:
        await anext(requests)
        opened = elements_pb2.SessionOpened(session="s1", epoch=EPOCH, slots=2)
        opened.resume_within.FromSeconds(10)
        await context.write(elements_pb2.SessionResponse(opened=opened))
        async for request in requests:
            await context.write(elements_pb2.SessionResponse(apply=scripted.arrive(request)))

    stream = Conversation[Any, Any]
    send, end, cancel = stream.send, stream.end, stream.cancel

    async def told_late(self: Conversation[Any, Any], message: Any) -> bool:
        left = await send(self, message)
        await told.wait()
        return left

    async def end_behind_it(self: Conversation[Any, Any]) -> None:
        told.set()
        for _ in range(10):
            await asyncio.sleep(0)
        said.append("end")
        await end(self)

    def noted(self: Conversation[Any, Any]) -> None:
        said.append("cancel")
        cancel(self)

    daemon.hooks["Session"] = converse
    transport = Transport(daemon.target)
    session = await Session.open(transport, epoch="", timeout=5, renewed=lambda: None)
    for name, observed in (("send", told_late), ("end", end_behind_it), ("cancel", noted)):
        monkeypatch.setattr(Conversation, name, observed)
    assert session.pipeline is not None
    await session.pipeline.single(terms(held(1, session.tenure)), Op.UPDATE, key(1), value(1))
    await session.aclose()
    await transport.aclose()
    assert said[0] == "end"
