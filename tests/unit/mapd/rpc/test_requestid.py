"""Request ids: every call has one, a client may choose it, and it is wherever the call is spoken of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc.aio
import pytest
import structlog
from structlog.testing import LogCapture
from structlog.typing import EventDict

from mapd.maps.errors import MapError
from mapd.rpc.guard import Call
from mapd.rpc.requestid import HEADER
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1.types_pb2 import MapRef
from tests.unit.mapd.rpc.wire import WAIT_S, Wire, refusal_of, serving

LOOKUP = elements.LookupRequest(map=MapRef(name="flows"), key=b"key")


@pytest.fixture
def said() -> Iterator[list[EventDict]]:
    """What was logged, as the daemon's own settings complete it."""
    capture = LogCapture()
    formatted = (
        structlog.processors.format_exc_info
    )  # at once: an exception that is dealt with forgets where it was
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, formatted, capture])
    yield capture.entries
    structlog.reset_defaults()


async def answering(_call: Call, _request: object) -> elements.LookupResponse:
    structlog.get_logger().info("on the way")
    return elements.LookupResponse()


async def failing(_call: Call, _request: object) -> elements.LookupResponse:
    raise RuntimeError("a fault")


async def refusing(_call: Call, _request: object) -> elements.LookupResponse:
    raise MapError(Reason.KEY_SIZE_MISMATCH, "lookup flows: why", operation="lookup")


async def called(wire: Wire, *ids: str | bytes) -> dict[str, str]:
    """A lookup with these ids in its metadata; the metadata of its refusal, or {}."""
    metadata: Any = tuple((HEADER, one) for one in ids)
    try:
        await wire.callable("Lookup")(LOOKUP, timeout=WAIT_S, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        return dict(refusal_of(error).metadata)
    return {}


async def test_every_line_of_one_call_has_its_id_and_no_two_calls_have_the_same(
    said: list[EventDict],
) -> None:
    async with serving({"Lookup": answering}) as wire:
        for _ in range(3):
            await called(wire)
    assert [line["event"] for line in said] == ["on the way", "served"] * 3
    ids = [line["request_id"] for line in said]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("own", ["7", "web-1/req:00ff+a=b@c.d_e", "x" * 64])
async def test_a_client_may_choose_the_id(own: str, said: list[EventDict]) -> None:
    async with serving({"Lookup": answering}) as wire:
        await called(wire, own)
    assert {line["request_id"] for line in said} == {own}


@pytest.mark.parametrize(
    "bad", ["", "x" * 65, "two words", 'a"b', "a\\nb", "{}", "<script>", "a;b"], ids=lambda bad: bad[:12]
)
async def test_an_id_that_is_too_long_or_could_forge_a_line_is_not_taken(
    bad: str, said: list[EventDict]
) -> None:
    async with serving({"Lookup": answering}) as wire:
        await called(wire, bad)
    assert len({line["request_id"] for line in said}) == 1
    assert bad not in {line["request_id"] for line in said}


async def test_of_several_ids_the_first_usable_one_is_taken(said: list[EventDict]) -> None:
    async with serving({"Lookup": answering}) as wire:
        await called(wire, "no good", "first", "second")
    assert {line["request_id"] for line in said} == {"first"}


async def test_a_fault_is_loud_once_with_a_traceback_and_its_id_is_in_the_errors_metadata(
    said: list[EventDict],
) -> None:
    async with serving({"Lookup": failing}) as wire:
        about = await called(wire, "web-1")
    (line,) = said
    assert (line["event"], line["log_level"]) == ("fault", "error")
    assert (line["request_id"], line["incident"]) == ("web-1", about["incident"])
    assert "in failing" in line["exception"]
    assert line["exception"].endswith("RuntimeError: a fault")
    assert about["request_id"] == "web-1"


async def test_a_callers_fault_is_quiet_and_names_its_reason(said: list[EventDict]) -> None:
    async with serving({"Lookup": refusing}) as wire:
        about = await called(wire, "web-1")
    (line,) = said
    assert (line["event"], line["log_level"], line["reason"]) == ("refused", "debug", "KEY_SIZE_MISMATCH")
    assert (line["request_id"], line["principal"]) == ("web-1", "admin")
    assert "request_id" not in about  # the caller knows what it did
