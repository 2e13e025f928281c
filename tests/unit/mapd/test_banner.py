"""What a person who starts the daemon by hand is told: where it is, what it can reach, what not and why."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from mapd.banner import banner, not_visible, text, visible
from mapd.config import Config, parse
from mapd.rpc.server_info import Facts, profile_of

SOCKET = Path("/run/mapd/admin/mapd.sock")
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
    config = parse("[principals.admin]\nnamespace = 'ops'\nusers = ['alice', 7]\ngroups = ['net']", "test")
    said = text(config, FACTS, SOCKET, BPF)
    assert "profile minimal" in said.splitlines()[0]
    assert "  socket       /run/mapd/admin/mapd.sock" in said
    assert "kernel, Linux 6.18.0, 2 possible CPUs" in said
    assert "/sys/fs/bpf/mapd/<namespace>/<name>, namespace ops unless given" in said
    assert "user alice, user 7, group net" in said
    assert "[principals.admin] users = " in said


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
    said = text(Config(), replace(FACTS, backend="memory"), SOCKET, ROOT)
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
    banner(parse(f"[daemon]\nlog_format = '{style}'", "test"), FACTS, SOCKET, BPF)
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
