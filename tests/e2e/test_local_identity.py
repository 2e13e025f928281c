"""Who a client is, by the socket that the kernel lets it open: users, groups, mounts; outsiders meet EACCES."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import subprocess
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

import mapd_client
from mapd.rpc import sockets
from mapd.rpc.acl import ATTRIBUTE
from tests.support.daemon import (
    Place,
    client_sources,
    daemon_process,
    private_place,
    spawn_unprivileged,
)

USER, GROUP, OUTSIDER = 41_001, 41_002, 41_003

POLICY = f"""
[principals.admin]
[principals.web]
users = [{USER}]
[principals.ops]
groups = [{GROUP}]
[principals.box]
grant = "mount"
[principals.nobody]

[[rules]]
who = ["*"]
role = "admin"
every_map = true
"""
"""Rights are not the question here: whoever is somebody may do everything."""

PRINCIPALS = ("admin", "web", "ops", "box", "nobody")

CONNECT = """
import json, socket, sys
print(json.dumps([socket.socket(socket.AF_UNIX).connect_ex(path) for path in sys.argv[1:]]))
"""


def path_of(place: Place, principal: str) -> Path:
    folder = place.runtime_dir / principal
    return (folder / sockets.MOUNTED if principal == "box" else folder) / "mapd.sock"


@pytest.fixture(scope="module")
def served() -> Generator[tuple[Place, Path]]:
    """A daemon with all kinds of principals, and sources that every uid can read."""
    with private_place() as place, daemon_process(place, policy=POLICY), client_sources() as sources:
        yield place, sources


def errors(served: tuple[Place, Path], user: int, group: int, groups: Sequence[int] = ()) -> dict[str, int]:
    """Errno of connect(2) to the socket of each principal, for a process with these ids; 0: connected."""
    place, sources = served
    paths = [str(path_of(place, name)) for name in PRINCIPALS]
    with spawn_unprivileged(sources, CONNECT, *paths, user=user, group=group, groups=groups) as process:
        out, _ = process.communicate()
    return dict(zip(PRINCIPALS, json.loads(out), strict=True))


@pytest.mark.parametrize(
    ("user", "group", "groups", "admitted"),
    [
        (0, 0, (), set(PRINCIPALS)),
        (USER, OUTSIDER, (), {"web"}),
        (USER, GROUP, (), {"web", "ops"}),
        (OUTSIDER, GROUP, (), {"ops"}),
        (OUTSIDER, OUTSIDER, (GROUP,), {"ops"}),
        (OUTSIDER, OUTSIDER, (), set[str]()),
        (OUTSIDER, USER, (USER,), set[str]()),
        (GROUP, OUTSIDER, (), set[str]()),
        (65_534, 65_534, (), set[str]()),
    ],
    ids=[
        "root is admitted to all",
        "a user",
        "a user in a group of another principal",
        "a primary group",
        "a supplementary group",
        "an outsider",
        "a group with the number of an admitted user",
        "a user with the number of an admitted group",
        "nobody",
    ],
)
def test_the_kernel_admits_whom_the_policy_names_and_refuses_others_at_connect(
    served: tuple[Place, Path], user: int, group: int, groups: Sequence[int], admitted: set[str]
) -> None:
    expected = {name: 0 if name in admitted else errno.EACCES for name in PRINCIPALS}
    assert errors(served, user, group, groups) == expected


async def test_the_principal_is_the_sockets_whoever_connects(served: tuple[Place, Path]) -> None:
    place, _ = served
    for name in PRINCIPALS:
        async with mapd_client.connect(str(path_of(place, name))) as client:
            assert (await client.server_info()).principal == name


def test_sockets_are_the_daemons_0600_with_an_acl_and_a_mounts_0666_behind_a_closed_folder(
    served: tuple[Place, Path],
) -> None:
    place, _ = served

    def mode(path: Path) -> tuple[int, bool]:
        named = ATTRIBUTE in os.listxattr(path, follow_symlinks=False)
        return stat.S_IMODE(path.lstat().st_mode), named

    assert mode(path_of(place, "admin")) == (0o600, False)
    # With an ACL the group bits show its mask; the owning group itself has nothing.
    assert mode(path_of(place, "web")) == (0o660, True)
    assert mode(place.runtime_dir / "web") == (0o750, True)
    assert mode(path_of(place, "box")) == (0o666, False)
    assert mode(path_of(place, "box").parent) == (0o755, False)
    assert mode(place.runtime_dir / "box") == (0o700, False)
    owner = (place.runtime_dir / "admin").stat().st_uid
    for name in PRINCIPALS:
        assert path_of(place, name).lstat().st_uid == owner


def test_who_may_connect_was_tried_before_anything_was_served(served: tuple[Place, Path]) -> None:
    """By a process that was started before the one that speaks to clients gave up its rights."""
    place, _ = served
    said = [json.loads(line) for line in (place.root / "daemon.log").read_text().splitlines()]
    (tried,) = [line for line in said if line["event"] == "who may connect was tried"]
    # A user, a group, and an outsider for each of five.
    assert (tried["sockets"], tried["connections"]) == (5, 7)
    assert said.index(tried) < [line["event"] for line in said].index("ready")


# ---- mounts ------------------------------------------------------------------------------------

MOUNT = """
set -e
mount -t tmpfs -o mode=0755 private /run
mkdir /run/mapd
mount --bind "$0" /run/mapd
exec setpriv --reuid=41003 --regid=41003 --clear-groups "$@"
"""
"""In a mount namespace of its own: the folder becomes /run/mapd, where a client looks by itself."""

ALIVE = """
import asyncio, sys, mapd_client
from mapd_client import U32, U64

async def main():
    loop = asyncio.get_running_loop()
    async with mapd_client.connect() as client:
        print((await client.server_info()).principal, flush=True)
        async with client.create_map("kept", "hash", key=U32, value=U64, max_entries=8, exist_ok=True) as found:
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                key = int(line)
                if key == 1:
                    await found.update(key, 100)
                for _ in range(100):
                    try:
                        value = await found.lookup(1)
                        break
                    except (mapd_client.Unavailable, mapd_client.StaleHandle) as error:
                        print(repr(error), file=sys.stderr)
                        await asyncio.sleep(0.05)
                print(value, flush=True)

asyncio.run(main())
"""


def mounted(sources: Path, folder: Path, code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Python code as an outsider in another mount namespace, with the folder as /run/mapd."""
    prefix = ("unshare", "--mount", "sh", "-c", MOUNT, str(folder))
    return spawn_unprivileged(sources, code, *arguments, prefix=prefix, stdin=subprocess.PIPE)


def told(process: subprocess.Popen[bytes], line: str = "") -> str:
    """What it answers to a line."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line.encode())
    process.stdin.flush()
    answer = process.stdout.readline().decode().strip()
    if not answer:
        assert process.stderr is not None
        raise AssertionError(process.stderr.read().decode())
    return answer


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Generator[subprocess.Popen[bytes]]:
    with process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def test_a_client_in_another_mount_namespace_survives_two_restarts_without_reconfiguration(
    place: Place,
) -> None:
    """The same process, no address configured, a uid that nobody named: lookups before, between and after."""
    with client_sources() as sources, contextlib.ExitStack() as stack:
        with daemon_process(place, policy=POLICY):
            folder = place.runtime_dir / "box" / sockets.MOUNTED
            client = stack.enter_context(ending(mounted(sources, folder, ALIVE)))
            assert told(client) == "box"
            assert told(client, "1\n") == "100"
        for _ in range(2):
            assert not path_of(place, "box").exists()
            with daemon_process(place, policy=POLICY):
                assert told(client, "2\n") == "100"


def test_a_folder_of_mode_0700_is_of_no_use_to_who_has_it_mounted(place: Place) -> None:
    """Why a mount's socket has a searchable folder of its own: the mounted folder is searched by the client's uid."""
    with client_sources() as sources, daemon_process(place, policy=POLICY):
        for folder, expected in (("box", errno.EACCES), (f"box/{sockets.MOUNTED}", 0)):
            inside = "/run/mapd/mount/mapd.sock" if folder == "box" else "/run/mapd/mapd.sock"
            with mounted(sources, place.runtime_dir / folder, CONNECT, inside) as process:
                out, _ = process.communicate()
            assert json.loads(out) == [expected]


def test_who_is_named_may_mount_his_folder_and_stays_who_he_is(place: Place) -> None:
    """An ACL holds through a mount: the outsider in the namespace is refused, for the folder is not his."""
    with client_sources() as sources, daemon_process(place, policy=POLICY):
        with mounted(sources, place.runtime_dir / "web", CONNECT, "/run/mapd/mapd.sock") as process:
            out, _ = process.communicate()
        assert json.loads(out) == [errno.EACCES]


# ---- logins ------------------------------------------------------------------------------------

ADDED = """
set -e
mount --bind "$0/passwd" /etc/passwd
mount --bind "$0/group" /etc/group
exec setpriv --reuid=41003 --regid=41003 "$@"
"""
"""In a mount namespace of its own, where the host has put alice into the group a moment ago."""

SAID = """
import asyncio, sys, mapd_client
from pathlib import Path
from mapd_client.discovery import discover

async def main():
    for look in (lambda: discover(Path(sys.argv[1]), {}), lambda: mapd_client.connect(sys.argv[2])):
        try:
            found = look()
            async with found if not isinstance(found, str) else mapd_client.connect(found) as client:
                print("connected as", (await client.server_info()).principal)
        except mapd_client.Unavailable as error:
            print(str(error).replace("\\n", "|"))

asyncio.run(main())
"""


@pytest.mark.parametrize("login", ["stale", "fresh", "a stranger's"])
def test_a_login_older_than_its_group_is_told_to_log_in_again(
    served: tuple[Place, Path], tmp_path: Path, login: str
) -> None:
    place, sources = served
    member = "bob" if login == "a stranger's" else "alice"
    (tmp_path / "passwd").write_text(f"root:x:0:0::/:/bin/sh\nalice:x:{OUTSIDER}:{OUTSIDER}::/:/bin/sh\n")
    (tmp_path / "group").write_text(f"root:x:0:\nmonitoring:x:{GROUP}:{member}\nalice:x:{OUTSIDER}:\n")
    groups = f"--groups={GROUP}" if login == "fresh" else "--clear-groups"
    prefix = ("unshare", "--mount", "sh", "-c", ADDED, str(tmp_path), groups)
    path = str(path_of(place, "ops"))
    with spawn_unprivileged(sources, SAID, str(place.runtime_dir), path, prefix=prefix) as process:
        out, errors = process.communicate()
    assert errors == b""
    discovered, connected = out.decode().splitlines()
    if login == "fresh":
        assert (discovered, connected) == ("connected as ops", "connected as ops")
        return
    advice = "log in again (or: newgrp monitoring)"
    assert f"{path}: permission denied for uid {OUTSIDER}, groups {OUTSIDER}" in discovered
    assert (advice in discovered, advice in connected) == ((login == "stale"), (login == "stale"))
    assert ("may not open it" in connected) is not (login == "stale")
