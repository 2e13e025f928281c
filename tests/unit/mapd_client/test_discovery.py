"""Where the daemon is looked for, on real sockets, and what is said when it is not there."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import mapd_client
from mapd_client import Misuse, Tls, Unavailable
from mapd_client.discovery import CLOSED_SHOWN, discover, examine, parse_target, tls_for
from mapd_client.discovery import sockets as sockets_there
from mapd_client.logins import admitted_groups, stale_group


class Sockets:
    """Sockets that live as long as the test."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def listen(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        server = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(os.fspath(path))
        server.listen()
        return path

    def dead(self, path: Path) -> Path:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(path))
        return path


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


@pytest.mark.parametrize("text", ["unix:/run/x.sock", "unix:///run/x.sock", "/run/x.sock"])
def test_socket_addresses(text: str) -> None:
    assert parse_target(text) == "unix:/run/x.sock"


@pytest.mark.parametrize("folder", ["a%41b", "a#b", "a?b", "a b", "ä", "a\udcffb"])
@pytest.mark.usefixtures("daemon")
async def test_a_path_is_no_uri(short_folder: Path, folder: str) -> None:
    place = short_folder / folder
    place.mkdir()
    (place / "mapd.sock").symlink_to(short_folder / "mapd.sock")
    async with mapd_client.connect(str(place / "mapd.sock")) as client:
        assert (await client.server_info()).version == "0.0.9"
    (place / "mapd.sock").unlink()
    with pytest.raises(Unavailable) as caught:
        await mapd_client.connect(str(place / "mapd.sock"))
    assert f"unix:{place}/mapd.sock: there is no such socket" in str(caught.value)


def test_a_path_longer_than_a_sockets_is_refused_with_both_numbers() -> None:
    assert parse_target("/" + "ä" * 53) == "unix:/" + "ä" * 53
    with pytest.raises(Misuse, match="has 109 bytes, the path of a socket at most 107"):
        parse_target("unix:/" + "ä" * 54)


@pytest.mark.parametrize("text", ["host:7777", "10.0.0.1:80", "[::1]:443", "a.example.org:65535"])
def test_tcp_is_refused_for_want_of_tls(text: str) -> None:
    assert parse_target(text) == text
    with pytest.raises(
        Misuse, match=r"give tls=Tls\(ca=..., certificate=..., key=...\), or set MAPD_TLS_CA, MAPD_TLS_CERT"
    ):
        tls_for(text, None, {})


FILES = Tls(ca="/c/ca.pem", certificate="/c/cert.pem", key="/c/key.pem")
VARIABLES = {"MAPD_TLS_CA": "/c/ca.pem", "MAPD_TLS_CERT": "/c/cert.pem", "MAPD_TLS_KEY": "/c/key.pem"}


def test_certificates_come_from_the_argument_or_the_environment() -> None:
    assert tls_for("host:7433", None, VARIABLES) == FILES
    other = Tls(ca="a", certificate="b", key="c", server_name="d")
    assert tls_for("host:7433", other, VARIABLES) is other


def test_half_an_environment_is_misuse() -> None:
    with pytest.raises(
        Misuse, match="MAPD_TLS_CERT: not set; TLS needs MAPD_TLS_CA, MAPD_TLS_CERT, MAPD_TLS_KEY"
    ):
        tls_for("host:7433", None, {**VARIABLES, "MAPD_TLS_CERT": ""})


def test_a_socket_takes_no_certificates_and_ignores_those_of_the_environment() -> None:
    assert tls_for("unix:/run/mapd.sock", None, VARIABLES) is None
    with pytest.raises(Misuse, match="tls= is for 'host:port'"):
        tls_for("unix:/run/mapd.sock", FILES, {})


def test_the_variable_may_name_a_host() -> None:
    assert discover(Path("/nowhere"), {"MAPD_ADDRESS": "edge.example.org:7433"}) == "edge.example.org:7433"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run/x.sock",
        "unix:",
        "unix:relative",
        "http://host",
        "/run/x\0y",
        "host:0",
        "host:65536",
        "::1:7433",
    ],
)
def test_other_addresses_are_misuse(text: str) -> None:
    with pytest.raises(Misuse, match="no address"):
        parse_target(text)


def test_the_variable_comes_first(short_folder: Path, sockets: Sockets) -> None:
    sockets.listen(short_folder / "mapd.sock")
    assert discover(short_folder, {"MAPD_ADDRESS": "/else/mapd.sock"}) == "unix:/else/mapd.sock"
    with pytest.raises(Misuse, match="MAPD_ADDRESS: 'else' is no address"):
        discover(short_folder, {"MAPD_ADDRESS": "else"})


def test_then_the_folders_own_socket(short_folder: Path, sockets: Sockets) -> None:
    path = sockets.listen(short_folder / "mapd.sock")
    sockets.listen(short_folder / "a" / "mapd.sock")
    assert discover(short_folder, {}) == f"unix:{path}"


def test_then_the_only_principals_socket_that_answers(short_folder: Path, sockets: Sockets) -> None:
    sockets.dead(short_folder / "mapd.sock")
    path = sockets.listen(short_folder / "a" / "mapd.sock")
    (short_folder / "b").mkdir()
    assert discover(short_folder, {}) == f"unix:{path}"


def test_of_several_the_one_named_like_the_user(short_folder: Path, sockets: Sockets) -> None:
    sockets.listen(short_folder / "a" / "mapd.sock")
    mine = sockets.listen(short_folder / pwd.getpwuid(os.getuid()).pw_name / "mapd.sock")
    assert discover(short_folder, {}) == f"unix:{mine}"


def test_of_several_strangers_none(short_folder: Path, sockets: Sockets) -> None:
    first = sockets.listen(short_folder / "a" / "mapd.sock")
    second = sockets.listen(short_folder / "b" / "mapd.sock")
    with pytest.raises(Unavailable, match="MAPD_ADDRESS") as caught:
        discover(short_folder, {})
    assert f"{first}: open to you" in str(caught.value)
    assert f"{second}: open to you" in str(caught.value)


def test_what_was_found_where_is_said(short_folder: Path, sockets: Sockets) -> None:
    (short_folder / "mapd.sock").write_text("")
    (short_folder / "a").mkdir()
    sockets.dead(short_folder / "a" / "mapd.sock")
    (short_folder / "b").mkdir()
    with pytest.raises(Unavailable) as caught:
        discover(short_folder, {})
    assert str(caught.value).splitlines()[1:] == [
        "  $MAPD_ADDRESS: not set",
        f"  {short_folder}/mapd.sock: not a socket",
        f"  {short_folder}/a/mapd.sock: a socket that nobody listens on",
        f"  {short_folder}/b/mapd.sock: no such file",
    ]


def test_a_missing_folder_is_said(short_folder: Path) -> None:
    with pytest.raises(Unavailable, match="no such folder"):
        discover(short_folder / "none", {})


def test_a_socket_that_may_not_be_opened_names_the_user(
    short_folder: Path, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sockets.listen(short_folder / "mapd.sock")

    # Root may open everything: the answer of access(2) is the only thing put in its place.
    def refused(_path: Path, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", refused)
    assert str(examine(path)).startswith(f"permission denied for uid {os.getuid()}, groups ")


def test_root_is_the_admin_where_it_may_be_anybody(short_folder: Path, sockets: Sockets) -> None:
    others = [sockets.listen(short_folder / name / "mapd.sock") for name in ("a", "b")]
    admin = sockets.listen(short_folder / "admin" / "mapd.sock")
    if os.getuid() == 0:
        assert discover(short_folder, {}) == f"unix:{admin}"
    else:
        with pytest.raises(Unavailable, match=f"{others[0]}: open to you"):
            discover(short_folder, {})


def test_the_daemons_own_folders_are_no_principals(short_folder: Path, sockets: Sockets) -> None:
    sockets.listen(short_folder / ".staging" / "mapd.sock")
    with pytest.raises(Unavailable, match="no folders"):
        discover(short_folder, {})


def test_sockets_of_others_are_counted_beyond_the_first(
    short_folder: Path, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(CLOSED_SHOWN + 5):
        sockets.listen(short_folder / f"p{number:02}" / "mapd.sock")

    def refused(_path: Path, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", refused)
    with pytest.raises(Unavailable) as caught:
        discover(short_folder, {})
    assert str(caught.value).count("permission denied for uid") == CLOSED_SHOWN
    assert str(caught.value).endswith(f"5 more below {short_folder}: permission denied")


# ---- logins ------------------------------------------------------------------------------------


def test_the_groups_of_an_acl_are_read_from_the_kernels_bytes(short_folder: Path) -> None:
    # getfacl: user::rwx user:5:r-x group::--- group:7:r-x group:8:--- group:9:r-x mask::r-x other::---
    acl = bytes.fromhex(
        "0200000001000700ffffffff020005000500000004000000ffffffff0800050007000000"
        "0800000008000000080005000900000010000500ffffffff20000000ffffffff"
    )  # fmt: skip
    assert admitted_groups(acl) == [7, 9]
    os.setxattr(short_folder, "system.posix_acl_access", acl)
    assert os.getxattr(short_folder, "system.posix_acl_access") == acl


@pytest.mark.parametrize("acl", ["", "02", "01000000", "0100000008000500070000", "010000000800050007000000"])
def test_what_is_no_acl_of_version_2_admits_nobody(acl: str) -> None:
    assert admitted_groups(bytes.fromhex(acl)) == []


def test_a_folder_without_an_acl_says_nothing_of_logins(short_folder: Path) -> None:
    assert stale_group(short_folder) is None
    assert stale_group(short_folder / "none") is None


def test_all_sockets_of_a_host_are_told_ones_own_first(
    short_folder: Path, sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [sockets.listen(short_folder / f"p{at}" / "mapd.sock") for at in range(CLOSED_SHOWN + 2)]
    mine = sockets.listen(short_folder / "q" / "mapd.sock")

    def only_mine(path: Path, _mode: int) -> bool:
        return Path(path) == mine

    monkeypatch.setattr(os, "access", only_mine)

    found = sockets_there(short_folder)

    assert found[0] == (mine, None)
    assert [path for path, _ in found[1:]] == others[:CLOSED_SHOWN]
    assert all(problem and problem.startswith("permission denied") for _, problem in found[1:])
    assert sockets_there(short_folder / "none") == []
