"""What befalls a daemon of two processes.

Either is killed or stopped, at random or at a point, and all is started again, as a supervisor would.
"""

from __future__ import annotations

import compileall
import os
import random
import select
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.reliability.kit import entry
from tests.reliability.kit.load import children, now
from tests.reliability.kit.points import POINTS, Rules
from tests.support.daemon import SOURCE, DaemonProcess, Place, spawn, wait_ready

POINT_S: Final = 2.0
"""A point that is not reached in so long is given up, and the process killed where it is."""

END_S: Final = 20.0

NTH: Final = {
    "decide": 20,
    "syscall": 60,
    "opener": 20,
    "audit": 60,
    "reply": 60,
    "control": 20,
    "answer": 20,
}
"""Up to which passing of a step's points is waited for: some tenths of a second of load."""


@dataclass(frozen=True, slots=True)
class Strike:
    """Something that was done to the daemon, and when (the clock of histories)."""

    what: str
    at: float


@dataclass(slots=True)
class Nemesis:
    """One daemon and what befalls it. Blocking; for one thread.

    Attributes:
        installed: the sources that it runs, compiled as an installed package is.
        strikes: so far.
    """

    place: Place
    installed: Path
    gate: socket.socket
    chance: random.Random
    extra: str = ""
    strikes: list[Strike] = field(default_factory=list[Strike])
    missed: Counter[str] = field(default_factory=Counter[str])
    _daemon: DaemonProcess | None = None
    _standing: socket.socket | None = None
    _supervised: bool = False

    @property
    def daemon(self) -> DaemonProcess:
        """The one that runs."""
        assert self._daemon is not None
        return self._daemon

    def start(self, rules: Rules | None = None) -> None:
        """Start it, without waiting until it is ready."""
        self._daemon = self._spawn(
            [f"{entry.GATE}={self.place.root / 'gate'}", f"{entry.VARIABLE}={(rules or Rules()).to_json()}"],
            program=[entry.__file__],
        )
        self._standing, _ = self.gate.accept()
        self._standing.settimeout(POINT_S)

    def start_supervised(self) -> None:
        """Start it under its own supervisor, which starts it again from now on. It has no points."""
        self._supervised = True
        self._daemon = self._spawn([], options=["--supervise"])

    def _spawn(
        self,
        variables: Sequence[str],
        *,
        program: Sequence[str] = ("-m", "mapd"),
        options: Sequence[str] = (),
    ) -> DaemonProcess:
        prefix = ["env", f"PYTHONPATH={self.installed}", *variables]
        return spawn(self.place, extra=self.extra, prefix=prefix, program=program, options=options)

    def wait_ready(self) -> None:
        """Wait until it serves."""
        wait_ready(self.daemon)

    def front(self) -> int:
        """The pid of the process that speaks to clients."""
        if not self._supervised:
            return self.daemon.pid
        (front,) = children(self.daemon.pid)
        return front

    def opener(self) -> int:
        """The pid of its opener."""
        for child in children(self.front()):
            with suppress(FileNotFoundError):
                if b"import main; main(" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        raise AssertionError(f"the daemon has no opener; its log: {self.daemon.log.read_text()[-2000:]}")

    def pause(self, least: float, most: float) -> None:
        """Let it serve for a random time; fails where it ends by itself meanwhile."""
        with process(self.front()) as pidfd:
            ended, _, _ = select.select([pidfd], [], [], self.chance.uniform(least, most))
        assert not ended, f"the daemon ended by itself: {self.daemon.log.read_text()[-2000:]}"

    def kill(self, what: str) -> None:
        """SIGKILL to the "front" or the "opener", and wait until the front has ended."""
        with process(self.front()) as pidfd:
            self._kill(what, "")
            ended, _, _ = select.select([pidfd], [], [], END_S)
        assert ended, f"the front outlives its opener by {END_S:g} s"
        if not self._supervised:
            self.daemon.process.wait()

    def _kill(self, what: str, point: str) -> None:
        victim = self.front() if what == "front" else self.opener()
        self.strikes.append(Strike(f"kill {what}{point}", now()))
        os.kill(victim, signal.SIGKILL)
        self._let_go()

    def kill_at_point(self, point: str, what: str) -> None:
        """The same when the process stands at the point that it was started with; where it is, if it never does."""
        assert self._standing is not None
        self._standing.send(b"!")
        try:
            said = self._standing.recv(64).decode().strip()
            assert said == point, f"{said!r}, and not {point!r}"
            point = f" {point}"
        except TimeoutError:
            self.missed[point] += 1
            point = ""
        self._kill(what, point)
        self.daemon.process.wait(END_S)

    def stand(self) -> str:
        """Wait until a thread stands at the point that the daemon was started with; which it is."""
        assert self._standing is not None
        self._standing.send(b"!")
        return self._standing.recv(64).decode().strip()

    def stop(self, what: str, seconds: float) -> None:
        """SIGSTOP to the "front" or the "opener", and SIGCONT after so long."""
        victim = self.front() if what == "front" else self.opener()
        self.strikes.append(Strike(f"stop {what}", now()))
        os.kill(victim, signal.SIGSTOP)
        try:
            self.pause(seconds, seconds)
        finally:
            os.kill(victim, signal.SIGCONT)

    def _let_go(self) -> None:
        """Whoever stands at a point goes on."""
        if self._standing is not None:
            with suppress(OSError):
                self._standing.send(b".")
            self._standing.close()
            self._standing = None

    def end(self) -> None:
        """SIGTERM, and SIGKILL to what does not end by it."""
        self._let_go()
        if self._daemon is None or self._daemon.process.poll() is not None:
            return
        running = self._daemon.process
        running.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(END_S)
        if running.poll() is None:
            running.kill()
            running.wait()

    def any_point(self) -> Rules:
        """Rules for a random point, at a random passing."""
        point = self.chance.choice(POINTS)
        return Rules(point=point, nth=self.chance.randint(1, NTH[point.split()[1]]))


@contextmanager
def process(pid: int) -> Generator[int]:
    """A descriptor of a process, which is readable once it has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


@contextmanager
def unleashed(place: Place, seed: int) -> Generator[Nemesis]:
    """A nemesis without a daemon yet; nothing of what it starts is left."""
    installed = place.root / "installed"
    for package in ("mapd", "mapd_api"):
        shutil.copytree(SOURCE / package, installed / package, ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(installed, quiet=2)
    audit = place.root / "audit"
    audit.mkdir()
    with socket.socket(socket.AF_UNIX) as gate:
        gate.bind(str(place.root / "gate"))
        gate.listen(1)
        gate.settimeout(END_S)
        nemesis = Nemesis(
            place=place,
            installed=installed,
            gate=gate,
            chance=random.Random(seed),  # noqa: S311 - of faults, not of secrets
            extra=f"[audit]\npath = '{audit}/audit.log'\n",
        )
        try:
            yield nemesis
        finally:
            nemesis.end()
