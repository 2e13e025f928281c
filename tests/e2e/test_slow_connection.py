"""A daemon that is slow to answer a new connection, or far away, is waited for as long as it waits itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import mapd_client
from mapd.daemon import Ready
from mapd_client import ServerInfo
from tests.support.daemon import Place
from tests.support.relay import relaying

LONG_S = 1.0
"""Many round trips, and many turns of a busy machine."""


async def asked(path: Path) -> ServerInfo:
    async with mapd_client.connect(str(path), timeout=20) as client:
        return await client.server_info()


async def test_a_connection_whose_first_answer_takes_long_is_not_given_up(place: Place, local: Ready) -> None:
    async with relaying(place.root / "relay.sock", place.socket) as relay:
        await relay.down.stop()
        call = asyncio.create_task(asked(relay.path))
        await relay.down.held()
        given_up, _ = await asyncio.wait({call}, timeout=LONG_S)
        assert not given_up, call.exception()
        await relay.down.go_on()
        assert (await call).epoch == local.facts.epoch
        assert relay.connections == 1


async def test_a_client_is_back_soon_after_the_daemon_is(place: Place, local: Ready) -> None:
    """The bound on one attempt is no pause between two."""
    async with (
        relaying(place.root / "relay.sock", place.socket) as relay,
        mapd_client.connect(str(relay.path), timeout=20) as client,
    ):
        assert (await client.server_info()).epoch == local.facts.epoch
        await relay.refuse()
        await relay.cut()
        failures = 0
        while failures < 3:
            try:
                await client.health()
            except mapd_client.Unreachable:
                failures += 1
        await relay.listen()
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.server_info()
                    break
                except mapd_client.Unreachable:
                    await asyncio.sleep(0)
