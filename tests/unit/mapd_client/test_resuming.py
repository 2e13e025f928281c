"""Dumps whose streams break: they go on behind what was received, or say that they cannot."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc import StatusCode

import mapd_client
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2, types_pb2
from mapd_client import U32, U64, Map
from mapd_client.errors import DumpIncomplete, QuotaExceeded, Unavailable
from mapd_client.patience import TRIES
from tests.e2e.settling import until
from tests.unit.mapd_client.clients import opened
from tests.unit.mapd_client.daemon import Daemon, FakeMap, map_info, refuse

COUNT = 9


def filled(daemon: Daemon) -> FakeMap:
    found = daemon.add(map_info("ns/flows"))
    found.data = {n.to_bytes(4, "little"): n.to_bytes(8, "little") for n in range(COUNT)}
    return found


class Breaking:
    """Dumps of the fake daemon that break after so many messages, each.

    Attributes:
        asked: tokens and limits of the dumps that were begun.
    """

    def __init__(self, daemon: Daemon, *after: int, reason: Reason | None = None) -> None:
        self.asked: list[tuple[bytes, int]] = []
        self._daemon = daemon
        self._after = list(after)
        self._reason = reason
        daemon.hooks["Dump"] = self.dump

    async def dump(self, request: elements_pb2.DumpRequest, context: Any) -> None:
        self.asked.append((request.resume_token, request.limit))
        left = self._after.pop(0) if self._after else 1_000
        reason = self._reason

        class Broken:
            async def write(self, message: object) -> None:
                nonlocal left
                if left == 0:
                    if reason is not None:
                        await refuse(context, Refusal(reason, "so it is"))
                    await context.abort(StatusCode.UNAVAILABLE, "gone")
                left -= 1
                await context.write(message)

        await self._daemon.Dump(request, Broken())


async def all_of(found: Map[int, int], **wanted: Any) -> list[tuple[int, int]]:
    return [pair async for pair in found.items(**wanted)]


@pytest.mark.parametrize("after", range(7))
async def test_a_dump_goes_on_behind_what_was_received_wherever_its_stream_breaks(
    daemon: Daemon, after: int
) -> None:
    """Six messages at most: a header, five chunks; and a trailer."""
    filled(daemon)
    breaking = Breaking(daemon, after)
    async with opened(daemon) as flows:
        dump = flows.items()
        assert [pair async for pair in dump] == [(n, n) for n in range(COUNT)]
        assert dump.trailer is not None
        assert dump.trailer.complete
        assert dump.trailer.resumed == (after > 1), "a stream that gave nothing was no part"
        # The fake's trailer counts the map; over several parts the client counts what came.
        assert dump.trailer.entries == COUNT
    token = str(min(2 * max(0, after - 1), COUNT)).encode() if after > 1 else b""
    assert breaking.asked == [(b"", 0), (token, 0)]


async def test_a_dump_goes_on_as_often_as_it_makes_progress(daemon: Daemon) -> None:
    filled(daemon)
    daemon.chunk_elements = 1
    breaking = Breaking(daemon, *[2] * COUNT)
    async with opened(daemon) as flows:
        dump = flows.items(prefix=b"")
        assert [pair async for pair in dump] == [(n, n) for n in range(COUNT)]
        assert dump.trailer is not None
        assert dump.trailer.resumed == COUNT
    assert [token for token, _ in breaking.asked] == [b"", *(str(n).encode() for n in range(1, COUNT + 1))]


@pytest.mark.parametrize("after", range(6))
async def test_a_limit_holds_for_all_parts_together(daemon: Daemon, after: int) -> None:
    filled(daemon)
    breaking = Breaking(daemon, after)
    async with opened(daemon) as flows:
        dump = flows.items(limit=5)
        assert [pair async for pair in dump] == [(n, n) for n in range(5)]
        assert dump.trailer is not None
        assert dump.trailer.complete
    assert all(token for token, _ in breaking.asked[1:]) or after < 2
    left = 5 - int(breaking.asked[-1][0] or 0)
    assert breaking.asked[-1][1] == max(1, left), "where nothing is left, one is asked for, for its trailer"


async def test_the_token_of_an_earlier_dump_is_where_the_first_stream_begins_however_often_it_breaks(
    daemon: Daemon,
) -> None:
    filled(daemon)
    breaking = Breaking(daemon, 0, 1, 0)
    async with opened(daemon) as flows:
        assert await all_of(flows, resume=b"4") == [(n, n) for n in range(4, COUNT)]
    assert breaking.asked == [(b"4", 0)] * 4


async def test_a_map_whose_handle_is_stale_is_opened_again_for_the_rest(daemon: Daemon) -> None:
    filled(daemon)
    breaking = Breaking(daemon, 3)

    async def dump(request: elements_pb2.DumpRequest, context: Any) -> None:
        if request.map.handle not in daemon.handles:
            await refuse(context, Refusal(Reason.STALE_HANDLE, "no such handle"))
        await breaking.dump(request, context)
        if len(breaking.asked) == 1:
            daemon.handles.clear()

    async with opened(daemon) as flows:
        daemon.hooks["Dump"] = dump
        dump_of = flows.items()
        assert await anext(dump_of) == (0, 0)
        daemon.handles.clear()
        assert [pair async for pair in dump_of] == [(n, n) for n in range(1, COUNT)]


@pytest.mark.parametrize("reason", [Reason.DRAINING, Reason.QUOTA])
async def test_a_drained_and_a_slow_reader_go_on(daemon: Daemon, reason: Reason) -> None:
    filled(daemon)
    Breaking(daemon, 3, reason=reason)
    async with opened(daemon) as flows:
        assert await all_of(flows) == [(n, n) for n in range(COUNT)]


async def test_who_may_have_no_more_dumps_is_told_and_not_made_to_wait(daemon: Daemon) -> None:
    filled(daemon)
    breaking = Breaking(daemon, 0, reason=Reason.QUOTA)
    async with opened(daemon) as flows:
        with pytest.raises(QuotaExceeded, match="so it is"):
            await all_of(flows)
    assert len(breaking.asked) == 1


async def test_a_refused_rest_is_told_with_the_token_that_is_left(daemon: Daemon) -> None:
    filled(daemon)
    Breaking(daemon, 3, reason=Reason.POLICY)
    async with opened(daemon) as flows:
        dump = flows.items()
        with pytest.raises(DumpIncomplete, match="the stream broke: so it is") as caught:
            _ = [pair async for pair in dump]
        assert (caught.value.token, caught.value.trailer) == (b"4", None)


async def test_a_dump_that_ends_the_daemon_each_time_is_given_up(daemon: Daemon) -> None:
    filled(daemon)
    breaking = Breaking(daemon, 2, *[1] * 100)
    async with opened(daemon) as flows:
        dump = flows.items()
        with pytest.raises(DumpIncomplete, match=f"given up after {TRIES} tries") as caught:
            _ = [pair async for pair in dump]
        assert caught.value.token == b"2"
    assert len(breaking.asked) == TRIES


async def test_inside_of_what_the_daemon_reads_in_one_go_nothing_goes_on(daemon: Daemon) -> None:
    filled(daemon)

    async def dump(request: object, context: Any) -> None:
        del request
        for token in (b"1", b""):
            columns = types_pb2.Columns(count=1, keys=bytes(4), values=bytes(8))
            chunk = elements_pb2.DumpChunk(columns=columns, token=token)
            await context.write(elements_pb2.DumpResponse(chunk=chunk))
        await context.abort(StatusCode.UNAVAILABLE, "gone")

    daemon.hooks["Dump"] = dump
    async with opened(daemon) as flows:
        with pytest.raises(DumpIncomplete, match="inside of which nothing goes on") as caught:
            await all_of(flows)
        assert caught.value.token == b"1"


async def test_a_dump_without_a_daemon_ends_with_the_clients_time(daemon: Daemon) -> None:
    filled(daemon)
    async with (
        mapd_client.connect(daemon.target, timeout=0.5) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
    ):
        breaking = Breaking(daemon, 3)
        dump = flows.items()
        assert [await anext(dump) for _ in range(4)] == [(n, n) for n in range(4)]
        assert daemon.server is not None
        await daemon.server.stop(None)
        with pytest.raises(DumpIncomplete, match=r"no daemon at unix:.*; asked again for 0\.5 s") as caught:
            await anext(dump)
        assert caught.value.token == b"4"
        with pytest.raises(Unavailable, match="no daemon at"):
            await all_of(flows)
    assert breaking.asked[0] == (b"", 0)


async def test_a_cancelled_dump_does_not_go_on(daemon: Daemon) -> None:
    filled(daemon)
    breaking = Breaking(daemon, *[1] * 100)
    async with opened(daemon) as flows:
        task = asyncio.create_task(all_of(flows))
        assert await until(lambda: len(breaking.asked) >= 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asked = len(breaking.asked)
        await flows.lookup(1)
        assert len(breaking.asked) == asked
