"""``mapd serve --supervise``: the front or the opener dying alone brings both back, and no map is lost."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

import mapd_client
from mapd.launch.supervisor import LONGEST_PAUSE_S, QUICK, WINDOW_S, Restarts
from mapd_client import U32
from tests.support.daemon import Place, daemon_process, environment


def children(pid: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


@dataclass(frozen=True)
class Supervised:
    """A supervisor and what it has started."""

    place: Place
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def front(self) -> int:
        (found,) = children(self.process.pid)
        return found

    @property
    def opener(self) -> int:
        found = [
            one
            for one in children(self.front)
            if b"openerprocess" in Path(f"/proc/{one}/cmdline").read_bytes()
        ]
        return found[0]

    def lines(self, event: str) -> list[dict[str, object]]:
        """What was logged so."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found["event"] == event]

    def wait_ready(self, times: int = 1) -> None:
        """Until a daemon has been ready so often."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            while len(self.lines("ready")) < times:
                ended, _, _ = select.select([pidfd], [], [], 0.02)
                assert not ended, self.log.read_text()
        finally:
            os.close(pidfd)

    def wait(self) -> int:
        return self.process.wait(20)


@contextmanager
def supervised(place: Place, *options: str, extra: str = "") -> Generator[Supervised]:
    file, log = place.root / "mapd.toml", place.root / "supervised.log"
    file.write_text(place.toml(extra=extra))
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "mapd", "serve", "--supervise", "--config", file, *options],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
        )
    found = Supervised(place, process, log)
    try:
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        if process.stdin is not None:
            process.stdin.close()


async def fill(place: Place) -> str:
    """A map with an element; which start of the daemon made it."""
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.create_map("kept", "hash", key=U32, value=U32, max_entries=4) as opened,
    ):
        await opened.update(1, 11)
        return (await client.server_info()).epoch


async def read(place: Place) -> tuple[str, int | None]:
    """Which start of the daemon there is now, and the element."""
    async with (
        mapd_client.connect(str(place.socket), timeout=20) as client,
        client.open_map("kept", key=U32, value=U32) as opened,
    ):
        return (await client.server_info()).epoch, await opened.lookup(1)


@pytest.mark.parametrize("victim", ["front", "opener"])
def test_one_that_dies_alone_brings_both_back_with_every_map(place: Place, victim: str) -> None:
    with supervised(place) as found:
        found.wait_ready()
        first = asyncio.run(fill(place))
        front, opener = found.front, found.opener
        os.kill(front if victim == "front" else opener, signal.SIGKILL)
        found.wait_ready(2)
        epoch, element = asyncio.run(read(place))
        assert epoch != first
        assert element == 11
        assert found.front != front
        assert found.opener != opener
        (line,) = found.lines("the daemon has ended; starting it again")
        assert line["status"] == (-signal.SIGKILL if victim == "front" else 3)
        assert line["logger"] == "mapd.supervisor"


def test_a_supervisor_that_is_killed_leaves_nobody_behind(place: Place) -> None:
    with supervised(place) as found:
        found.wait_ready()
        asyncio.run(fill(place))
        pidfds = [os.pidfd_open(one) for one in (found.front, found.opener)]
        os.kill(found.process.pid, signal.SIGKILL)
        found.process.wait(20)
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], 20)[0], "an orphan runs on"
            os.close(pidfd)
        assert not place.socket.exists()
        with daemon_process(place):  # nobody keeps the lock
            assert asyncio.run(read(place))[1] == 11


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_it_is_told_and_pins_stay(place: Place, number: signal.Signals) -> None:
    with supervised(place) as found:
        found.wait_ready()
        asyncio.run(fill(place))
        found.process.send_signal(number)
        assert found.wait() == 0
        assert (place.names / "admin" / "kept").exists()
        assert found.lines("stopped")
        assert not found.lines("the daemon has ended; starting it again")


def test_it_stops_when_its_standard_input_ends_where_it_shall(place: Place) -> None:
    with supervised(place, "--until-stdin-ends") as found:
        found.wait_ready()
        assert found.process.stdin is not None
        found.process.stdin.close()
        assert found.wait() == 0


def test_a_hangup_is_passed_on(place: Place) -> None:
    with supervised(place) as found:
        found.wait_ready()
        place.policy.write_text("[principals.admin]\nusers = []\n[principals.web]\nusers = []\n")
        found.process.send_signal(signal.SIGHUP)
        pidfd = os.pidfd_open(found.process.pid)
        socket = place.runtime_dir / "web" / "mapd.sock"
        while not socket.exists():
            ended, _, _ = select.select([pidfd], [], [], 0.02)
            assert not ended
        os.close(pidfd)


def test_a_configuration_that_is_refused_is_refused_once(place: Place) -> None:
    with supervised(place, extra="[pool]\nthreads = 4\n") as found:
        assert found.wait() == 2
        assert "unknown field" in found.log.read_text()


def test_a_daemon_that_cannot_start_is_not_tried_again(place: Place) -> None:
    """There is another one."""
    with daemon_process(place), supervised(place) as found:
        assert found.wait() == 1
        said = found.log.read_text()
        assert said.count("cannot start") == 1
        assert "starting it again" not in said


def test_quick_deaths_are_followed_by_longer_and_longer_pauses() -> None:
    now = 0.0
    restarts = Restarts(lambda: now)
    pauses = [restarts.pause() for _ in range(QUICK + 8)]
    assert pauses[:QUICK] == [0.0] * QUICK
    assert pauses[QUICK : QUICK + 4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE_S
    now = 3 * WINDOW_S
    assert restarts.pause() == 0.0
