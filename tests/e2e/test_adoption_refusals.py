"""Where a daemon must not start: on names that are another's, or on a bpffs that the host does not see."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import mapd_client
from mapd.bpf.host import bpffs_is_private
from mapd.daemon import running
from mapd_client import U32, U64
from tests.support.daemon import DaemonProcess, Place, daemon_process, spawn

OWN_NAMESPACE = 'mount -t bpf -o mode=0700 bpf "$0" && exec "$@"'
ALONE = 'exec "$@" --single-process'


def exit_of(daemon: DaemonProcess) -> tuple[int, str]:
    """Its exit status and what it said, of one that ends by itself."""
    status = daemon.process.wait(20)
    return status, daemon.log.read_text()[daemon.log_begin :]


def beside(place: Place) -> Place:
    """Folders of its own for another daemon, with the same bpffs."""
    root = place.root / "other"
    root.mkdir()
    return replace(place, root=root)


@pytest.mark.parametrize("prefix", [(), ("sh", "-c", ALONE, "-")], ids=["two processes", "one process"])
async def test_a_second_daemon_with_folders_of_its_own_is_refused_the_names_of_the_first(
    place: Place, prefix: tuple[str, ...]
) -> None:
    """Otherwise it would end the leases of the first, which nobody keeps alive at the second."""
    with daemon_process(place, prefix=prefix) as first:
        async with mapd_client.connect(str(place.socket)) as client:
            leased = client.create_map(None, "hash", key=U32, value=U64, max_entries=8, lease=30.0)
            async with leased as found:
                other = beside(place)
                status, said = exit_of(spawn(other, prefix=prefix))
                assert status == 1
                assert f"{place.names}: the names there are another mapd's (pid " in said
                assert "set another [daemon] pin_root" in said
                assert not other.socket.exists()
                await found.update(1, 2)
                assert await found.lookup(1) == 2
        assert first.stop() == 0


@pytest.mark.parametrize("ended", ["refused", "killed"])
async def test_a_second_daemon_in_the_same_place_leaves_the_firsts_socket_names_and_lock_as_they_are(
    place: Place, ended: str
) -> None:
    with daemon_process(place) as first:
        before = place.socket.stat().st_ino, (place.runtime_dir / "mapd.lock").read_text()
        second = spawn(place)
        if ended == "killed":
            second.process.kill()
            second.process.wait()
        else:
            status, said = exit_of(second)
            assert status == 1
            assert f"another mapd serves here (pid {first.pid})" in said
        assert (place.socket.stat().st_ino, (place.runtime_dir / "mapd.lock").read_text()) == before
        async with mapd_client.connect(str(place.socket)) as client:
            await client.create_map("flows", "hash", key=U32, value=U64, max_entries=8)


async def test_another_root_of_names_on_the_same_bpffs_is_another_daemons(place: Place) -> None:
    other = beside(place)
    async with running(place.config()), running(other.config(extra="pin_root = 'second'")):
        for each in (place, other):
            async with mapd_client.connect(str(each.socket)) as client:
                await client.create_map("flows", "hash", key=U32, value=U64, max_entries=8)
    assert (place.names / "admin" / "flows").exists()
    assert (place.bpffs / "second" / "admin" / "flows").exists()


@pytest.mark.parametrize("last", [(), ("sh", "-c", ALONE, "-")], ids=["two processes", "one process"])
def test_a_bpffs_of_mapds_own_mount_namespace_is_refused_with_the_lines_that_mend_it(
    place: Place, last: tuple[str, ...]
) -> None:
    folder = place.root / "private"
    folder.mkdir()
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_NAMESPACE, str(folder), *last)
    hidden = Place(place.root, folder)
    status, said = exit_of(spawn(hidden, prefix=prefix))
    assert status == 1
    assert f"{folder} is a bpffs that is mounted in mapd's own mount namespace" in said
    assert "nsenter --mount=/proc/1/ns/mnt" in said
    assert "private_bpffs = true" in said
    assert not hidden.socket.exists()


async def test_who_wants_a_bpffs_of_its_own_says_so(place: Place) -> None:
    folder = place.root / "private"
    folder.mkdir()
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", OWN_NAMESPACE, str(folder))
    hidden = Place(place.root, folder)
    with daemon_process(hidden, extra="private_bpffs = true", prefix=prefix):
        async with mapd_client.connect(str(hidden.socket)) as client:
            await client.create_map("flows", "hash", key=U32, value=U64, max_entries=8)
    assert list(folder.iterdir()) == [], "nobody out here sees it"


def test_a_mount_that_is_bound_elsewhere_is_the_same_bpffs(place: Place) -> None:
    device = (place.bpffs).stat().st_dev
    line = f"50 1 {os.major(device)}:{os.minor(device)} / /run/bpf rw - bpf bpf rw\n"
    init = place.root / "mountinfo"
    init.write_text(line)
    assert not bpffs_is_private(str(place.bpffs), init)
    init.write_text(line.replace(f"{os.minor(device)} /", f"{os.minor(device)}0 /"))
    assert bpffs_is_private(str(place.bpffs), init)


def test_where_nobody_can_tell_nothing_is_refused(place: Place) -> None:
    assert not bpffs_is_private(str(place.bpffs), Path("/proc/1/no-such-file"))
