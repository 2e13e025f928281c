"""The limit of a process' memory cgroup, as each version of cgroups tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.launch import LaunchError
from mapd.launch.cgroup import RESERVE, join, memory_limit

LIMIT = 256 << 20


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A process in cgroup /a/b: ``memory_limit`` is given its folder of /proc, and mounts below it."""
    found = tmp_path / "proc"
    found.mkdir()
    return found


def mounted(proc: Path, kind: str, root: str, options: str) -> Path:
    """A cgroup hierarchy, and where it is mounted."""
    place = proc.parent / kind
    place.mkdir()
    (proc / "mountinfo").write_text(
        "21 1 0:20 / /proc rw - proc proc rw\n"
        f"30 21 0:26 {root} {place} rw,nosuid shared:9 - {kind} {kind} {options}\n"
    )
    return place


def group(place: Path, name: str, **files: str) -> None:
    folder = place / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("_", ".", 1)).write_text(text)


def v2(proc: Path, root: str = "/") -> Path:
    (proc / "cgroup").write_text("0::/a/b\n")
    return mounted(proc, "cgroup2", root, "rw,nsdelegate")


def test_of_v2_the_least_of_all_that_are_around_it_counts(proc: Path) -> None:
    place = v2(proc)
    group(place, ".", cgroup_controllers="memory")
    group(place, "a", cgroup_controllers="memory", memory_max=f"{LIMIT}\n")
    group(place, "a/b", cgroup_controllers="memory", memory_max="max\n")
    assert memory_limit(proc) == LIMIT
    group(place, "a/b", memory_max=f"{LIMIT // 2}\n")
    assert memory_limit(proc) == LIMIT // 2


def test_of_v2_in_a_container_the_mount_begins_further_down(proc: Path) -> None:
    place = v2(proc, "/a")
    group(place, ".", cgroup_controllers="memory", memory_max="max")
    group(place, "b", cgroup_controllers="memory", memory_max=str(LIMIT))
    assert memory_limit(proc) == LIMIT


def test_of_v1_the_kernel_tells_the_least_itself(proc: Path) -> None:
    (proc / "cgroup").write_text("4:memory:/a/b\n3:cpu:/\n0::/\n")
    place = mounted(proc, "cgroup", "/", "rw,memory")
    group(place, "a/b", memory_stat=f"cache 0\nhierarchical_memory_limit {LIMIT}\ntotal_cache 0\n")
    assert memory_limit(proc) == LIMIT


@pytest.mark.parametrize("said", ["max", ""])
def test_without_a_limit_there_is_none(proc: Path, said: str) -> None:
    group(v2(proc), "a/b", cgroup_controllers="", memory_max=said)
    assert memory_limit(proc) == 0


def test_v1_tells_no_limit_as_a_number(proc: Path) -> None:
    (proc / "cgroup").write_text("4:memory:/\n")
    place = mounted(proc, "cgroup", "/", "rw,memory")
    group(place, ".", memory_stat="hierarchical_memory_limit 9223372036854771712\n")
    assert memory_limit(proc) == 0


def test_a_cgroup_that_leaves_nothing_for_maps_is_refused(proc: Path) -> None:
    group(v2(proc), "a/b", cgroup_controllers="", memory_max=str(RESERVE))
    with pytest.raises(LaunchError, match=f"admits {RESERVE} bytes, .*raise memory.max"):
        memory_limit(proc)


def test_a_cgroup_that_cannot_be_entered_is_told_by_its_path(tmp_path: Path) -> None:
    join("")  # nothing to do
    with pytest.raises(LaunchError, match=rf"\[opener\] cgroup: {tmp_path}/none: No such file"):
        join(str(tmp_path / "none"))
