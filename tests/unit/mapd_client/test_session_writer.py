"""What writes the messages of a session, when it fails by a fault of this library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2
from mapd_client.channel import Transport
from mapd_client.errors import OutcomeUnknown, Unavailable
from mapd_client.session import Session
from tests.unit.mapd_client.daemon import EPOCH, Daemon
from tests.unit.mapd_client.pipes import Scripted, held, key, terms, value


async def test_a_message_that_cannot_be_written_costs_its_own_calls_and_no_others(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be in flight for as long as the session lives, and nothing else be written in it."""
    scripted, opened = Scripted(), list[str]()

    async def converse(requests: AsyncIterator[Any], context: Any) -> None:
        first = await anext(requests)
        opened.append(f"s{len(opened) + 1}")
        assert first.open.session == ""
        told = elements_pb2.SessionOpened(session=opened[-1], epoch=EPOCH, slots=2)
        told.resume_within.FromSeconds(10)
        await context.write(elements_pb2.SessionResponse(opened=told))
        async for request in requests:
            await context.write(elements_pb2.SessionResponse(apply=scripted.arrive(request)))

    daemon.hooks["Session"] = converse
    transport = Transport(daemon.target)
    session = await Session.open(transport, epoch="", timeout=10, renewed=lambda: None)
    pipeline = session.pipeline
    assert pipeline is not None
    with caplog.at_level(logging.ERROR, "mapd_client"):
        poison: Any = "no bytes"
        wrong = (
            pipeline.single(terms(held(1)), Op.UPDATE, key(1), poison),
            pipeline.single(terms(held(2)), Op.LOOKUP, poison),
        )
        ends = await asyncio.wait_for(asyncio.gather(*wrong, return_exceptions=True), 5)
    assert [type(end) for end in ends] == [OutcomeUnknown, Unavailable]
    assert "nothing can be written" in caplog.text
    assert len(opened) == 9
    await asyncio.wait_for(pipeline.single(terms(held(3)), Op.UPDATE, key(1), value(1)), 5)
    assert [op for _, op, _ in scripted.executed] == [Op.UPDATE]
    await session.aclose()
    await transport.aclose()
