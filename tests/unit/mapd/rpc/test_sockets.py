"""Sockets: one daemon a folder, nobody connects before the ACL is there, and only ours is removed."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapd.rpc.acl import ATTRIBUTE, encode
from mapd.rpc.sockets import (
    PATH_MAX,
    Admitted,
    InstanceLock,
    PrincipalSocket,
    SocketError,
    clean_dead,
    clean_staging,
)
from tests.support.counts import nothing_left_behind


@pytest.fixture(autouse=True)
def closes_all() -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def place() -> Iterator[Path]:
    """A runtime folder whose path leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="mapd-") as folder:
        yield Path(folder)


def bind(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    return listening


def prepare(place: Path, users: tuple[int, ...] = ()) -> PrincipalSocket:
    return PrincipalSocket.prepare(place, "admin", Admitted(uids=frozenset(users)))


# ---- the lock ----------------------------------------------------------------------------------


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(place: Path) -> None:
    lock = InstanceLock.acquire(place)
    with pytest.raises(SocketError, match=rf"another mapd serves here \(pid {os.getpid()}\)"):
        InstanceLock.acquire(place)
    lock.release()
    InstanceLock.acquire(place).release()


def test_the_lock_of_a_dead_daemon_is_taken_and_its_pid_replaced(place: Path) -> None:
    (place / "mapd.lock").write_text("123456789\n")
    lock = InstanceLock.acquire(place)
    assert (place / "mapd.lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_runtime_folder_is_made(place: Path) -> None:
    InstanceLock.acquire(place / "run" / "mapd").release()
    assert (place / "run" / "mapd" / "mapd.lock").exists()


def test_a_folder_that_cannot_be_made_is_refused_with_what_to_do(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(SocketError, match=r"set \[daemon\] runtime_dir to a folder of yours"):
        InstanceLock.acquire(place / "file" / "run")


def test_a_lock_that_is_a_symbolic_link_is_not_followed(place: Path) -> None:
    victim = place / "victim"
    victim.write_text("precious")
    (place / "mapd.lock").symlink_to(victim)
    with pytest.raises(SocketError):
        InstanceLock.acquire(place)
    assert victim.read_text() == "precious"


# ---- sockets -----------------------------------------------------------------------------------


def test_nothing_is_at_the_clients_path_before_it_is_published(place: Path) -> None:
    made = prepare(place)
    with bind(made.staged):
        assert not made.path.exists()
        made.publish()
        assert stat.S_ISSOCK(made.path.lstat().st_mode)
        assert not made.staged.exists()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(made.path))
        made.withdraw()


def test_grpc_is_told_the_staged_path(place: Path) -> None:
    made = prepare(place)
    assert made.address == f"unix:{made.staged}"
    assert made.path == place / "admin" / "mapd.sock"


def test_folders_and_socket_are_the_owners_alone_unless_somebody_is_admitted(place: Path) -> None:
    made = prepare(place)
    with bind(made.staged):
        made.publish()
        assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(made.staged.parent.stat().st_mode) == 0o700
        made.withdraw()


def test_those_admitted_may_search_the_folder_and_write_the_socket(place: Path) -> None:
    try:
        os.setxattr(place, ATTRIBUTE, encode(7, (), (), 0))
    except OSError:
        pytest.skip("this file system keeps no ACLs")
    made = prepare(place, users=(65_534,))
    with bind(made.staged):
        made.publish()
        assert os.getxattr(made.path, ATTRIBUTE) == encode(6, (65_534,), (), 6)
        assert os.getxattr(made.path.parent, ATTRIBUTE) == encode(7, (65_534,), (), 5)
        made.withdraw()


def test_the_socket_of_a_dead_daemon_is_replaced(place: Path) -> None:
    first = prepare(place)
    bind(first.staged).close()
    first.publish()
    before = first.path.stat().st_ino
    second = prepare(place)
    with bind(second.staged):
        second.publish()
        assert second.path.stat().st_ino != before
        second.withdraw()


def test_what_an_earlier_daemon_left_in_staging_does_not_hinder(place: Path) -> None:
    left = prepare(place)
    left.staged.touch()
    (left.staged.parent / "other.1").touch()
    again = prepare(place)
    assert not again.staged.exists()
    clean_staging(place)
    assert not left.staged.parent.exists()
    clean_staging(place)


@pytest.mark.parametrize("name", ["admin", ".staging"])
def test_a_folder_that_is_a_symbolic_link_is_refused(place: Path, name: str) -> None:
    elsewhere = place / "elsewhere"
    elsewhere.mkdir(0o755)
    (place / name).symlink_to(elsewhere)
    with pytest.raises(SocketError, match=f"not a folder of uid {os.geteuid()}; remove it"):
        prepare(place)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_the_folders_place_is_refused(place: Path) -> None:
    (place / "admin").touch()
    with pytest.raises(SocketError, match="not a folder of uid"):
        prepare(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away needs root")
def test_a_folder_of_somebody_else_is_refused(place: Path) -> None:
    (place / "admin").mkdir()
    os.chown(place / "admin", 65_534, 65_534)
    with pytest.raises(SocketError, match="not a folder of uid 0"):
        prepare(place)


def test_a_path_too_long_for_a_socket_is_refused_with_both_numbers(place: Path) -> None:
    deep = place / ("x" * PATH_MAX)
    with pytest.raises(SocketError, match=f"bytes; a socket's path has at most {PATH_MAX}: choose a shorter"):
        prepare(deep)
    assert not deep.exists()


def test_withdrawing_leaves_another_daemons_socket_alone(place: Path) -> None:
    first, second = prepare(place), prepare(place)
    with bind(first.staged):
        first.publish()
    with bind(second.staged):
        second.publish()
        first.withdraw()
        assert second.path.exists()
        second.withdraw()
        assert not second.path.exists()


def test_withdrawing_leaves_the_folder_which_may_be_mounted_somewhere(place: Path) -> None:
    made = prepare(place)
    with bind(made.staged):
        made.publish()
    (made.path.parent / "note").touch()
    inode = made.path.parent.stat().st_ino
    made.withdraw()
    made.withdraw()
    again = prepare(place)
    assert again.path.parent.stat().st_ino == inode


def test_withdrawing_what_was_never_published_removes_the_staged_socket(place: Path) -> None:
    made = prepare(place)
    bind(made.staged).close()
    made.withdraw()
    assert not made.staged.exists()
    assert not made.path.exists()


def test_sockets_that_a_killed_daemon_left_are_removed_and_nothing_else(place: Path) -> None:
    """Its principals may be gone by now; who is still admitted to their folders is to find nothing there."""
    for name in ("web", "ops", "box/mount"):
        (place / name).mkdir(parents=True)
        bind(place / name / "mapd.sock").close()
    (place / "dev").mkdir()
    (place / "dev" / "mapd.sock").write_text("no socket")
    (place / "mapd.lock").touch()
    (place / "link").symlink_to(place / "web")
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    bind(elsewhere / "other.sock").close()
    clean_dead(place, {place / "web" / "mapd.sock"})
    left = {str(path.relative_to(place)) for path in place.rglob("*") if not path.is_dir()}
    assert left == {"web/mapd.sock", "dev/mapd.sock", "mapd.lock", "elsewhere/other.sock"}
    assert (place / "ops").is_dir()
    assert (place / "box" / "mount").is_dir()
