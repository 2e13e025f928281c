"""``overload_roles ROLE SOCKET BEGIN SECONDS [DIMENSION]``: victim or abuser of one run; prints a line of JSON.

Both begin when time.monotonic() is BEGIN, which is one clock for all processes of a host.

The victim asks for a lookup or an update, in turn, so many times a second whatever becomes of the ones before, and
tells how long each took from when it was asked for. The abuser asks for ten times its quota every second, in one
dimension, past our client library, and waits for no retry-after; it tells how much it was granted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc.aio

import mapd_client
from benchmarks.overload_quotas import BURST, DUMPED, OPS, QUOTAS, RATE, TIMES, VICTIM_RATE
from mapd_api import contract
from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MAP_TYPE_HASH, MapRef
from mapd_client import U64

METHODS: Final = {method.name: method for service in contract.SERVICES for method in service.methods}
KEYS: Final = 1_000
HELD: Final = ("handles", "maps", "map_bytes", "streams", "connections")
"""What is kept: the abuser has all that it is due before the clock starts; what it asks for then is too much."""
CALL_S: Final = 30.0


async def at(moment: float) -> None:
    """Wait for a moment of the clock of all processes."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


# ---- the victim --------------------------------------------------------------------------------


async def victim(socket: str, begin: float, seconds: float) -> dict[str, Any]:
    """Latencies in seconds, and how many calls failed."""
    latencies: list[float] = []
    failed = 0
    async with (
        mapd_client.connect(socket) as client,
        client.create_map("mine", "hash", key=U64, value=U64, max_entries=KEYS, exist_ok=True) as mine,
    ):
        await mine.update_many({key: key for key in range(KEYS)})

        async def one(number: int) -> None:
            nonlocal failed
            began, key = time.perf_counter(), number % KEYS
            try:
                if number % 2:
                    assert await mine.lookup(key) == key
                else:
                    await mine.update(key, key)
            except mapd_client.MapdError:
                failed += 1
            else:
                latencies.append(time.perf_counter() - began)

        await at(begin)
        async with asyncio.TaskGroup() as group:
            for number in range(int(VICTIM_RATE * seconds)):
                await at(begin + number / VICTIM_RATE)
                group.create_task(one(number))
    return {"latencies": latencies, "failed": failed}


def _encoded(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


# ---- the abuser --------------------------------------------------------------------------------


def channel_to(socket: str) -> Any:
    """A connection of its own."""
    return grpc.aio.insecure_channel(
        f"unix:{socket}", options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    )


class Abuser:
    """Asks for too much of one thing; ``granted`` counts what it holds, or was done for it."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self.channel = channel_to(socket)
        self.asked = self.granted = self.most = 0
        self._stack = AsyncExitStack()
        self._numbers = itertools.count()

    async def call(self, name: str, request: Any, response: Any) -> Any:
        """A unary call; None where it was refused."""
        made = self.channel.unary_unary(
            contract.full_name(METHODS[name]),
            request_serializer=_encoded,
            response_deserializer=response.FromString,
        )
        try:
            return await made(request, timeout=CALL_S)
        except grpc.aio.AioRpcError:
            return None

    def held(self, count: int) -> None:
        """So many more are held now."""
        self.granted += count
        self.most = max(self.most, self.granted)

    async def create(self, name: str, entries: int = KEYS, value_size: int = 8) -> Any:
        """A hash map of 8-byte keys; its handle is given back."""
        request = maps.CreateMapRequest(
            type=MAP_TYPE_HASH, key_size=8, value_size=value_size, max_entries=entries
        )
        request.named.name = name
        made = await self.call("CreateMap", request, maps.CreateMapResponse)
        if made is not None:
            await self.call("CloseMap", maps.CloseMapRequest(handle=made.handle), maps.CloseMapResponse)
        return made

    async def prepare(self, dimension: str) -> None:
        """What it asks for is there."""
        if dimension in ("ops_per_second", "handles"):
            assert await self.create("m")
        if dimension == "dumps":
            assert await self.create("m", DUMPED)
            request = pb.LoadRequest(map=MapRef(name="m"))
            request.columns.count = DUMPED
            request.columns.keys = struct.pack(f"={DUMPED}Q", *range(DUMPED))
            request.columns.values = bytes(8 * DUMPED)
            load = self.channel.stream_unary(
                contract.full_name(METHODS["Load"]),
                request_serializer=pb.LoadRequest.SerializeToString,
                response_deserializer=pb.LoadResponse.FromString,
            )
            assert (await load(iter([request]), timeout=CALL_S)).applied == DUMPED

    async def operations(self) -> None:
        """One group."""
        group = pb.OpGroup(map=MapRef(name="m"), count=OPS, ops=bytes([Op.FETCH_ADD]), keys=bytes(8 * OPS))
        group.values, group.create = struct.pack("=Q", 1) * OPS, True
        group.field.size = 8
        self.asked += OPS
        found = await self.call("Apply", pb.ApplyRequest(groups=[group]), pb.ApplyResponse)
        if found is not None and not found.results[0].HasField("error"):
            self.held(OPS)

    async def handle(self) -> None:
        """One map opened, and held."""
        self.asked += 1
        found = await self.call("OpenMap", maps.OpenMapRequest(map=MapRef(name="m")), maps.OpenMapResponse)
        self.held(found is not None)

    async def new_map(self) -> None:
        """One map made, which stays."""
        self.asked += 1
        self.held(await self.create(f"n{next(self._numbers)}", 8) is not None)

    async def bytes(self) -> None:
        """One map of a fourth of the quota."""
        self.asked += 1
        made = await self.create(f"b{next(self._numbers)}", 64, QUOTAS["map_bytes"] // 4 // 64)
        self.held(made is not None)

    async def stream(self) -> None:
        """One session, left open."""
        self.asked += 1
        call = self.channel.stream_stream(
            contract.full_name(METHODS["Session"]),
            request_serializer=pb.SessionRequest.SerializeToString,
            response_deserializer=pb.SessionResponse.FromString,
        )()
        try:
            await call.write(pb.SessionRequest(open=pb.SessionOpen()))
            opened = await call.read() is not grpc.aio.EOF
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return
        if opened:
            self._stack.callback(call.cancel)
            self.held(1)

    async def dump(self) -> None:
        """One dump, read to its end."""
        self.asked += 1
        call = self.channel.unary_stream(
            contract.full_name(METHODS["Dump"]), request_serializer=pb.DumpRequest.SerializeToString
        )(pb.DumpRequest(map=MapRef(name="m")), timeout=CALL_S)
        first = True
        try:
            async for _ in call:
                if first:
                    self.held(1)
                    first = False
        except grpc.aio.AioRpcError:
            pass
        if not first:
            self.granted -= 1

    async def connection(self) -> None:
        """One connection, kept."""
        self.asked += 1
        channel = channel_to(self.socket)
        ask = channel.unary_unary(contract.full_name(METHODS["GetServerInfo"]))
        try:
            await ask(b"", timeout=CALL_S)
        except grpc.aio.AioRpcError:
            await channel.close()
            return
        self._stack.push_async_callback(channel.close)
        self.held(1)

    async def run(self, dimension: str, begin: float, seconds: float) -> dict[str, Any]:
        """Ask, each at its time, whatever becomes of the ones before."""
        asks: dict[str, tuple[Callable[[], Awaitable[None]], float]] = {
            "ops_per_second": (self.operations, RATE / OPS),
            "handles": (self.handle, QUOTAS["handles"]),
            "maps": (self.new_map, QUOTAS["maps"]),
            "map_bytes": (self.bytes, 4),
            "streams": (self.stream, QUOTAS["streams"]),
            "dumps": (self.dump, QUOTAS["dumps"]),
            "connections": (self.connection, QUOTAS["connections"]),
        }
        ask, quota = asks[dimension]
        rate = TIMES * quota
        await self.prepare(dimension)
        late = 0
        if dimension in HELD:
            for _ in range(int(quota)):
                await ask()
        await at(begin)
        first = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                late += time.monotonic() > begin + number / rate + 1
                await at(begin + number / rate)
                group.create_task(_awaited(ask()))
        elapsed = time.monotonic() - first
        await self._stack.aclose()
        await self.channel.close()
        most = BURST + RATE * elapsed if dimension == "ops_per_second" else float(quota)
        return {
            "asked": self.asked,
            "granted": self.most,
            "quota": most,
            "over": max(0, int(self.most - most)),
            "late": late,
        }


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def main(role: str, socket: str, begin: str, seconds: str, *dimension: str) -> None:
    """One role, once."""
    if role == "victim":
        told = await victim(socket, float(begin), float(seconds))
    else:
        told = await Abuser(socket).run(dimension[0], float(begin), float(seconds))
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
