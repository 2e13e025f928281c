"""Dumps: tokens, trailers, and ends that are none."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import Any

import pytest
from grpc import StatusCode

import mapd_client
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2, types_pb2
from mapd_client import U64, Cidr4
from mapd_client.errors import (
    DumpIncomplete,
    TypeMismatch,
    Unavailable,
)
from tests.unit.mapd_client.clients import opened
from tests.unit.mapd_client.daemon import Daemon, map_info, refuse


async def test_a_dump_hands_out_tokens_and_the_trailer(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        await flows.update_many([(n, n) for n in range(5)])
        async with flows.keys() as dump:
            assert dump.token == b""
            assert [await anext(dump) for _ in range(3)] == [0, 1, 2]
            assert dump.token == b"2"
            assert await anext(dump) == 3
            assert dump.token == b"4"
            token = dump.token
        rest = flows.items(resume=token)
        assert [pair async for pair in rest] == [(4, 4)]
        assert rest.trailer is not None
        assert rest.trailer.complete
        assert [value async for value in flows.values(limit=3)] == [0, 1, 2]
        chunks = [chunk async for chunk in flows.chunks()]
        assert [chunk.count for chunk in chunks] == [2, 2, 1]
        assert chunks[0].keys.cast("B").tobytes() == bytes([0, 0, 0, 0, 1, 0, 0, 0])


async def test_an_incomplete_dump_raises_after_its_last_element(daemon: Daemon) -> None:
    daemon.dump_complete = False
    found = daemon.add(map_info("ns/flows"))
    found.data = {bytes([n, 0, 0, 0]): bytes(8) for n in range(3)}
    async with opened(daemon) as flows:
        dump = flows.keys()
        assert [await anext(dump) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DumpIncomplete, match="it was cut") as caught:
            await anext(dump)
        assert caught.value.trailer is not None
        assert caught.value.token == b"3"
        assert [key async for key in flows.keys(partial_ok=True)] == [0, 1, 2]


async def test_a_dump_without_a_trailer_is_incomplete_whatever_the_caller_accepts(daemon: Daemon) -> None:
    daemon.dump_trailer = False
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        with pytest.raises(DumpIncomplete, match="without a trailer") as caught:
            _ = [key async for key in flows.keys(partial_ok=True)]
        assert caught.value.trailer is None


@pytest.mark.parametrize("how", ["aclose", "forgotten"])
async def test_leaving_a_dump_ends_it_at_the_daemon(daemon: Daemon, how: str) -> None:
    found = daemon.add(map_info("ns/flows"))
    found.data = {n.to_bytes(4, "little"): bytes(8) for n in range(500_000)}
    async with opened(daemon) as flows:
        if how == "aclose":
            async with flows.items() as dump:
                await anext(dump)
            with pytest.raises(StopAsyncIteration):
                await anext(dump)
        else:
            async for _ in flows.items():
                break
        async with asyncio.timeout(10):
            await daemon.dump_ended.wait()


@pytest.mark.parametrize("how", ["cancelled", "broken", "refused", "undecodable"])
async def test_a_dump_that_failed_says_so_at_every_further_step(daemon: Daemon, how: str) -> None:
    daemon.add(map_info("ns/flows", key_size=8))
    token = b"" if how == "refused" else b"2"

    async def dump(request: object, context: Any) -> None:
        del request
        if how == "refused":
            await refuse(context, Refusal(Reason.BUSY, "busy"))
        await context.write(chunk_of(bytes(16), b"2"))
        if how == "undecodable":
            await context.write(chunk_of(bytes([99]) * 16, b"4"))
        if how == "broken":
            await context.abort(StatusCode.INTERNAL, "gone")
        await asyncio.Event().wait()

    daemon.hooks["Dump"] = dump
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=Cidr4, value=U64) as flows,
    ):
        steps = flows.items(partial_ok=True)
        if how != "refused":
            assert [await anext(steps) for _ in range(2)] == [(IPv4Network("0.0.0.0/0"), 0)] * 2
        with pytest.raises((TimeoutError, DumpIncomplete, TypeMismatch, Unavailable)):
            async with asyncio.timeout(0.05 if how == "cancelled" else 10):
                await anext(steps)
        for _ in range(2):
            with pytest.raises(DumpIncomplete, match="an earlier step ended it") as caught:
                await anext(steps)
            assert caught.value.token == token
        await steps.aclose()
        with pytest.raises(DumpIncomplete):
            await anext(steps)
    assert steps.trailer is None


async def test_a_chunk_without_elements_moves_the_token(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows", key_size=8))

    async def dump(request: object, context: Any) -> None:
        del request
        await context.write(chunk_of(bytes(8), b"1"))
        await context.write(chunk_of(b"", b"7"))
        await asyncio.Event().wait()

    daemon.hooks["Dump"] = dump
    async with mapd_client.connect(daemon.target) as client, client.open_map("flows") as flows:
        steps = flows.chunks()
        assert (await anext(steps)).count == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(steps)
        assert steps.token == b"7"


async def test_a_chunk_is_decoded_in_parts_between_which_others_have_their_turn(daemon: Daemon) -> None:
    daemon.chunk_elements = 20_000
    found = daemon.add(map_info("ns/flows"))
    found.data = {n.to_bytes(4, "little"): bytes(8) for n in range(20_000)}
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with opened(daemon) as flows:
        assert [chunk.count async for chunk in flows.chunks()] == [20_000]
        dump = flows.items()
        assert await anext(dump) == (0, 0)
        other = asyncio.create_task(count())
        seen = [(await anext(dump))[0] for _ in range(19_998)]
        assert (turns, dump.token) == (4, b"")
        assert await anext(dump) == (19_999, 0)
        assert dump.token == b"20000"
        other.cancel()
        assert seen == list(range(1, 19_999))
        assert [pair async for pair in dump] == []


def chunk_of(keys: bytes, token: bytes) -> elements_pb2.DumpResponse:
    """A chunk of 8-byte keys with values of zeros."""
    columns = types_pb2.Columns(count=len(keys) // 8, keys=keys, values=bytes(len(keys)))
    return elements_pb2.DumpResponse(chunk=elements_pb2.DumpChunk(columns=columns, token=token))
