"""GetHostInfo: who is answered, what of, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.v1 import host_pb2 as pb
from tests.unit.mapd.access.reference import RuleDict
from tests.unit.mapd.rpc.ruled import OWNER, ruled
from tests.unit.mapd.rpc.wire import serving

pytestmark = pytest.mark.usefixtures("watched_loop")

NETNS = Path("/proc/self/ns/net").stat().st_ino
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
ALL = pb.GetHostInfoRequest(all_devices=True, all_cgroups=True)
EVERY_MAP: RuleDict = {"who": ["web"], "verbs": ["host"], "every_map": True}
DENIED: RuleDict = {"who": ["web"], "effect": "deny", "verbs": ["host"], "every_map": True}


async def test_the_host_is_told_as_the_daemon_sees_it() -> None:
    async with serving() as wire:
        host = (await wire.call(ALL)).host
    assert {one.ifindex: one.name for one in host.devices} == dict(socket.if_nameindex())
    assert host.netns == NETNS
    assert host.clocks.realtime_ns > host.clocks.boottime_ns > 0
    assert (host.kernel_release, host.machine) == (os.uname().release, os.uname().machine)
    assert host.page_size == os.sysconf("SC_PAGE_SIZE")
    assert host.boot_id == BOOT_ID


async def test_what_is_not_asked_for_is_not_told() -> None:
    async with serving() as wire:
        host = (await wire.call(pb.GetHostInfoRequest(ifindexes=[1, 2**31]))).host
    assert [one.ifindex for one in host.devices] == [1]
    assert not host.cgroups


async def test_whoever_has_the_right_on_every_map_is_answered() -> None:
    async with ruled(EVERY_MAP) as wire:
        assert (await wire.call(pb.GetHostInfoRequest())).host.page_size


@pytest.mark.parametrize("rules", [(), (OWNER,), (EVERY_MAP, DENIED)], ids=["none", "owner", "denied"])
async def test_nobody_else_is_answered_and_is_told_why(rules: tuple[RuleDict, ...]) -> None:
    async with ruled(*rules) as wire:
        refusal = await wire.refusal(ALL)
        assert refusal.reason is Reason.POLICY
        assert "host" in refusal.message
        # Before anything of the request is looked at.
        many = pb.GetHostInfoRequest(ifindexes=range(limits.HOST_IDS + 1))
        assert (await wire.refusal(many)).reason is Reason.POLICY


@pytest.mark.parametrize("field", ["ifindexes", "cgroup_ids"])
async def test_more_ids_than_one_call_names_are_refused(field: str) -> None:
    async with serving() as wire:
        request = pb.GetHostInfoRequest()
        getattr(request, field).extend(range(limits.HOST_IDS))
        assert (await wire.call(request)).host.page_size
        getattr(request, field).append(1)
        refusal = await wire.refusal(request)
    assert refusal.reason is Reason.BAD_SPEC
    assert f"{field} has {limits.HOST_IDS + 1} ids" in refusal.message
