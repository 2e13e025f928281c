"""``mapd doctor``: what it says of rights, folders and types, on hosts of all kinds."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapd import cli
from mapd.bpf import NextMapId
from mapd.bpf.faulty import Fault, FaultyKernel
from mapd.config import DaemonConfig
from mapd.doctor import host, report
from mapd.doctor.attempts import ProfileReport
from mapd.doctor.host import Check, can_serve
from mapd.doctor.report import Report, text
from mapd.maps.hostfacts import HostFacts
from mapd.maps.trials import Answer, Trial
from mapd.maps.types import TYPES
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.unit.mapd.dictkernel import DictKernel

OK = Trial(answer=Answer.OK)


def found(*checks: Check, **trials: Trial) -> Report:
    """A report on a host whose kernel has everything but what ``trials`` say, by type."""
    every = {number: trials.get(MapType(number).name, OK) for number in TYPES}
    return Report(
        version="1",
        kernel="Linux 6.18.0",
        machine="x86_64",
        possible_cpus=2,
        uid=0,
        profile="minimal",
        can_serve=can_serve(checks),
        checks=checks,
        types=report.types(every),
    )


def a_line(said: str, begin: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith(f"{begin} ")]
    return " ".join(line.split())


def test_every_type_has_a_line_with_what_can_be_asked_of_it() -> None:
    said = text(found())
    every = "lookup update delete lookup_and_delete atomics compare_update dump load count freeze"
    assert f"hash ok {every}" in " ".join(said.split())
    for kind in TYPES:
        assert a_line(said, MapType(kind).name.lower())
    assert f"can create {len(TYPES)} of {len(TYPES)} map types" in said


def test_no_line_is_longer_than_100_columns() -> None:
    trial = Trial(answer=Answer.UNKNOWN, errno="EPERM")
    said = text(found(**{MapType(kind).name: trial for kind in TYPES}))
    assert max(map(len, said.splitlines())) <= 100


def test_want_of_rights_names_the_capabilities_and_is_not_called_unsupported() -> None:
    said = text(found(SOCKMAP=Trial(answer=Answer.UNKNOWN, errno="EPERM")))
    assert a_line(said, "sockmap").startswith("sockmap unknown lookup delete")
    assert (
        "AmbientCapabilities=CAP_BPF CAP_NET_ADMIN in the opener's unit, or start as root [EPERM]"
        in " ".join(said.split())
    )
    assert "somebody else has created" in said


def test_a_type_that_the_kernel_lacks_asks_for_another_kernel() -> None:
    said = text(found(ARENA=Trial(answer=Answer.REFUSED, errno="EINVAL")))
    assert "a kernel that has this type [EINVAL]" in said


def test_an_operation_that_the_kernel_lacks_is_not_offered_and_named() -> None:
    said = text(found(HASH=Trial(answer=Answer.OK, lacks=frozenset({Op.LOOKUP_AND_DELETE}))))
    assert "lookup_and_delete" not in a_line(said, "hash")
    assert "not on this kernel: lookup_and_delete" in said


def test_the_reason_of_what_is_not_offered_is_told() -> None:
    assert "a socket cannot be named over RPC" in text(found())


def test_a_host_where_no_daemon_can_start_says_what_mends_it() -> None:
    missing = Check(name="bpffs", ok=False, needed=True, found="/x: another file system", fix="mount it")
    said = text(found(missing))
    assert said.splitlines()[-1] == "  /x: another file system; mount it"
    assert a_line(said, "bpffs") == "bpffs MISSING /x: another file system"


def test_what_is_not_needed_keeps_no_daemon_from_starting() -> None:
    assert can_serve([Check(name="cap_bpf", ok=False, found="create maps", fix="give it")])


def test_rights_are_told_one_by_one() -> None:
    checks = [host.right(name, why, frozenset({"CAP_BPF"})) for name, why in host.RIGHTS]
    assert [check.name for check in checks if check.ok] == ["cap_bpf"]
    assert all(check.fix for check in checks if not check.ok)


def test_ids_need_a_right() -> None:
    refusing = FaultyKernel(DictKernel(), Fault(target=NextMapId, errno=errno.EPERM))
    check = host.ids(refusing)
    assert (check.ok, check.found) == (False, "refused [EPERM]")
    assert "CAP_SYS_ADMIN" in check.fix


def test_folders_that_are_missing_say_how_they_are_made(tmp_path: Path) -> None:
    config = DaemonConfig(bpffs=str(tmp_path), runtime_dir=str(tmp_path / "run" / "mapd"))
    (mount,) = host.bpffs(config)
    assert (mount.ok, mount.fix) == (False, f"mount -t bpf bpf {tmp_path}, or set [daemon] bpffs")
    assert "below" in host.runtime_dir(config).found
    assert not host.pin_root(str(tmp_path / "none")).ok
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").touch()
    assert not host.runtime_dir(config).ok


def test_json_is_the_same_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = found()
    monkeypatch.setattr(report, "examine", lambda _: made)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]  # any configuration
    file = tmp_path / "mapd.toml"
    file.touch()
    assert cli.run(["doctor", "--json", "--config", str(file)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["can_serve"] is True
    assert {one["type"]: one["create"] for one in said["types"]}["arena"] == "ok"
    assert cli.run(["doctor", "--config", str(file)]) == 0
    assert capsys.readouterr().out == text(made) + "\n"


# ---- what keeps the processes in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "ok"), [(0, False), (3, False), (6, True), (7, True)])
def test_what_landlock_lacks_is_said(version: int, ok: bool) -> None:
    check = host.landlock(version)
    assert (check.ok, bool(check.fix), check.needed) == (ok, not ok, False)
    assert ("signals" in check.found) == (version == 3)


def test_users_that_are_missing_say_the_line_that_makes_them() -> None:
    assert host.user("root").ok
    assert host.user(65_501).ok
    check = host.user("no-such-user")  # one that is named keeps the daemon from starting
    assert (check.ok, check.needed) == (False, True)
    assert check.found == "no such user: the daemon does not start"
    assert not host.user("mapd").needed
    assert "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user" in check.fix
    assert not host.user(-1).ok


def profile(name: str, **changes: Any) -> ProfileReport:
    plain: dict[str, Any] = {
        "profile": name,
        "capabilities": ["CAP_BPF"],
        "gives": "own maps",
        "creates": ["hash"],
        "refused": {"devmap": "EPERM"},
        "ids": False,
        "pins": "pins whose modes admit the opener's user",
        "tried": True,
        "why": "",
        "fix": f"profile = {name}",
    }
    return ProfileReport(**{**plain, **changes})


def test_each_profile_says_what_it_makes_and_what_would_mend_the_rest() -> None:
    said = " ".join(text(replace(found(), profiles=[profile("minimal")])).split())
    assert "minimal own maps (CAP_BPF) creates 1 of 2 types; no maps by id" in said
    assert "not created: devmap [EPERM]; profile network creates those with EPERM" in said
    assert "to have it: profile = minimal" in said


def test_a_profile_that_could_not_be_tried_says_why() -> None:
    missing = profile("network", tried=False, why="this process has no CAP_BPF", creates=[], refused={})
    said = " ".join(text(replace(found(), profiles=[missing])).split())
    assert "not tried: this process has no CAP_BPF" in said
    assert "no maps by id" not in said


def test_what_clients_can_be_told_of_the_host_is_a_line_with_what_they_cannot(tmp_path: Path) -> None:
    seen = host.host_facts(HostFacts(cgroup_mount=str(tmp_path)))
    assert (seen.ok, seen.needed) == (False, False)
    assert "its clocks, network devices: " in seen.found
    assert seen.found.endswith("cgroups: 1")
    assert "a part of the tree" in seen.fix
    assert "no cgroup2 file system" in host.host_facts(HostFacts(cgroup_mount="")).fix
