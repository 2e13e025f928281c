"""update_many, delete_many, lookup_many and load where something goes wrong on the way."""

from __future__ import annotations

import asyncio
import pickle
import tracemalloc
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode

import mapd_client
from mapd_api import limits
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2
from mapd_client import U32, U64, Map
from mapd_client.codec import Buffer, Codec
from mapd_client.errors import (
    BatchFailed,
    IndexOutOfRange,
    MapdError,
    MapFrozen,
    MapFull,
    Misuse,
    NotSent,
    OutcomeUnknown,
    SizeMismatch,
    TypeMismatch,
)
from mapd_client.tally import ElementErrors
from tests.unit.mapd_client.daemon import Daemon, map_info, refuse

MESSAGE = limits.BATCH_ELEMENTS
TWELVE_CHUNKS = np.arange(1_000_000)
"""Written faster than the daemon can refuse the first."""


@asynccontextmanager
async def opened(daemon: Daemon, max_entries: int = 1 << 20) -> AsyncGenerator[Map[int, int]]:
    daemon.add(map_info("ns/flows", max_entries=max_entries))
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
    ):
        yield flows


def failing_after(count: int, error: Exception) -> Iterator[tuple[int, int]]:
    yield from ((n, n) for n in range(count))
    raise error


@pytest.mark.parametrize("error", [ValueError("mine"), TimeoutError("mine"), SizeMismatch("mine")])
async def test_what_the_source_raises_is_passed_on_as_it_is(daemon: Daemon, error: Exception) -> None:
    async with opened(daemon) as flows:
        for call, raised in ((flows.update_many, error), (flows.load, type(error)("load"))):
            with pytest.raises(type(raised)) as caught:
                await call(failing_after(MESSAGE + 5, raised))
            assert caught.value is raised
        with pytest.raises(type(error)):
            await flows.delete_many(n for n, _ in failing_after(MESSAGE + 5, error))
    assert error.__notes__[0] == f"update flows: {MESSAGE} elements had been written before"


async def test_an_element_that_cannot_be_encoded_ends_the_call_at_its_place(daemon: Daemon) -> None:
    async with opened(daemon) as flows:
        with pytest.raises(BatchFailed, match=f"nothing after element {MESSAGE - 1} was sent") as caught:
            await flows.update_many((n, -1 if n == MESSAGE + 2 else n) for n in range(3 * MESSAGE))
    failed = caught.value
    assert (failed.applied, failed.failed, failed.sent) == (MESSAGE, 1, MESSAGE)
    assert isinstance(failed.cause, SizeMismatch)
    assert failed.__cause__ is failed.cause
    assert f"value of element {MESSAGE + 2}" in str(failed)
    assert dict(failed.errors) == {MESSAGE + 2: failed.cause}


class Fussy(Codec[int]):
    """A codec of the caller's own, with exceptions and lengths of its own."""

    size = 4

    def encode(self, value: int) -> bytes:
        if value == 13:
            raise ZeroDivisionError
        return bytes(3 if value == 7 else 4)

    def decode_many(self, column: Buffer) -> list[int]:
        raise ZeroDivisionError(len(column))


async def test_a_codec_of_the_callers_own_that_fails_is_told_the_element(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=Fussy(), value=U64) as flows,
    ):
        with pytest.raises(ZeroDivisionError) as caught:
            await flows.update_many([(1, 1), (13, 1)])
        assert caught.value.__notes__[0] == "key of element 1"
        with pytest.raises(SizeMismatch, match=r"key of element 2: .* made 3 bytes, 4 are due"):
            await flows.update_many([(1, 1), (2, 1), (7, 1)])
        with pytest.raises(KeyError, match=r"key: 00000000$"):
            await flows[1]
    assert len(daemon.applied) == 1


def breaking(daemon: Daemon, at: int) -> None:
    """Let Apply answer ``at`` messages and never again."""
    answer = daemon.Apply
    calls = 0

    async def apply(request: Any, context: Any) -> elements_pb2.ApplyResponse:
        nonlocal calls
        calls += 1
        if calls > at:
            await context.abort(StatusCode.UNAVAILABLE, "gone")
        return await answer(request, context)

    daemon.hooks["Apply"] = apply


async def test_a_connection_lost_midway_is_the_cause_of_a_failed_batch(daemon: Daemon) -> None:
    async with opened(daemon) as flows:
        breaking(daemon, 1)
        with pytest.raises(BatchFailed) as caught:
            await flows.update_many((n, n) for n in range(4 * MESSAGE))
    failed = caught.value
    assert isinstance(failed.cause, OutcomeUnknown)
    assert failed.__cause__ is failed.cause
    assert (failed.applied, failed.failed, failed.sent) == (MESSAGE, MESSAGE, 2 * MESSAGE)
    assert f"nothing after element {2 * MESSAGE - 1} was sent, because of OutcomeUnknown: " in str(failed)
    assert list(failed.errors) == list(range(MESSAGE, 2 * MESSAGE))
    assert failed.errors[MESSAGE] is failed.cause


async def test_a_connection_lost_at_the_first_message_is_raised_by_itself(daemon: Daemon) -> None:
    async with opened(daemon) as flows:
        breaking(daemon, 0)
        with pytest.raises(OutcomeUnknown):
            await flows.update_many((n, n) for n in range(4 * MESSAGE))


async def test_a_message_that_never_left_is_not_counted_as_sent(daemon: Daemon) -> None:
    def source() -> Iterator[tuple[int, int]]:
        yield from ((n, n) for n in range(MESSAGE))
        stopping.set()
        yield (0, 0)

    stopping = asyncio.Event()
    answer = daemon.Apply
    async with opened(daemon) as flows:

        async def apply(request: Any, context: Any) -> elements_pb2.ApplyResponse:
            if stopping.is_set():
                await refuse(context, Refusal(Reason.EPOCH_CHANGED, "another start"))
            return await answer(request, context)

        daemon.hooks["Apply"] = apply
        with pytest.raises(BatchFailed) as caught:
            await flows.update_many(source())
    assert isinstance(caught.value.cause, NotSent)
    assert (caught.value.applied, caught.value.sent) == (MESSAGE, MESSAGE)


async def test_refused_elements_cost_bytes_and_not_exceptions(daemon: Daemon) -> None:
    async with opened(daemon, max_entries=MESSAGE) as flows:
        tracemalloc.start()
        try:
            with pytest.raises(BatchFailed) as caught:
                await flows.update_many((n, n) for n in range(3 * MESSAGE))
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    failed = caught.value
    errors = failed.errors
    assert (failed.applied, failed.failed, failed.cause, failed.sent) == (
        MESSAGE,
        2 * MESSAGE,
        None,
        3 * MESSAGE,
    )
    assert held < 8 << 20  # a thousand bytes for each would be 32 MiB; the daemon's own requests are in it
    assert (len(errors), next(iter(errors))) == (2 * MESSAGE, MESSAGE)
    assert isinstance(errors[MESSAGE + 3], MapFull)
    assert f"key of element {MESSAGE + 3}: {MESSAGE + 3} (" in str(errors[MESSAGE + 3])
    for index in (-1, 0, MESSAGE - 1, 3 * MESSAGE):
        assert index not in errors
    assert repr(errors) == f"<{2 * MESSAGE} errors of elements>"


async def test_a_failed_batch_can_be_pickled(daemon: Daemon) -> None:
    async with opened(daemon, max_entries=1) as flows:
        with pytest.raises(BatchFailed) as caught:
            await flows.update_many([(1, 1), (2, 2)])
    assert isinstance(caught.value.errors, ElementErrors)
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made here
    assert (copy.applied, copy.sent, list(copy.errors), str(copy)) == (1, 2, [1], str(caught.value))


async def test_a_bad_key_of_many_is_named_by_place_and_as_the_caller_wrote_it(daemon: Daemon) -> None:
    def out_of_range(request: elements_pb2.ApplyRequest) -> elements_pb2.ApplyResponse:
        statuses = bytes(3) + bytes([Reason.INDEX_OUT_OF_RANGE]) + bytes(request.groups[0].count - 4)
        values = bytes(8 * request.groups[0].count)
        return elements_pb2.ApplyResponse(
            results=[elements_pb2.GroupResult(statuses=statuses, values=values)]
        )

    async def apply(request: elements_pb2.ApplyRequest, context: object) -> elements_pb2.ApplyResponse:
        del context
        return out_of_range(request)

    daemon.add(map_info("ns/flows", MapType.ARRAY, max_entries=4))
    daemon.hooks["Apply"] = apply
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
    ):
        with pytest.raises(IndexOutOfRange, match=r"0 to 3; key of element 3: 99 \(63000000\)"):
            await flows.lookup_many([0, 1, 2, 99])


@pytest.mark.parametrize("done", [0, 5])
async def test_a_load_stopped_in_the_middle_says_how_far_it_came(daemon: Daemon, done: int) -> None:
    async def load(requests: Any, context: Any) -> None:
        await anext(requests)
        numbers = {"applied": str(done), "failed": "2"} if done else {}
        await refuse(context, Refusal(Reason.MAP_FROZEN, "load flows: frozen", numbers))

    daemon.hooks["Load"] = load
    async with opened(daemon) as flows:
        # Twenty times: grpc.aio loses the status of one in four, where a write fails after it.
        raised = [await refusal_of_a_load(flows) for _ in range(20)]
    assert len({type(error) for error in raised}) == 1
    failed = raised[0]
    if done:
        assert isinstance(failed, BatchFailed)
        assert isinstance(failed.cause, MapFrozen)
        assert failed.__cause__ is failed.cause
        assert (failed.applied, failed.failed, failed.sent, failed.reason) == (5, 2, 7, Reason.MAP_FROZEN)
    else:
        assert isinstance(failed, MapFrozen)


async def refusal_of_a_load(flows: Map[int, int]) -> MapdError:
    with pytest.raises(MapdError) as caught:
        await flows.load((TWELVE_CHUNKS, TWELVE_CHUNKS))
    return caught.value


async def test_a_wrong_flag_is_refused_before_the_source_is_read(daemon: Daemon) -> None:
    async with opened(daemon) as flows:
        source = failing_after(0, ValueError("read"))
        with pytest.raises(Misuse):
            await flows.load(source, flags="never")  # type: ignore[arg-type]  # what a caller may write
        with pytest.raises(TypeMismatch, match="element 0 is no"):
            await flows.load([5])  # type: ignore[list-item]  # no pair: the point
