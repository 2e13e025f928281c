"""Clients of the daemon that these tests bring along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import mapd_client
from mapd_client import U32, U64, Map
from tests.unit.mapd_client.daemon import Daemon


@asynccontextmanager
async def opened(daemon: Daemon) -> AsyncGenerator[Map[int, int]]:
    """The map ns/flows of ``daemon``, 4-byte keys and 8-byte values."""
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
    ):
        yield flows


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - grpc's threads set no event
            await asyncio.sleep(0)
