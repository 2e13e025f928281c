"""Dumps and loads over a real socket: what they answer, and how they end; how a session may not begin."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest

from mapd_api import limits
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import types_pb2 as types
from tests.unit.mapd.dictkernel import n
from tests.unit.mapd.rpc.test_handlers import FLOWS, add
from tests.unit.mapd.rpc.wire import EPOCH, WAIT_S, refusal_of, serving, turns

pytestmark = pytest.mark.usefixtures("watched_loop")


async def test_a_dump_is_a_header_chunks_and_a_trailer() -> None:
    async with serving() as wire:
        made = add(wire, count=500)
        messages = [
            message
            async for message in wire.callable("Dump")(elements.DumpRequest(map=FLOWS), timeout=WAIT_S)
        ]
        assert messages[0].header.info.id == 41
        keys = b"".join(message.chunk.columns.keys for message in messages[1:-1])
        assert len(keys) == 4 * 500 == 4 * len(made.elements)
        trailer = messages[-1].trailer
        assert (trailer.entries, trailer.complete, trailer.epoch) == (500, True, EPOCH)


async def test_a_dump_that_the_client_leaves_gives_its_descriptor_back() -> None:
    async with serving() as wire:
        add(wire, count=60_000, max_entries=100_000)
        call = wire.callable("Dump")(elements.DumpRequest(map=FLOWS), timeout=WAIT_S)
        await call.read()
        call.cancel()
        await wire.guard.wait_ended(WAIT_S)
        await turns()
        assert wire.guard.running == 0
        assert wire.kernel.open_fds == 0


async def test_a_load_counts_what_it_wrote_and_what_not_over_the_whole_stream() -> None:
    async with serving() as wire:
        made = add(wire, max_entries=5)

        def message(numbers: range, **first: Any) -> elements.LoadRequest:
            keys, values = b"".join(map(n, numbers)), b"".join(map(n, numbers))
            columns = types.Columns(count=len(numbers), keys=keys, values=values)
            return elements.LoadRequest(columns=columns, **first)

        requests = iter([message(range(3), map=FLOWS), message(range(3, 8))])
        answer = await wire.callable("Load")(requests, timeout=WAIT_S)
        assert (answer.applied, answer.failed) == (5, 3)
        assert [error.index for error in answer.errors] == [5, 6, 7]
        assert len(made.elements) == 5


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([], Reason.BAD_SPEC),
        ([elements.LoadRequest()], Reason.BAD_SPEC),
        (
            [elements.LoadRequest(map=FLOWS, columns=types.Columns(count=2, keys=n(1), values=n(1)))],
            Reason.BAD_COLUMNS,
        ),
        ([elements.LoadRequest(map=FLOWS), elements.LoadRequest(map=FLOWS)], Reason.BAD_SPEC),
    ],
)
async def test_a_load_that_makes_no_sense_is_refused(
    requests: list[elements.LoadRequest], reason: Reason
) -> None:
    async with serving() as wire:
        add(wire)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.callable("Load")(iter(requests), timeout=WAIT_S)
        assert refusal_of(caught.value).reason is reason


async def ended_load(stream: Any) -> Refusal:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream
    return refusal_of(caught.value)


async def test_a_load_whose_client_sends_nothing_is_ended_and_says_what_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STREAM_PROGRESS_S", 0.1)
    async with serving() as wire:
        made = add(wire)
        stream = wire.callable("Load")()
        columns = types.Columns(count=2, keys=n(1) + n(2), values=n(1) + n(2))
        await stream.write(elements.LoadRequest(map=FLOWS, columns=columns))
        found = await ended_load(stream)
        assert found.reason is Reason.QUOTA
        assert "load: nothing came for 0.1 s" in found.message
        assert "2 elements of this load had been written" in found.message
        assert found.metadata["applied"] == "2"
        assert len(made.elements) == 2


@pytest.mark.parametrize("method", ["Load", "Session"])
async def test_a_stream_that_never_begins_is_ended(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(limits, "STREAM_PROGRESS_S", 0.1)
    async with serving() as wire:
        stream = wire.callable(method)()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (stream if method == "Load" else stream.read())
        assert refusal_of(caught.value).reason is Reason.QUOTA


@pytest.mark.parametrize("begun", [False, True])
async def test_a_load_ends_at_once_when_the_daemon_drains_and_says_what_was_written(begun: bool) -> None:
    async with serving() as wire:
        made = add(wire)
        stream = wire.callable("Load")()
        if begun:
            columns = types.Columns(count=1, keys=n(1), values=n(1))
            await stream.write(elements.LoadRequest(map=FLOWS, columns=columns))
        while len(made.elements) < begun or not wire.guard.running:
            await turns(1)
        wire.guard.draining.set()
        found = await ended_load(stream)
        assert found.reason is Reason.DRAINING
        assert found.metadata.get("applied") == ("1" if begun else None)
        assert await wire.guard.wait_idle(WAIT_S)


async def test_a_session_that_begins_otherwise_is_refused() -> None:
    async with serving() as wire:
        stream = wire.callable("Session")()
        await stream.write(elements.SessionRequest(apply=elements.ApplyRequest()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert refusal_of(caught.value).reason is Reason.BAD_SPEC
