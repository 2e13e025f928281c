"""``mapd``: exit statuses and what is said where it cannot start. No daemon serves in these tests."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
import structlog

from mapd import cli, daemon
from mapd.config import Config
from mapd.launch import inside
from mapd_api import __version__
from mapd_api.contract import ContractError


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


def config(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "mapd.toml"
    file.write_text(text)
    # Two processes would lock this one in; tests/e2e/test_locked_in.py starts them.
    return ["serve", "--config", str(file), "--single-process"]


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 2), (["surf"], 2), (["serve", "--fast"], 2), (["--version"], 0)]
)
def test_a_wrong_command_line_is_status_2_and_a_question_0(arguments: list[str], status: int) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.run(arguments)
    assert caught.value.code == status


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run(["--version"])
    assert capsys.readouterr().out == f"mapd {__version__}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[daemon]\nfoo = 1", "unknown field `foo`"),
        ("[principals.admin]\nusers = ['alice']", "[principals] is read from the policy's file alone"),
    ],
)
def test_a_wrong_file_is_status_2(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(config(tmp_path, text)) == 2
    said = capsys.readouterr().err
    assert said.startswith("mapd: ")
    assert words in said


def test_a_file_that_is_not_there_is_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (None, "No such file or directory"),
        ("[principals.web]\nuser = 1\n", "unknown key 'user'"),
        (
            "[principals.web]\nusers = [0]\n[principals.ops]\nusers = ['root']\n",
            "uid 0 is [principals.web]'s already",
        ),
    ],
)
def test_a_policy_that_cannot_be_used_is_status_2_and_nothing_is_made(
    tmp_path: Path, policy: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.toml"
    if policy is not None:
        file.write_text(policy)
    text = f"[daemon]\nbackend = 'memory'\nruntime_dir = '{tmp_path}/run'\npolicy = '{file}'\n"
    assert cli.run(config(tmp_path, text)) == 2
    said = capsys.readouterr().err
    assert f"mapd: {file}" in said
    assert words in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bpffs", "words"),
    [
        ("here", "is not a bpffs, and names are pins: mount one (mount -t bpf bpf "),
        ("here/none", "here/none: No such file or directory; mount a bpffs there, or set [daemon] bpffs"),
    ],
)
def test_a_place_without_bpffs_is_status_1_with_the_line_that_mends_it(
    tmp_path: Path, bpffs: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    assert cli.run(config(tmp_path, f"[daemon]\nbpffs = '{tmp_path / bpffs}'")) == 1
    said = capsys.readouterr().err
    assert said.startswith("mapd: cannot start: ")
    assert words in said


def test_a_second_daemon_is_status_1_and_names_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def any_folder(_: object) -> str:
        return str(tmp_path)

    monkeypatch.setattr(daemon, "check_bpffs", any_folder)
    with (tmp_path / "mapd.lock").open("w") as lock:
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.run(config(tmp_path, f"[daemon]\nruntime_dir = '{tmp_path}'")) == 1
    assert f"another mapd serves here (pid {os.getpid()})" in capsys.readouterr().err


def test_a_contract_without_rights_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(_: object, *, until_stdin_ends: bool, isolation: None) -> None:
        assert isolation is None
        assert not until_stdin_ends
        raise ContractError("Lookup states no rights")

    monkeypatch.setattr(inside, "serve", serve)
    assert cli.run(config(tmp_path, "")) == 1
    assert capsys.readouterr().err == "mapd: cannot start: Lookup states no rights\n"


def test_a_clean_stop_is_status_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(_: object, *, until_stdin_ends: bool, isolation: None) -> None:
        assert isolation is None
        assert not until_stdin_ends

    monkeypatch.setattr(inside, "serve", serve)
    assert cli.run(config(tmp_path, "")) == 0


def test_the_command_line_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Config] = []

    async def serve(chosen: Config, *, until_stdin_ends: bool, isolation: None) -> None:
        assert isolation is None
        assert until_stdin_ends
        seen.append(chosen)

    monkeypatch.setattr(inside, "serve", serve)
    file = config(tmp_path, "[daemon]\nbackend = 'kernel'\nruntime_dir = '/other'\nbpffs = '/here'")
    said = ["--backend", "memory", "--runtime-dir", "/mine", "--until-stdin-ends"]
    assert cli.run([*file, *said]) == 0
    (chosen,) = seen
    assert (chosen.daemon.backend, chosen.daemon.runtime_dir) == ("memory", "/mine")
    assert chosen.daemon.bpffs == "/here"


def test_memory_is_never_chosen_by_itself() -> None:
    """A daemon that cannot reach the kernel must not pretend to."""
    assert Config().daemon.backend == "kernel"


def test_a_process_with_threads_is_not_locked_in_and_does_not_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This one has numpy, and grpc's threads: it must not come to serve with half a sandbox."""
    arguments = config(tmp_path, f"[daemon]\nbackend = 'memory'\nruntime_dir = '{tmp_path}/run'")
    assert cli.run(arguments[:-1]) == 1
    assert "is imported already, and its threads would stay free" in capsys.readouterr().err


def test_an_opener_without_a_connection_says_who_starts_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mapd.toml"
    file.write_text("")
    assert cli.run(["opener", "--config", str(file)]) == 1
    assert "`mapd serve` starts its own" in capsys.readouterr().err
