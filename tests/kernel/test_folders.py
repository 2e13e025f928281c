"""What an index of pins relies on: a folder that changed can be told by its stamp."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mapd.bpf import ListFolder, Pin, Rename, StampFolders, SyscallError, Unpin
from mapd.bpf.kernel import STAMPED_FOLDERS
from tests.kernel.maps import KERNEL, Maps

TICK_S = 0.02
"""Longer than any tick of the coarse clock (CONFIG_HZ=100: 10 ms)."""


def stamps(root: Path, *folders: Path) -> tuple[int, ...]:
    paths = tuple(map(str, folders or (root,)))
    found = KERNEL.control(StampFolders(root=str(root), paths=paths))
    return tuple(found)


def next_tick() -> None:
    """Spin until the coarse clock has gone on: two changes within one tick have one stamp."""
    until = time.clock_gettime_ns(time.CLOCK_REALTIME) + int(TICK_S * 1e9)
    while time.clock_gettime_ns(time.CLOCK_REALTIME) < until:
        pass


def pin(root: Path, path: Path, map_fd: int) -> None:
    KERNEL.control(Pin(root=str(root), path=str(path)), [map_fd])


def test_each_change_of_a_folder_gives_it_another_stamp(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    one, two = bpffs / "one", bpffs / "two"

    def moved(path: Path, new_path: Path) -> Callable[[], None]:
        request = Rename(root=str(bpffs), path=str(path), new_path=str(new_path))
        return lambda: KERNEL.control(request)

    changes: tuple[tuple[str, Callable[[], None], tuple[Path, ...]], ...] = (
        ("a folder is made", one.mkdir, (bpffs,)),
        ("another one", two.mkdir, (bpffs,)),
        ("a pin is made", lambda: pin(bpffs, one / "a", made.fd), (one,)),
        ("it gets another name", moved(one / "a", one / "b"), (one,)),
        ("it gets another folder", moved(one / "b", two / "b"), (one, two)),
        ("it is removed", lambda: KERNEL.control(Unpin(root=str(bpffs), path=str(two / "b"))), (two,)),
        ("a link is made", lambda: (two / "l").symlink_to("/x"), (two,)),
        ("a folder is removed", one.rmdir, (bpffs,)),
    )
    for what, change, touched in changes:
        there = tuple(folder for folder in touched if folder.exists())
        before = stamps(bpffs, *there)
        next_tick()
        change()
        after = stamps(bpffs, *there)
        assert all(old != new for old, new in zip(before, after, strict=True)), what


def test_nobody_can_set_a_stamp_back(maps: Maps, bpffs: Path) -> None:
    """The owner of a folder may set its mtime to anything; so ctime is told."""
    made = maps.create()
    before = stamps(bpffs)
    status = bpffs.stat()
    next_tick()
    pin(bpffs, bpffs / "a", made.fd)
    os.utime(bpffs, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bpffs.stat().st_mtime_ns == status.st_mtime_ns
    assert stamps(bpffs) != before


def test_two_changes_in_one_tick_have_one_stamp(maps: Maps, bpffs: Path) -> None:
    """Why a folder that has just changed is looked at again whatever its stamp."""
    made = maps.create()
    for number in range(1_000):
        pin(bpffs, bpffs / f"a{number}", made.fd)
        first = stamps(bpffs)
        pin(bpffs, bpffs / f"b{number}", made.fd)
        if stamps(bpffs) == first:
            return
    pytest.fail("2,000 pins, each with another stamp: the clock is finer than it was")


def test_a_stamp_is_no_younger_than_the_clock_and_a_tick_older_at_most(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    for number in range(200):
        before = time.time_ns()
        pin(bpffs, bpffs / f"a{number}", made.fd)
        (stamp,) = stamps(bpffs)
        assert before - TICK_S * 1e9 < stamp <= time.time_ns()


def test_a_pin_that_was_replaced_is_told_by_its_inode(maps: Maps, bpffs: Path) -> None:
    made, other = maps.create(), maps.create()
    path = bpffs / "a"
    pin(bpffs, path, made.fd)
    listed = KERNEL.control(ListFolder(root=str(bpffs), path=str(bpffs)))
    assert [(one.name, one.inode) for one in listed.pins] == [("a", path.stat().st_ino)]
    KERNEL.control(Unpin(root=str(bpffs), path=str(path)))
    pin(bpffs, path, other.fd)
    (now,) = KERNEL.control(ListFolder(root=str(bpffs), path=str(bpffs))).pins
    assert now.inode != listed.pins[0].inode


def test_a_folder_is_listed_with_its_pins_and_folders_alone(maps: Maps, bpffs: Path) -> None:
    made = maps.create()
    (bpffs / "in").mkdir()
    pin(bpffs, bpffs / "in" / "deep", made.fd)
    pin(bpffs, bpffs / "a", made.fd)
    (bpffs / "link").symlink_to(bpffs / "a")
    listed = KERNEL.control(ListFolder(root=str(bpffs), path=str(bpffs)))
    assert ([one.name for one in listed.pins], list(listed.folders)) == (["a"], ["in"])
    assert listed.stamp == stamps(bpffs)[0]


@pytest.mark.parametrize(
    ("path", "number"),
    [("gone", errno.ENOENT), ("a", errno.ENOTDIR), ("link", errno.ELOOP), ("../x", errno.EXDEV)],
)
def test_what_is_no_folder_below_the_root_is_neither_listed_nor_stamped(
    path: str, number: int, maps: Maps, bpffs: Path
) -> None:
    pin(bpffs, bpffs / "a", maps.create().fd)
    (bpffs / "link").symlink_to(bpffs)
    with pytest.raises(SyscallError) as caught:
        KERNEL.control(ListFolder(root=str(bpffs), path=f"{bpffs}/{path}"))
    assert caught.value.errno == number
    assert stamps(bpffs, bpffs / path, bpffs) == (0, *stamps(bpffs))


def test_one_request_stamps_no_more_folders_than_it_may(bpffs: Path) -> None:
    with pytest.raises(ValueError, match=f"at most {STAMPED_FOLDERS}"):
        stamps(bpffs, *[bpffs] * (STAMPED_FOLDERS + 1))
