"""R9: a peer that speaks HTTP/2 wrongly, endlessly or not at all harms neither the daemon nor who is served beside."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
import pytest
from hyperframe.frame import SettingsFrame

import mapd_client
from mapd_api.v1 import maps_pb2
from tests.e2e.settling import until
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.hostile import frames
from tests.reliability.hostile.peer import peer
from tests.reliability.processes import resident_kib
from tests.support.daemon import DaemonProcess, Place, daemon_process

FAULTS = {"fault", "a handler cancelled itself"}

QUICK_P99_MS = 500
"""In a run where other tests use the same CPUs this tells a hang alone."""

METHOD = "/mapd_api.v1.MapService/GetServerInfo"


@dataclass
class Served:
    """What a client that means well saw meanwhile, one lookup after the other."""

    seconds: list[float] = field(default_factory=list[float])
    refused: list[str] = field(default_factory=list[str])
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self, opened: mapd_client.Map[int, int]) -> None:
        while not self.ended.is_set():
            began = time.monotonic()
            try:
                assert await opened.lookup(1) == 1
            except mapd_client.MapdError as error:
                self.refused.append(str(error))
            self.seconds.append(time.monotonic() - began)

    def p99_ms(self) -> float:
        return 1_000 * sorted(self.seconds)[int(len(self.seconds) * 0.99)]


@asynccontextmanager
async def served(address: str) -> AsyncGenerator[Served]:
    """A client beside the peer, until the block ends."""
    found = Served()
    async with (
        mapd_client.connect(address, timeout=20) as client,
        client.create_map(
            "beside", "hash", key=mapd_client.U32, value=mapd_client.U32, max_entries=4
        ) as opened,
        asyncio.TaskGroup() as group,
    ):
        await opened.update(1, 1)
        group.create_task(found.work(opened))
        try:
            yield found
        finally:
            found.ended.set()


def descriptors(daemon: DaemonProcess) -> int:
    """How many the daemon has, but for those of BPF objects: it loads a program for a map when it is used much."""
    return sum("bpf" not in one for one in daemon.fds())


def faults(daemon: DaemonProcess) -> list[str]:
    """What the daemon logged as a fault of its own, or not as JSON at all; what libraries say is not among it."""
    lines = daemon.log.read_text().splitlines()
    return [line for line in lines if not line.startswith("{") or json.loads(line)["event"] in FAULTS]


def replaced(daemon: DaemonProcess) -> int:
    """How often a server of the daemon ended by itself, and another one took its place."""
    return daemon.log.read_text().count("gRPC has ended a server; another one takes its place")


async def test_hostile_connections_harm_nobody(
    place: Place, size: Size, figure: Figures, canary: Canaries
) -> None:
    mutants, resets = size.pick(quick=400, full=4_000), size.pick(quick=4_000, full=20_000)
    floods = size.pick(quick=4_000, full=50_000)
    silent, half = size.pick(quick=300, full=1_500), size.pick(quick=200, full=500)
    address = str(place.socket)
    with daemon_process(place) as daemon:
        async with served(address) as beside:
            held, memory = descriptors(daemon), resident_kib(daemon.pid)
            for task, count in (
                ("classics", len(frames.CLASSICS)),
                ("mutants", mutants),
                ("rapid_reset", resets),
                ("pings", floods),
                ("settings", floods),
            ):
                async with peer(address, task, count) as told:
                    assert sum(told[0].values()) == count
            async with peer(address, "silent", silent), peer(address, "half_open", half):
                connections = silent + half // 100
                assert await until(lambda: descriptors(daemon) >= held + connections)
                before = len(beside.seconds)
                assert await until(lambda: len(beside.seconds) > before + 20)
            await until(lambda: descriptors(daemon) <= held)
            left = max(0, descriptors(daemon) - held)  # connections of its start may have been closed since
            more_mib = (resident_kib(daemon.pid) - memory) / 1_024
        tried, ended = len(frames.CLASSICS) + mutants, int(daemon.process.poll() is not None)
        figure("R9", "hostile inputs that ended the daemon", ended, at_most=0, of=tried)
        refused, calls = len(beside.refused), len(beside.seconds)
        figure("R9", "calls of another client refused meanwhile", refused, at_most=0, of=calls)
        p99 = QUICK_P99_MS if size.quick else 50
        figure("R9", "p99 of another client's lookups", beside.p99_ms(), at_most=p99, unit="ms")
        figure("R9", "descriptors left", left, at_most=0, of=silent)
        figure("R9", "memory", more_mib, at_most=40, unit="MiB")
        said = faults(daemon)
        print("\n".join(said))  # shown where it fails
        figure("R9", "lines of a fault in the daemon's log", len(said), at_most=0)
        figure("R9", "servers that gRPC ended, and that were replaced", replaced(daemon), at_least=1)
    canary("R9", "a server that counts calls before it reads them", caught=await a_full_server(place), of=1)


async def a_full_server(place: Place) -> int:
    """1 if calls that were only begun keep others out of a server with grpc's own limit on calls."""

    async def answered(*_: object) -> maps_pb2.GetServerInfoResponse:
        return maps_pb2.GetServerInfoResponse()

    server = grpc.aio.server(maximum_concurrent_rpcs=50)
    handler = grpc.unary_unary_rpc_method_handler(
        answered,
        request_deserializer=maps_pb2.GetServerInfoRequest.FromString,
        response_serializer=maps_pb2.GetServerInfoResponse.SerializeToString,
    )
    handlers = {"GetServerInfo": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("mapd_api.v1.MapService", handlers),)
    )
    path = str(place.root / "full.sock")
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        async with peer(path, "half_open", 100), grpc.aio.insecure_channel(f"unix:{path}") as channel:
            ask = channel.unary_unary(
                METHOD,
                request_serializer=maps_pb2.GetServerInfoRequest.SerializeToString,
                response_deserializer=maps_pb2.GetServerInfoResponse.FromString,
            )
            async with asyncio.timeout(20):
                while True:  # the streams may not have arrived yet
                    try:
                        await ask(maps_pb2.GetServerInfoRequest())
                    except grpc.aio.AioRpcError as error:
                        return int(error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED)
    finally:
        await server.stop(None)


async def test_who_says_nothing_is_let_go(place: Place, figure: Figures) -> None:
    """A connection costs a descriptor: 20,000 that never say a word would be all that a daemon has."""
    silent = 50
    with daemon_process(place):
        async with peer(str(place.socket), "outwaited", silent) as told:
            assert told == [{"held": silent}]
        figure("R9", "silent connections kept", told[-1]["kept"], at_most=0, of=silent)


@pytest.mark.parametrize("name", frames.CLASSICS)
def test_what_is_sent_is_what_it_is_called(name: str) -> None:
    """Bytes are made without a daemon, each time the same."""
    made = frames.CLASSICS[name]
    assert made() == made()
    assert (made() == b"") is (name == "nothing")


def test_mutants_are_the_same_for_a_seed_and_none_is_good() -> None:
    first, again, other = (list(frames.mutants(seed, 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_good_exchange_is_answered(daemon: DaemonProcess) -> None:
    """What mutants are made of is right, or nothing but the first bytes of them would be read."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.place.socket))
        connection.settimeout(10)
        connection.sendall(frames.hello(SettingsFrame(flags=["ACK"]), frames.call(1)))
        answered = b""
        while b"grpc-status" not in answered:
            part = connection.recv(1 << 16)
            assert part, answered
            answered += part
        assert daemon.place.root.name.encode() in answered  # the folder for names
