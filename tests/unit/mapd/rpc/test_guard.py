"""Around every handler: what a client learns of refusals and faults, and which calls run."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

from mapd.maps.errors import MapError
from mapd.rpc.caller import Caller
from mapd.rpc.guard import Call
from mapd_api import limits
from mapd_api.reasons import RETRY_AFTER_S, STATUS, Reason, Refusal, retry_delay_s
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.unit.mapd.dictkernel import ROOT, DictMap, raw_info
from tests.unit.mapd.rpc.wire import STRANGER, WAIT_S, refusal_of, serving, status_of

pytestmark = pytest.mark.usefixtures("watched_loop")

LOOKUP = elements.LookupRequest(map=MapRef(name="flows"), key=b"key")


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


def raising(error: BaseException) -> Callable[[Call, object], Awaitable[object]]:
    async def handler(_call: Call, _request: object) -> object:
        raise error

    return handler


@pytest.mark.parametrize("reason", sorted(set(STATUS) - {Reason.INTERNAL}))
async def test_every_reason_arrives_with_its_status_message_metadata_and_delay(reason: Reason) -> None:
    error = MapError(reason, "lookup map 41: why", map="map 41", given=3)
    async with serving({"Lookup": raising(error)}) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.call(LOOKUP)
        found = refusal_of(caught.value)
        assert caught.value.code() is STATUS[reason]
        assert (found.reason, found.message) == (reason, "lookup map 41: why")
        assert dict(found.metadata) == {"map": "map 41", "given": "3"}
        assert found.retry_after_s == RETRY_AFTER_S.get(reason)
        assert retry_delay_s(status_of(caught.value)) == RETRY_AFTER_S.get(reason)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("secret key 0xdeadbeef"),
        KeyError("secret"),
        OSError(5, "secret"),
        TimeoutError("secret"),
        ExceptionGroup("secret", [ValueError("secret")]),
        AssertionError("secret"),
        MapError(Reason.INTERNAL, "secret"),
    ],
    ids=[
        "RuntimeError",
        "KeyError",
        "OSError",
        "TimeoutError",
        "ExceptionGroup",
        "AssertionError",
        "MapError",
    ],
)
async def test_a_fault_tells_the_client_a_number_and_the_log_everything(error: Exception) -> None:
    async with serving({"Lookup": raising(error)}) as wire:
        with capture_logs() as logged, pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.call(LOOKUP)
        found = refusal_of(caught.value)
        assert found.reason is Reason.INTERNAL
        assert "secret" not in repr(caught.value)
        incident = found.metadata["incident"]
        assert re.fullmatch("[0-9a-f]{8}", incident)
        assert incident in found.message
        (event,) = (event for event in logged if event["event"] == "fault")
        assert (event["incident"], event["exc_info"]) == (incident, error)
        assert event["method"] == "/mapd_api.v1.ElementService/Lookup"


async def test_a_refusal_that_quotes_a_name_of_any_length_arrives_as_a_refusal() -> None:
    """A status rides in metadata of some KiB; beyond that grpc answers for us, without our reason."""
    error = MapError(Reason.BAD_SPEC, f"open {'n' * 100_000}: no map name", name="n" * 100_000)
    async with serving({"Lookup": raising(error)}) as wire:
        found = await wire.refusal(LOOKUP)
        assert found.reason is Reason.BAD_SPEC
        assert found.message.startswith("open nnn")
        assert found.message.endswith("nnn: no map name")
        assert len(found.message) < 1_000


async def test_a_handler_that_cancels_itself_is_answered_all_the_same() -> None:
    async with serving({"Lookup": raising(asyncio.CancelledError())}) as wire:
        with capture_logs() as logged:
            found = await wire.refusal(LOOKUP)
        assert found.reason is Reason.OUTCOME_UNKNOWN
        assert [event["event"] for event in logged] == ["a handler cancelled itself"]


async def test_a_call_that_the_client_cancels_ends_and_is_no_fault() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(_call: Call, _request: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving({"Lookup": handler}) as wire:
        with capture_logs() as logged:
            call = wire.callable("Lookup")(LOOKUP, timeout=WAIT_S)
            await begun.wait()
            assert wire.guard.running == 1
            call.cancel()
            await ended.wait()
            await wire.guard.wait_ended(WAIT_S)
        assert wire.guard.running == 0
        assert [(event["event"], event["log_level"]) for event in logged] == [("cancelled", "debug")]


async def test_a_call_whose_deadline_passes_is_ended() -> None:
    ended = asyncio.Event()

    async def handler(_call: Call, _request: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving({"Lookup": handler}) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.call(LOOKUP, timeout=0.02)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await ended.wait()


async def test_a_unary_call_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UNARY_S", 0.01)

    async def handler(_call: Call, _request: object) -> None:
        await asyncio.Event().wait()

    async with serving({"Lookup": handler}) as wire:
        found = await wire.refusal(LOOKUP)
        assert found.reason is Reason.OUTCOME_UNKNOWN
        assert "given up; it may still be executed" in found.message


async def test_a_call_knows_its_deadline_or_gets_one() -> None:
    remaining: list[float] = []

    async def handler(call: Call, _request: object) -> elements.LookupResponse:
        remaining.append(call.expires - asyncio.get_running_loop().time())
        return elements.LookupResponse()

    async with serving({"Lookup": handler}) as wire:
        await wire.call(LOOKUP, timeout=5.0)
        await wire.callable("Lookup")(LOOKUP)
    assert 0 < remaining[0] <= 5.1  # grpc rounds up
    assert 5.1 < remaining[1] <= limits.UNARY_S


async def test_a_daemon_that_drains_refuses_new_calls_and_lets_running_ones_end() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(_call: Call, _request: object) -> elements.LookupResponse:
        begun.set()
        await go_on.wait()
        return elements.LookupResponse(value=b"done")

    async with serving({"Lookup": handler}) as wire:
        running = asyncio.create_task(wire.call(LOOKUP))
        await begun.wait()
        wire.guard.draining.set()
        found = await wire.refusal(maps.GetServerInfoRequest())
        assert found.reason is Reason.DRAINING
        assert not await wire.guard.wait_idle(0.0)
        go_on.set()
        assert await wire.guard.wait_idle(WAIT_S)
        assert (await running).value == b"done"


async def test_a_stranger_learns_nothing_not_even_that_a_map_exists() -> None:
    async with serving(principal=STRANGER) as wire:
        wire.kernel.add(DictMap(raw_info()), f"{ROOT}/web/flows")
        assert not (await wire.call(maps.ListMapsRequest(pins=True))).maps
        found = await wire.refusal(maps.ListMapsRequest(ids=True))
        assert found.reason is Reason.POLICY
        found = await wire.refusal(maps.GetMapRequest(map=MapRef(name="flows")))
        assert found.reason is Reason.MAP_NOT_FOUND
        assert (await wire.call(maps.GetServerInfoRequest())).server.principal == "web"
        assert (await wire.call(maps.CloseMapRequest(handle=7))) == maps.CloseMapResponse()


async def test_bytes_that_are_no_message_are_refused_as_such() -> None:
    async with serving() as wire:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wire.raw("/mapd_api.v1.ElementService/Lookup")(b"\xff\xff\xff", timeout=WAIT_S)
        found = refusal_of(caught.value)
        assert found.reason is Reason.BAD_SPEC
        assert "3 bytes that are no LookupRequest" in found.message


async def test_what_runs_for_one_who_is_nobody_any_more_is_ended_with_the_reason() -> None:
    callers: list[Caller] = []
    running = asyncio.Event()
    forever = asyncio.Event()

    async def handler(call: Call, _request: object) -> object:
        callers.append(call.caller)
        running.set()
        await forever.wait()
        return elements.LookupResponse()

    async with serving({"Lookup": handler}) as wire:
        call = asyncio.create_task(wire.refusal(LOOKUP))
        await running.wait()
        somebody_else = Caller(principal=STRANGER, attested_by="test")
        wire.guard.end(somebody_else, Refusal(Reason.POLICY, "not you"))
        wire.guard.end(callers[0], Refusal(Reason.UNAUTHENTICATED, "admin is nobody here any more"))
        found = await call
    assert (found.reason, found.message) == (Reason.UNAUTHENTICATED, "admin is nobody here any more")
    assert wire.guard.running == 0
