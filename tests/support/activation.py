"""Openers that somebody else starts, as mapd-opener.socket does, and a front without any right that uses them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.daemon import DaemonProcess, Place, daemon_process, environment

FRONT = 65_501


def openers_at(path: Path) -> list[int]:
    """Openers whose settings name the folder of that socket."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            line = (process / "cmdline").read_text()
            if "launch.openerprocess" in line and f'"bpffs":"{path.parent}' in line:
                found.append(int(process.name))
    return found


@contextlib.contextmanager
def activated_openers(place: Place) -> Generator[Path]:
    """Where an opener is started for each connection; none is behind the block, once their fronts have ended."""
    program = shutil.which("systemd-socket-activate")
    if program is None:
        pytest.skip("systemd-socket-activate is not installed")
    place.bpffs.chmod(0o711)
    path = place.root / "opener.sock"
    file = place.root / "opener.toml"
    file.write_text(place.toml())
    command = [
        program,
        "--accept",
        "--seqpacket",
        f"--listen={path}",
        *(f"--setenv={n}" for n in environment()),
    ]
    log = place.root / "opener.log"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            [*command, sys.executable, "-m", "mapd", "opener", "--config", str(file)],
            env=environment(),
            stderr=stream,
            stdout=stream,
        ) as process,
    ):
        try:
            until = time.monotonic() + 20
            while not path.exists():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until
                time.sleep(0.01)
            os.chown(path, FRONT, FRONT)
            yield path
        finally:
            process.terminate()


@contextlib.contextmanager
def front_at(place: Place, path: Path, extra: str = "") -> Generator[DaemonProcess]:
    """A front of the user FRONT, without any right, whose opener listens at ``path``."""
    for folder in (place.runtime_dir, place.root / "state"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, FRONT, FRONT)
    prefix = (
        "setpriv",
        f"--reuid={FRONT}",
        f"--regid={FRONT}",
        "--clear-groups",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
    )
    with daemon_process(place, extra=f"{extra}\n[opener]\nsocket = '{path}'\n", prefix=prefix) as daemon:
        yield daemon
