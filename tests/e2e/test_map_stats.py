"""Many maps counted in one call: what the kernel counts, what went through the daemon, who is told."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest

import mapd_client
from mapd.access.authorize import View
from mapd.daemon import Ready, running
from mapd.maps.listing import ListedMap, Wanted
from mapd.runtime.reach import Reach
from mapd_client import U32, U64, Cidr4, Client, MapFlag, MapStats, PermissionDenied, connect
from tests.support.daemon import Place

pytestmark = pytest.mark.e2e


@pytest.fixture
async def client(local: Ready) -> AsyncGenerator[Client]:
    async with connect(str(local.socket)) as found:
        yield found


async def stats_of(client: Client, name: str) -> MapStats:
    (found,) = (await client.map_stats(f"admin/{name}")).maps
    return found


@pytest.mark.parametrize("kind", ["hash", "lru_hash"])
async def test_entries_are_those_that_the_kernel_counts(client: Client, kind: str) -> None:
    async with client.create_map("flows", kind, key=U32, value=U64, max_entries=100) as flows:
        await flows.update_many({number: number for number in range(37)})
        found = await stats_of(client, "flows")
        assert (found.entries, found.exact, found.method) == (37, True, "sum_elem_count")
        assert (found.label, found.type_name, found.max_entries) == ("admin/flows", kind, 100)
        assert found.id == flows.info.id
        assert found.memlock_bytes == flows.info.memlock_bytes
        await flows.delete(3)
        assert (await stats_of(client, "flows")).entries == 36


async def test_an_array_has_all_its_elements_and_a_queue_is_counted_by_nobody(client: Client) -> None:
    async with client.create_map("slots", "array", key=U32, value=U64, max_entries=9):
        found = await stats_of(client, "slots")
        assert (found.entries, found.exact, found.method) == (9, True, "max_entries")
    async with client.create_map("jobs", "queue", key=mapd_client.Bytes(0), value=U64, max_entries=9):
        found = await stats_of(client, "jobs")
        assert (found.entries, found.exact, found.method) == (None, False, "")


@pytest.mark.parametrize("value_size", [1, 4, 19])
async def test_a_trie_is_worked_out_from_its_memory_to_the_element(client: Client, value_size: int) -> None:
    """Prefixes that make nodes between elements too, which are none."""
    value = mapd_client.Bytes(value_size)
    async with client.create_map(
        "block", "lpm_trie", key=Cidr4, value=value, max_entries=100, flags=MapFlag.NO_PREALLOC
    ) as block:
        assert (await stats_of(client, "block")).entries == 0
        for count, prefix in enumerate(("10.0.0.0/8", "10.128.0.0/9", "192.168.0.0/16", "10.1.2.3/32"), 1):
            await block.update(IPv4Network(prefix), bytes(value_size))
            found = await stats_of(client, "block")
            assert (found.entries, found.exact, found.method) == (count, False, "memory")


async def test_what_clients_read_and_write_is_counted_by_element(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=100) as flows:
        before = await stats_of(client, "flows")
        assert (before.read_elements, before.written_elements) == (0, 0)
        await flows.update_many({number: number for number in range(40)})
        await flows.delete(0)
        assert await flows.fetch_add(1, 1) == 1
        found = await stats_of(client, "flows")
        assert (found.read_elements, found.written_elements) == (0, 42)
        await flows.lookup(1)
        assert await flows.lookup(99) is None
        assert len([element async for element in flows.items()]) == 39
        found = await stats_of(client, "flows")
        assert (found.read_elements, found.written_elements) == (2 + 39, 42)


async def test_to_look_is_no_operation_and_changes_nothing(client: Client, local: Ready) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=4):
        descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as a number
        seen = [await stats_of(client, "flows") for _ in range(3)]
        assert seen[0] == seen[1] == seen[2]
        assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208
        assert len(list(local.host.handles.held())) == 1


async def test_maps_come_in_the_order_of_the_listing_page_by_page(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("c", "a", "d", "b", "e"):
        async with client.create_map(name, "hash", key=U32, value=U64, max_entries=4):
            pass
    monkeypatch.setattr("mapd.rpc.maps.STATS_LIMIT", 2)
    sample = await client.map_stats()
    assert [one.name for one in sample.maps] == [f"admin/{name}" for name in "abcde"]
    assert [one.id for one in sample.maps] == [info.id async for info in client.list_maps()]
    assert sample.epoch == (await client.server_info()).epoch
    assert (await client.map_stats()).uptime > sample.uptime > 0
    assert any("ask for pins" in line for line in sample.not_looked_at)


async def test_maps_beyond_those_that_stay_open_are_opened_again_and_counted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapd.runtime.statistics.KEPT", 1)
    for number in range(3):
        async with client.create_map(f"m{number}", "hash", key=U32, value=U64, max_entries=4) as made:
            await made.update_many(dict.fromkeys(range(number), 0))
    assert [one.entries for one in (await client.map_stats()).maps] == [0, 1, 2]


async def test_a_page_that_has_the_last_map_says_that_no_other_follows(client: Client, local: Ready) -> None:
    for number in range(3):
        async with client.create_map(f"m{number}", "hash", key=U32, value=U64, max_entries=4):
            pass
    pages = [await local.host.look(Wanted(glob="*"), None, None, size) for size in (2, 3, 4)]
    assert [(len(page.maps), page.more) for page in pages] == [(2, True), (3, False), (3, False)]


async def test_of_another_map_that_has_taken_the_place_nothing_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and the count, as a pin of the same name may be made anew."""
    for name, count in (("one", 1), ("other", 3)):
        async with client.create_map(name, "hash", key=U32, value=U64, max_entries=4) as made:
            await made.update_many(dict.fromkeys(range(count), 0))
    monkeypatch.setattr("mapd.runtime.statistics.KEPT", 0)
    (one, other) = (await client.map_stats()).maps
    readable = Reach.readable

    def swapped(self: Reach, maps: Sequence[ListedMap], view: View | None) -> frozenset[int]:
        Path(one.pin_path).unlink()
        Path(other.pin_path).rename(one.pin_path)
        return readable(self, maps, view)

    monkeypatch.setattr(Reach, "readable", swapped)
    found = (await client.map_stats()).maps
    assert [(info.id, info.entries) for info in found] == [(one.id, None), (other.id, None)]


async def test_a_reference_is_an_element_that_is_written(client: Client) -> None:
    async with (
        client.create_map("inner", "hash", key=U32, value=U64, max_entries=4) as inner,
        client.create_map("outer", "hash_of_maps", key=U32, value=U32, max_entries=4, inner="inner") as outer,
    ):
        await outer.update_reference(1, inner=inner)
    flows = {one.name: (one.read_elements, one.written_elements) for one in (await client.map_stats()).maps}
    assert flows == {"admin/inner": (0, 0), "admin/outer": (0, 1)}


async def test_pins_of_others_are_told_where_they_are_asked_for(client: Client, place: Place) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=4) as flows:
        Path(place.bpffs, "other").mkdir()  # noqa: ASYNC240 - nothing waits for this loop
        path = f"{place.bpffs}/other/map"
        await flows.pin(path)
        await client.unpin_map("flows")
        assert (await client.map_stats()).maps == ()
        await flows.update(1, 1)
        (found,) = (await client.map_stats(pins=True)).maps
        assert (found.name, found.label, found.entries) == ("", f"pin:{path}", 1)


POLICY = """
[principals.admin]
users = [0]
[principals.watcher]
namespace = "watcher"
grant = "mount"
[[rules]]
who = ["watcher"]
verbs = ["list"]
names = ["admin/seen"]
[[rules]]
who = ["watcher"]
verbs = ["list", "read"]
names = ["admin/read"]
[[rules]]
who = ["watcher"]
verbs = ["list", "read"]
names = ["admin/some"]
key_prefixes = ["0a"]
"""


async def test_counts_are_told_to_whom_may_read_every_key_and_hidden_maps_to_nobody(place: Place) -> None:
    async with running(place.config(policy=POLICY)) as ready, connect(str(ready.socket)) as admin:
        for name in ("seen", "read", "some", "hidden"):
            async with admin.create_map(name, "hash", key=U32, value=U64, max_entries=4) as made:
                await made.update(1, 1)
        assert len((await admin.map_stats()).maps) == 4
        async with connect(str(place.runtime_dir / "watcher" / "mount" / "mapd.sock")) as watcher:
            told = {one.name: one for one in (await watcher.map_stats()).maps}
            with pytest.raises(PermissionDenied, match="a walk over kernel ids meets every map"):
                await watcher.map_stats(ids=True)
    assert told.keys() == {"admin/seen", "admin/read", "admin/some"}
    assert (told["admin/read"].entries, told["admin/read"].written_elements) == (1, 1)
    for name in ("admin/seen", "admin/some"):
        one = told[name]
        assert (one.entries, one.read_elements, one.written_elements) == (None, None, None)
        assert one.max_entries == 4
