"""Health of real daemons: a service that lacks what it needs says so by itself, while the others serve."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from mapd.daemon import running
from mapd_client import U32, U64, Map, MapdError, connect
from tests.support.activation import activated_openers, front_at, openers_at
from tests.support.daemon import Place, daemon_process

WAIT_S = 15.0
MAPS, ELEMENTS, HOST, ACCESS = (f"mapd_api.v1.{name}Service" for name in ("Map", "Element", "Host", "Access"))
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def watching(place: Place, *services: str) -> AsyncGenerator[dict[str, Any]]:
    """Streams of statuses by service, each of which has said SERVING."""
    async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
        watch: Any = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        streams = {
            name: watch(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S) for name in services
        }
        for stream in streams.values():
            assert (await stream.read()).status == SERVING
        yield streams
        for stream in streams.values():
            stream.cancel()


async def now(place: Place, service: str) -> int:
    async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
        return int(answer.status)


def opener_of(pid: int) -> int:
    """The child of a front that is still there once it is ready."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.fixture
def small(place: Place) -> Generator[Path]:
    """A file system of 64 KiB, most of it taken by what can be removed."""
    folder = place.root / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "mapd-test", folder], check=True)
    try:
        (folder / "ballast").write_bytes(bytes(52 << 10))
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


async def update_without_end(flows: Map[int, int]) -> None:
    for number in count():
        await flows.update(number % 100, number)


async def test_without_its_audit_trail_what_changes_maps_does_not_serve_until_it_is_back(
    place: Place, small: Path
) -> None:
    audit = f"[audit]\npath = '{small}/audit.jsonl'\n"
    async with (
        running(place.config(extra=audit)),
        watching(place, "", MAPS, ELEMENTS) as streams,
        connect(str(place.socket)) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=100) as flows,
    ):
        with pytest.raises(MapdError, match="audit trail"):
            await update_without_end(flows)
        for stream in streams.values():
            assert (await stream.read()).status == NOT_SERVING
        assert await now(place, HOST) == await now(place, ACCESS) == SERVING
        assert await flows.lookup(0) is not None, "what changes nothing is answered"
        (small / "ballast").unlink()
        for stream in streams.values():
            assert (await stream.read()).status == SERVING
        await flows.update(1, 2)


async def test_when_the_opener_ends_every_watcher_hears_that_nothing_serves(place: Place) -> None:
    """The front that started it ends too; until then it says so."""
    with daemon_process(place) as daemon:
        async with watching(place, "", MAPS, HOST) as streams:
            os.kill(opener_of(daemon.pid), signal.SIGKILL)
            for stream in streams.values():
                assert (await stream.read()).status == NOT_SERVING
        assert await asyncio.to_thread(daemon.process.wait, WAIT_S) != 0


async def test_between_two_openers_what_opens_maps_does_not_serve_and_the_rest_does(place: Place) -> None:
    """A front whose openers somebody else starts, and for a while nobody does."""
    with activated_openers(place) as path, front_at(place, path):
        async with (
            watching(place, "", MAPS, ACCESS) as streams,
            connect(str(place.socket)) as client,
            client.create_map("flows", "hash", key=U32, value=U64, max_entries=10) as flows,
        ):
            away = path.with_name("away")
            path.rename(away)
            (opener,) = openers_at(path)
            os.kill(opener, signal.SIGKILL)
            for stream in streams.values():
                assert (await stream.read()).status == NOT_SERVING
            assert await now(place, HOST) == SERVING
            await flows.update(1, 2)
            assert await flows.lookup(1) == 2
            away.rename(path)
            for stream in streams.values():
                assert (await stream.read()).status == SERVING
