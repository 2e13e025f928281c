"""Calls by handle that are made again: what is told of a try that was lost, what is left of one that was cancelled."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2
from mapd_client import connect, healing, methods
from mapd_client.codec import Bytes
from mapd_client.errors import MapdError, NotSent, OutcomeUnknown
from mapd_client.failures import Asked
from mapd_client.held import Grip, Held
from mapd_client.link import Link
from mapd_client.patience import Patience
from mapd_client.refs import Name
from mapd_client.replies import map_info
from tests.unit.mapd_client import daemon as described

FREEZE = Asked("freeze", "flows", mutates=True, repeatable=True)


class Script:
    """A link on which every try ends as it is written here."""

    def __init__(self, *ends: MapdError) -> None:
        self.ends = list(ends)

    def patience(self, asked: Asked, timeout: float | None = None) -> Patience:
        return Patience(asked, 5.0 if timeout is None else timeout)

    async def call(self, *_: Any, **__: Any) -> Any:
        raise self.ends.pop(0)

    async def tenure(self, _timeout: float | None = None) -> Any:
        raise self.ends.pop(0)


async def test_a_map_that_cannot_be_opened_again_does_not_settle_what_was_lost_before() -> None:
    lost = OutcomeUnknown(
        "freeze flows: the connection broke; asked again: stale", reason=Reason.STALE_HANDLE
    )
    script = Script(lost, NotSent("open flows: nobody there; nothing was executed"))
    held = Held(Grip(1, ref=Name("flows")), map_info(described.map_info("ns/flows")), "flows", Bytes(4))
    with pytest.raises(OutcomeUnknown, match=r"the connection broke.*asked again.*nobody there"):
        await healing.by_handle(
            cast("Link", script), methods.FREEZE_MAP, maps_pb2.FreezeMapRequest, FREEZE, held
        )
    assert not script.ends


async def test_a_call_that_is_cancelled_while_its_map_is_opened_again_leaves_no_handle(
    daemon: described.Daemon,
) -> None:
    daemon.add(described.map_info("ns/flows"))
    asked, answer, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def open_map(request: maps_pb2.OpenMapRequest, context: Any) -> maps_pb2.OpenMapResponse:
        asked.set()
        await answer.wait()
        return await daemon.OpenMap(request, context)

    async def close_map(request: maps_pb2.CloseMapRequest, context: Any) -> maps_pb2.CloseMapResponse:
        answered = await daemon.CloseMap(request, context)
        closed.set()
        return answered

    async with connect(daemon.target) as client:
        flows = await client.open_map("flows")
        daemon.handles.clear()
        daemon.hooks.update(OpenMap=open_map, CloseMap=close_map)
        call = asyncio.create_task(flows.lookup(bytes(flows.info.key_size)))
        await asked.wait()
        call.cancel()
        answer.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(closed.wait(), 10)
        assert not daemon.handles


async def test_a_call_that_is_cancelled_while_it_gives_back_the_second_handle_leaves_none(
    daemon: described.Daemon,
) -> None:
    """Two open the map again; one of them needs its handle no more, and is cancelled as it says so."""
    daemon.add(described.map_info("ns/flows"))
    both, closing, close, closed = (asyncio.Event() for _ in range(4))
    opened = 0

    async def open_map(request: maps_pb2.OpenMapRequest, context: Any) -> maps_pb2.OpenMapResponse:
        nonlocal opened
        opened += 1
        if opened == 2:
            both.set()
        await both.wait()
        return await daemon.OpenMap(request, context)

    async def close_map(request: maps_pb2.CloseMapRequest, context: Any) -> maps_pb2.CloseMapResponse:
        closing.set()
        await close.wait()
        answered = await daemon.CloseMap(request, context)
        closed.set()
        return answered

    async with connect(daemon.target) as client:
        flows = await client.open_map("flows")
        daemon.handles.clear()
        daemon.hooks.update(OpenMap=open_map, CloseMap=close_map)
        calls = [asyncio.create_task(flows.lookup(bytes(flows.info.key_size))) for _ in range(2)]
        await closing.wait()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await client.server_info()  # what they had cancelled was heard before
        close.set()
        await asyncio.wait_for(closed.wait(), 10)
        assert len(daemon.handles) == 1, "the one that the map has"
