"""What a person who starts the daemon by hand is told: where it is, what it can reach, what not and why."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from mapd.access.policy.file import parse as parse_policy
from mapd.access.policy.holder import NOBODY_ELSE
from mapd.banner import SHOWN, banner, not_visible, text, visible
from mapd.config import Config, parse
from mapd.isolation import Isolation
from mapd.rpc.server_info import Facts, profile_of

FACTS = Facts(
    epoch="1f",
    boot_id=uuid.UUID(int=7),
    node="host",
    kernel_release="6.18.0",
    possible_cpus=2,
    profile="minimal",
    backend="kernel",
    pin_root="/sys/fs/bpf/mapd",
    features=(),
)
BPF = frozenset({"CAP_BPF"})
ROOT = BPF | {"CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"}


def test_it_says_socket_backend_names_and_who_is_admitted() -> None:
    policy = parse_policy(
        "[principals.admin]\nnamespace = 'ops'\nusers = ['alice', 7]\ngroups = ['net']\n"
        "[principals.box]\ngrant = 'mount'\n[[rules]]\nwho = ['box']\nrole = 'viewer'\nnames = ['box/*']\n",
        "/etc/mapd/policy.toml",
    )
    said = text(Config(), FACTS, policy, BPF)
    assert "profile minimal" in said.splitlines()[0]
    (admin,) = (line for line in said.splitlines() if "/run/mapd/admin/mapd.sock: root" in line)
    assert admin.endswith("user alice, user 7, group net")
    (box,) = (line for line in said.splitlines() if "/run/mapd/box/mapd.sock: root" in line)
    assert box.endswith("whoever has the folder mounted")
    assert f"  policy       /etc/mapd/policy.toml, version {policy.version}: 1 rule\n" in said
    assert "kernel, Linux 6.18.0, 2 possible CPUs" in said
    assert "/sys/fs/bpf/mapd/<namespace>/<name>, the admin's namespace ops unless given" in said
    assert "[principals.admin] users = " in said


def test_without_a_policys_file_it_says_that_there_is_the_admin_alone() -> None:
    said = text(Config(), FACTS, NOBODY_ELSE, BPF)
    assert "  policy       none, there is no /etc/mapd/policy.toml: admin alone\n" in said
    assert said.count("mapd.sock") == 1


def test_where_tcp_listens_it_says_whose_certificates_are_taken() -> None:
    policy = parse_policy(
        "[principals.web]\ntls = ['spiffe://example.org/web']\n[principals.box]\n", "p.toml"
    )
    said = text(Config(), FACTS, policy, BPF, tcp=["10.0.0.1:7443", "[::1]:7443"])
    assert "  tcp          10.0.0.1:7443, [::1]:7443: web (spiffe://example.org/web)\n" in said


def test_where_tcp_listens_for_nobody_it_says_how_somebody_is_admitted() -> None:
    said = text(Config(), FACTS, parse_policy("[principals.box]\n", "p.toml"), BPF, tcp=["10.0.0.1:7443"])
    assert "nobody yet: [principals.NAME] tls = " in said


def test_without_tcp_it_does_not_speak_of_it() -> None:
    assert "  tcp " not in text(Config(), FACTS, NOBODY_ELSE, BPF)


def test_of_many_principals_it_shows_a_few_and_counts_the_rest() -> None:
    policy = parse_policy("".join(f"[principals.p{number}]\n" for number in range(40)), "p.toml")
    said = text(Config(), FACTS, policy, BPF)
    assert said.count("mapd.sock") == SHOWN
    assert f"  socket       and {41 - SHOWN} more\n" in said


def test_a_daemon_with_all_rights_sees_all_and_misses_nothing() -> None:
    assert visible(Config(), FACTS, ROOT) == [
        "maps by name",
        "every pin below /sys/fs/bpf",
        "every map of the host by id",
    ]
    assert not_visible(FACTS, ROOT) == []


def test_a_daemon_with_cap_bpf_says_what_it_cannot_see() -> None:
    assert visible(Config(), FACTS, BPF)[1] == "pins below /sys/fs/bpf whose modes admit mapd"
    (line,) = not_visible(FACTS, BPF)
    assert "CAP_SYS_ADMIN" in line


def test_a_daemon_without_rights_says_what_mends_that() -> None:
    assert any("AmbientCapabilities=CAP_BPF" in line for line in not_visible(FACTS, frozenset()))


def test_a_daemon_in_memory_says_so_and_that_no_program_sees_its_maps() -> None:
    said = text(Config(), replace(FACTS, backend="memory"), NOBODY_ELSE, ROOT)
    assert "memory: maps of this daemon alone, which end with it; for tests" in said
    assert "any map of the kernel, for any program" in said
    assert "CAP_" not in said
    assert "Linux" not in said


@pytest.mark.parametrize(
    ("style", "printed"), [("console", True), ("json", False), ("auto", False)]
)  # fmt: skip
def test_it_is_for_people_not_for_readers_of_json(
    style: str, printed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    banner(parse(f"[daemon]\nlog_format = '{style}'", "test"), FACTS, NOBODY_ELSE, BPF)
    assert ("mapd.sock" in capsys.readouterr().err) is printed


@pytest.mark.parametrize(
    ("capabilities", "profile"),
    [
        (frozenset[str](), "none"),
        (frozenset({"CAP_DAC_OVERRIDE"}), "none"),
        (BPF, "minimal"),
        (BPF | {"CAP_DAC_READ_SEARCH"}, "pins-ro"),
        (BPF | {"CAP_DAC_READ_SEARCH", "CAP_DAC_OVERRIDE"}, "pins-rw"),
        (BPF | {"CAP_NET_ADMIN"}, "network"),
        (BPF | {"CAP_NET_ADMIN", "CAP_DAC_READ_SEARCH"}, "pins-ro"),
        (BPF | {"CAP_NET_ADMIN", "CAP_DAC_OVERRIDE"}, "pins-rw"),
        (ROOT, "inspector"),
        (frozenset({"CAP_SYS_ADMIN"}), "inspector"),
    ],
)
def test_the_profile_is_the_most_that_the_capabilities_give(
    capabilities: frozenset[str], profile: str
) -> None:
    assert profile_of(capabilities) == profile


def test_one_process_is_said_to_be_for_debugging_and_two_how_they_are_locked_in() -> None:
    assert "--single-process" in text(Config(), FACTS, NOBODY_ELSE, BPF)
    apart = Isolation(
        kernel=None,
        capabilities=BPF,
        names_root="/sys/fs/bpf/mapd",
        names_owner=0,
        lines=("this process: uid 1, no capability", "opener: uid 2, CAP_BPF", "ONE USER: useradd mapd"),
        missing=("landlock: TCP ports (Linux 6.7)",),
    )
    said = text(Config(), FACTS, NOBODY_ELSE, BPF, apart)
    assert "--single-process" not in said
    rows = [line.split("processes")[1].strip() for line in said.splitlines() if "processes" in line]
    assert rows == [*apart.lines, "missing: landlock: TCP ports (Linux 6.7)"]
