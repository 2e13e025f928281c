"""Somebody asks for ten times what the policy gives it, in each dimension: it gets that, and nothing more.

What was executed is counted where it counts: maps in the kernel, operations in the map that they were done to.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from mapd.bpf import possible_cpus
from mapd.bpf.memory import MapShape, map_bytes
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.e2e.rights.agents import Agent, Answer, User, agent
from tests.e2e.rights.cells import METHODS
from tests.support.daemon import DaemonProcess, Place, client_sources, daemon_process
from tests.support.pinned import read_pin

MAPS, MAP_BYTES, HANDLES, STREAMS, DUMPS, CONNECTIONS, RATE, BURST = 6, 1 << 20, 5, 4, 2, 3, 200, 50
TIMES = 10
KEY = bytes(4)

POLICY = f"""
[principals.abuser]
users = [70031]
[principals.abuser.quotas]
maps = {MAPS}
map_bytes = {MAP_BYTES}
handles = {HANDLES}
streams = {STREAMS}
dumps = {DUMPS}
connections = {CONNECTIONS}
ops_per_second = {RATE}
burst = {BURST}
[principals.victim]
users = [70032]
[[rules]]
who = ["*"]
role = "owner"
owners = ["self"]
"""


@dataclass(frozen=True)
class Ground:
    """A daemon, and two who ask."""

    place: Place
    daemon: DaemonProcess
    abuser: Agent
    victim: Agent

    async def create(self, who: Agent, name: str, entries: int = 4, value_size: int = 8) -> Answer:
        """A hash map of 4-byte keys."""
        request = maps.CreateMapRequest(
            type=int(MapType.HASH),  # type: ignore[arg-type]
            key_size=4,
            value_size=value_size,
            max_entries=entries,
        )
        request.named.name = name
        return await patiently(who, METHODS["CreateMap"], request)

    async def made(self, who: Agent, name: str, entries: int = 4, value_size: int = 8) -> None:
        """The same; its handle is given back."""
        answer = await self.create(who, name, entries, value_size)
        assert answer.code == "OK", answer
        handle = maps.CreateMapResponse.FromString(answer.replies[0]).handle
        await patiently(who, METHODS["CloseMap"], maps.CloseMapRequest(handle=handle))

    async def victim_is_served(self) -> None:
        """Whoever else there is goes on as if nothing were."""
        request = pb.UpdateRequest(map=MapRef(name="mine"), key=KEY, value=bytes(8))
        assert (await self.victim.call(METHODS["Update"], request)).code == "OK"


async def patiently(who: Agent, method: object, request: object) -> Answer:
    """A call, again while it is too early for it: every call costs an operation."""
    while True:
        answer = await who.call(method, request)  # type: ignore[arg-type]
        if answer.reason is not Reason.QUOTA or quota(answer) != "ops_per_second":
            return answer


def quota(answer: Answer) -> str:
    """Which one was refused for."""
    assert answer.refusal is not None
    assert answer.refusal.retry_after_s, "how long to wait is told"
    return answer.refusal.metadata["quota"]


@asynccontextmanager
async def on_ground(place: Place) -> AsyncGenerator[Ground]:
    async with AsyncExitStack() as stack:
        sources = stack.enter_context(client_sources())
        daemon = stack.enter_context(daemon_process(place, policy=POLICY))
        agents: list[Agent] = []
        for name, uid in (("abuser", 70031), ("victim", 70032)):
            one = await stack.enter_async_context(agent(sources, User(uid=uid, gid=uid)))
            await one.connect(f"unix:{place.runtime_dir}/{name}/mapd.sock")
            agents.append(one)
        ground = Ground(place, daemon, *agents)
        await ground.made(ground.victim, "mine")
        yield ground
        await ground.victim_is_served()


@pytest.fixture
async def ground(place: Place) -> AsyncGenerator[Ground]:
    async with on_ground(place) as found:
        yield found


def split(answers: Sequence[Answer], dimension: str) -> int:
    """How many were admitted; every other one was refused for this quota."""
    refused = [answer for answer in answers if answer.code != "OK"]
    assert all(answer.reason is Reason.QUOTA and quota(answer) == dimension for answer in refused), refused
    assert refused
    return len(answers) - len(refused)


async def test_no_map_more_than_its_quota_is_made(ground: Ground) -> None:
    answers: list[Answer] = []
    for number in range(MAPS * TIMES):
        answer = await ground.create(ground.abuser, f"m{number}")
        answers.append(answer)
        if answer.code == "OK":
            handle = maps.CreateMapResponse.FromString(answer.replies[0]).handle
            await patiently(ground.abuser, METHODS["CloseMap"], maps.CloseMapRequest(handle=handle))
    assert split(answers, "maps") == MAPS
    assert len(list((ground.place.names / "abuser").iterdir())) == MAPS


async def test_no_byte_more_than_its_quota_is_in_maps(ground: Ground) -> None:
    """Ten times the bytes are asked for, in maps each of which would do."""
    shape = MapShape(map_type=MapType.HASH, key_size=4, value_size=2048, max_entries=128)
    each = map_bytes(shape, possible_cpus())
    assert each < MAP_BYTES < MAPS * each
    answers = [
        await ground.create(ground.abuser, f"b{number}", 128, 2048)
        for number in range(TIMES * MAP_BYTES // each)
    ]
    assert split(answers, "map_bytes") == MAP_BYTES // each
    assert len(list((ground.place.names / "abuser").iterdir())) * each <= MAP_BYTES


async def test_no_handle_more_than_its_quota_is_open(ground: Ground) -> None:
    await ground.made(ground.abuser, "m")
    request = maps.OpenMapRequest(map=MapRef(name="m"))
    answers = [await patiently(ground.abuser, METHODS["OpenMap"], request) for _ in range(HANDLES * TIMES)]
    assert split(answers, "handles") == HANDLES


async def test_no_stream_more_than_its_quota_is_open(ground: Ground) -> None:
    answers = [await ground.abuser.open_session(f"s{number}") for number in range(STREAMS * TIMES)]
    assert split(answers, "streams") == STREAMS


async def test_no_dump_more_than_its_quota_runs(ground: Ground) -> None:
    """Ten times as many are begun at once and not read on."""
    await ground.made(ground.abuser, "big", entries=4_000, value_size=128)
    load = pb.LoadRequest(map=MapRef(name="big"))
    load.columns.count = 4_000
    load.columns.keys = struct.pack("<4000I", *range(4_000))
    load.columns.values = bytes(4_000 * 128)
    assert (await ground.abuser.call(METHODS["Load"], load)).code == "OK"
    answers = await ground.abuser.together(
        METHODS["Dump"], [pb.DumpRequest(map=MapRef(name="big"))] * (DUMPS * TIMES), keep=True
    )
    assert split([one for one in answers if not _early(one)], "dumps") <= DUMPS
    await ground.abuser.ask("release")


def _early(answer: Answer) -> bool:
    return answer.reason is Reason.QUOTA and quota(answer) in ("ops_per_second", "streams")


async def test_no_connection_more_than_its_quota_is_served(ground: Ground) -> None:
    """Each channel is a connection of its own."""
    target = f"unix:{ground.place.runtime_dir}/abuser/mapd.sock"
    served = 0
    for number in range(CONNECTIONS * TIMES):
        await ground.abuser.connect(target, channel=f"c{number}")
        answer = await ground.abuser.call(
            METHODS["GetServerInfo"], maps.GetServerInfoRequest(), channel=f"c{number}"
        )
        served += answer.code == "OK" or answer.reason is Reason.QUOTA
    assert 0 < served <= CONNECTIONS


@pytest.mark.parametrize("size", [1, 7, BURST])
async def test_no_operation_more_than_its_rate_is_executed(ground: Ground, size: int) -> None:
    """The map that they are done to counts them: each adds one."""
    await ground.made(ground.abuser, "n")
    path = ground.place.names / "abuser" / "n"
    group = pb.OpGroup(
        map=MapRef(name="n"),
        count=size,
        ops=bytes([Op.FETCH_ADD]),
        keys=KEY * size,
        values=struct.pack("<Q", 1) * size,
        create=True,
    )
    group.field.size = 8
    began = time.monotonic()
    answers: list[Answer] = []
    while (
        sum(answer.code == "OK" for answer in answers) * size < 2 * BURST
        or len(answers) * size < TIMES * BURST
    ):
        answers += await ground.abuser.together(METHODS["Apply"], [pb.ApplyRequest(groups=[group])] * 20)
    elapsed = time.monotonic() - began
    executed = struct.unpack("<Q", read_pin(path).elements[KEY])[0]
    done = [answer for answer in answers if _done(answer)]
    assert executed == len(done) * size, "what was refused was not executed"
    assert executed <= BURST + RATE * elapsed
    assert len(done) < len(answers)


def _done(answer: Answer) -> bool:
    if answer.code != "OK":
        assert answer.reason is Reason.QUOTA, answer
        return False
    (result,) = pb.ApplyResponse.FromString(answer.replies[0]).results
    assert not result.HasField("error") or int(result.error.reason) == Reason.QUOTA.value, result
    return not result.HasField("error")
