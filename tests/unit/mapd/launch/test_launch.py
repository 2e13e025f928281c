"""What the two processes tell each other at the start, and whom they run as. Nothing is locked in here."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from mapd.config import parse
from mapd.launch import LaunchError, front, people
from mapd.launch.link import OpenerLink, received
from mapd.launch.openerprocess import Greeting
from mapd.launch.people import People
from mapd.launch.settings import OpenerSettings, command, python_files
from mapd.opener import Limits
from mapd.sandbox import Account, account

GREETING = Greeting(
    uid=7, capabilities=("CAP_BPF",), landlock=7, missing=("x",), names_root="/sys/fs/bpf/mapd"
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root: nobody else can be become")


def test_a_greeting_arrives_as_it_was_sent() -> None:
    assert Greeting.unpack(GREETING.pack()) == GREETING


@pytest.mark.parametrize("message", [b"", b"[]", b"{}", b'{"capabilities": 1, "missing": []}', b"\xff"])
def test_what_is_no_greeting_ends_the_start(message: bytes) -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        its.send(message)
        its.close()
        with pytest.raises(LaunchError, match="ended before it was locked in"):
            OpenerLink(ours).greeting()


def test_an_opener_that_could_not_be_locked_in_says_why() -> None:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        its.send(Greeting(error="/x is not a bpffs").pack())
        with pytest.raises(LaunchError, match="/x is not a bpffs"):
            OpenerLink(ours).greeting()


def test_the_settings_are_those_of_the_configuration() -> None:
    config = parse(
        "[daemon]\nbpffs = '/b'\npin_root = 'm'\npin_roots = ['/b/x']\n"
        "[opener]\nprofile = ['network', 'minimal']\nmap_bytes = 4096\nmakes_per_s = 3\n",
        "test",
    )
    found = front.opener_settings(config, People(opener=Account(7, 8)))
    again = OpenerSettings.from_json(found.to_json())
    assert (again.uid, again.gid, list(again.profile)) == (7, 8, ["minimal", "network"])
    limits = Limits(**again.limits, names_root=again.names_root)
    assert (limits.names_root, limits.map_bytes, limits.makes_per_s) == ("/b/m", 4096, 3)
    assert list(limits.pin_roots) == ["/b/x"]
    assert again.with_front


def test_a_configuration_without_limits_has_those_of_the_opener() -> None:
    """Written twice: a value of one and not of the other would be nobody's."""
    found = front.opener_settings(parse("", "test"), People())
    assert Limits(**found.limits, names_root="/x") == Limits(names_root="/x", pin_roots=("/sys/fs/bpf",))


def test_the_opener_is_a_fresh_interpreter_without_this_ones_environment_and_site() -> None:
    words = command(front.opener_settings(parse("", "test"), People()))
    assert words[1:5] == ["-I", "-S", "-B", "-c"]
    assert str(Path(people.__file__).parents[2]) in words[7:]


def test_an_opener_by_hand_has_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, count in (("", ""), (str(os.getpid()), "2"), ("1", "1")):
        monkeypatch.setenv("LISTEN_PID", pid)
        monkeypatch.setenv("LISTEN_FDS", count)
        with pytest.raises(LaunchError, match="started by systemd"):
            received()


@needs_root
def test_two_users_by_name_or_number() -> None:
    found = people.people(parse("[daemon]\nuser = 65501\n[opener]\nuser = '65502'", "test"))
    assert found == People(front=Account(65_501, 65_501), opener=Account(65_502, 65_502))


@needs_root
def test_one_user_is_never_taken_for_two() -> None:
    found = people.people(parse("[daemon]\nuser = 65501\n[opener]\nuser = 65501", "test"))
    assert (found.front, found.opener) == (None, None)
    assert "both uid 65501" in found.together[0]


@needs_root
def test_one_user_that_is_missing_keeps_the_other_from_being_taken_on() -> None:
    found = people.people(parse("[daemon]\nuser = 65501", "test"))
    if (there := account("mapd-opener")) is not None:
        assert found == People(front=Account(65_501, 65_501), opener=there), (
            "this host has a user mapd-opener"
        )
        return
    assert (found.front, found.opener) == (None, None)
    assert "no user mapd-opener" in found.together[0]
    assert "65501" not in "".join(found.together)


@needs_root
def test_a_user_that_is_named_and_missing_keeps_the_daemon_from_starting() -> None:
    with pytest.raises(LaunchError, match=r"no user no-such-user, .* make it \(useradd --system"):
        people.people(parse("[daemon]\nuser = 65501\n[opener]\nuser = 'no-such-user'", "test"))


@needs_root
def test_maps_in_memory_need_one_user() -> None:
    found = people.people(parse("[daemon]\nbackend = 'memory'\nuser = 65501", "test"))
    assert found == People(front=Account(65_501, 65_501))


@needs_root
def test_a_number_that_is_no_users_is_refused() -> None:
    with pytest.raises(LaunchError, match="from 0 to"):
        people.people(parse("[daemon]\nuser = -1", "test"))


def test_root_itself_reads_of_etc_what_names_need_and_no_more(tmp_path: Path) -> None:
    """Uid 0 owns the files with everybody's secrets, also without a capability."""
    config = msgspec.structs.replace(parse("", "test"))
    two = front.rules(config, tmp_path / "mapd.toml", People(front=Account(7, 7), opener=Account(8, 8)))
    assert {"/etc", str(tmp_path)} <= set(two.read)
    if os.geteuid() == 0:
        one = front.rules(config, tmp_path / "mapd.toml", People(together=("one",)))
        assert "/etc" not in one.read
        assert "/etc/passwd" in one.read
        assert "/etc/shadow" not in one.read
    assert "/" not in {*two.read, *two.write, *python_files()}
    assert not two.names
    assert not two.bind_tcp


def test_ports_are_those_that_are_configured() -> None:
    tls = "certificate = '/c/a.pem'\nkey = '/c/b.pem'\nclient_ca = '/c/c.pem'\n"
    config = parse(f"[tcp]\nlisten = ['127.0.0.1:7433', '[::]:7433', '[::1]:0']\n{tls}", "test")
    found = front.rules(config, None, People())
    assert found.bind_tcp == (7433, 0)
    assert "/c" in found.read


def test_metrics_have_their_port_and_what_tells_when_the_host_was_booted() -> None:
    off, on = (
        front.rules(parse(text, "test"), None, People())
        for text in ("", "[metrics]\nlisten = '127.0.0.1:9433'\n")
    )
    assert (off.bind_tcp, on.bind_tcp) == ((), (9433,))
    assert set(on.read) - set(off.read) == {"/proc/stat"}
    assert (off.write, off.lists, off.devices) == (on.write, on.lists, on.devices)


@pytest.mark.parametrize("mount", ["/sys/fs/cgroup", ""])
def test_of_cgroups_the_front_sees_names_and_reads_no_file(
    monkeypatch: pytest.MonkeyPatch, mount: str
) -> None:
    monkeypatch.setattr(front, "cgroup_mount", lambda: mount)
    found = front.rules(parse("", "test"), None, People())
    assert found.lists == ((mount,) if mount else ())
    assert not [path for path in (*found.read, *found.write) if path.startswith("/sys/fs")]
