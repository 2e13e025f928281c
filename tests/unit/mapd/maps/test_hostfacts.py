"""Facts of the host: what is found, what bounds it, and what is said where something cannot be seen."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from mapd.maps import hostfacts
from mapd.maps.hostfacts import HostFacts, Walk, Wanted, cgroup_mount, device_names, readable, time_offsets


def facts(mount: Path | str = "", now: float = 0.0) -> HostFacts:
    return HostFacts(cgroup_mount=str(mount), now=lambda: now)


def tree(root: Path, *folders: str) -> dict[str, int]:
    """Folders that stand in for cgroups: a walk asks for names, kinds and inode numbers alone."""
    for folder in folders:
        (root / folder).mkdir(parents=True)
    (root / "cgroup.procs").write_text("")
    return {folder: (root / folder).stat().st_ino for folder in folders}


# ---- clocks -------------------------------------------------------------------------------------------


def test_the_clocks_are_read_together_and_the_error_is_told() -> None:
    before = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    clocks = facts().look(Wanted()).clocks
    assert clocks is not None
    assert 0 < clocks.error_ns < 10**9
    # Less than a second apart unless somebody sets the clock.
    assert abs(clocks.realtime_ns - clocks.monotonic_ns - before) < 10**9
    assert clocks.boottime_ns >= clocks.monotonic_ns - clocks.error_ns


def test_what_a_time_namespace_adds_is_taken_off(tmp_path: Path) -> None:
    offsets = tmp_path / "timens_offsets"
    offsets.write_text("monotonic      172800         5\nboottime      -604800         0\n")
    assert time_offsets(str(offsets), "/proc/self/ns/time") == (172_800 * 10**9 + 5, -604_800 * 10**9)


def test_a_time_namespace_that_is_not_ours_is_not_believed(tmp_path: Path) -> None:
    offsets = tmp_path / "timens_offsets"
    offsets.write_text("monotonic 0 0\nboottime 0 0\n")
    with pytest.raises(ValueError, match="time namespace of their own"):
        time_offsets(str(offsets), "/proc/self/ns/time", "/proc/self/ns/net")
    assert time_offsets(str(tmp_path / "none")) == (0, 0)


def test_clocks_that_cannot_be_told_are_said_and_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> tuple[int, int]:
        raise ValueError("no such file")

    monkeypatch.setattr(hostfacts, "time_offsets", refused)
    found = facts().look(Wanted())
    assert found.clocks is None
    assert found.not_looked_at == ("clocks: no such file",)


# ---- devices ------------------------------------------------------------------------------------------


def test_devices_are_those_of_this_network_namespace() -> None:
    found = facts().look(Wanted(all_devices=True))
    assert dict(found.devices) == dict(socket.if_nameindex())
    assert found.netns == Path("/proc/self/ns/net").stat().st_ino


def test_devices_are_named_by_index_and_those_that_are_not_there_left_out() -> None:
    index, name = socket.if_nameindex()[0]
    found = facts().look(Wanted(ifindexes=frozenset({index, 0, 2**31, 2**32 - 1})))
    assert found.devices == {index: name}


def test_the_device_table_is_read_by_its_colons() -> None:
    table = b"Inter-|   Receive\n face |bytes\n    lo: 1 2\nveth@x:3 4\n \xff\xfe: 5\n"
    assert device_names(table) == [b"lo", b"veth@x", b"\xff\xfe"]
    assert readable(b"\xffth0") == "\\xffth0"


def test_more_devices_than_are_told_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostfacts, "DEVICES", 0)
    found = facts().look(Wanted(all_devices=True))
    assert found.devices == {}
    assert found.not_looked_at[0] == (
        f"network devices: 0 of {len(socket.if_nameindex())} are told; ask for others by index"
    )


# ---- cgroups ------------------------------------------------------------------------------------------


def test_cgroups_are_told_by_the_inode_numbers_of_their_folders(tmp_path: Path) -> None:
    made = tree(tmp_path, "system.slice", "system.slice/cron.service", "user.slice")
    found = facts(tmp_path).look(Wanted(all_cgroups=True))
    assert found.cgroups == {
        tmp_path.stat().st_ino: "/",
        **{number: f"/{folder}" for folder, number in made.items()},
    }
    assert found.cgroup_mount == str(tmp_path)


def test_cgroups_are_named_by_id_and_those_that_are_not_there_left_out(tmp_path: Path) -> None:
    made = tree(tmp_path, "a", "a/b", "c")
    found = facts(tmp_path).look(Wanted(cgroup_ids=frozenset({made["a/b"], 2**64 - 1})))
    assert found.cgroups == {made["a/b"]: "/a/b"}


def test_a_part_of_the_tree_is_said_to_be_one(tmp_path: Path) -> None:
    tree(tmp_path, "a")
    (line,) = facts(tmp_path).look(Wanted(all_cgroups=True)).not_looked_at
    assert "cgroup namespace, or a part of the tree" in line


def test_without_a_cgroup2_file_system_that_is_said(tmp_path: Path) -> None:
    found = facts("").look(Wanted(cgroup_ids=frozenset({1})))
    assert found.not_looked_at == ("cgroups: no cgroup2 file system is mounted where the daemon sees it",)
    assert not facts("").look(Wanted()).not_looked_at  # nobody asked
    gone = facts(tmp_path / "gone").look(Wanted(all_cgroups=True))
    assert gone.not_looked_at == (f"cgroups: {tmp_path}/gone: No such file or directory",)


def test_a_walk_is_bounded_and_says_so(tmp_path: Path) -> None:
    tree(tmp_path, *(f"c{number}" for number in range(10)))
    walk = Walk.of(str(tmp_path), most=4)
    assert len(walk.paths) == 4
    assert walk.unseen[-1].startswith("cgroups: there are more than the 4, or 8388608 bytes of paths")


def test_a_walk_is_bounded_in_bytes_for_whoever_nests_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostfacts, "WALK_BYTES", 2_000)
    tree(tmp_path, "/".join(["a" * 100] * 12))
    walk = Walk.of(str(tmp_path))
    assert sum(map(len, walk.paths.values())) <= 2_000
    assert len(walk.paths) == 6  # the mount, and 101 + 202 + 303 + 404 + 505 bytes
    assert "bytes of paths, of one walk" in walk.unseen[-1]


@pytest.mark.parametrize(("bound", "value", "told"), [("CGROUPS", 3, 3), ("PATH_BYTES", 1 + 3 + 3, 3)])
def test_an_answer_is_bounded_and_the_nearest_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, told: int
) -> None:
    monkeypatch.setattr(hostfacts, bound, value)
    made = tree(tmp_path, "c0", "c1", "c1/deep", "c2")
    asked = frozenset({made["c1/deep"]})
    found = facts(tmp_path).look(Wanted(all_cgroups=True, cgroup_ids=asked))
    assert set(found.cgroups.values()) == {"/", "/c0", "/c1", "/c1/deep"}  # one of them was asked for by id
    assert found.not_looked_at[-1].startswith(f"cgroups: {told} of 5 are told")


def test_the_tree_is_walked_once_a_second_whoever_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[str] = []
    walk = Walk.of

    def counted(mount: str) -> Walk:
        walks.append(mount)
        return walk(mount)

    monkeypatch.setattr(Walk, "of", counted)
    now = [0.0]
    host = HostFacts(cgroup_mount=str(tmp_path), now=lambda: now[0])
    tree(tmp_path, "early")
    host.look(Wanted(all_cgroups=True))
    late = tmp_path / "late"
    late.mkdir()
    asked = Wanted(cgroup_ids=frozenset({late.stat().st_ino}))
    now[0] = 0.99
    assert host.look(asked).cgroups == {}
    now[0] = 1.0
    assert host.look(asked).cgroups == {late.stat().st_ino: "/late"}
    assert len(walks) == 2


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"c{number}" for number in range(10)))
    scandir = os.scandir

    def refusing(path: bytes) -> object:
        if path != os.fsencode(tmp_path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    unseen = Walk.of(str(tmp_path)).unseen
    assert unseen[1] == "cgroups below /c0: Permission denied"
    assert unseen[-1] == "cgroups: 2 folders more could not be read"


def test_the_mount_is_found_whatever_its_path(tmp_path: Path) -> None:
    info = tmp_path / "mountinfo"
    info.write_text(
        "30 23 0:26 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw\n"
        "31 30 0:27 / /run/other/cgroup2 rw shared:5 - cgroup2 cgroup2 rw\n"
        "32 30 0:28 / /mnt/a\\040b rw - cgroup2 none rw,nsdelegate\n"
    )
    assert cgroup_mount(str(info)) == "/mnt/a b"
    info.write_text("30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n")
    assert cgroup_mount(str(info)) == ""
    assert cgroup_mount(str(tmp_path / "none")) == ""
