"""Single elements written by mapctl through a real daemon: also those that stand for kernel objects, and dry runs."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Generator

import pytest

from mapd_client import U32, U64, connect
from mapd_client.cli import outcomes
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl

__all__ = ["mapctl"]


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(served: DaemonProcess, mapctl: Mapctl) -> Run:
    """Mapctl, told where the daemon is."""
    return functools.partial(mapctl, "--address", str(served.place.socket))


async def test_the_short_names_do_the_same(served: DaemonProcess, run: Run) -> None:
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("short", "hash", key=U32, value=U64, max_entries=4, btf=True) as made,
    ):
        assert await run("set", "short", "7", "9") == Result(0, "", "")
        assert await made[7] == 9
        assert (await run("get", "short", "7")).out == "7  9\n"
        assert await run("del", "short", "7") == Result(0, "", "")
        assert await made.lookup(7) is None


async def test_a_dry_run_says_what_it_would_do_and_does_not(served: DaemonProcess, run: Run) -> None:
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("careful", "hash", key=U32, value=U64, max_entries=4, btf=True) as made,
    ):
        done = await run("update", "careful", "7", "9", "--dry-run")
        assert done == Result(
            0, "", 'mapctl: would write to careful: {"key": 7, "value": 9}; nothing was done\n'
        )
        assert await made.lookup(7) is None
        assert (await run("delete", "careful", "7", "-n")).code == outcomes.NOT_FOUND

        await made.update(7, 9)
        done = await run("delete", "careful", "7", "-n")
        assert done.err == 'mapctl: would remove from careful: {"key": 7, "value": 9}; nothing was done\n'
        assert await made[7] == 9


async def test_delete_without_a_key_explains_itself_and_asks_no_daemon(mapctl: Mapctl) -> None:
    done = await mapctl("--address", "unix:/nonexistent/mapd.sock", "delete", "flows")
    assert (done.code, done.out) == (outcomes.USAGE, "")
    assert "removes one element, and needs its key" in done.err
    assert "mapctl unpin flows" in done.err


async def test_the_elements_of_maps_of_maps_are_named_as_maps_are(served: DaemonProcess, run: Run) -> None:
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("within", "hash", key=U32, value=U64, max_entries=4) as inner,
        client.create_map(
            "outer", "hash_of_maps", key=U32, value=U32, max_entries=4, inner="within"
        ) as outer,
    ):
        for words in (
            ("outer", "7", "within"),
            ("outer", "7", f"id:{inner.info.id}"),
            ("name", "outer", "key", "7", "0", "0", "0", "value", "id", str(inner.info.id)),
        ):
            assert await run("update", *words) == Result(0, "", ""), words
            assert await outer[7] == inner.info.id
            assert await outer.delete(7)
        done = await run("update", "outer", "7", "nothing")
        assert (done.code, done.out) != (0, "")
        assert "nothing" in done.err


async def test_a_queue_is_told_by_its_own_verbs(run: Run) -> None:
    assert (await run("create", "waiting", "queue", "--value", "4", "--max-entries", "2")).code == 0
    for words, verb in ((("update", "waiting", "1", "2"), "push"), (("delete", "waiting", "1"), "pop")):
        done = await run(*words)
        assert (done.code, f"mapctl {verb} waiting" in done.err) == (outcomes.USAGE, True)


async def test_sync_empties_a_map_as_delete_says(served: DaemonProcess, run: Run) -> None:
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("emptied", "hash", key=U32, value=U64, max_entries=4) as made,
    ):
        await made.update_many({1: 1, 2: 2})
        said = (await run("delete", "emptied")).err.split("'")
        words = next(part for part in said if part.startswith("mapctl sync"))
        assert (await run(*words.split()[1:])).code == 0
        assert (await made.count()).entries == 0


async def test_a_value_is_pushed_into_a_bloom_filter_too(served: DaemonProcess, run: Run) -> None:
    made = await run(
        "create", "seen", "bloom_filter", "--value", "4", "--max-entries", "9", "--map-extra", "3"
    )
    assert made.code == 0, made.err
    assert await run("push", "seen", "7") == Result(0, "", "")
    async with (
        connect(str(served.place.socket)) as client,
        client.open_bloom("seen", value=U32) as bloom,
    ):
        assert await bloom.contains(7)
    done = await run("pop", "seen")
    assert (done.code, done.err.splitlines()[1]) == (
        outcomes.FAILURE,
        "see 'mapctl show seen' for what it supports",
    )


async def test_a_trie_gets_the_flag_that_it_needs(run: Run) -> None:
    made = await run(
        "create", "nets", "lpm_trie", "--key", "cidr4", "--value", "u32", "--max-entries", "4", "-o", "csv"
    )
    assert made.code == 0, made.err
    assert (await run("update", "nets", "10.0.0.0/8", "1")).code == 0
