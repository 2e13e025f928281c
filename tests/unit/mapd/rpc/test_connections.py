"""Connections of one server: so many at a time, and none for ever that says nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from mapd.access.authorize import Authorizer
from mapd.rpc.caller import Caller, always
from mapd.rpc.guard import Call, Guard
from mapd.rpc.health import Health
from mapd.rpc.server import OPTIONS, build
from mapd_api import contract, limits
from tests.unit.mapd.rpc.wire import ADMIN, METHODS, WAIT_S

pytestmark = pytest.mark.usefixtures("watched_loop")

CHECK = "/grpc.health.v1.Health/Check"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000 04 00 00000000")
"""What HTTP/2 begins with, and empty SETTINGS."""


def literal(name: bytes, value: bytes) -> bytes:
    """A header that no table has (HPACK, RFC 7541 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(
    literal(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", CHECK.encode()),
        (b":authority", b"x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)
BEGUN = len(HEADERS).to_bytes(3, "big") + bytes.fromhex("01 04 00000001") + HEADERS
"""HEADERS of stream 1 with END_HEADERS: a call whose message is still to come."""


async def unused(_call: Call, _request: object) -> object:
    raise AssertionError("no method is called here")


@contextlib.asynccontextmanager
async def serving(
    connections: int | None = None, options: Sequence[tuple[str, Any]] = ()
) -> AsyncGenerator[Path]:
    """A server with nothing but its standard services; where it listens."""
    handlers = {contract.full_name(method): unused for method in METHODS.values()}
    health = Health()
    identify = always(Caller(principal=ADMIN, attested_by="test"))
    server = build(identify, Guard(Authorizer()), handlers, health, connections=connections, options=options)
    with tempfile.TemporaryDirectory(prefix="mapd-") as folder:
        path = Path(folder) / "s"
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        await health.set_serving()
        try:
            yield path
        finally:
            await server.stop(0)


def channel_to(path: Path) -> grpc.aio.Channel:
    """A connection of its own, tried again soon."""
    return grpc.aio.insecure_channel(
        f"unix:{path}",
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 100),
        ],
    )


async def check(channel: grpc.aio.Channel, *, wait: bool = False) -> grpc.StatusCode:
    """The status of a call; ``wait``: for a connection, if there is none."""
    untyped: Any = channel
    try:
        await untyped.unary_unary(CHECK)(
            health_pb2.HealthCheckRequest().SerializeToString(), timeout=WAIT_S, wait_for_ready=wait
        )
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@contextlib.contextmanager
def raw(path: Path) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as found:
        found.setblocking(False)
        found.connect(str(path))
        yield found


async def end_of(found: socket.socket) -> None:
    """Read until the server closes it; what it sends meanwhile is not answered."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_S):
        with contextlib.suppress(ConnectionResetError):
            while await loop.sock_recv(found, 4_096):
                pass


async def test_one_connection_more_than_there_may_be_is_refused_until_another_ends() -> None:
    async with serving(2) as path, serving(2) as elsewhere, contextlib.AsyncExitStack() as stack:
        first, second, third, other = [
            await stack.enter_async_context(channel_to(where)) for where in (path, path, path, elsewhere)
        ]
        assert [await check(first), await check(second)] == [grpc.StatusCode.OK] * 2
        assert await check(third) is grpc.StatusCode.UNAVAILABLE
        assert [await check(first), await check(second), await check(other)] == [grpc.StatusCode.OK] * 3
        await first.close()
        assert await check(third, wait=True) is grpc.StatusCode.OK


async def test_without_a_limit_there_is_none() -> None:
    async with serving() as path, contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(channel_to(path)) for _ in range(20)]
        assert {await check(each) for each in channels} == {grpc.StatusCode.OK}


async def test_who_connects_and_says_nothing_is_cut_off_and_takes_no_place_of_others() -> None:
    async with serving(2) as path, serving(2) as elsewhere, contextlib.AsyncExitStack() as stack:
        silent = [stack.enter_context(raw(path)) for _ in range(2)]
        waiting = await stack.enter_async_context(channel_to(path))
        other = await stack.enter_async_context(channel_to(elsewhere))
        assert await check(waiting) is grpc.StatusCode.UNAVAILABLE
        assert await check(other) is grpc.StatusCode.OK
        await asyncio.gather(*map(end_of, silent))
        assert await check(waiting, wait=True) is grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("said", "option"),
    [(PREFACE, "grpc.max_connection_idle_ms"), (PREFACE + BEGUN, "grpc.keepalive_time_ms")],
    ids=["a connection without a call", "a call without a message"],
)
async def test_who_says_no_more_than_what_begins_a_connection_or_a_call_is_cut_off(
    said: bytes, option: str
) -> None:
    """With times of a test: the daemon's own are minutes."""
    short = ((option, 200), ("grpc.http2.ping_timeout_ms", 200))
    async with serving(options=short) as path:
        with raw(path) as found:
            await asyncio.get_running_loop().sock_sendall(found, said)
            await end_of(found)


def test_the_daemons_own_times_are_those_of_its_limits() -> None:
    found = dict(OPTIONS)
    assert found["grpc.server_handshake_timeout_ms"] == limits.HANDSHAKE_S * 1_000
    assert found["grpc.max_connection_idle_ms"] == limits.CONNECTION_IDLE_S * 1_000
    assert found["grpc.keepalive_time_ms"] == limits.PING_AFTER_S * 1_000
    assert found["grpc.http2.ping_timeout_ms"] == limits.PING_S * 1_000
