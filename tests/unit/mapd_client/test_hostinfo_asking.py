"""How a client asks for facts of the daemon's host: when, how often, and what becomes of it where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import mapd_client
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import host_pb2
from mapd_client import U64, Client, IfIndex, PermissionDenied, Unsupported, facts
from mapd_client.hostinfo import FEATURE
from tests.unit.mapd_client.clients import until
from tests.unit.mapd_client.daemon import Daemon, map_info, refuse

LO, UNKNOWN = (1).to_bytes(4, "little"), (9).to_bytes(4, "little")


class Host:
    """What GetHostInfo is answered, and what it was asked."""

    def __init__(self, daemon: Daemon) -> None:
        self.asked: list[host_pb2.GetHostInfoRequest] = []
        self.devices = {1: "lo"}
        self.refusal: Refusal | None = None
        self.holds: asyncio.Event | None = None
        daemon.features = (*daemon.features, FEATURE)
        daemon.hooks["GetHostInfo"] = self.answer

    async def answer(self, request: host_pb2.GetHostInfoRequest, context: Any) -> Any:
        self.asked.append(request)
        if self.holds is not None:
            await self.holds.wait()
        if self.refusal is not None:
            await refuse(context, self.refusal)
        devices = [host_pb2.Device(ifindex=index, name=name) for index, name in self.devices.items()]
        return host_pb2.GetHostInfoResponse(host=host_pb2.HostInfo(devices=devices))


@pytest.fixture
def host(daemon: Daemon) -> Host:
    return Host(daemon)


@asynccontextmanager
async def by_device(daemon: Daemon, *elements: bytes) -> AsyncGenerator[tuple[Client, Any]]:
    """A map whose keys are network devices."""
    found = daemon.add(map_info("ns/devices"))
    for key in elements:
        found.data[key] = bytes(8)
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("devices", key=IfIndex, value=U64) as devices,
    ):
        yield client, devices


async def keys(devices: Any) -> list[Any]:
    return [key async for key, _ in devices.items()]


async def test_facts_are_asked_for_once_for_all_maps_that_need_them(daemon: Daemon, host: Host) -> None:
    async with by_device(daemon, LO) as (client, devices):
        assert await keys(devices) == ["lo"]
        async with client.open_map("devices", key=IfIndex, value=U64) as again:
            assert await keys(again) == ["lo"]
        async with client.open_map("devices", key=mapd_client.U32, value=U64) as plain:
            assert await keys(plain) == [1]
    assert len(host.asked) == 1
    assert (host.asked[0].all_devices, host.asked[0].all_cgroups) == (True, True)


async def test_a_map_without_such_codecs_asks_for_nothing(daemon: Daemon, host: Host) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client, client.open_map("flows"):
        pass
    assert host.asked == []


async def test_an_unknown_device_is_asked_for_behind_the_codec(
    daemon: Daemon, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "RENEW_S", 0.0)
    async with by_device(daemon, UNKNOWN) as (_, devices):
        host.devices[9] = "veth9"
        assert await keys(devices) == [9]
        await until(lambda: len(host.asked) == 2)
        assert list(host.asked[1].ifindexes) == [9]
        async with asyncio.timeout(10):
            while await keys(devices) != ["veth9"]:
                pass
    assert len(host.asked) == 2


async def test_a_renewal_that_fails_leaves_what_is_known(
    daemon: Daemon, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "RENEW_S", 0.0)
    async with by_device(daemon, LO, UNKNOWN) as (_, devices):
        host.refusal = Refusal(Reason.BUSY, "later")
        for times in range(2, 5):
            assert await keys(devices) == ["lo", 9]
            await until(lambda: len(host.asked) >= times)  # noqa: B023 - it is waited for here


async def test_closing_ends_a_renewal_that_is_not_answered(
    daemon: Daemon, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "RENEW_S", 0.0)
    before = asyncio.all_tasks()
    async with by_device(daemon, UNKNOWN) as (_, devices):
        host.holds = asyncio.Event()
        assert await keys(devices) == [9]
        await until(lambda: len(host.asked) == 2)
    left = [task.get_name() for task in asyncio.all_tasks() - before]
    assert "mapd host facts" not in left
    host.holds.set()


async def test_without_the_right_and_on_older_daemons_values_are_numbers(daemon: Daemon, host: Host) -> None:
    host.refusal = Refusal(Reason.POLICY, "host_info: you may not")
    async with by_device(daemon, LO) as (client, devices):
        assert await keys(devices) == [1]
        assert "you may not" in repr(devices)
        with pytest.raises(PermissionDenied, match="you may not"):
            await client.host_info()
    daemon.features = ()
    async with by_device(daemon, LO) as (client, devices):
        assert await keys(devices) == [1]
        assert "has no feature 'host-facts'" in repr(devices)
        with pytest.raises(Unsupported, match="host-facts"):
            await client.host_info()
