"""What becomes of calls and messages is counted, once each, by what their clients were told."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc.aio
import pytest
import structlog
from structlog.testing import capture_logs

from mapd.maps.errors import MapError
from mapd.metrics.counts import CANCELLED, OK
from mapd.rpc.guard import Call
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1.types_pb2 import MapRef
from tests.support.rawsession import RawSession
from tests.unit.mapd.rpc.wire import WAIT_S, Wire, serving

pytestmark = pytest.mark.usefixtures("watched_loop")

LOOKUP = elements.LookupRequest(map=MapRef(name="flows"), key=b"key")
METHOD = "/mapd_api.v1.ElementService/Lookup"


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


def counted(wire: Wire) -> dict[tuple[str, str], int]:
    return {key: histogram.count for key, histogram in wire.guard.counts.handled.items()}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, OK),
        (MapError(Reason.BUSY, "later"), "BUSY"),
        (MapError(Reason.POLICY, "no"), "POLICY"),
        (RuntimeError("a fault"), "INTERNAL"),
        (asyncio.CancelledError(), "OUTCOME_UNKNOWN"),
    ],
    ids=["answered", "busy", "refused", "fault", "given up"],
)
async def test_a_call_is_counted_by_what_its_client_was_told(
    error: BaseException | None, outcome: str
) -> None:
    async def handler(_call: Call, _request: object) -> elements.LookupResponse:
        if error is not None:
            raise error
        return elements.LookupResponse()

    async with serving({"Lookup": handler}) as wire:
        with capture_logs():
            for _ in range(2):
                with suppress(grpc.aio.AioRpcError):
                    await wire.call(LOOKUP)
        await wire.guard.wait_ended(WAIT_S)
        assert counted(wire) == {(METHOD, outcome): 2}
        assert all(one.total_s > 0 for one in wire.guard.counts.handled.values())


async def test_a_call_that_its_client_cancels_is_counted_as_such() -> None:
    begun = asyncio.Event()

    async def handler(_call: Call, _request: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with serving({"Lookup": handler}) as wire:
        call = wire.callable("Lookup")(LOOKUP, timeout=WAIT_S)
        await begun.wait()
        call.cancel()
        await wire.guard.wait_ended(WAIT_S)
        assert counted(wire) == {(METHOD, CANCELLED): 1}


async def test_what_is_refused_for_a_quota_is_told_from_a_reader_that_is_too_slow() -> None:
    about = {"principal": "admin", "quota": "dumps"}

    async def handler(_call: Call, request: elements.LookupRequest) -> None:
        raise MapError(Reason.QUOTA, "too much", **(about if request.map.name == "flows" else {}))

    async with serving({"Lookup": handler}) as wire:
        await wire.refusal(LOOKUP)
        await wire.refusal(elements.LookupRequest(map=MapRef(name="slow"), key=b"key"))
        assert wire.guard.counts.quotas == {("admin", "dumps"): 1}
        assert wire.guard.counts.cuts == {METHOD: 1}


async def test_messages_of_a_session_are_counted_and_groups_that_are_refused() -> None:
    async with serving() as wire:
        session = await RawSession.open(wire.channel)
        missing = elements.OpGroup(map=MapRef(name="none"), ops=b"\1", count=1, keys=b"\0\0\0\0")
        for sequence in (1, 2, 3):
            answer = await session.ask(0, sequence, missing)
            assert answer.results[0].error.reason
        assert wire.guard.counts.messages.count == 3
        assert sum(wire.guard.counts.groups.values()) == 3
        await session.end()
