"""Quotas of a real daemon: what is beyond one is refused with both numbers, and nothing of others' is taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd.access.principal import Principal
from mapd.access.quotas import Dimension
from mapd.daemon import Ready, running
from mapd_client import U32, U64, Client, Map, MapdError, QuotaExceeded
from tests.e2e.settling import until
from tests.support.daemon import Place

EDGE = Principal(name="edge", namespace="edge")


def policy(**quotas: object) -> str:
    """Two principals with the same rights, one of them with these quotas."""
    table = "".join(f"{key} = {value}\n" for key, value in quotas.items())
    return f"""
[principals.admin]

[principals.edge]

[principals.edge.quotas]
{table}
[principals.victim]

[[rules]]
who = ["*"]
role = "owner"
owners = ["self"]
"""


@pytest.fixture
async def ready(place: Place) -> AsyncGenerator[Ready]:
    """A daemon whose quotas each test puts in force."""
    trail = f"[audit]\npath = '{place.root}/audit.jsonl'\n"
    async with running(place.config(policy=policy(), extra=trail)) as found:
        yield found


def connected(place: Place, principal: str = "edge") -> mapd_client.Opening[Client]:
    return mapd_client.connect(f"unix:{place.runtime_dir / principal / 'mapd.sock'}")


def limit(ready: Ready, place: Place, **quotas: object) -> None:
    """Other quotas from now on."""
    place.policy.write_text(policy(**quotas))
    assert ready.policy.reload()


def new(client: Client, name: str, entries: int = 64, **options: Any) -> mapd_client.Opening[Map[int, int]]:
    return client.create_map(name, "hash", key=U32, value=U64, max_entries=entries, **options)


def refusals(place: Place) -> list[dict[str, Any]]:
    lines = Path(place.root, "audit.jsonl").read_bytes().split(b"\n")[:-1]
    return [line for line in map(json.loads, lines) if line["event"] == "refusal"]


async def test_maps_and_their_memory(place: Place, ready: Ready) -> None:
    limit(ready, place, maps=2)
    async with connected(place) as client, connected(place, "victim") as victim:
        async with new(client, "a"), new(client, "b"):
            with pytest.raises(QuotaExceeded, match=r"edge has 2 maps, its limit is 2: unpin") as caught:
                await new(client, "c")
            assert caught.value.retry_after == 1.0
            assert not (place.names / "edge" / "c").exists()
        with pytest.raises(QuotaExceeded, match="has 2 maps"):  # its handles are closed; its names are there
            await new(client, "c")
        async with new(victim, "c"), new(victim, "d"), new(victim, "e"):
            pass
        assert (await ready.host.charged(EDGE))[0] == 2
        limit(ready, place, map_bytes="'1MiB'")
        with pytest.raises(
            QuotaExceeded, match=r"bytes of kernel memory in maps, and \d+ more are asked for, its"
        ):
            await new(client, "large", 1 << 20)
        async with new(client, "c"):
            pass
    assert await until(lambda: len(refusals(place)) == 3)
    assert {(line["principal"], line["reason"]) for line in refusals(place)} == {("edge", "QUOTA")}


async def test_creations_at_the_same_time_never_overshoot(place: Place, ready: Ready) -> None:
    limit(ready, place, maps=5)
    async with connected(place) as client:
        found = await asyncio.gather(*(made(client, f"m{number}") for number in range(24)))
    assert sum(found) == 5
    assert len(list((place.names / "edge").iterdir())) == 5


async def made(client: Client, name: str) -> bool:
    try:
        async with new(client, name):
            return True
    except QuotaExceeded:
        return False


async def test_maps_count_also_after_the_daemon_was_restarted(place: Place) -> None:
    text = policy(maps=1)
    async with running(place.config(policy=text)), connected(place) as client, new(client, "a"):
        pass
    async with running(place.config(policy=text)), connected(place) as client:
        with pytest.raises(QuotaExceeded, match="has 1 maps"):
            await new(client, "b")


async def test_handles_and_streams(place: Place, ready: Ready) -> None:
    limit(ready, place, handles=2, streams=1)
    async with connected(place) as client, new(client, "a"), client.open_map("a"):
        with pytest.raises(QuotaExceeded, match="edge has 2 handles open, its limit is 2"):
            await client.open_map("a")
        async with connected(place) as second:
            with pytest.raises(MapdError, match="edge has 1 sessions, dumps and loads open, its limit is 1"):
                await second.open_map("a", key=U32, value=U64)
        told = ready.host.shares.of(EDGE)
        assert (told[Dimension.HANDLES].used, told[Dimension.HANDLES].limit) == (2, 2)
        assert (told[Dimension.STREAMS].used, told[Dimension.STREAMS].limit) == (1, 1)
    assert await until(lambda: not any(one.used for one in ready.host.shares.of(EDGE).values()))


async def test_dumps(place: Place, ready: Ready) -> None:
    limit(ready, place, dumps=1)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connected(place))
        large = await stack.enter_async_context(new(client, "large", 400_000))
        await large.load((number, number) for number in range(400_000))
        stalled = large.chunks()
        await anext(stalled)
        with pytest.raises(QuotaExceeded, match="edge has 1 dumps running, its limit is 1"):
            await anext(large.chunks())
        await stalled.aclose()
        assert await until(lambda: not ready.host.shares.held(EDGE, Dimension.DUMPS))
        assert sum([chunk.count async for chunk in large.chunks()]) == 400_000


async def test_operations_beyond_the_rate_are_refused_and_none_of_them_is_made(
    place: Place, ready: Ready
) -> None:
    async with connected(place) as client, new(client, "a", 100_000) as found:
        limit(ready, place, ops_per_second=1, burst=100)
        await found.update_many(dict.fromkeys(range(80), 1))
        with pytest.raises(QuotaExceeded, match="its limit is 1 a second and 100 at once") as caught:
            await found.update_many(dict.fromkeys(range(1000, 1050), 1))
        assert caught.value.retry_after is not None
        assert 20 < caught.value.retry_after <= 30
        limit(ready, place)
        assert (await found.count()).entries == 80
    assert await until(lambda: len(refusals(place)) == 1)
    assert refusals(place)[0]["operation"] == "update"


async def test_a_victim_notices_nothing_of_the_refusals_of_another(place: Place, ready: Ready) -> None:
    """However often the abuser asks: what is admitted of it is its quota, and the victim is refused nothing."""
    async with (
        connected(place) as abuser,
        connected(place, "victim") as victim,
        new(abuser, "a", 10_000) as theirs,
        new(victim, "v", 10_000) as ours,
    ):
        limit(ready, place, ops_per_second=1, burst=50)
        refused = 0

        async def hammer() -> None:
            nonlocal refused
            for number in range(500):
                try:
                    await theirs.update(number, number)
                except QuotaExceeded:
                    refused += 1

        await asyncio.gather(hammer(), *(ours.update(number, number) for number in range(500)))
        limit(ready, place)
        assert (await ours.count()).entries == 500
        admitted = (await theirs.count()).entries
    assert admitted + refused == 500
    # A second's worth for each second that the test took, which is bounded by its own limit.
    assert 50 <= admitted < 110


async def test_a_reload_counts_at_once(place: Place, ready: Ready) -> None:
    async with connected(place) as client, new(client, "a"):
        limit(ready, place, maps=1)
        with pytest.raises(QuotaExceeded):
            await new(client, "b")
        limit(ready, place, maps=2)
        async with new(client, "b"):
            pass
