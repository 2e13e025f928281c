"""Snapshots through a real daemon: what was in a map is in it again; a killed writer leaves the old file or the new."""

from __future__ import annotations

import functools
import json
import random
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any

import pytest

from mapd_client import (
    U32,
    U64,
    BatchFailed,
    Bytes,
    Cidr4,
    Client,
    Incompatible,
    Map,
    MapFrozen,
    MapFull,
    MapNotFound,
    Misuse,
    PerCpu,
    Unsupported,
    connect,
)
from mapd_client.cli import outcomes
from mapd_client.snapshots import BadSnapshot, Policy, SnapshotMap, read, restore, take
from mapd_client.snapshots.manifest import Manifest
from mapd_client.snapshots.writing import Writer
from tests.repo.sources import ROOT
from tests.support.daemon import DaemonProcess, daemon_process, environment, private_place
from tests.unit.mapd_client.test_cli import Mapctl, mapctl

__all__ = ["mapctl"]

_KILLS = 60


@dataclass
class Old:
    """As a program wrote it."""

    packets: Annotated[int, U32]
    drops: Annotated[int, U32]


@dataclass
class New:
    """As another one does."""

    packets: Annotated[int, U32]
    errors: Annotated[int, U32]


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
async def client(served: DaemonProcess) -> AsyncGenerator[Client]:
    async with connect(str(served.place.socket)) as found:
        yield found


async def contents(client: Client, name: str) -> dict[bytes, bytes]:
    async with client.open_map(name) as opened:
        return {key: value async for key, value in opened.items()}


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


async def filled(
    client: Client, name: str, type: str = "hash", count: int = 100, **more: Any
) -> Map[int, int]:
    made = await client.create_map(name, type, key=U32, value=U64, max_entries=1000, **more)
    await made.load((key, 3 * key) for key in range(count))
    return made


async def taken(client: Client, path: Path, *names: str) -> Sequence[SnapshotMap]:
    await take(client, names, path)
    with read(path) as found:
        # The rows are read from the file as they are asked for: it stays open in a copy for the test.
        return read(found.path).maps


@pytest.mark.parametrize(
    ("type", "flags"),
    [("hash", 0), ("hash", 1), ("lru_hash", 0), ("array", 0), ("percpu_hash", 0), ("percpu_array", 0)],
)
async def test_a_map_that_was_there_is_there_again(
    client: Client, tmp_path: Path, type: str, flags: int
) -> None:
    name = f"again-{type}-{flags}"
    cpus = (await client.server_info()).possible_cpus
    per_cpu = type.startswith("percpu")
    value: Any = PerCpu(U64) if per_cpu else U64
    async with client.create_map(
        name, type, key=U32, value=value, max_entries=64, flags=flags, btf=True
    ) as made:
        await made.load(
            (key, [key] * cpus if per_cpu else key) for key in range(64 if "array" in type else 50)
        )
        before, was = await contents(client, name), made.info
    (source,) = await taken(client, tmp_path / "x.snap", name)
    await client.unpin_map(name)
    done = await restore(client, source)
    assert (done.created, done.added) == (True, len(before))
    assert await contents(client, name) == before
    async with client.open_map(name) as again:
        for field in ("type", "key_size", "value_size", "max_entries", "flags", "kernel_name"):
            assert getattr(again.info, field) == getattr(was, field)
        assert bool(again.info.btf_id) == bool(was.btf_id), "with its types"
    there = [info.name async for info in client.list_maps("*") if name in info.name]
    assert there == [f"admin/{name}"], "nothing is left beside it"


async def test_a_trie_and_a_frozen_array(client: Client, tmp_path: Path) -> None:
    async with client.create_map("nets", "lpm_trie", key=Cidr4, value=U32, max_entries=9, flags=1) as made:
        await made.load({IPv4Network("10.0.0.0/8"): 1, IPv4Network("10.1.0.0/16"): 2})
    ice_made = await filled(client, "ice", "array", 1000)
    await ice_made.freeze()
    nets, ice = await taken(client, tmp_path / "x.snap", "nets", "ice")
    assert (await restore(client, nets, "nets2")).added == 2
    assert await contents(client, "nets2") == await contents(client, "nets")
    await restore(client, ice, "ice2")
    async with client.open_map("ice2") as again:
        assert again.info.frozen, "as it was"
    with pytest.raises(MapFrozen, match="restore admin/ice"):
        await restore(client, ice)


@pytest.mark.parametrize(
    ("policy", "there", "numbers"),
    [
        ("merge", {0: 0, 1: 3, 2: 6, 500: 1}, (1, 1, 0, 98 + 1)),
        ("replace", {0: 0, 1: 3, 2: 6}, (1, 1, 1, 98)),
        ("only-missing", {0: 0, 1: 7, 2: 6, 500: 1}, (1, 0, 0, 99 + 1)),
    ],
)
async def test_a_policy_says_what_becomes_of_what_is_there(
    client: Client, tmp_path: Path, policy: Policy, there: dict[int, int], numbers: tuple[int, int, int, int]
) -> None:
    name = f"policy-{policy}"
    made = await filled(client, name)
    (source,) = await taken(client, tmp_path / "x.snap", name)
    await made.update(1, 7)
    await made.delete(2)
    await made.update(500, 1)
    before = await contents(client, name)
    planned = await restore(client, source, policy=policy, dry_run=True)
    assert await contents(client, name) == before, "a dry run writes nothing"
    done = await restore(client, source, policy=policy)
    assert (done.added, done.changed, done.removed, done.kept) == numbers
    assert planned == replace(done, dry_run=True)
    assert {key: await made.lookup(key) for key in there} == there
    assert (await made.lookup(500) is None) == (policy == "replace")
    assert not (await restore(client, source, policy=policy)).added, "and once is enough"


async def test_of_a_key_that_a_dump_has_repeated_the_later_value_is_restored(
    client: Client, tmp_path: Path
) -> None:
    """A hash that programs write meanwhile may show a key twice, with both values (kernel/bpf/hashtab.c)."""
    await filled(client, "twice", count=1)
    (source,) = await taken(client, tmp_path / "x.snap", "twice")
    writer = Writer(tmp_path / "y.snap")
    columns = [(U32.encode(key), U64.encode(value)) for key, value in ((1, 5), (2, 6), (1, 7))]
    parts = [
        writer.rows(f"{at}", memoryview(key), memoryview(value), 1) for at, (key, value) in enumerate(columns)
    ]
    kept = replace(source.kept, parts=parts, entries=len(parts))
    writer.finish(Manifest(taken_at="", host=source.snapshot.host, maps=[kept]))
    with read(tmp_path / "y.snap") as found:
        done = await restore(client, found["twice"], policy="replace")
        assert (done.added, done.removed) == (2, 1)
        there = await contents(client, "twice")
        await client.unpin_map("twice")
        assert (await restore(client, found["twice"])).added == 2, "elements, not rows"
        assert await contents(client, "twice") == there == dict([columns[2], columns[1]])


async def test_replacing_a_full_map_removes_first(client: Client, tmp_path: Path) -> None:
    async with client.create_map("full", "hash", key=U32, value=U32, max_entries=4) as made:
        await made.load((key, key) for key in range(4))
        (source,) = await taken(client, tmp_path / "x.snap", "full")
        await made.delete_many(range(4))
        await made.load((key, key) for key in range(10, 14))
        with pytest.raises(MapFull, match="would have 8, max_entries is 4: nothing was written"):
            await restore(client, source)
        assert (await restore(client, source, policy="replace")).removed == 4
        assert sorted(await contents(client, "full")) == [U32.encode(key) for key in range(4)]


async def test_a_map_of_another_shape_is_refused_with_what_differs(client: Client, tmp_path: Path) -> None:
    await filled(client, "shape")
    async with client.create_map("other", "lru_hash", key=U64, value=U32, max_entries=9):
        pass
    (source,) = await taken(client, tmp_path / "x.snap", "shape")
    with pytest.raises(Incompatible) as caught:
        await restore(client, source, "other")
    for line in (
        "type: the snapshot has hash, the map lru_hash",
        "key_size: the snapshot has 4, the map 8",
        "value_size",
    ):
        assert line in str(caught.value)


async def test_other_fields_are_refused_by_their_names(client: Client, tmp_path: Path) -> None:
    for name, value in (("old", Old), ("new", New)):
        async with client.create_map(name, "hash", key=U32, value=value, max_entries=9):
            pass
    (source,) = await taken(client, tmp_path / "x.snap", "old")
    with pytest.raises(Incompatible, match="drops"):
        await restore(client, source, "new")


async def test_another_host_is_refused_where_its_bytes_mean_another_thing(
    client: Client, tmp_path: Path
) -> None:
    async with client.create_map("cpus", "percpu_hash", key=U32, value=PerCpu(U64), max_entries=9):
        pass
    (source,) = await taken(client, tmp_path / "x.snap", "cpus")
    for slots in (source.kept.slots + 6, source.kept.slots - 1):
        other = replace(source, kept=replace(source.kept, slots=slots))
        with pytest.raises(Incompatible, match=f"of {slots} CPUs, this host has"):
            await restore(client, other)
    source.snapshot.host = {**source.snapshot.host, "byteorder": "big"}
    with pytest.raises(Incompatible, match="of a big-endian host"):
        await restore(client, source)


@pytest.mark.parametrize(
    ("type", "what"), [("prog_array", "programs"), ("devmap", "network devices"), ("sockmap", "sockets")]
)
async def test_objects_of_the_kernel_are_refused_by_name(
    client: Client, tmp_path: Path, type: str, what: str
) -> None:
    async with client.create_map(type, type, key=Bytes(4), value=Bytes(4), max_entries=2):
        pass
    with pytest.raises(Unsupported, match=f"{type} has {what}: objects of the kernel"):
        await take(client, [type], tmp_path / "x.snap")
    assert not names(tmp_path)
    with pytest.raises(Misuse, match="no map to be kept"):
        await take(client, [type], tmp_path / "x.snap", skip_unfit=True)


async def test_a_queue_is_refused_and_left_out_where_that_is_allowed(client: Client, tmp_path: Path) -> None:
    async with client.create_map("line", "queue", key=Bytes(0), value=U32, max_entries=2):
        pass
    await filled(client, "beside")
    done = await take(client, ["line", "beside"], tmp_path / "x.snap", skip_unfit=True)
    assert [one.name for one in done.maps] == ["admin/beside"]
    assert [one.label for one in done.left_out] == ["line"]
    assert "no dump" in done.left_out[0].why


async def test_what_fails_leaves_the_old_file(client: Client, tmp_path: Path) -> None:
    await filled(client, "old-file")
    path = tmp_path / "x.snap"
    await take(client, ["old-file"], path)
    data = path.read_bytes()
    with pytest.raises(MapNotFound):
        await take(client, ["old-file", "nothing"], path)
    assert path.read_bytes() == data
    assert names(tmp_path) == ["x.snap"]
    with pytest.raises(Misuse, match="No such file or directory"):
        await take(client, ["old-file"], tmp_path / "nowhere" / "x.snap")


def _one_bit_changed(path: Path) -> None:
    """The same archive with another element, and a CRC that fits it: only the SHA-256 tells."""
    with zipfile.ZipFile(path) as archive:
        members = {one: bytearray(archive.read(one)) for one in archive.namelist()}
    (rows,) = (data for name, data in members.items() if name.endswith(".rows"))
    rows[-1] ^= 1
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, bytes(data))


async def test_a_changed_file_writes_nothing(
    served: DaemonProcess, client: Client, mapctl: Mapctl, tmp_path: Path
) -> None:
    made = await filled(client, "changed", count=1000)
    path = tmp_path / "x.snap"
    await take(client, ["changed"], path)
    await made.delete_many(range(1000))
    _one_bit_changed(path)
    refused = await mapctl("--address", str(served.place.socket), "restore", str(path), "--yes")
    assert (refused.code, refused.out) == (outcomes.USAGE, "")
    assert "is not what was written (SHA-256)" in refused.err
    assert not await contents(client, "changed")


async def test_a_map_that_cannot_be_filled_is_not_left_half_there(client: Client, tmp_path: Path) -> None:
    await filled(client, "half")
    (source,) = await taken(client, tmp_path / "x.snap", "half")
    with pytest.raises(BatchFailed, match="full, 10 of max_entries=10"):
        await restore(client, replace(source, kept=replace(source.kept, max_entries=10)), "half2")
    assert not [info.name async for info in client.list_maps("*") if "half2" in info.name]


class Taker:
    """Takes snapshots and is killed."""

    def __init__(self, served: DaemonProcess) -> None:
        self._address = str(served.place.socket)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.snapshot_taker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )

    def killed(self, map: str, path: Path, lives_s: float, *, in_place: bool) -> None:
        """Take snapshots for so long, to the end by a signal."""
        asked = {
            "address": self._address,
            "map": map,
            "path": str(path),
            "lives_s": lives_s,
            "in_place": in_place,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        assert int(self._process.stdout.readline()) == signal.SIGALRM

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def taker(served: DaemonProcess) -> Generator[Taker]:
    found = Taker(served)
    yield found
    found.close()


def readable(path: Path, rows: int) -> bool:
    try:
        with read(path) as found:
            return sum(count for _, _, count in found.maps[0].chunks()) == rows
    except BadSnapshot:
        return False


async def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(
    client: Client, taker: Taker, tmp_path: Path
) -> None:
    rows, path, chance = 20_000, tmp_path / "x.snap", random.Random(7)  # noqa: S311
    async with client.create_map("killed", "hash", key=U32, value=U64, max_entries=rows) as made:
        await made.load((key, key) for key in range(rows))
    await take(client, ["killed"], path)
    midway = 0
    for _ in range(_KILLS):
        taker.killed("killed", path, chance.uniform(0.001, 0.06), in_place=False)
        midway += len(names(tmp_path)) > 1
        assert readable(path, rows)
    assert midway > _KILLS // 4, "most were killed while they wrote"
    await take(client, ["killed"], path)
    assert names(tmp_path) == ["x.snap"], "what they left is gone"


async def test_a_writer_that_wrote_in_place_would_be_found(
    client: Client, taker: Taker, tmp_path: Path
) -> None:
    rows, path, chance = 20_000, tmp_path / "x.snap", random.Random(7)  # noqa: S311
    async with client.create_map("in-place", "hash", key=U32, value=U64, max_entries=rows) as made:
        await made.load((key, key) for key in range(rows))
    lost = 0
    for _ in range(_KILLS // 6):
        taker.killed("in-place", path, chance.uniform(0.001, 0.06), in_place=True)
        lost += not readable(path, rows)
    assert lost


async def test_mapctl_takes_and_restores(
    served: DaemonProcess, client: Client, mapctl: Mapctl, tmp_path: Path
) -> None:
    run = functools.partial(mapctl, "--address", str(served.place.socket))
    for name in ("cli-a", "cli-b"):
        await filled(client, name)
    path = str(tmp_path / "x.snap")
    done = await run("snapshot", "admin/cli-*", path, "-o", "json")
    assert (done.code, [row["entries"] for row in json.loads(done.out)]) == (0, [100, 100])
    assert "bytes" in done.err
    made = await filled(client, "cli-c")
    await made.update(0, 9)
    refused = await run("restore", path, "cli-a", "--to", "cli-c")
    assert refused.code == outcomes.USAGE
    assert "cli-c: 1 changed, 0 removed" in refused.err
    planned = await run("restore", path, "cli-a", "--to", "cli-c", "--dry-run", "-o", "json")
    assert (planned.code, await made.lookup(0)) == (0, 9)
    restored = await run("restore", path, "cli-a", "--to", "cli-c", "--yes", "-o", "json")
    assert (restored.code, await made.lookup(0)) == (0, 0)
    assert {**json.loads(planned.out)[0], "dry_run": False} == json.loads(restored.out)[0]
    assert (await run("restore", path)).code == 0, "nothing differs: nobody is asked"
    for arguments, code, why in (
        (("restore", path, "--to", "x"), outcomes.USAGE, "2 maps: say which one"),
        (("restore", path, "nothing"), outcomes.NOT_FOUND, "it has admin/cli-a, admin/cli-b"),
        (("restore", str(tmp_path / "y.snap")), outcomes.USAGE, "No such file"),
        (("snapshot", "nothing-*", path), outcomes.NOT_FOUND, "no map that you may see"),
        (("snapshot", "cli-a", "/nowhere/x.snap"), outcomes.USAGE, "No such file or directory"),
    ):
        failed = await run(*arguments)
        assert (failed.code, failed.out) == (code, ""), failed
        assert why in failed.err
