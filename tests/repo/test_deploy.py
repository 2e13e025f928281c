"""deploy/: systemd accepts every file, the sandbox is as tight as documented, the example is the default."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mapd import config
from mapd.access.policy import file as policy_file
from mapd.access.policy.holder import NOBODY_ELSE
from mapd.sandbox.profiles import PROFILES
from mapd_client.cli.app import app
from tests.repo.sources import ROOT

DEPLOY = ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
FRONT, OPENER, SOCKET = "mapd.service", "mapd-opener@.service", "mapd-opener.socket"
SNAPSHOT, TIMER = "mapd-snapshot@.service", "mapd-snapshot@.timer"


def drop_ins(unit: str) -> list[str]:
    return sorted(path.stem for path in (SYSTEMD / f"{unit}.d").glob("*.conf"))


COMBINATIONS = [
    pytest.param(unit, chosen, id=f"{unit}: {'+'.join(chosen) or 'alone'}")
    for unit in (FRONT, OPENER, SNAPSHOT)
    for count in range(len(drop_ins(unit)) + 1)
    for chosen in itertools.combinations(drop_ins(unit), count)
]

EXPOSURE = 1.5
"""What `systemd-analyze security` may say at most; 0 is best, an empty unit has 9.6."""


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which(str(command[0]))
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([program, *map(str, command[1:])], capture_output=True, text=True, check=check)


def startable(text: str) -> str:
    """The unit with a program that every host has."""
    return re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)


def installed(folder: Path, unit: str, chosen: tuple[str, ...] = (), text: str | None = None) -> Path:
    """Copies of the units, an instance of the template, with drop-ins of ``unit``; the path of that one."""
    for name in (FRONT, OPENER, SOCKET):
        (folder / name).write_text(startable((SYSTEMD / name).read_text()))
    copy = folder / unit.replace("@.", "@1.")
    copy.write_text(startable((SYSTEMD / unit).read_text() if text is None else text))
    own = folder / f"{copy.name}.d"
    own.mkdir()
    for name in chosen:
        shutil.copy(SYSTEMD / f"{unit}.d" / f"{name}.conf", own)
    return copy


def exposure(unit: Path) -> float:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found.group(1))


@pytest.mark.parametrize(("unit", "chosen"), COMBINATIONS)
def test_systemd_has_no_complaint(tmp_path: Path, unit: str, chosen: tuple[str, ...]) -> None:
    """What systemd does not understand, it ignores: a misspelt line would be no protection at all."""
    done = run("systemd-analyze", "verify", "--man=no", installed(tmp_path, unit, chosen), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_has_no_complaint_about_the_socket(tmp_path: Path) -> None:
    installed(tmp_path, FRONT)
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / SOCKET, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_has_no_complaint_about_the_timer_and_knows_when_it_is_due(tmp_path: Path) -> None:
    installed(tmp_path, SNAPSHOT)
    timer = tmp_path / TIMER.replace("@.", "@1.")
    timer.write_text((SYSTEMD / TIMER).read_text())
    done = run("systemd-analyze", "verify", "--man=no", timer, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    due = dict(settings(SYSTEMD / TIMER))["OnCalendar"]
    assert "Next elapse" in run("systemd-analyze", "calendar", due).stdout


def test_the_snapshots_command_line_is_one_of_mapctls() -> None:
    line = dict(settings(SYSTEMD / SNAPSHOT))["ExecStart"].split()
    assert line[0] == "/usr/bin/mapctl"
    _, bound, _, _ = app.meta.parse_known_args(line[1:])
    _, verb, _ = app.parse_args(bound.args, exit_on_error=False, print_error=False)
    assert [str(one) for one in verb.args] == ["%i/*", "${STATE_DIRECTORY}/%i.snap"]


@pytest.mark.parametrize("unit", [FRONT, OPENER])
def test_a_planted_misspelling_is_found(tmp_path: Path, unit: str) -> None:
    text = (SYSTEMD / unit).read_text().replace("PrivateTmp=", "PrivateTemp=")
    done = run("systemd-analyze", "verify", "--man=no", installed(tmp_path, unit, text=text), check=False)
    assert "PrivateTemp" in done.stderr


@pytest.mark.parametrize(("unit", "chosen"), COMBINATIONS)
def test_the_exposure_is_low(tmp_path: Path, unit: str, chosen: tuple[str, ...]) -> None:
    """Of each process, with whatever profiles and TCP: what it does not need of the host is closed to it."""
    assert exposure(installed(tmp_path, unit, chosen)) <= EXPOSURE


@pytest.mark.parametrize("unit", [FRONT, OPENER])
def test_a_planted_hole_is_seen(tmp_path: Path, unit: str) -> None:
    hardening = re.compile(r"^(Protect|Private|Restrict|SystemCall|Capability)\w+=.*\n", re.MULTILINE)
    text = hardening.sub("", (SYSTEMD / unit).read_text())
    assert exposure(installed(tmp_path, unit, text=text)) > EXPOSURE


@pytest.mark.parametrize(
    ("unit", "drop_in"), [(unit, name) for unit in (FRONT, OPENER) for name in drop_ins(unit)]
)
def test_a_drop_in_adds_what_it_says(tmp_path: Path, unit: str, drop_in: str) -> None:
    """A drop-in that systemd does not read would leave the score as it is."""
    plain, more = tmp_path / "plain", tmp_path / "more"
    plain.mkdir()
    more.mkdir()
    assert exposure(installed(more, unit, (drop_in,))) > exposure(installed(plain, unit))


@pytest.mark.parametrize("unit", [FRONT, OPENER])
def test_what_locking_in_calls_is_allowed_after_all_that_forbids_it(unit: str) -> None:
    """The calls are in @privileged, or in no group: a later line that takes that away takes them away too."""
    lines = [
        line for line in (SYSTEMD / unit).read_text().splitlines() if line.startswith("SystemCallFilter=")
    ]
    assert lines[:2] == ["SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources"]
    (last,) = lines[2:]
    assert {"bpf", "capset", "seccomp", "landlock_restrict_self"} <= set(last.partition("=")[2].split())


def settings(path: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE)


def test_the_front_has_no_capability_in_any_drop_in() -> None:
    for path in (SYSTEMD / FRONT, *(SYSTEMD / f"{FRONT}.d").glob("*.conf")):
        given = [
            value
            for name, value in settings(path)
            if name in {"CapabilityBoundingSet", "AmbientCapabilities"}
        ]
        assert "".join(given) == "", path


def test_each_profile_of_the_opener_is_that_of_the_table() -> None:
    """The drop-in, the configuration and the table speak of one set of capabilities."""
    base = {"CAP_BPF"}
    assert set(drop_ins(OPENER)) == set(PROFILES) - {"minimal"}
    assert dict(settings(SYSTEMD / OPENER))["AmbientCapabilities"] == "CAP_BPF"
    for name in drop_ins(OPENER):
        found = dict(settings(SYSTEMD / f"{OPENER}.d" / f"{name}.conf"))
        assert base | set(found["AmbientCapabilities"].split()) == PROFILES[name]
        assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"]


def test_both_units_speak_of_one_socket_that_the_front_alone_may_connect_to() -> None:
    socket = dict(settings(SYSTEMD / SOCKET))
    front = dict(settings(SYSTEMD / FRONT))
    assert front["ExecStart"].endswith(f"serve --opener {socket['ListenSequentialPacket']}")
    assert (socket["SocketUser"], socket["SocketMode"], socket["Accept"]) == (front["User"], "0600", "yes")


def test_every_capability_has_its_reason() -> None:
    """deploy/README.md explains each capability that any unit file gives, and no unit gives others."""
    given = {
        capability
        for path in SYSTEMD.rglob("*.*")
        if path.is_file()
        for name, value in settings(path)
        if name in {"AmbientCapabilities", "CapabilityBoundingSet"}
        for capability in value.split()
    }
    explained = set(re.findall(r"^\| `(CAP_\w+)`", (DEPLOY / "README.md").read_text(), re.MULTILINE))
    assert given == explained


def test_every_line_has_its_reason() -> None:
    """A line whose reason nobody knows is the first to go when something does not work."""
    readme = (DEPLOY / "README.md").read_text()
    names = {
        name
        for path in SYSTEMD.rglob("*.*")
        if path.is_file()
        for name, _ in settings(path)
        if name not in {"Description", "WantedBy"}
    }
    assert {name for name in names if f"`{name}" not in readme} == set()


def test_the_users_are_made_and_own_their_folders(tmp_path: Path) -> None:
    """Units, sysusers and tmpfiles must speak of the same users."""
    made = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", DEPLOY / "sysusers.d" / "mapd.conf")
    for unit, user in ((FRONT, "mapd"), (OPENER, "mapd-opener")):
        assert f"Creating user '{user}'" in made.stdout + made.stderr
        assert f"\nUser={user}\nGroup={user}\n" in (SYSTEMD / unit).read_text()
    tmpfiles = (DEPLOY / "tmpfiles.d" / "mapd.conf").read_text()
    assert "\nd /sys/fs/bpf/mapd 0700 mapd-opener mapd-opener -\n" in tmpfiles
    assert (config.Config().daemon.user, config.Config().opener.user) == ("mapd", "mapd-opener")


def test_the_folders_get_their_modes(tmp_path: Path) -> None:
    """Others must pass /sys/fs/bpf to reach their pins, and must not enter the daemon's folder."""
    bpffs = tmp_path / "sys" / "fs" / "bpf"
    bpffs.mkdir(parents=True)
    conf = tmp_path / "mapd.conf"
    text = (DEPLOY / "tmpfiles.d" / "mapd.conf").read_text()
    conf.write_text(re.sub(r"(root root|mapd-opener mapd-opener)", "- -", text))  # giving away needs root
    done = run("systemd-tmpfiles", "--create", f"--root={tmp_path}", conf)
    assert done.stderr == ""
    assert (bpffs.stat().st_mode & 0o7777, (bpffs / "mapd").stat().st_mode & 0o7777) == (0o711, 0o700)


def uncommented(text: str) -> str:
    return re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE)


def test_the_example_is_a_configuration() -> None:
    """As it is, it changes nothing; with every line switched on, it still is what the daemon does anyway."""
    text = (DEPLOY / "mapd.toml").read_text()
    assert config.parse(text, "mapd.toml").daemon == config.Config().daemon
    assert config.parse(uncommented(text), "mapd.toml") == config.Config()


def test_the_example_has_every_key() -> None:
    """A key that is not in the example is found by nobody."""
    shown = tomllib.loads(uncommented((DEPLOY / "mapd.toml").read_text()))
    assert shown == msgspec.json.decode(msgspec.json.encode(config.Config()))


def test_the_example_of_a_policy_can_be_used_and_changes_nothing() -> None:
    """As it is, it admits root alone; with every line switched on it still has no fault."""
    text = (DEPLOY / "policy.toml").read_text()
    found = policy_file.parse(text, "policy.toml")
    assert (found.members, found.rules) == (
        {"admin": replace(NOBODY_ELSE.members["admin"], line=found.members["admin"].line)},
        (),
    )
    shown = policy_file.parse(re.sub(r"^#(\w+ = |\[)", r"\1", text, flags=re.MULTILINE), "policy.toml")
    assert set(shown.members) == {"admin", "metrics"}
    assert len(shown.rules) == 1


def test_a_planted_other_default_is_found() -> None:
    planted = uncommented((DEPLOY / "mapd.toml").read_text()).replace("queue = 4096", "queue = 1")
    assert config.parse(planted, "planted") != config.Config()
