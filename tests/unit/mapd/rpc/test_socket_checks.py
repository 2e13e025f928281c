"""A socket is served only where it admits whom it shall and nobody else: our reading of ACLs, and the kernel's own."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mapd.rpc.acl import ATTRIBUTE, Access, Admitted, decode, encode, open_to_all
from mapd.rpc.socket_checks import OUTSIDERS, questions, read_back, safe_folder
from mapd.rpc.socket_trials import Others, Trial
from mapd.rpc.sockets import MOUNTED, InstanceLock, PrincipalSocket, SocketError

ALICE, BOB, STAFF = 41_001, 41_002, 41_010

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="being others needs root")


@pytest.fixture
def place() -> Generator[Path]:
    """A runtime folder that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="mapd-") as folder:
        found = Path(folder)
        found.chmod(0o755)
        yield found


@pytest.fixture
def served() -> Generator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def publish(place: Path, served: ExitStack, admitted: Admitted, name: str = "web") -> PrincipalSocket:
    """A principal's socket that somebody listens on."""
    made = PrincipalSocket.prepare(place, name, admitted)
    listening = served.enter_context(socket.socket(socket.AF_UNIX))
    listening.bind(str(made.staged))
    listening.listen(64)
    made.publish()
    served.callback(made.withdraw)
    return made


def check(made: PrincipalSocket) -> None:
    read_back(made.folder, made.path.parent, made.path, made.admitted)


def trial(made: PrincipalSocket) -> int:
    others = Others.start()
    assert others is not None
    return others.try_sockets([Trial(path=made.path, admitted=made.admitted)])


KINDS = {
    "nobody": Admitted(),
    "a user": Admitted(uids=frozenset({ALICE})),
    "a group": Admitted(gids=frozenset({STAFF})),
    "users and groups": Admitted(uids=frozenset({ALICE, BOB}), gids=frozenset({STAFF, BOB})),
    "the id that stands for others": Admitted(uids=frozenset({OUTSIDERS}), gids=frozenset({OUTSIDERS + 1})),
    "whoever has the mount": Admitted(mount=True),
}


@pytest.mark.parametrize("admitted", KINDS.values(), ids=list(KINDS))
def test_what_is_published_is_what_was_meant(place: Path, served: ExitStack, admitted: Admitted) -> None:
    made = publish(place, served, admitted)
    check(made)
    if os.geteuid() == 0:
        assert trial(made) == len(admitted.uids) + len(admitted.gids) + 1


@root_only
def test_a_socket_on_which_nobody_listens_any_more_is_tried_all_the_same(
    place: Path, served: ExitStack
) -> None:
    made = publish(place, served, Admitted(uids=frozenset({ALICE})))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(place / "left"))
    (place / "left").rename(made.path)
    open_to_all(str(made.path), 0o600)
    with pytest.raises(SocketError, match="was refused"):
        trial(made)
    open_to_all(str(made.path), 0o666)
    assert trial(made) == 2
    open_to_all(str(made.folder), 0o755)
    with pytest.raises(SocketError, match="connected"):
        trial(made)


# ---- what went wrong ---------------------------------------------------------------------------


def too_open(made: PrincipalSocket) -> None:
    """As a file system without ACLs that says it has them."""
    open_to_all(str(made.folder), 0o755)
    open_to_all(str(made.path), 0o666)


def one_more(made: PrincipalSocket) -> None:
    for path, bits in ((made.folder, 7), (made.path, 6)):
        os.setxattr(path, ATTRIBUTE, encode(bits, {ALICE, OUTSIDERS}, (), bits - bits % 2))
    os.setxattr(made.folder, ATTRIBUTE, encode(7, {ALICE, OUTSIDERS}, (), 5))


def closed(made: PrincipalSocket) -> None:
    made.path.chmod(0o600)


def folder_closed(made: PrincipalSocket) -> None:
    made.folder.chmod(0o700)


MISTAKES = {
    "open to all": (too_open, "would be admitted", "connected"),
    "open to one more": (one_more, "would be admitted", "connected"),
    "a mask that closes the socket": (closed, "would be refused", "was refused"),
    "a mask that closes the folder": (folder_closed, "would be refused", "was refused"),
}


@pytest.mark.parametrize(("mistake", "read", "tried"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_socket_that_admits_others_than_it_shall_is_found_by_reading_and_by_trying(
    place: Path, served: ExitStack, mistake: object, read: str, tried: str
) -> None:
    made = publish(place, served, Admitted(uids=frozenset({ALICE})))
    assert callable(mistake)
    mistake(made)
    with pytest.raises(SocketError, match=read):
        check(made)
    if os.geteuid() == 0:
        with pytest.raises(SocketError, match=tried):
            trial(made)


def test_a_mount_that_could_be_reached_on_this_side_is_found(place: Path, served: ExitStack) -> None:
    made = publish(place, served, Admitted(mount=True))
    made.folder.chmod(0o711)
    with pytest.raises(SocketError, match="would be admitted"):
        check(made)
    made.folder.chmod(0o700)
    made.path.parent.chmod(0o700)
    with pytest.raises(SocketError, match="would be refused"):
        check(made)


@root_only
def test_a_socket_of_somebody_else_is_found(place: Path, served: ExitStack) -> None:
    made = publish(place, served, Admitted(uids=frozenset({ALICE})))
    os.chown(made.path, BOB, -1)
    with pytest.raises(SocketError, match=f"belongs to uid {BOB} instead of"):
        check(made)


@root_only
def test_a_folder_above_that_the_admitted_cannot_search_is_found_by_trying(
    place: Path, served: ExitStack
) -> None:
    made = publish(place, served, Admitted(uids=frozenset({ALICE})))
    place.chmod(0o700)
    check(made)
    with pytest.raises(SocketError, match=r"must be searchable by all \(chmod a\+x\)"):
        trial(made)


def test_an_acl_of_an_unknown_form_is_no_acl() -> None:
    for raw in (b"", b"\x02\0\0", b"\x03\0\0\0", encode(7, (), (), 0)[:-1]):
        with pytest.raises(ValueError, match="no ACL of version 2"):
            decode(raw)


# ---- our reading against the kernel's ----------------------------------------------------------

ACCESS = """
import os, sys
path, wanted, *who = sys.argv[1:]
for each in who:
    uid, *gids = map(int, each.split(","))
    os.setgroups(gids[1:]); os.setegid(gids[0]); os.seteuid(uid)
    try:
        print(int(os.access(path, int(wanted), effective_ids=True)))
    finally:
        os.seteuid(0); os.setegid(0)
"""

WHO = [
    (ALICE, BOB),
    (BOB, BOB),
    (BOB, STAFF),
    (BOB, BOB, STAFF),
    (ALICE, STAFF),
    (BOB, 41_020, STAFF),
    (7, 7),
]


@root_only
@pytest.mark.parametrize("kind", ["mode", "acl", "acl with a narrow mask", "an owning group with rights"])
@pytest.mark.parametrize("owner", [0, ALICE])
def test_rights_are_computed_as_the_kernel_does(place: Path, kind: str, owner: int) -> None:
    file = place / "file"
    file.touch()
    os.chown(file, owner, STAFF)
    if kind == "mode":
        file.chmod(0o642)
    else:
        os.setxattr(file, ATTRIBUTE, encode(6, {ALICE, BOB}, {41_020}, 6))
        if kind == "acl with a narrow mask":
            file.chmod(0o640)
        if kind == "an owning group with rights":
            raw = bytearray(encode(4, {BOB}, {41_020}, 6))
            raw[4 + 8 * 2 + 2] = 4  # group_obj: r--
            os.setxattr(file, ATTRIBUTE, bytes(raw))
    found = Access.of(str(file))
    for wanted in (4, 2, 6):
        arguments = [str(file), str(wanted), *(",".join(map(str, each)) for each in WHO)]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", ACCESS, *arguments], capture_output=True, check=True, text=True
        )
        kernel = [line == "1" for line in done.stdout.split()]
        ours = [found.permits(uid, gids, wanted) for uid, *gids in WHO]
        assert ours == kernel, wanted


# ---- the runtime folder ------------------------------------------------------------------------


def test_a_runtime_folder_that_others_may_write_is_refused(place: Path) -> None:
    for mode in (0o775, 0o757, 0o1777):
        place.chmod(mode)
        with pytest.raises(SocketError, match=f"mode {mode:04o}, others may write it"):
            safe_folder(place)
        with pytest.raises(SocketError, match="others may write it"):
            InstanceLock.acquire(place)
    assert list(place.iterdir()) == []


def test_a_folder_above_it_may_be_written_only_where_it_is_sticky(place: Path) -> None:
    inner = place / "run"
    inner.mkdir(0o755)
    place.chmod(0o777)
    with pytest.raises(SocketError, match=f"{place}: mode 0777, others may write it"):
        safe_folder(inner)
    place.chmod(0o1777)
    safe_folder(inner)


def test_a_runtime_folder_that_is_a_symbolic_link_is_refused(place: Path) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to(place / "real")
    with pytest.raises(SocketError, match="a symbolic link; name the folder itself"):
        safe_folder(place / "link")
    (place / "real" / "run").mkdir()
    safe_folder(place / "link" / "run")


@root_only
def test_a_runtime_folder_of_somebody_else_is_refused(place: Path) -> None:
    inner = place / "run"
    inner.mkdir()
    os.chown(inner, BOB, BOB)
    with pytest.raises(SocketError, match=f"belongs to uid {BOB}, who could replace the sockets"):
        safe_folder(inner)


# ---- changes -----------------------------------------------------------------------------------


def test_whom_a_socket_admits_is_changed_in_its_place(place: Path, served: ExitStack) -> None:
    made = publish(place, served, Admitted(uids=frozenset({ALICE})))
    inode = made.path.stat().st_ino
    for admitted in itertools.chain(list(KINDS.values())[:4], [Admitted()]):
        made.admit(admitted)
        check(made)
        assert made.path.stat().st_ino == inode
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert ATTRIBUTE not in os.listxattr(made.path)
    assert ATTRIBUTE not in os.listxattr(made.folder)


def test_a_principal_that_was_mounted_and_is_named_now_has_its_socket_elsewhere(
    place: Path, served: ExitStack
) -> None:
    mounted = publish(place, served, Admitted(mount=True))
    assert mounted.path == place / "web" / MOUNTED / "mapd.sock"
    named = publish(place, served, Admitted(uids=frozenset({ALICE})))
    assert named.path == place / "web" / "mapd.sock"
    mounted.withdraw()
    assert not mounted.path.exists()
    check(named)


def test_each_who_is_admitted_is_asked_for_alone_and_an_outsider_last() -> None:
    asked = list(questions(Admitted(uids=frozenset({BOB, ALICE}), gids=frozenset({STAFF}))))
    outsider = (OUTSIDERS,)
    assert asked == [
        (ALICE, outsider, True),
        (BOB, outsider, True),
        (OUTSIDERS, (STAFF,), True),
        (OUTSIDERS, outsider, False),
    ]
