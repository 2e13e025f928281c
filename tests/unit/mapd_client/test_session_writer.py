"""What writes the messages of a session, where one of them cannot be written."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2
from mapd_client.channel import Conversation, Transport
from mapd_client.errors import OutcomeUnknown, TypeMismatch
from mapd_client.session import Session
from tests.unit.mapd_client.daemon import EPOCH, Daemon
from tests.unit.mapd_client.pipes import Scripted, held, key, terms, value


@pytest.fixture
async def session(daemon: Daemon) -> AsyncIterator[tuple[Session, Scripted, list[str]]]:
    """A session, what the daemon executes, and the sessions that it has opened."""
    scripted, opened = Scripted(), list[str]()

    async def converse(requests: AsyncIterator[Any], context: Any) -> None:
        first = await anext(requests)
        assert first.open.session == ""
        opened.append(f"s{len(opened) + 1}")
        told = elements_pb2.SessionOpened(session=opened[-1], epoch=EPOCH, slots=2)
        told.resume_within.FromSeconds(10)
        await context.write(elements_pb2.SessionResponse(opened=told))
        async for request in requests:
            await context.write(elements_pb2.SessionResponse(apply=scripted.arrive(request)))

    daemon.hooks["Session"] = converse
    transport = Transport(daemon.target)
    made = await Session.open(transport, epoch="", timeout=10, renewed=lambda: None)
    yield made, scripted, opened
    await made.aclose()
    await transport.aclose()


async def test_what_cannot_be_written_costs_its_own_calls_and_no_others(
    session: tuple[Session, Scripted, list[str]],
) -> None:
    """It never left: it is told so, and what was to travel in the same message leaves in another."""
    made, scripted, opened = session
    pipeline, poison = made.pipeline, cast("bytes", "no bytes")
    assert pipeline is not None
    wrong = (
        pipeline.single(terms(held(1)), Op.UPDATE, key(1), poison),
        pipeline.single(terms(held(2)), Op.LOOKUP, poison),
    )
    right = pipeline.single(terms(held(3)), Op.UPDATE, key(1), value(1))
    ends = await asyncio.wait_for(asyncio.gather(*wrong, right, return_exceptions=True), 5)
    assert [type(end) for end in ends] == [TypeMismatch, TypeMismatch, int]
    assert "not sent: " in str(ends[0])
    assert [op for _, op, _ in scripted.executed] == [Op.UPDATE]
    assert opened == ["s1"]


async def test_a_writer_that_fails_gives_its_session_up_for_another(
    session: tuple[Session, Scripted, list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody else would end the stream, and everybody wait for their time to pass."""
    made, _, opened = session
    assert made.pipeline is not None

    async def failing(self: Conversation[Any, Any], message: Any) -> bool:
        del self, message
        monkeypatch.undo()
        raise RuntimeError("a fault")

    monkeypatch.setattr(Conversation, "send", failing)
    lost = made.pipeline.single(terms(held(1)), Op.UPDATE, key(1), value(1))
    asked_again = made.pipeline.single(terms(held(2)), Op.LOOKUP, key(1))
    with caplog.at_level(logging.ERROR, "mapd_client"), pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(lost, 5)
    assert await asyncio.wait_for(asked_again, 5) is None
    assert "nothing can be written" in caplog.text
    assert opened == ["s1", "s2"]
