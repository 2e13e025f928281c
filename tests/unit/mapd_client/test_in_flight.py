"""How many calls one client has under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import mapd_client
from mapd_api import limits
from mapd_api.v1 import elements_pb2
from mapd_client import U32, U64
from mapd_client.errors import DeadlineExceeded, NotSent
from tests.unit.mapd_client.daemon import Daemon, map_info


class Gate:
    """Holds every Apply until it is opened, and counts those that it holds."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.full = asyncio.Event()
        self.held = 0

    async def apply(self, request: Any, context: object) -> elements_pb2.ApplyResponse:
        del request, context
        self.held += 1
        if self.held == limits.IN_FLIGHT:
            self.full.set()
        await self.open.wait()
        result = elements_pb2.GroupResult(statuses=b"\0", values=bytes(8))
        return elements_pb2.ApplyResponse(results=[result])


async def test_more_calls_than_a_connection_carries_wait_in_the_client_and_all_are_answered(
    daemon: Daemon,
) -> None:
    daemon.add(map_info("ns/flows"))
    gate = Gate()
    daemon.hooks["Apply"] = gate.apply
    async with (
        mapd_client.connect(daemon.target) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
        asyncio.TaskGroup() as group,
    ):
        lookups = [group.create_task(flows.lookup(key)) for key in range(2 * limits.IN_FLIGHT)]
        await gate.full.wait()
        assert gate.held == limits.IN_FLIGHT
        gate.open.set()
    assert [lookup.result() for lookup in lookups] == [0] * len(lookups)


@pytest.mark.parametrize(("mutates", "error"), [(False, DeadlineExceeded), (True, NotSent)])
async def test_a_call_whose_turn_does_not_come_in_time_was_not_sent(
    daemon: Daemon, mutates: bool, error: type[Exception]
) -> None:
    daemon.add(map_info("ns/flows"))
    gate = Gate()
    daemon.hooks["Apply"] = gate.apply
    async with (
        mapd_client.connect(daemon.target, timeout=0.3) as client,
        client.open_map("flows", key=U32, value=U64) as flows,
        asyncio.TaskGroup() as group,
    ):
        for key in range(limits.IN_FLIGHT):
            group.create_task(flows.lookup(key, timeout=30))
        await gate.full.wait()
        with pytest.raises(error, match="not sent within"):
            await (flows.update(1, 1) if mutates else flows.lookup(1))
        assert gate.held == limits.IN_FLIGHT
        gate.open.set()
