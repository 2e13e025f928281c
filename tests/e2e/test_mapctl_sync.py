"""mapctl sync and mapctl diff, through a real daemon."""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from mapd_client import U32, Bytes, Map, PerCpu, connect
from mapd_client.btf.build import blob_of
from mapd_client.snapshots import take
from tests.e2e.test_mapctl_types import FLOW, STATS
from tests.support.daemon import DaemonProcess, daemon_process, environment, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl

__all__ = ["mapctl"]

Run = Callable[..., Awaitable[Result]]
_NUMBERS = count()

FEED = """# networks that are not welcome

10.0.0.5/8      # host bits
10.0.0.0/8
192.0.2.1
198.51.100.0/24 ; a remark
203.0.113.0/255.255.255.0
"""
NETWORKS = ("10.0.0.0/8", "192.0.2.1/32", "198.51.100.0/24", "203.0.113.0/24")


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
def run(served: DaemonProcess, mapctl: Mapctl) -> Run:
    """Mapctl, told where the daemon is."""
    return functools.partial(mapctl, "--address", str(served.place.socket))


Make = Callable[..., Awaitable[Map[Any, Any]]]


@pytest.fixture
async def make(served: DaemonProcess) -> AsyncGenerator[Make]:
    """Makes maps with a name of their own: a trie of IPv4 networks with a __u32, unless it is told otherwise."""
    async with connect(str(served.place.socket)) as client:

        async def made(type: str = "lpm_trie", **keywords: Any) -> Map[Any, Any]:
            flags = int(type == "lpm_trie")
            given: dict[str, Any] = {
                "key": Bytes(8),
                "value": U32,
                "max_entries": 16,
                "flags": flags,
                **keywords,
            }
            return await client.create_map(f"block-{next(_NUMBERS)}", type, **given)

        yield made


def write(path: Path, text: str) -> None:
    path.write_text(text, "latin-1")


def name(opened: Map[Any, Any]) -> str:
    return opened.info.name.rpartition("/")[2]


def key4(text: str) -> bytes:
    address, _, length = text.partition("/")
    return int(length).to_bytes(4, sys.byteorder) + bytes(map(int, address.split(".")))


async def contents(opened: Map[Any, Any]) -> dict[Any, Any]:
    return {key: value async for key, value in opened.items()}


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    path = tmp_path / "feed.txt"
    write(path, FEED)
    return path


async def test_a_list_of_networks_becomes_the_map_and_the_exit_code_says_whether_it_changed(
    make: Make, run: Run, feed: Path
) -> None:
    opened = await make()
    command = ("sync", name(opened), "--from", str(feed), "--value", "u32=1")

    would = await run(*command, "--dry-run", "--exit-code")
    assert await contents(opened) == {}
    first = await run(*command, "--exit-code")
    again = await run(*command, "--exit-code")
    plain = await run(*command)

    assert (would.code, first.code, again.code, plain.code) == (8, 8, 0, 0)
    assert would.out.splitlines()[-1] == "+4 -0 ~0, 0 unchanged (nothing was written)"
    assert first.out.splitlines()[0].split() == ["+", '"10.0.0.0/8"', "01000000", "(1)"]
    assert first.out.splitlines()[-1] == "+4 -0 ~0, 0 unchanged"
    assert first.err.splitlines() == [
        "mapctl: merged: 1 of 5 elements are given twice: line 4 is line 3",
        "mapctl: host bits are taken as zero in 1 of 5 networks",
    ]
    assert again.out == plain.out == "+0 -0 ~0, 4 unchanged\n"
    assert await contents(opened) == dict.fromkeys(map(key4, NETWORKS), 1)


async def test_what_is_removed_and_changed_is_shown_and_the_guard_names_its_numbers(
    make: Make, run: Run, feed: Path
) -> None:
    opened = await make()
    await opened.update_many(
        dict.fromkeys(map(key4, (*NETWORKS, "172.16.0.0/12")), 1) | {key4(NETWORKS[0]): 2}
    )
    command = ("sync", name(opened), "--from", str(feed), "--value", "u32=1")

    fifth = await run(*command, "-q")
    assert (fifth.code, fifth.err) == (0, "")
    assert fifth.out.splitlines() == [
        '- "172.16.0.0/12"  01000000 (1)',
        '~ "10.0.0.0/8"  01000000 (1)  was 02000000 (2)',
        "+0 -1 ~1, 3 unchanged",
    ]
    write(feed, "10.0.0.0/8\n")
    refused = await run(*command)
    assert refused.code == 6
    assert "3 of 4 elements (75%) would be removed, at most 20% may be: nothing was written" in refused.err
    assert "--max-removals" in refused.err
    assert len(await contents(opened)) == 4
    assert (await run(*command, "--max-removals", "75%", "--show", "1")).out == (
        '- "192.0.2.1/32"  01000000 (1)\n- ... 2 more\n+0 -3 ~0, 1 unchanged\n'
    )


async def test_an_empty_file_is_taken_only_when_that_is_said(make: Make, run: Run, feed: Path) -> None:
    opened = await make()
    write(feed, "# nothing\n\n")
    command = ("sync", name(opened), "--from", str(feed), "--value", "u32=1")

    refused = await run(
        *command
    )  # although the map is empty too: a feed that fails is not passed over in silence
    assert (refused.code, refused.out) == (6, "")
    assert "feed.txt has no elements; an empty file is taken only with --max-removals 100%" in refused.err
    await opened.update(key4("10.0.0.0/8"), 1)
    assert (await run(*command, "--max-removals", "0.5")).code == 6
    assert (await run(*command, "--max-removals", "100%")).out.endswith("+0 -1 ~0, 0 unchanged\n")
    assert await contents(opened) == {}
    for wrong in ("x", "120%", "5"):
        assert (await run(*command, "--max-removals", wrong)).code == 2


async def test_more_than_fits_is_refused_and_what_has_no_room_comes_after_the_removals(
    make: Make, run: Run, feed: Path
) -> None:
    opened = await make(max_entries=4)
    command = ("sync", name(opened), "--from", str(feed), "--value", "u32=1")
    assert (await run(*command)).code == 0
    write(feed, "".join(f"10.{number}.0.0/16\n" for number in range(5)))
    full = await run(*command)
    assert full.code == 1
    assert "5 elements are wanted, max_entries is 4: nothing was written" in full.err
    write(feed, "10.1.0.0/16\n" + "\n".join(NETWORKS[:3]))

    swapped = await run(*command, "--max-removals", "25%", "-o", "json")

    assert json.loads(swapped.out) == {
        "map": opened.info.label,
        "added": 1,
        "removed": 1,
        "changed": 0,
        "unchanged": 3,
        "merged": 0,
        "canonicalised": 0,
        "removed_first": True,
        "dry_run": False,
    }
    assert "no room beside the old ones: old ones were removed first" in swapped.err


async def test_networks_of_both_families_go_to_the_map_of_theirs(make: Make, run: Run, feed: Path) -> None:
    four, six = await make(), await make(key=Bytes(20))
    write(feed, "10.0.0.0/8\n2001:db8::1/32\n::1\nfe80::/10\n")
    one = ("--from", str(feed), "--value", "u32=1")

    mixed = await run("sync", name(four), *one)
    assert mixed.code == 2
    assert "line 2: '2001:db8::1/32' is of ipv6, the map's keys are of ipv4; --family ipv4" in mixed.err
    assert (await run("sync", name(four), *one, "--family", "ipv4")).out.endswith("+1 -0 ~0, 0 unchanged\n")
    assert (await run("sync", name(six), *one, "--family", "ipv6")).out.endswith("+3 -0 ~0, 0 unchanged\n")
    keys = await contents(six)
    assert bytes.fromhex("20010db8") in {key[4:8] for key in keys}
    assert (await run("sync", name(four), *one, "--family", "ipv6")).code == 2


async def test_a_line_that_is_no_element_ends_it_before_anything_is_written(
    make: Make, run: Run, feed: Path
) -> None:
    opened = await make()
    write(feed, "10.0.0.0/8\n\nnonsense/9\n")

    done = await run("sync", name(opened), "--from", str(feed), "--value", "u32=1")

    assert done.code == 2
    assert "feed.txt: line 3: 'nonsense/9' does not appear to be an IPv4 or IPv6 network" in done.err
    assert (await run("sync", name(opened), "--from", str(feed))).code == 2
    assert await contents(opened) == {}


async def test_fields_are_taken_by_name_from_every_kind_of_table(
    make: Make, run: Run, tmp_path: Path
) -> None:
    types = {"key": Bytes(8), "value": Bytes(16), "btf": blob_of(FLOW, STATS, "little")}
    given = await make("hash", **types)
    elements = {bytes((10, 0, 0, n, 1, 187, 0, 0)): bytes((n, *bytes(7), n % 2, *bytes(7))) for n in range(9)}
    await given.update_many(elements)
    ndjson, table, csv = tmp_path / "f.ndjson", tmp_path / "f.parquet", tmp_path / "f.csv"
    document = tmp_path / "f.json"
    write(document, (await run("dump", name(given), "-o", "json")).out)
    ndjson.write_text((await run("dump", name(given), "-o", "ndjson")).out)
    await (await given.typed()).write_parquet(table)
    rows = [json.loads(line) for line in ndjson.read_text().splitlines()]
    csv.write_text(
        "key.saddr,key.dport,value.packets,value.state\n"
        + "".join(
            f"{row['key']['saddr']},{row['key']['dport']},{row['value']['packets']},{row['value']['state']}\n"
            for row in rows
        )
    )
    for path in (ndjson, table, csv, document):
        opened = await make("hash", **types)
        done = await run("sync", name(opened), "--from", str(path), "-o", "ndjson")
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out)["added"] == 9
        assert await contents(opened) == elements
        same = await run("diff", name(given), name(opened))
        assert (same.code, same.out) == (0, "+0 -0 ~0, 9 unchanged\n")


async def test_a_map_whose_elements_cannot_be_removed_is_refused_with_what_to_look_at(
    make: Make, run: Run, feed: Path
) -> None:
    opened = await make("array", key=U32)
    write(feed, "0\n")

    done = await run("sync", name(opened), "--from", str(feed), "--value", "u32=3")

    assert (done.code, done.out) == (1, "")
    assert (
        "a map of type array has no delete of elements here\nsee 'mapctl show' for what this map supports"
        in done.err
    )


async def test_one_value_is_every_cpus(make: Make, run: Run, feed: Path) -> None:
    opened = await make("percpu_hash", key=U32, value=PerCpu(U32))
    write(feed, "1\n2\n")

    done = await run("sync", name(opened), "--from", str(feed), "--value", "u32=3")

    assert done.code == 0
    assert await contents(opened) == dict.fromkeys((1, 2), [3] * opened.info.slots())


async def test_two_maps_and_a_file_differ_in_records(
    make: Make, run: Run, feed: Path, served: DaemonProcess
) -> None:
    one, other = await make(), await make()
    await one.update_many({key4("10.0.0.0/8"): 1, key4("10.1.0.0/16"): 1, key4("10.2.0.0/16"): 1})
    await other.update_many({key4("10.0.0.0/8"): 1, key4("10.1.0.0/16"): 2, key4("10.3.0.0/16"): 1})
    write(feed, "10.0.0.0/8\n10.2.0.0/16\n10.1.0.0/16")
    a, b = name(one), name(other)

    table = await run("diff", a, b)
    lines = await run("diff", a, b, "-o", "ndjson")
    document = await run("diff", a, f"{b}@{served.place.socket}", "-o", "json")
    of_file = await run("diff", str(feed), a, "--value", "u32=1")

    assert table.code == lines.code == document.code == 8
    assert table.out.splitlines() == [
        '+ "10.3.0.0/16"  01000000 (1)',
        '- "10.2.0.0/16"  01000000 (1)',
        '~ "10.1.0.0/16"  02000000 (2)  was 01000000 (1)',
        "+1 -1 ~1, 1 unchanged",
    ]
    records = [json.loads(line) for line in lines.out.splitlines()]
    assert records == [
        {"change": "added", "key": "10.3.0.0/16", "value": "01000000", "was": None},
        {"change": "removed", "key": "10.2.0.0/16", "value": None, "was": "01000000"},
        {"change": "changed", "key": "10.1.0.0/16", "value": "02000000", "was": "01000000"},
    ]
    whole = json.loads(document.out)
    assert whole.pop("differences") == records
    assert whole == {
        "a": a,
        "b": f"{b}@{served.place.socket}",
        "added": 1,
        "removed": 1,
        "changed": 1,
        "unchanged": 1,
    }
    assert (of_file.code, of_file.out) == (0, "+0 -0 ~0, 3 unchanged\n")


async def test_sides_that_cannot_be_compared_are_refused_with_both_shapes(
    make: Make, run: Run, feed: Path
) -> None:
    one, other = await make(), await make(value=Bytes(8))

    shapes = await run("diff", name(one), name(other))
    table = feed.with_suffix(".csv")
    write(table, "key,value\n")
    files = await run("diff", str(feed), str(table))
    alone = await run("diff", name(one))

    assert (shapes.code, files.code, alone.code) == (6, 2, 2)
    assert "(lpm_trie, little-endian) has keys of 8 bytes and values of 4;" in shapes.err
    assert "has keys of 8 bytes and values of 8: elements of other sizes" in shapes.err
    assert "one side has to be a map or a snapshot" in files.err
    assert "Give B, or two hosts" in alone.err


async def test_two_lists_of_networks_need_no_map(run: Run, feed: Path, tmp_path: Path) -> None:
    later, six = tmp_path / "later.txt", tmp_path / "six.txt"
    write(later, "\n".join(NETWORKS[1:]) + "\n172.16.0.1/12\n")
    write(six, "# 10.0.0.0/8\n::1\n")

    table = await run("diff", str(feed), str(later))
    lines = await run("diff", str(feed), str(later), "-o", "ndjson")
    of_six = await run("diff", str(six), str(six))
    mixed = await run("diff", str(feed), str(six))

    assert (table.code, table.err) == (8, "")
    assert table.out.splitlines() == ['+ "172.16.0.0/12"', '- "10.0.0.0/8"', "+1 -1 ~0, 3 unchanged"]
    assert [json.loads(line) for line in lines.out.splitlines()] == [
        {"change": "added", "key": "172.16.0.0/12", "value": "", "was": None},
        {"change": "removed", "key": "10.0.0.0/8", "value": None, "was": ""},
    ]
    assert (of_six.code, of_six.out) == (0, "+0 -0 ~0, 1 unchanged\n")
    assert (mixed.code, "six.txt: line 2: '::1' is of ipv6" in mixed.err) == (2, True)


async def test_stdin_is_one_side(make: Make, served: DaemonProcess, feed: Path) -> None:
    opened = await make()

    async def piped(*arguments: str) -> tuple[int | None, str]:
        with feed.open("rb") as stdin:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", "from mapd_client.cli import main; main()"),
                *("--address", str(served.place.socket), *arguments, "--value", "u32=1"),
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                env=environment(),
            )
            out, _ = await process.communicate()
        return process.returncode, out.decode().splitlines()[-1]

    differs = await piped("diff", name(opened), "-")
    synced = await piped("sync", name(opened), "--from", "-", "--exit-code")
    equal = await piped("diff", "-", name(opened))

    assert (differs, synced, equal) == (
        (8, "+4 -0 ~0, 0 unchanged"),
        (8, "+4 -0 ~0, 0 unchanged"),
        (0, "+0 -0 ~0, 4 unchanged"),
    )


async def test_a_snapshot_is_a_side_and_says_what_its_elements_are(
    make: Make, run: Run, served: DaemonProcess, feed: Path, tmp_path: Path
) -> None:
    one, other = await make(), await make()
    await one.update_many(dict.fromkeys(map(key4, NETWORKS), 1))
    await other.update_many(dict.fromkeys(map(key4, NETWORKS[1:]), 1))
    single, both = tmp_path / "one.snapshot", tmp_path / "both.snapshot"
    async with connect(str(served.place.socket)) as client:
        await take(client, [name(one)], single)
        await take(client, [name(one), name(other)], both)
    await one.delete(key4(NETWORKS[3]))

    changed = await run("diff", str(single), name(one))
    by_name = await run("diff", name(other), str(both))
    of_list = await run("diff", str(single), str(feed), "--value", "u32=1")
    of_both = await run("diff", str(single), str(both))

    assert (changed.code, changed.out) == (8, '- "203.0.113.0/24"  01000000 (1)\n+0 -1 ~0, 3 unchanged\n')
    assert (by_name.code, by_name.out) == (0, "+0 -0 ~0, 3 unchanged\n")
    assert (of_list.code, of_list.out) == (0, "+0 -0 ~0, 4 unchanged\n")
    assert of_both.code == 3
    assert f"it has {name(one)}, {name(other)}" in of_both.err


def second_way(served: DaemonProcess, folder: Path) -> str:
    """Another address of the same daemon; one address twice is refused, it would be counted twice."""
    link = folder / "second.sock"
    link.symlink_to(served.place.socket)
    return str(link)


async def test_several_hosts_are_done_one_after_the_other_and_the_dead_one_is_named(
    make: Make, mapctl: Mapctl, served: DaemonProcess, feed: Path, tmp_path: Path
) -> None:
    opened = await make()
    alive, dead = str(served.place.socket), str(tmp_path / "nobody.sock")
    second = second_way(served, tmp_path)
    command = ("sync", name(opened), "--from", str(feed), "--value", "u32=1", "-q")

    table = await mapctl("-H", dead, "-H", alive, *command)
    lines = await mapctl("-H", alive, "-H", second, *command, "-o", "ndjson")
    document = await mapctl("-H", alive, "-H", dead, *command, "-o", "json")

    assert (table.code, lines.code, document.code) == (7, 0, 7)
    assert table.out.splitlines()[:2] == [f"{dead}:", f"{alive}:"]
    assert table.out.splitlines()[-1] == "+4 -0 ~0, 0 unchanged"
    assert f"mapctl: {dead}: " in table.err
    assert table.err.splitlines()[-1] == f"mapctl: 1 of 2 hosts failed: {dead}"
    assert [json.loads(line)["host"] for line in lines.out.splitlines()] == [alive, second]
    assert [(one["host"], one["unchanged"]) for one in json.loads(document.out)] == [(alive, 4)]


async def test_the_map_of_two_hosts_is_compared(
    make: Make, mapctl: Mapctl, served: DaemonProcess, tmp_path: Path
) -> None:
    opened = await make()
    await opened.update(key4("10.0.0.0/8"), 1)
    host = str(served.place.socket)

    found = await mapctl("-H", host, "-H", second_way(served, tmp_path), "diff", name(opened))

    assert (found.code, found.out, found.err) == (0, "+0 -0 ~0, 1 unchanged\n", "")
