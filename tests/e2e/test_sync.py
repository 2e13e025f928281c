"""``Map.sync`` against the real kernel: the daemon's audit counts what was written."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import mapd_client
from mapd_client import (
    U8,
    U32,
    U64,
    Bytes,
    Cidr4,
    Cidr6,
    Client,
    Map,
    MapFrozen,
    MapFull,
    Misuse,
    PerCpu,
    RemovalsRefused,
    SyncReport,
    Unsupported,
)
from tests.e2e.settling import until
from tests.support.daemon import DaemonProcess, daemon_process, environment, private_place
from tests.support.relay import relaying

MANY = 100_000
DIFFERENT = 1_000


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them, which writes down each change."""
    with private_place() as place:
        extra = f"[audit]\npath = '{place.root / 'audit.jsonl'}'\n"
        with daemon_process(place, extra=extra) as found:
            yield found


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(served.place.socket)) as found:
        yield found


class Trail:
    """What the daemon says it has executed on one map, behind what the test has loaded."""

    def __init__(self, served: DaemonProcess, map_id: int, loaded: int) -> None:
        self._path = served.place.root / "audit.jsonl"
        self._map_id = map_id
        self._loaded = loaded

    def _lines(self) -> list[dict[str, Any]]:
        told = map(json.loads, self._path.read_bytes().split(b"\n")[:-1])
        return [line for line in told if line.get("map_id") == self._map_id and "ops" in line]

    def writes(self) -> Counter[str]:
        """Operations on elements, by their names."""
        found: Counter[str] = Counter()
        for line in self._lines():
            found.update(line["ops"])
        found["update"] -= self._loaded
        return found

    def order(self) -> Iterator[str]:
        """The names of all, group after group."""
        for line in self._lines():
            yield from line["ops"]

    async def ended_by(self, opened: Map[Any, Any]) -> Counter[str]:
        """The same, once a freeze that came later is in the file."""
        before = self._path.read_bytes().count(b'"freeze"')
        await opened.freeze()
        assert await until(lambda: self._path.read_bytes().count(b'"freeze"') > before)
        return self.writes()


_NUMBERS = count()


def a_name() -> str:
    """Nobody else's."""
    return f"sync-{next(_NUMBERS)}"


async def contents(opened: Map[Any, Any]) -> dict[Any, Any]:
    return {key: value async for key, value in opened.items()}


def networks(first: int, count: int) -> list[IPv4Network]:
    return [IPv4Network(((10 << 24) + (number << 8), 24)) for number in range(first, first + count)]


async def blocklist(client: Client, name: str, elements: Mapping[IPv4Network, int]) -> Map[IPv4Network, int]:
    made = await client.create_map(
        name, "lpm_trie", key=Cidr4, value=U32, max_entries=MANY + DIFFERENT, flags=1
    )
    await made.load(elements)
    return made


async def test_of_100_000_networks_only_the_1_000_that_differ_are_written(
    served: DaemonProcess, client: Client
) -> None:
    wish = dict.fromkeys(networks(0, MANY), 1)
    there = dict.fromkeys(networks(400, MANY), 1) | dict.fromkeys(networks(50_000, 200), 2)
    opened = await blocklist(client, "differs", there)
    trail = Trail(served, opened.info.id, MANY)

    report = await opened.sync(wish)

    assert report == SyncReport(added=400, removed=400, changed=200, unchanged=MANY - 600, merged=0)
    assert str(report) == "+400 -400 ~200"
    assert await contents(opened) == wish
    assert not await opened.sync(wish)
    assert await trail.ended_by(opened) == {"update": 600, "delete": 400}


_SYNC = """
import asyncio, sys
from itertools import count
from ipaddress import IPv4Network
from mapd_client import Cidr4, U32, connect

async def main(target, name, first, end):
    wish = {IPv4Network(((10 << 24) + (number << 8), 24)): 1 for number in range(first, end)}
    async with connect(target) as client, client.open_map(name, key=Cidr4, value=U32) as opened:
        await opened.sync(wish, max_removals=0.5)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


async def test_killed_in_the_middle_and_run_again_it_ends_equal(
    served: DaemonProcess, client: Client, tmp_path: Path
) -> None:
    """Of its two messages of additions one goes through, and half of the other; there it is killed."""
    wish = dict.fromkeys(networks(20_000, 60_000), 1)
    opened = await blocklist(client, "killed", dict.fromkeys(networks(0, 60_000), 1))
    trail = Trail(served, opened.info.id, 60_000)
    async with relaying(tmp_path / "relay", served.place.socket) as relay:
        await relay.up.stop(after=220_000)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _SYNC, relay.path, "killed", "20000", "80000"), env=environment()
        )
        await relay.up.reached()
        assert await until(lambda: trail.writes() == {"update": 16_384})
        process.kill()
        assert await process.wait() == -signal.SIGKILL

    report = await opened.sync(wish, max_removals=0.5)

    assert report == SyncReport(
        added=20_000 - 16_384, removed=20_000, changed=0, unchanged=40_000 + 16_384, merged=0
    )
    assert await contents(opened) == wish
    assert await trail.ended_by(opened) == {"update": 20_000, "delete": 20_000}


@pytest.fixture
async def small(client: Client) -> AsyncGenerator[Map[int, int]]:
    """Ten elements of at most twelve."""
    async with client.create_map(a_name(), "hash", key=U32, value=U64, max_entries=12) as made:
        await made.update_many({number: number for number in range(10)})
        yield made


async def test_more_than_max_entries_are_refused_before_anything_is_done(small: Map[int, int]) -> None:
    with pytest.raises(MapFull, match="13 elements are wanted, max_entries is 12: nothing was written"):
        await small.sync(dict.fromkeys(range(13), 1), max_removals=1.0)
    assert await contents(small) == {number: number for number in range(10)}


async def test_removals_beyond_a_fifth_are_refused_and_nothing_is_written(small: Map[int, int]) -> None:
    wish = {number: number + 1 for number in range(7)}
    for keywords in ({}, {"dry_run": True}):
        with pytest.raises(RemovalsRefused, match=r"3 of 10 elements \(30%\) would be removed, at most 20%"):
            await small.sync(wish, **keywords)
    with pytest.raises(RemovalsRefused, match=r"10 of 10 elements \(100%\)"):
        await small.sync({})
    assert await contents(small) == {number: number for number in range(10)}

    assert await small.sync(wish, max_removals=0.3)
    assert await contents(small) == wish
    assert (await small.sync({}, max_removals=1.0)).removed == 7
    assert await contents(small) == {}


async def test_a_dry_run_reports_and_writes_nothing(small: Map[int, int]) -> None:
    report = await small.sync({**{number: number for number in range(1, 10)}, 9: 0, 10: 10}, dry_run=True)

    assert report == SyncReport(added=1, removed=1, changed=1, unchanged=8, merged=0, dry_run=True)
    assert await contents(small) == {number: number for number in range(10)}


async def test_what_has_no_room_beside_the_old_is_written_after_them(
    served: DaemonProcess, small: Map[int, int]
) -> None:
    trail = Trail(served, small.info.id, 10)

    beside = await small.sync({number: number for number in range(2, 12)})
    after = await small.sync({number: number for number in range(4, 16)})

    assert (beside.removed_first, after.removed_first) == (False, True)
    assert await contents(small) == {number: number for number in range(4, 16)}
    await trail.ended_by(small)
    assert [*trail.order()] == ["update", "update", "delete", "delete", "update"]


async def test_networks_are_taken_without_their_host_bits(client: Client) -> None:
    async with client.create_map(
        a_name(), "lpm_trie", key=Bytes(20), value=U8, max_entries=9, flags=1
    ) as made:
        typed = await made.typed(key=Cidr6, value=U8)
        given = [b"\x20\0\0\0" + bytes.fromhex("20010db8") + bytes(11) + bytes((last,)) for last in (0, 1, 2)]

        report = await made.sync([(key, 1) for key in given])

        assert report == SyncReport(added=1, removed=0, changed=0, unchanged=0, merged=2, canonicalised=2)
        assert await contents(typed) == {IPv6Network("2001:db8::/32"): 1}
        with pytest.raises(
            Misuse, match=r"sync .*: elements 0 and 2 are of one key, and their values differ"
        ):
            await made.sync([(given[0], 1), (given[1], 1), (given[2], 2)])


async def test_arrays_and_tables_are_taken_as_by_load(small: Map[int, int]) -> None:
    keys = np.arange(2, 12, dtype=np.uint32)
    assert (await small.sync((keys, keys.astype(np.uint64)))).added == 2

    table = pa.table({"key": pa.array(range(3, 12), pa.uint32()), "value": pa.array([9] * 9, pa.uint64())})
    report = await small.sync(table)

    assert (report.added, report.removed, report.changed) == (0, 1, 8)
    assert await contents(small) == dict.fromkeys(range(3, 12), 9)


async def test_values_of_all_cpus_are_compared(client: Client) -> None:
    codec = PerCpu(U32)
    async with client.create_map(a_name(), "percpu_hash", key=U32, value=codec, max_entries=4) as made:
        cpus = made.info.slots()
        await made.update_many({1: [1] * cpus, 2: [2] * cpus})

        report = await made.sync({1: [1] * cpus, 2: [*range(7, 7 + cpus)]})

        assert (report.changed, report.unchanged) == (1, 1)
        assert await made[2] == [*range(7, 7 + cpus)]


async def test_a_map_without_removal_is_refused(client: Client) -> None:
    async with client.create_map(a_name(), "array", key=U32, value=U32, max_entries=4) as made:
        with pytest.raises(Unsupported, match="a map of type array has no delete of elements here"):
            await made.sync({0: 1})


async def test_of_a_frozen_map_nothing_is_written_unless_it_differs(small: Map[int, int]) -> None:
    await small.freeze()

    assert not await small.sync({number: number for number in range(10)})
    with pytest.raises(MapFrozen):
        await small.sync({number: number for number in range(11)})
