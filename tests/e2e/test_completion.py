"""Completion in real shells: verbs, options, and the names of maps that the daemon has; silent where there is none."""

from __future__ import annotations

import io
import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from mapd_client import connect
from mapd_client.cli.app import run
from mapd_client.codec import U32, U64
from tests.support.daemon import DaemonProcess, daemon_process, private_place

_BASH = """
source "$0"
COMP_WORDS=("$@")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
COMPREPLY=()
_mapctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
_FISH = 'source "$argv[1]"; complete --do-complete "$argv[2]"'
_ZSH_READY = "ready-to-complete"
_ZSH = f"""PS1=; unsetopt beep; fpath=($FOLDER $fpath)
autoload -Uz compinit; compinit -D -u; echo {_ZSH_READY[:5]}""{_ZSH_READY[5:]}
"""
_SHELLS = ("bash", "zsh", "fish")
_LONG_S = 20
_PRESSES = 5
_PRESS_S = 4


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a mapctl and what it prints for each shell."""
    made = tmp_path_factory.mktemp("completion")
    script = made / "mapctl"
    script.write_text(f"#!{sys.executable}\nfrom mapd_client.cli import main\nmain()\n")
    script.chmod(0o755)
    for shell in _SHELLS:
        printed = io.TextIOWrapper(io.BytesIO())
        with redirect_stdout(printed):
            assert run(["completion", shell]) == 0
        printed.seek(0)
        (made / ("_mapctl" if shell == "zsh" else shell)).write_text(printed.read())
    return made


@pytest.fixture
async def maps(served: DaemonProcess) -> str:
    """The address of a daemon that has some."""
    address = str(served.place.socket)
    async with connect(address) as client:
        for name in ("flows", "flags", "hits"):
            made = await client.create_map(name, "hash", key=U32, value=U64, max_entries=8, exist_ok=True)
            await made.aclose()
    return address


def _environ(folder: Path, **more: str) -> dict[str, str]:
    own = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": f"{folder}:{os.environ['PATH']}"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAPD_")}
    return {**kept, "HOME": str(folder), "FOLDER": str(folder), **own, **more}


def _said(folder: Path, *command: str, **environ: str) -> list[str]:
    done = subprocess.run(
        command, capture_output=True, env=_environ(folder, **environ), check=False, text=True
    )
    assert not done.stderr
    return done.stdout.split("\n")[:-1]


def _bash(folder: Path, *words: str, **environ: str) -> list[str]:
    return _said(folder, "bash", "--norc", "-c", _BASH, str(folder / "bash"), "mapctl", *words, **environ)


def _pressed(complete: Callable[[], list[str]]) -> list[str]:
    """What is completed where there are maps.

    The shell waits half a second for the daemon's answer, which on a busy machine may come later: then a person presses
    the key again.
    """
    found: list[str] = []
    for _ in range(_PRESSES):
        if any(found := complete()):
            break
    return found


def test_bash_completes_verbs_and_options(folder: Path) -> None:
    assert {"lookup", "list"} <= set(_bash(folder, "l"))
    assert "--partial-ok" in _bash(folder, "dump", "flows", "--par")


def test_bash_completes_the_maps_that_are_there(maps: str, folder: Path) -> None:
    own = _pressed(lambda: _bash(folder, "dump", "fl", MAPD_ADDRESS=maps))
    assert own == ["flags", "flows"], "of one's own namespace"
    named = _pressed(lambda: _bash(folder, "--address", maps, "lookup", "hi"))
    assert named == ["hits"], "of the daemon that the line names"


@pytest.mark.parametrize("address", ["/nowhere/mapd.sock", "no address"])
def test_without_a_daemon_nothing_is_completed_and_nothing_is_said(folder: Path, address: str) -> None:
    assert _bash(folder, "dump", "", MAPD_ADDRESS=address) == [""]


def test_contexts_are_completed(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text('[contexts.prod]\naddress = "/x"\n[contexts.test]\naddress = "/y"\n')
    assert _bash(folder, "context", "use", "p", MAPD_CONFIG=str(config)) == ["prod"]
    config.write_text("contexts = 7")
    assert _bash(folder, "context", "use", "", MAPD_CONFIG=str(config)) == [""]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_the_maps_that_are_there(maps: str, folder: Path) -> None:
    command = ("fish", "--no-config", "-c", _FISH, str(folder / "fish"), "mapctl dump fl")
    found = _pressed(lambda: _said(folder, *command, MAPD_ADDRESS=maps))
    assert [line.split("\t")[0] for line in found] == ["flags", "flows"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_the_maps_that_are_there(maps: str, folder: Path) -> None:
    ours, theirs = pty.openpty()
    environ = _environ(folder, MAPD_ADDRESS=maps, TERM="dumb")
    with subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    ) as shell:
        os.close(theirs)
        try:
            os.write(ours, _ZSH.encode())
            assert _read_until(ours, _ZSH_READY)
            os.write(ours, b"mapctl dump fla")
            assert _read_until(ours, "mapctl dump fla")
            assert _pressed(lambda: _typed(ours, b"\t", "gs "))
        finally:
            shell.kill()
            os.close(ours)


def _typed(terminal: int, keys: bytes, due: str) -> list[str]:
    os.write(terminal, keys)
    return [due] if _read_until(terminal, due, _PRESS_S) else []


def _read_until(terminal: int, text: str, within_s: float = _LONG_S) -> bool:
    """Whether it is there before nothing comes for so long."""
    seen = b""
    while text.encode() not in seen:
        if not select.select([terminal], [], [], within_s)[0]:
            print(f"{text!r} not seen in {seen!r}")
            return False
        seen += os.read(terminal, 4_096)
    return True
