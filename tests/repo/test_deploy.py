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
from tests.repo.sources import ROOT

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "mapd.service"
DROP_INS = sorted(path.stem for path in (DEPLOY / "systemd" / "mapd.service.d").glob("*.conf"))
COMBINATIONS = [c for n in range(len(DROP_INS) + 1) for c in itertools.combinations(DROP_INS, n)]

EXPOSURE = 2.5
"""What `systemd-analyze security` may say at most; 0 is best, an empty unit has 9.6."""


def run(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = shutil.which(str(command[0]))
    if program is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([program, *map(str, command[1:])], capture_output=True, text=True, check=check)


def installed(folder: Path, drop_ins: tuple[str, ...] = (), unit: str | None = None) -> Path:
    """A copy of the unit with drop-ins, whose program is one that every host has."""
    source = UNIT.read_text() if unit is None else unit
    copy = folder / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", source, flags=re.MULTILINE))
    (folder / "mapd.service.d").mkdir()
    for name in drop_ins:
        shutil.copy(DEPLOY / "systemd" / "mapd.service.d" / f"{name}.conf", folder / "mapd.service.d")
    return copy


def exposure(unit: Path) -> float:
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found.group(1))


@pytest.mark.parametrize("drop_ins", COMBINATIONS, ids="+".join)
def test_systemd_has_no_complaint(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    """What systemd does not understand, it ignores: a misspelt line would be no protection at all."""
    done = run("systemd-analyze", "verify", "--man=no", installed(tmp_path, drop_ins), check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_planted_misspelling_is_found(tmp_path: Path) -> None:
    unit = UNIT.read_text().replace("PrivateTmp=", "PrivateTemp=")
    done = run("systemd-analyze", "verify", "--man=no", installed(tmp_path, unit=unit), check=False)
    assert "PrivateTemp" in done.stderr


@pytest.mark.parametrize("drop_ins", COMBINATIONS, ids="+".join)
def test_the_exposure_is_low(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    """The daemon holds capabilities; what it does not need of the host is closed to it."""
    assert exposure(installed(tmp_path, drop_ins)) <= EXPOSURE


def test_a_planted_hole_is_seen(tmp_path: Path) -> None:
    hardening = re.compile(r"^(Protect|Private|Restrict|SystemCall|Capability)\w+=.*\n", re.MULTILINE)
    assert exposure(installed(tmp_path, unit=hardening.sub("", UNIT.read_text()))) > EXPOSURE


@pytest.mark.parametrize("drop_in", DROP_INS)
def test_a_drop_in_adds_what_it_says(tmp_path: Path, drop_in: str) -> None:
    """A drop-in that systemd does not read would leave the score as it is."""
    plain, more = tmp_path / "plain", tmp_path / "more"
    plain.mkdir()
    more.mkdir()
    assert exposure(installed(more, (drop_in,))) > exposure(installed(plain))


def test_bpf_is_allowed_after_all_that_forbids_it() -> None:
    """The call bpf is in @privileged: a later line that takes @privileged away takes bpf away too."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith("SystemCallFilter=")]
    assert lines == [
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallFilter=bpf",
    ]


def test_every_capability_has_its_reason() -> None:
    """deploy/README.md explains each capability that any unit file gives, and no unit gives others."""
    given = {
        capability
        for path in (DEPLOY / "systemd").rglob("*.*")
        if path.is_file()
        for line in path.read_text().splitlines()
        if line.startswith(("AmbientCapabilities=", "CapabilityBoundingSet="))
        for capability in line.partition("=")[2].split()
    }
    explained = set(re.findall(r"^\| `(CAP_\w+)`", (DEPLOY / "README.md").read_text(), re.MULTILINE))
    assert given == explained


def test_every_hardening_line_has_its_reason() -> None:
    """A line whose reason nobody knows is the first to go when something does not work."""
    readme = (DEPLOY / "README.md").read_text()
    service = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    settings = set(re.findall(r"^(\w+)=", service, re.MULTILINE))
    assert {name for name in settings if f"`{name}" not in readme} == set()


def test_the_user_is_made_and_owns_its_folder(tmp_path: Path) -> None:
    """Unit, sysusers and tmpfiles must speak of one user."""
    made = run("systemd-sysusers", "--dry-run", f"--root={tmp_path}", DEPLOY / "sysusers.d" / "mapd.conf")
    assert "Creating user 'mapd'" in made.stdout + made.stderr
    assert "\nUser=mapd\nGroup=mapd\n" in UNIT.read_text()
    assert "\nd /sys/fs/bpf/mapd 0700 mapd mapd -\n" in (DEPLOY / "tmpfiles.d" / "mapd.conf").read_text()


def test_the_folders_get_their_modes(tmp_path: Path) -> None:
    """Others must pass /sys/fs/bpf to reach their pins, and must not enter the daemon's folder."""
    bpffs = tmp_path / "sys" / "fs" / "bpf"
    bpffs.mkdir(parents=True)
    conf = tmp_path / "mapd.conf"
    text = (DEPLOY / "tmpfiles.d" / "mapd.conf").read_text()
    conf.write_text(re.sub(r"(root root|mapd mapd)", "- -", text))  # giving away needs root
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
