"""A reader that stands still for too long is cut off: it costs nothing more, and can go on from where it was."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

import mapd_client
from mapd.daemon import Ready
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.types_pb2 import MapRef
from mapd_client import U64, Bytes
from tests.e2e.settling import until
from tests.support.rawsession import SESSION, RawSession, group
from tests.unit.mapd.rpc.wire import refusal_of

ENTRIES = 60_000
VALUE = 248
"""With it a map is 15 MiB: several times what gRPC and the socket carry ahead of a reader."""

DUMP = "/mapd_api.v1.ElementService/Dump"

LONG_S = 3_600.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits 30 s for a reader here."""
    monkeypatch.setattr(limits, "STREAM_PROGRESS_S", 0.3)
    monkeypatch.setattr(limits, "REFUSAL_S", 0.1)


@pytest.fixture
async def large(local: Ready) -> AsyncGenerator[mapd_client.Map[int, bytes]]:
    """A map that no buffer holds."""
    async with (
        mapd_client.connect(str(local.socket)) as client,
        client.create_map("large", "hash", key=U64, value=Bytes(VALUE), max_entries=ENTRIES) as found,
    ):
        assert await found.load((np.arange(ENTRIES), np.zeros((ENTRIES, VALUE), np.uint8))) == ENTRIES
        yield found


class Reader:
    """A client that takes a dump message by message, as any gRPC client may."""

    def __init__(self, channel: grpc.aio.Channel, token: bytes = b"") -> None:
        anything: Any = channel
        make = anything.unary_stream(
            DUMP,
            request_serializer=pb.DumpRequest.SerializeToString,
            response_deserializer=pb.DumpResponse.FromString,
        )
        self.call = make(pb.DumpRequest(map=MapRef(name="large"), resume_token=token))
        self.keys: list[bytes] = []
        self.token = b""
        self.trailer: pb.DumpTrailer | None = None

    async def take(self) -> bool:
        """One message; False at the end."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            return False
        columns = message.chunk.columns
        self.keys += [columns.keys[at : at + 8] for at in range(0, len(columns.keys), 8)]
        self.token = message.chunk.token or self.token
        if message.HasField("trailer"):
            self.trailer = message.trailer
        return True

    async def take_all(self) -> grpc.aio.AioRpcError | None:
        """Everything that there is; what ended it before its end."""
        try:
            while await self.take():
                pass
        except grpc.aio.AioRpcError as error:
            return error
        return None


@asynccontextmanager
async def channel_to(ready: Ready) -> AsyncGenerator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{ready.socket}") as channel:
        yield channel


async def test_a_reader_that_stands_still_is_cut_off_and_nothing_of_its_dump_is_left(
    local: Ready, large: mapd_client.Map[int, bytes]
) -> None:
    async with channel_to(local) as channel:
        readers = [Reader(channel) for _ in range(8)]
        for reader in readers:
            assert await reader.take()
        assert local.guard.running == len(readers)
        assert await until(lambda: local.guard.running == 0)
        assert (
            await large.count()
        ).entries == ENTRIES  # gRPC's own loop holds the last call until another comes
        # The streams are reset: a status would have come behind what was never taken.
        ends = [await reader.take_all() for reader in readers]
        assert [end and end.code() for end in ends] == [grpc.StatusCode.CANCELLED] * len(readers)


async def test_who_comes_back_in_time_is_told_why_and_goes_on_from_the_last_token(
    monkeypatch: pytest.MonkeyPatch, local: Ready, large: mapd_client.Map[int, bytes]
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_S", LONG_S)
    del large
    async with channel_to(local) as channel:
        first = Reader(channel)
        assert await first.take()
        assert await until(lambda: local.guard.counts.cuts[DUMP] == 1)
        end = await first.take_all()
        assert end is not None
        assert refusal_of(end).reason is Reason.QUOTA
        assert "took nothing for 0.3 s" in refusal_of(end).message
        monkeypatch.setattr(limits, "STREAM_PROGRESS_S", LONG_S)
        rest = Reader(channel, first.token)
        assert await rest.take_all() is None
        assert rest.trailer is not None
        assert rest.trailer.complete
        assert len(first.keys) + len(rest.keys) == len({*first.keys, *rest.keys}) == ENTRIES


@pytest.mark.parametrize("refusal_s", [0.1, LONG_S])
async def test_a_client_that_was_cut_off_goes_on_by_itself(
    monkeypatch: pytest.MonkeyPatch, local: Ready, large: mapd_client.Map[int, bytes], refusal_s: float
) -> None:
    """Whether it was told why or its stream was reset."""
    monkeypatch.setattr(limits, "REFUSAL_S", refusal_s)
    keys: list[int] = []
    async with large.chunks() as dump:
        chunk = await anext(dump)
        keys += np.frombuffer(chunk.keys, np.uint64).tolist()
        assert await until(lambda: local.guard.counts.cuts[DUMP] == 1)
        assert await until(lambda: refusal_s == LONG_S or local.guard.running == 0)
        monkeypatch.setattr(limits, "STREAM_PROGRESS_S", LONG_S)
        async for chunk in dump:
            keys += np.frombuffer(chunk.keys, np.uint64).tolist()
        assert sorted(keys) == list(range(ENTRIES))
        assert dump.trailer is not None
        assert (dump.trailer.complete, dump.trailer.resumed) == (True, 1)


async def test_a_stopping_daemon_does_not_wait_for_a_reader_that_it_has_cut_off(
    local: Ready, large: mapd_client.Map[int, bytes]
) -> None:
    del large
    async with channel_to(local) as channel:
        reader = Reader(channel)
        assert await reader.take()
        assert await until(lambda: local.guard.counts.cuts[DUMP] == 1)
        assert await local.guard.wait_idle(5.0)
        reader.call.cancel()


async def ended(stream: Any) -> grpc.StatusCode | None:
    """How a stream ended, behind what it had brought."""
    try:
        while await stream.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


async def test_so_is_a_session_whose_client_takes_no_answers_and_it_can_be_resumed(
    local: Ready, large: mapd_client.Map[int, bytes]
) -> None:
    others = len(local.guard.callers)
    keys = [number.to_bytes(8, "little") for number in range(8_000)]
    lookups = group(MapRef(name="large"), Op.LOOKUP, *keys)  # answered by 2 MiB
    async with channel_to(local) as channel, channel_to(local) as again:
        session = await RawSession.open(channel)
        for number in range(2 * limits.SLOTS):
            slot, sequence = number % limits.SLOTS, number // limits.SLOTS + 1
            await session.stream.write(session.message(slot, sequence, [lookups]))
        assert await until(lambda: local.guard.counts.cuts[SESSION] == 1)
        assert await until(lambda: len(local.guard.callers) == others)
        assert (await large.count()).entries == ENTRIES
        resumed = await RawSession.open(again, session.opened)
        assert resumed.opened.resumed
        assert await ended(session.stream) is grpc.StatusCode.CANCELLED
        resumed.stream.cancel()
