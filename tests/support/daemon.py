"""Daemons for tests: real ones, on private folders, as a process or in this process' loop."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mapd.config import Config, parse
from tests.support.bpffs import mounted_bpffs

SOURCE = Path(__file__).parents[2] / "src"
NOBODY = 65_534
START_S = 20.0


@dataclass(frozen=True, slots=True)
class Place:
    """Private folders of one daemon: runtime folder, bpffs, configuration.

    ``root`` is searchable by everybody, so that an unprivileged client can reach the socket.
    """

    root: Path
    bpffs: Path

    @property
    def runtime_dir(self) -> Path:
        return self.root / "run"

    @property
    def socket(self) -> Path:
        return self.runtime_dir / "admin" / "mapd.sock"

    @property
    def names(self) -> Path:
        """Where names are pinned."""
        return self.bpffs / "mapd"

    @property
    def policy(self) -> Path:
        """Who may do what."""
        return self.root / "policy.toml"

    def toml(self, users: Sequence[int] = (), extra: str = "", policy: str | None = None) -> str:
        """A configuration for this place. Writes its policy's file too.

        Args:
            policy: the whole text; without one the admin's socket admits ``users``, and there is nobody else.
        """
        self.policy.write_text(f"[principals.admin]\nusers = {list(users)}\n" if policy is None else policy)
        return (
            f"[daemon]\nruntime_dir = '{self.runtime_dir}'\nbpffs = '{self.bpffs}'\n"
            f"policy = '{self.policy}'\n"
            f"state_dir = '{self.root}/state'\npin_roots = ['{self.bpffs}']\nlog_format = 'json'\n"
            f"{extra}\n"
        )

    def config(self, users: Sequence[int] = (), extra: str = "", policy: str | None = None) -> Config:
        """The same, parsed."""
        return parse(self.toml(users, extra, policy), "test")


@contextlib.contextmanager
def private_place() -> Generator[Place]:
    """Folders and a bpffs of one's own; nothing of them is left."""
    with tempfile.TemporaryDirectory(prefix="mapd-test-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        mount = root / "bpffs"
        mount.mkdir()
        with mounted_bpffs(mount):
            yield Place(root, mount)


def fds_of(pid: int) -> list[str]:
    """What a process' descriptors point to, sorted."""
    found: list[str] = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return sorted(found)


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@dataclass(slots=True)
class DaemonProcess:
    """A running ``mapd serve``. Its words in ``log`` begin at ``log_begin``, behind those of earlier ones."""

    place: Place
    process: subprocess.Popen[bytes]
    log: Path
    log_begin: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def opener(self) -> int:
        """The pid of the child that opens maps for it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        (found,) = [one for one in children if b"openerprocess" in Path(f"/proc/{one}/cmdline").read_bytes()]
        return int(found)

    def fds(self) -> list[str]:
        """What its descriptors point to, sorted."""
        return fds_of(self.pid)

    def threads(self) -> int:
        return threads_of(self.pid)

    def stop(self, timeout: float = 15.0) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


def environment(**extra: str) -> Mapping[str, str]:
    """What a child needs to import the sources, and nothing that would change what it does."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1", **extra}


def spawn(
    place: Place,
    *,
    users: Sequence[int] = (),
    extra: str = "",
    policy: str | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = ("-m", "mapd"),
    options: Sequence[str] = (),
) -> DaemonProcess:
    """Start a daemon without waiting for it.

    Args:
        policy: the policy's whole text, instead of one by ``users``.
        prefix: a command to run it under (setpriv ...).
        program: what Python is to run.
        options: of ``mapd serve``.
    """
    file = place.root / "mapd.toml"
    file.write_text(place.toml(users, extra, policy))
    log = place.root / "daemon.log"
    with log.open("ab") as stream:
        begin = stream.tell()
        process = subprocess.Popen(
            [*prefix, sys.executable, *program, "serve", "--config", file, *options],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    return DaemonProcess(place, process, log, begin)


def wait_ready(daemon: DaemonProcess) -> None:
    """Wait until it says that it is ready, or fail with what it said."""
    with daemon.log.open() as log:
        log.seek(daemon.log_begin)
        said = ""
        pidfd = os.pidfd_open(daemon.pid)
        try:
            while '"event": "ready"' not in said:
                ended, _, _ = select.select([pidfd], [], [], 0.02)
                said += log.read()
                assert not ended or '"event": "ready"' in said, f"the daemon ended: {said}"
        finally:
            os.close(pidfd)


@contextlib.contextmanager
def daemon_process(
    place: Place,
    *,
    users: Sequence[int] = (),
    extra: str = "",
    policy: str | None = None,
    prefix: Sequence[str] = (),
    program: Sequence[str] = ("-m", "mapd"),
) -> Generator[DaemonProcess]:
    """A daemon that is ready; stopped at the end, killed if it does not stop."""
    daemon = spawn(place, users=users, extra=extra, policy=policy, prefix=prefix, program=program)
    try:
        wait_ready(daemon)
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGTERM)
            try:
                daemon.process.wait(15)
            except subprocess.TimeoutExpired:
                daemon.process.kill()
                daemon.process.wait()


@contextlib.contextmanager
def client_sources() -> Generator[Path]:
    """A copy of the client and its vocabulary that every uid can read: the only code it needs."""
    with tempfile.TemporaryDirectory(prefix="mapd-client-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        for package in ("mapd_client", "mapd_api"):
            shutil.copytree(SOURCE / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
        yield root


def spawn_unprivileged(
    sources: Path,
    code: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    user: int = NOBODY,
    group: int = NOBODY,
    groups: Sequence[int] = (),
    prefix: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Run Python code as another user, by default uid 65534 without groups, importing the client from ``sources``.

    Args:
        prefix: a command that runs it, still as root, and makes it ``user`` by itself.
    """
    supplementary = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    # Not by Popen's own user=, for which it forks, with gRPC's threads and handlers in this process.
    become = ("setpriv", f"--reuid={user}", f"--regid={group}", supplementary)
    return subprocess.Popen(
        [*(prefix or become), sys.executable, "-c", code, *arguments],
        env={**environment(), "PYTHONPATH": str(sources), "HOME": "/nonexistent", **(env or {})},
        cwd="/",
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
