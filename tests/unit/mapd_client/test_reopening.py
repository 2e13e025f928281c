"""Maps that are opened again in a new session, against a daemon that answers in a way of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mapd_api.ops import Op
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2, maps_pb2
from mapd_client.channel import Transport
from mapd_client.errors import NotSent, Unavailable
from mapd_client.held import Tenure
from mapd_client.session import Session
from tests.unit.mapd_client.daemon import EPOCH, Daemon, map_info, refuse
from tests.unit.mapd_client.pipes import held, key, terms, value


@asynccontextmanager
async def session_of(daemon: Daemon) -> AsyncGenerator[Session]:
    """A session that carries operations."""

    async def converse(requests: AsyncIterator[Any], context: Any) -> None:
        await anext(requests)
        daemon.sessions.add("s1")
        opened = elements_pb2.SessionOpened(session="s1", epoch=EPOCH, slots=2)
        opened.resume_within.FromSeconds(10)
        await context.write(elements_pb2.SessionResponse(opened=opened))
        async for _ in requests:
            pass

    daemon.hooks["Session"] = converse
    transport = Transport(daemon.target)
    session = await Session.open(transport, epoch="", timeout=5, renewed=lambda: None)
    try:
        yield session
    finally:
        await session.aclose()
        await transport.aclose()


def gone() -> Tenure:
    tenure = Tenure("s0", EPOCH)
    tenure.ended = True
    return tenure


async def test_a_map_that_is_closed_while_it_is_opened_again_leaves_no_handle(daemon: Daemon) -> None:
    of = held(1, gone())
    info = map_info("ns/map1")
    info.id = 1
    daemon.add(info)
    opened: list[int] = []

    async def open_map(request: maps_pb2.OpenMapRequest, context: Any) -> maps_pb2.OpenMapResponse:
        answer = await daemon.OpenMap(request, context)
        opened.append(answer.handle)
        of.closed = True
        return answer

    daemon.hooks["OpenMap"] = open_map
    async with session_of(daemon) as session:
        assert session.pipeline is not None
        call = session.pipeline.single(terms(of), Op.LOOKUP, key(1))
        with pytest.raises(Unavailable, match="the handle is stale"):
            await asyncio.wait_for(call, 10)
        assert len(opened) == 1
        assert daemon.handles == {}
        assert of.handle == 1001


async def test_whatever_goes_wrong_while_a_map_is_opened_again_ends_the_wait_for_it(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    of = held(1, gone())
    of.read_only = "no"  # type: ignore[assignment]  # a fault of this library: protobuf raises TypeError
    async with session_of(daemon) as session:
        assert session.pipeline is not None
        calls = [
            session.pipeline.single(terms(of), Op.LOOKUP, key(1)),
            session.pipeline.single(terms(of), Op.UPDATE, key(1), value(1)),
        ]
        with caplog.at_level(logging.ERROR, logger="mapd_client"):
            for call, error in zip(calls, (Unavailable, NotSent), strict=True):
                with pytest.raises(error, match=r"open map1 again: TypeError.*nothing was executed"):
                    await asyncio.wait_for(call, 10)
    assert "open map1 again" in caplog.text


async def test_a_daemon_that_is_busy_is_not_asked_again_and_again_to_open_a_map(daemon: Daemon) -> None:
    """Whoever waits for it is told why, and decides."""
    of, asked = held(1, gone()), 0

    async def open_map(_request: maps_pb2.OpenMapRequest, context: Any) -> None:
        nonlocal asked
        asked += 1
        await refuse(context, Refusal(Reason.AUDIT, "the audit trail cannot be written"))

    daemon.hooks["OpenMap"] = open_map
    async with session_of(daemon) as session:
        assert session.pipeline is not None
        call = session.pipeline.single(terms(of), Op.UPDATE, key(1), value(1))
        with pytest.raises(NotSent, match="the audit trail cannot be written") as caught:
            await asyncio.wait_for(call, 10)
        assert caught.value.reason is Reason.AUDIT
    assert asked == 1


async def test_a_session_that_is_refused_for_a_quota_is_asked_for_again_when_the_daemon_says(
    daemon: Daemon,
) -> None:
    now, wait_s = asyncio.get_running_loop().time, 0.3
    refused: list[float] = []
    async with session_of(daemon) as session:
        begin = daemon.hooks["Session"]

        async def converse(requests: AsyncIterator[Any], context: Any) -> None:
            if len(refused) == 2:
                await begin(requests, context)
                return
            refused.append(now())
            await refuse(context, Refusal(Reason.QUOTA, "50 sessions, at most 50", wait_s=wait_s))

        daemon.hooks["Session"] = converse
        session.forgotten(session.tenure)
        await session.live(10)
    first, second = refused
    assert second - first >= wait_s
