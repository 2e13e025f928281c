"""The client against a server of the tests' own that speaks the real proto."""

from __future__ import annotations

import asyncio
import gc
import os
from ipaddress import IPv4Network

import pytest

import mapd_client
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_client import U32, U64, Cidr4, Map, PerCpu
from mapd_client.errors import (
    BatchFailed,
    DeadlineExceeded,
    KeyExists,
    KeyMissing,
    MapFull,
    MapNotFound,
    Misuse,
    NotSent,
    OutcomeUnknown,
    SizeMismatch,
    TypeMismatch,
    Unavailable,
    Unsupported,
)
from tests.unit.mapd_client.clients import opened, until
from tests.unit.mapd_client.daemon import POSSIBLE_CPUS, Daemon, map_info


async def test_create_update_lookup_iterate(daemon: Daemon) -> None:
    async with (
        mapd_client.connect(daemon.target) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=10) as flows,
    ):
        await flows.update(7, 1)
        assert await flows.lookup(7) == 1
        assert await flows[7] == 1
        assert await flows.lookup(8) is None
        assert [pair async for pair in flows.items()] == [(7, 1)]
        assert await flows.delete(7)
        assert not await flows.delete(7)


async def test_a_missing_key_raises_only_with_brackets(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        assert await flows.lookup_and_delete(1) is None
        with pytest.raises(KeyMissing, match=r"lookup flows: no such key; key: 1 \(01000000\)$"):
            await flows[1]


async def test_update_flags_raise_the_class_of_their_reason(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows", max_entries=1))
    async with opened(daemon) as flows:
        with pytest.raises(KeyMissing):
            await flows.update(1, 1, flags="exist")
        await flows.update(1, 1, flags="noexist")
        with pytest.raises(KeyExists) as caught:
            await flows.update(1, 1, flags="noexist")
        assert caught.value.reason is Reason.KEY_EXISTS
        assert (caught.value.operation, caught.value.map) == ("update", "flows")
        with pytest.raises(MapFull, match="max_entries=1"):
            await flows.update(2, 1)


async def test_a_refused_open_names_the_map(daemon: Daemon) -> None:
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(MapNotFound, match="open ns/nothing: no such map") as caught:
            await client.open_map("nothing")
    assert caught.value.map == "ns/nothing"
    assert isinstance(caught.value, LookupError)


async def test_codecs_of_another_size_are_refused_and_the_handle_given_back(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(SizeMismatch, match="U64 has 8 bytes, the map's key_size is 4"):
            await client.open_map("flows", key=U64, value=U64)
        assert not daemon.handles


async def test_a_per_cpu_map_wants_a_per_cpu_codec(daemon: Daemon) -> None:
    daemon.add(map_info("ns/hits", MapType.PERCPU_HASH))
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(SizeMismatch, match=r"PerCpu\(U64\)"):
            await client.open_map("hits", key=U32, value=U64)
        async with client.open_map("hits", key=U32, value=PerCpu(U64)) as hits:
            await hits.update(1, [1, 2, 3])
            with pytest.raises(SizeMismatch, match="2 elements given, 3 needed"):
                await hits.update(1, [1, 2])
        async with client.open_map("hits", key=U32, value=PerCpu(U64).sum()) as sums:
            assert await sums[1] == 6
        async with client.open_map("hits") as raw:
            assert len(await raw[b"\1\0\0\0"]) == 8 * POSSIBLE_CPUS


async def test_integers_are_in_the_daemons_byte_order(daemon: Daemon) -> None:
    daemon.byteorder = "big"
    found = daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        await flows.update(1, 2)
        assert found.data == {bytes([0, 0, 0, 1]): bytes([0, 0, 0, 0, 0, 0, 0, 2])}
        assert [pair async for pair in flows.items()] == [(1, 2)]


async def test_wrong_keys_are_refused_before_anything_is_sent(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        async with client.open_map("flows") as flows:
            with pytest.raises(SizeMismatch, match="lookup flows: key: 3 bytes given, 4 needed"):
                await flows.lookup(b"abc")
        async with client.open_map("flows", key=U32, value=U64) as typed:
            with pytest.raises(SizeMismatch, match="hold 0 to 4294967295"):
                await typed.update(1 << 32, 1)
            with pytest.raises(TypeMismatch, match="U32 takes an int, not str"):
                await typed.lookup("1")  # type: ignore[arg-type]  # what a caller without a type checker does
            with pytest.raises(Misuse, match="lookup flows: timeout=inf"):
                await typed.lookup(1, timeout=float("inf"))
    assert not daemon.applied


async def test_touch_is_refused_where_the_daemon_cannot(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        with pytest.raises(Unsupported, match=r"touch=True.*0\.0\.9"):
            await flows.lookup(1, touch=True)
        with pytest.raises(Unsupported):
            await flows.lookup_many([1], touch=True)
    assert not daemon.applied


async def test_touch_lock_and_remaining_time_are_in_the_group(daemon: Daemon) -> None:
    daemon.features = ("touch",)
    daemon.add(map_info("ns/flows")).info.has_lock = True
    async with opened(daemon) as flows:
        await flows.lookup(1, touch=True, timeout=2.5)
        await flows.update(1, 1, lock=True)
    lookup, update = (request.groups[0] for request in daemon.applied)
    assert (lookup.touch, lookup.flags, lookup.remaining_ms, lookup.count) == (True, 4, 2500, 1)
    assert (update.touch, update.flags, update.remaining_ms) == (False, 4, 30_000)


async def test_the_lock_is_held_where_there_is_one_and_refused_where_there_is_none(daemon: Daemon) -> None:
    info = daemon.add(map_info("ns/flows")).info
    async with opened(daemon) as flows:
        with pytest.raises(Unsupported, match="has no lock"):
            await flows.update(1, 1, lock=True)
        await flows.update(1, 1)
    info.has_lock = True
    async with opened(daemon) as flows:
        await flows.update(1, 1)
        await flows.update(1, 1, lock=False)
        await flows.update_many({1: 1})
        await flows.delete(1)
    assert [request.groups[0].flags for request in daemon.applied] == [0, 4, 0, 4, 0]


async def test_what_an_older_daemon_would_take_no_notice_of_is_not_sent(daemon: Daemon) -> None:
    daemon.add(map_info("ns/slots", MapType.PERCPU_HASH))
    daemon.add(map_info("ns/trie", MapType.LPM_TRIE, key_size=8))
    async with mapd_client.connect(daemon.target) as client:
        async with client.open_map("slots", key=U32, value=PerCpu(U64)) as slots:
            with pytest.raises(Unsupported, match="one-cpu"):
                await slots.lookup(1, cpu=0)
            with pytest.raises(Unsupported, match="one-cpu"):
                await slots.update(1, 7, cpu=0)
            with pytest.raises(Misuse, match="cpu=-1"):
                await slots.lookup(1, cpu=-1)
        async with client.open_map("trie", key=Cidr4, value=U64) as trie:
            with pytest.raises(Unsupported, match="lpm"):
                await trie.lpm.lookup_exact(IPv4Network("10.0.0.0/8"))
            with pytest.raises(Unsupported, match="lpm"):
                await anext(trie.lpm.covered(IPv4Network("10.0.0.0/8")))
    assert not daemon.applied


async def test_many_are_cut_into_messages_and_answered_in_order(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows", max_entries=100_000))
    async with opened(daemon) as flows:
        assert await flows.update_many({n: n * 2 for n in range(40_000)}) == 40_000
        assert [request.groups[0].count for request in daemon.applied] == [16_384, 16_384, 7_232]
        found = await flows.lookup_many(range(50_000))
        assert found == [n * 2 if n < 40_000 else None for n in range(50_000)]
        assert await flows.delete_many(range(39_990, 40_010)) == 10


async def test_of_two_values_for_a_key_the_later_stays(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        await flows.update_many((1, n) for n in range(20_000))
        assert await flows[1] == 19_999


async def test_update_many_reports_which_elements_failed(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows", max_entries=2))
    async with opened(daemon) as flows:
        with pytest.raises(BatchFailed) as caught:
            await flows.update_many([(1, 1), (2, 2), (3, 3), (1, 4), (5, 5)])
    assert caught.value.applied == 3
    assert sorted(caught.value.errors) == [2, 4]
    assert all(isinstance(error, MapFull) for error in caught.value.errors.values())


async def test_a_bad_element_names_its_place(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        with pytest.raises(SizeMismatch, match="value of element 1"):
            await flows.update_many([(1, 1), (2, -1)])
        with pytest.raises(TypeMismatch, match="element 1 is no"):
            await flows.update_many([(1, 1), 2])  # type: ignore[list-item]  # not a pair: the point


async def test_load_streams_chunks(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        assert await flows.load((n, n) for n in range(100_000)) == 100_000
    assert [bool(request.map.handle) for request in daemon.loaded] == [True, False]
    assert max(len(one.columns.keys) + len(one.columns.values) for one in daemon.loaded) <= 1 << 20


async def test_a_listing_goes_through_all_pages(daemon: Daemon) -> None:
    daemon.add(map_info("ns/a"))
    daemon.add(map_info("ns/b"))
    async with mapd_client.connect(daemon.target) as client:
        listing = client.list_maps()
        assert [info.name async for info in listing] == ["ns/a", "ns/b"]
        assert listing.sources == ("names",)
        assert listing.not_looked_at == ("page 0", "page 1")


async def test_handles_live_in_one_session_and_die_with_it(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        await client.open_map("flows")
        await client.open_map("flows")
        assert len(daemon.handles) == 2
        assert daemon.sessions_opened == 1
    assert not daemon.handles
    assert not daemon.sessions


async def test_concurrent_opens_share_a_session(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        await asyncio.gather(*(client.open_map("flows") for _ in range(8)))
        assert daemon.sessions_opened == 1


async def test_after_goodbye_the_next_open_begins_a_session(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        old = await client.open_map("flows", key=U32, value=U64)
        caplog.set_level("INFO", "mapd_client")
        daemon.goodbye.set()
        await until(lambda: "says goodbye" in caplog.text)
        new = await client.open_map("flows", key=U32, value=U64)
        assert daemon.sessions_opened == 2
        await new.update(1, 1)
        assert await old[1] == 1  # its session is still there


async def test_a_session_that_the_daemon_forgot_is_begun_again(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        await client.open_map("flows")
        daemon.sessions.clear()
        async with client.open_map("flows", key=U32, value=U64) as flows:
            await flows.update(1, 1)
        assert daemon.sessions_opened == 2


async def test_a_map_whose_handle_is_stale_is_opened_again(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with opened(daemon) as flows:
        await flows.update(1, 7)
        daemon.handles.clear()
        assert await flows.lookup(1) == 7
        daemon.handles.clear()
        await flows.freeze()


async def test_a_daemon_without_sessions_is_refused_in_words(daemon: Daemon) -> None:
    daemon.missing.add("Session")
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(Unsupported, match=r"version 0\.0\.9.*older than this client"):
            await client.open_map("flows")


async def test_an_older_daemon_is_named(daemon: Daemon) -> None:
    daemon.missing.add("PinMap")
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client, client.open_map("flows") as flows:
        with pytest.raises(Unsupported, match=r"pin flows: the daemon at unix:.*version 0\.0\.9"):
            await flows.pin("/sys/fs/bpf/x")


async def test_without_a_daemon_a_read_is_unavailable_and_a_write_not_sent(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target, timeout=0.2) as client:
        flows = await client.open_map("flows", key=U32, value=U64)
        assert daemon.server is not None
        await daemon.server.stop(None)
        nobody = r"flows: no daemon at unix:/.*mapd\.sock: there is no such socket.*; asked again for 0\.2 s"
        with pytest.raises(Unavailable, match=f"lookup {nobody}") as read:
            await flows.lookup(1)
        assert not read.value.connected
        with pytest.raises(NotSent, match=f"update {nobody}"):
            await flows.update(1, 1)


async def test_connect_to_nothing_names_the_socket() -> None:
    with pytest.raises(Unavailable, match=r"/nowhere/mapd\.sock: there is no such socket"):
        await mapd_client.connect("/nowhere/mapd.sock")


@pytest.mark.parametrize("mutates", [False, True])
async def test_an_answer_that_never_comes_leaves_a_write_unknown(daemon: Daemon, mutates: bool) -> None:
    daemon.add(map_info("ns/flows"))
    arrived = asyncio.Event()

    async def hang(request: object, context: object) -> None:
        del request, context
        arrived.set()
        await asyncio.Event().wait()

    async with mapd_client.connect(daemon.target, timeout=60 if mutates else 1) as client:
        flows = await client.open_map("flows", key=U32, value=U64)
        daemon.hooks["Apply"] = hang
        task = asyncio.create_task(_as_none(flows, mutates))
        await arrived.wait()
        assert daemon.server is not None
        await daemon.server.stop(None)
        if mutates:
            with pytest.raises(OutcomeUnknown, match="broke before the answer"):
                await task
        else:
            with pytest.raises(Unavailable, match=r"no daemon at .*; asked again for 1 s"):
                await task


async def _as_none(flows: Map[int, int], mutates: bool) -> None:
    if mutates:
        await flows.update(1, 1)
    else:
        await flows.lookup(1)


async def test_a_deadline_leaves_a_read_late_and_a_write_unknown(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))

    async def hang(request: object, context: object) -> None:
        del request, context
        await asyncio.Event().wait()

    async with mapd_client.connect(daemon.target) as client:
        flows = await client.open_map("flows", key=U32, value=U64)
        daemon.hooks["Apply"] = hang
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 s") as caught:
            await flows.lookup(1, timeout=0.05)
        assert isinstance(caught.value, TimeoutError)
    async with mapd_client.connect(daemon.target, timeout=0.5) as hasty:
        flows = await hasty.open_map("flows", key=U32, value=U64)
        with pytest.raises(OutcomeUnknown, match=r"within 0\.5 s; it may have been executed"):
            await flows.update(1, 1)


async def test_closing_is_idempotent_and_final(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    client = await mapd_client.connect(daemon.target)
    flows = await client.open_map("flows")
    await flows.aclose()
    await flows.aclose()
    with pytest.raises(Misuse, match="this map is closed"):
        await flows.lookup(bytes(4))
    other = await client.open_map("flows")
    await client.aclose()
    await client.aclose()
    await other.aclose()
    with pytest.raises(Misuse, match="the client is closed"):
        await other.lookup(bytes(4))


async def test_closing_under_a_running_call_is_not_a_cancellation(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    arrived = asyncio.Event()

    async def hang(request: object, context: object) -> None:
        del request, context
        arrived.set()
        await asyncio.Event().wait()

    client = await mapd_client.connect(daemon.target)
    flows = await client.open_map("flows", key=U32, value=U64)
    daemon.hooks["Apply"] = hang
    task = asyncio.create_task(flows.update(1, 1))
    await arrived.wait()
    await client.aclose()
    with pytest.raises(OutcomeUnknown, match="the client was closed meanwhile"):
        await task


async def test_a_client_made_outside_of_any_loop_serves_two_loops_in_turn(daemon: Daemon) -> None:
    client = mapd_client.Client(daemon.target)
    assert (await client.server_info()).version == "0.0.9"

    def elsewhere() -> str:
        async def ask() -> str:
            info = await client.server_info()
            return info.version

        return asyncio.run(ask())

    assert await asyncio.to_thread(elsewhere) == "0.0.9"
    await client.aclose()


async def test_nothing_is_left_behind(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    daemon.missing.add("none")

    async def once() -> None:
        async with opened(daemon) as flows:
            await flows.update_many({n: n for n in range(10)})
            task = asyncio.create_task(flows.lookup_many(range(100_000)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            async for _ in flows.items():
                break

    await once()  # grpc's own descriptors and tasks come with the first use
    gc.collect()
    fds = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    mine = _client_tasks()
    for _ in range(3):
        await once()
    gc.collect()
    assert _client_tasks() == mine
    await until(lambda: len(os.listdir("/proc/self/fd")) <= fds)  # noqa: PTH208 - a count


def _client_tasks() -> int:
    ours = "mapd_client/"
    return sum(
        ours in str(task.get_coro()) or "mapd session" in task.get_name() for task in asyncio.all_tasks()
    )
