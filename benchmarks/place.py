"""Where it is measured: folders and a bpffs of one's own, the daemon in profile minimal, clients without rights."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TREE: Final = Path(__file__).resolve().parents[1]
CLIENT_ID: Final = 65_534
DAEMON_ID: Final = 65_533
"""User and group; any that owns nothing else."""

TIED: Final = ("setpriv", "--pdeathsig", "KILL")
"""Children end with the benchmark, even if it is killed."""

START_S: Final = 30.0
STOP_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Place:
    """Folders that every user may enter; the daemon owns those that it writes to."""

    root: Path

    @property
    def socket(self) -> Path:
        """Where the daemon listens."""
        return self.root / "run" / "admin" / "mapd.sock"

    def pin(self, name: str) -> Path:
        """Where the map of that name is pinned."""
        return self.root / "bpffs" / "mapd" / "admin" / name

    def compile(self) -> None:
        """As installed packages are: a command's start does not compile its modules."""
        subprocess.run([sys.executable, "-m", "compileall", "-q", self.root / "code"], check=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process that imports the copied sources needs."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(self.root / "code"), "PYTHONDONTWRITEBYTECODE": "1"}


@contextlib.contextmanager
def private_place() -> Generator[Place]:
    """Nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="mapd-bench-") as name:
        root = Path(name)
        root.chmod(0o755)
        for package in ("src/mapd", "src/mapd_api", "src/mapd_client", "benchmarks"):
            source = TREE / package
            shutil.copytree(source, root / "code" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        bpffs = root / "bpffs"
        bpffs.mkdir()
        subprocess.run(["mount", "-t", "bpf", "-o", "mode=0755", "mapd-bench", bpffs], check=True)
        try:
            for folder in (bpffs / "mapd", root / "run", root / "state"):
                folder.mkdir()
                os.chown(folder, DAEMON_ID, DAEMON_ID)
            config = root / "mapd.toml"
            config.write_text(
                f"[daemon]\nruntime_dir = '{root}/run'\nstate_dir = '{root}/state'\nbpffs = '{bpffs}'\n"
                f"pin_roots = ['{bpffs}']\nlog_format = 'json'\npolicy = '{root}/policy.toml'\n"
            )
            (root / "policy.toml").write_text(f"[principals.admin]\nusers = [{CLIENT_ID}]\n")
            yield Place(root)
        finally:
            subprocess.run(["umount", "--lazy", bpffs], check=True)


def rights(user: int, *capabilities: str) -> Sequence[str]:
    """A command's beginning: run it as that user, with these capabilities and no others."""
    these = ",".join(("-all", *(f"+{name}" for name in capabilities)))
    return (
        *(*TIED, f"--reuid={user}", f"--regid={user}", "--clear-groups"),
        *(f"--inh-caps={these}", f"--ambient-caps={these}", f"--bounding-set={these}"),
    )


@contextlib.contextmanager
def daemon(place: Place) -> Generator[int]:
    """``mapd serve`` with CAP_BPF alone, ready; its process id. Maps outlive it, for they are pins."""
    log = place.root / "daemon.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                *(*rights(DAEMON_ID, "bpf"), sys.executable, "-m", "mapd"),
                *("serve", "--config", str(place.root / "mapd.toml")),
            ],
            env=place.environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        _wait_ready(process, log)
        yield process.pid
    finally:
        end(process)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    pidfd = os.pidfd_open(process.pid)
    try:
        while '"event": "ready"' not in log.read_text():
            ended, _, _ = select.select([pidfd], [], [], 0.02)
            if ended or time.monotonic() > deadline:
                raise SystemExit(f"the daemon did not start:\n{log.read_text()}")
    finally:
        os.close(pidfd)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that does not end it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
