"""A server that gRPC ends by itself is replaced, and clients that mean well go on.

One call whose path is no UTF-8 ends grpc.aio's accept loop for good: nobody could connect to the daemon any more.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import grpc.aio
import pytest
import structlog.testing

import mapd_client
from mapd.daemon import Ready
from mapd.rpc import crashes
from mapd_client import U32, Tls
from tests.e2e.settling import until
from tests.e2e.tls_place import TlsPlace
from tests.reliability.hostile import frames
from tests.support.daemon import Place

WORD = "gRPC has ended"


async def crash(writer: asyncio.StreamWriter, crashed: Callable[[], bool]) -> None:
    """Send what ends the server, and wait until it has."""
    writer.write(frames.CLASSICS["a path that is no text"]())
    try:
        assert await until(crashed)
    finally:
        writer.transport.abort()


def times(said: Sequence[Mapping[str, Any]]) -> int:
    """How often a server was replaced."""
    return sum(line["event"].startswith(WORD) for line in said)


async def lookups_until(opened: mapd_client.Map[int, int], ended: asyncio.Event) -> int:
    """Look up and write until the event is set; how often. None may fail."""
    count = 0
    while not ended.is_set() or count < 50:
        count += 1
        await opened.update(1, count)
        assert await opened.lookup(1) == count
    return count


def replaced(said: Sequence[Mapping[str, Any]], time: int) -> bool:
    return times(said) == time


async def connects_again(address: str, tls: Tls | None = None) -> mapd_client.ServerInfo:
    """As soon as somebody listens there: the other server takes a few milliseconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with mapd_client.connect(address, tls=tls, timeout=10) as client:
                    return await client.server_info()
            except mapd_client.Unreachable:
                await asyncio.sleep(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_socket_is_served_again_and_its_sessions_lose_nothing(place: Place, local: Ready) -> None:
    path, ended = str(place.socket), asyncio.Event()
    async with (
        mapd_client.connect(path) as client,
        client.create_map("m", "hash", key=U32, value=U32, max_entries=4) as opened,
    ):
        with structlog.testing.capture_logs() as said:
            working = asyncio.create_task(lookups_until(opened, ended))
            for time in (1, 2, 3):
                _, writer = await asyncio.open_unix_connection(path)
                await crash(writer, partial(replaced, said, time))
                assert (await connects_again(path)).epoch == local.facts.epoch
            ended.set()
            assert await working >= 50
    assert {line["principal"] for line in said if line["event"].startswith(WORD)} == {"admin"}
    assert place.socket.is_socket()


async def test_tcp_is_served_again_at_the_same_port(place: Place) -> None:
    tcp = TlsPlace(place)
    async with tcp.daemon() as ready:
        (address,) = ready.tcp
        tls = tcp.tls()
        context = ssl.create_default_context(cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        ended = asyncio.Event()
        async with (
            mapd_client.connect(address, tls=tls, timeout=10) as client,
            client.create_map("m", "hash", key=U32, value=U32, max_entries=4) as opened,
        ):
            with structlog.testing.capture_logs() as said:
                working = asyncio.create_task(lookups_until(opened, ended))
                for time in (1, 2):
                    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
                    await crash(writer, partial(replaced, said, time))
                    assert (await connects_again(address, tls)).epoch == ready.facts.epoch
                ended.set()
                assert await working >= 50
        assert times(said) == 2


async def test_without_that_the_server_is_lost(place: Place) -> None:
    """The canary: where gRPC survives it by itself one day, all this can go."""
    path = str(place.root / "plain.sock")
    server, told = grpc.aio.server(), list[BaseException]()
    server.add_insecure_port(f"unix:{path}")
    await crashes.start(server, told.append)
    try:
        _, writer = await asyncio.open_unix_connection(path)
        await crash(writer, lambda: bool(told))
        async with asyncio.timeout(10):
            while True:
                with socket.socket(socket.AF_UNIX) as again:
                    try:
                        again.connect(path)
                    except (ConnectionRefusedError, FileNotFoundError):
                        break
                await asyncio.sleep(0)
    finally:
        await server.stop(None)


async def test_a_server_that_is_stopped_has_not_crashed(place: Place) -> None:
    server, told = grpc.aio.server(), list[BaseException]()
    server.add_insecure_port(f"unix:{place.root / 'plain.sock'}")
    await crashes.start(server, told.append)
    await server.stop(None)
    await asyncio.sleep(0)
    assert told == []
