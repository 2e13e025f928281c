"""R19: a daemon that stood still, a clock that jumps: nothing ends before its time, and nothing counts after it."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

import mapd_client
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MAP_TYPE_HASH
from mapd_client import U32
from tests.e2e.tls_place import TlsPlace, tcp_address
from tests.reliability.clock import WallClock, wall_clock
from tests.reliability.figures import Canaries, Figures, Size
from tests.support.daemon import DaemonProcess, Place, daemon_process
from tests.support.pki import LOCALHOST

HOUR = 3_600
HALF_AN_HOUR = datetime.timedelta(minutes=30)
LEASE_S = 1.0


class Living:
    """All that has a time: a session, a handle, a lease, a dump that is being read."""

    def __init__(
        self,
        client: mapd_client.Client,
        named: mapd_client.Map[int, int],
        leased: mapd_client.Map[int, int],
    ) -> None:
        self._client = client
        self._named = named
        self._leased = leased
        self._written = 0

    async def spurious(self) -> int:
        """How much of it has ended, or says so."""
        ended = 0
        for opened in (self._named, self._leased):
            self._written += 1
            try:
                await opened.update(1, self._written)
                ended += await opened.lookup(1) != self._written
                ended += (await opened.count()).entries != 1
            except mapd_client.MapdError:
                ended += 1
        return ended

    def lost(self) -> int:
        """1 if the leased map has lost its pin."""
        return int(not Path(self._leased.info.pin_path).exists())


@asynccontextmanager
async def living(place: Place) -> AsyncGenerator[Living]:
    async with (
        mapd_client.connect(str(place.socket), timeout=30) as client,
        client.create_map("named", "hash", key=U32, value=U32, max_entries=4) as named,
        client.create_map(None, "hash", key=U32, value=U32, max_entries=4, lease=LEASE_S) as leased,
    ):
        found = Living(client, named, leased)
        assert await found.spurious() == 0
        yield found


@pytest.mark.parametrize("who", ["front", "opener"])
async def test_a_process_that_was_stopped_ends_nothing(
    place: Place, size: Size, figure: Figures, who: str
) -> None:
    stopped_s = size.pick(quick=2, full=5)
    with daemon_process(place) as daemon:
        async with living(place) as found:
            victim = daemon.pid if who == "front" else daemon.opener()
            os.kill(victim, signal.SIGSTOP)
            try:
                await asyncio.sleep(stopped_s)
            finally:
                os.kill(victim, signal.SIGCONT)
            spurious = await found.spurious() + found.lost()
    figure("R19", f"ended because the {who} stood still for {stopped_s} s", spurious, at_most=0, of=7)


async def nobody_keeps(place: Place) -> Path:
    """The pin of a map whose lease is never kept alive."""
    lease = maps.Lease(id="unkept", ttl=Duration(seconds=int(LEASE_S)), name="m")
    request = maps.CreateMapRequest(type=MAP_TYPE_HASH, key_size=4, value_size=4, max_entries=4, lease=lease)
    async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
        create = channel.unary_unary(
            "/mapd_api.v1.MapService/CreateMap",
            request_serializer=maps.CreateMapRequest.SerializeToString,
            response_deserializer=maps.CreateMapResponse.FromString,
        )
        return Path((await create(request)).info.pin_path)


def there(pin: Path) -> bool:
    return pin.exists()


async def test_a_clock_that_jumps_ends_nothing(
    place: Place, size: Size, figure: Figures, canary: Canaries
) -> None:
    clock = wall_clock(place.root)
    jumps = (HOUR, -HOUR) if size.quick else (HOUR, -HOUR, 0, 24 * HOUR, 0)
    with daemon_process(place, prefix=clock.prefix) as daemon:
        spurious = 0
        async with living(place) as found:
            pin = await nobody_keeps(place)
            assert there(pin)
            for seconds in jumps:
                clock.move(seconds)
                await asyncio.sleep(1.5 * LEASE_S)  # a lease would end in it that nobody kept
                spurious += await found.spurious() + found.lost()
            assert_it_was_seen(daemon, clock)
        figure("R19", "ended because the clock was moved", spurious, at_most=0, of=7 * len(jumps))
        canary("R19", "a lease that nobody keeps alive", caught=int(not there(pin)), of=1)


def assert_it_was_seen(daemon: DaemonProcess, clock: WallClock) -> None:
    """The daemon's own clock is the one that was moved: its log tells."""
    clock.move(24 * HOUR)
    before = len(daemon.log.read_text().splitlines())
    os.kill(daemon.pid, signal.SIGHUP)
    tomorrow = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).date().isoformat()
    for _ in range(1_000_000):
        lines = daemon.log.read_text().splitlines()
        if len(lines) > before:
            assert f'"timestamp": "{tomorrow}' in lines[-1]
            break
        os.sched_yield()
    clock.move(0)


async def calls(address: str, tls: mapd_client.Tls) -> bool:
    """Whether who has these files is let in, by a connection of its own."""
    try:
        async with mapd_client.connect(address, tls=tls, timeout=5) as client:
            await client.server_info()
    except (mapd_client.MapdError, ssl.SSLError):
        return False
    return True


async def test_a_certificate_that_has_ended_by_the_daemons_clock_is_not_accepted(
    place: Place, figure: Figures, canary: Canaries
) -> None:
    clock, tcp = wall_clock(place.root), TlsPlace(place)
    tcp.write_server(tcp.ca.issue(*LOCALHOST, lasts=datetime.timedelta(days=2)))
    short, long = tcp.tls(lasts=HALF_AN_HOUR), tcp.tls(lasts=datetime.timedelta(days=2))
    with daemon_process(place, prefix=clock.prefix, extra=tcp.extra(), policy=tcp.policy) as daemon:
        address = tcp_address(daemon)
        accepted = refused = 0
        async with mapd_client.connect(address, tls=short, timeout=5) as connected:
            await connected.server_info()
            clock.move(HOUR)
            with pytest.raises(mapd_client.MapdError):  # connected before, and asked again at each call
                await connected.server_info()
            accepted += await calls(address, short)
            refused += not await calls(address, long)
            clock.move(0)
            refused += not await calls(address, short)
    figure("R19", "calls accepted by a certificate that has ended", accepted, at_most=0, of=2)
    figure("R19", "calls refused by one that has not", refused, at_most=0, of=2)
    clock.move(HOUR)
    with daemon_process(place, extra=tcp.extra(), policy=tcp.policy) as daemon:  # by the true clock
        caught = int(await calls(tcp_address(daemon), short))
    canary("R19", "a daemon that does not ask the clock", caught=caught, of=1)
