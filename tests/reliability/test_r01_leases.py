"""R1, of leases: the daemon is killed and stopped, its opener too, and no lease ends while its client lives."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mapd.runtime import leases
from mapd_api.limits import LEASE_RETURN_S
from tests.reliability.figures import Canaries, Figures, Size
from tests.support.daemon import DaemonProcess, Place, daemon_process, environment

LEASES = 20
TTL_S = 1.0

CLIENT = """
import asyncio, sys
from mapd_client import U32, U64, Lease, connect

async def main(socket, count, ttl):
    async with connect(socket) as client:
        made = [
            await client.create_map(None, "hash", key=U32, value=U64, max_entries=8, lease=Lease(ttl + number / 10))
            for number in range(count)
        ]
        for one in made:
            print(one.info.pin_path, flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""

FORGETFUL = """
import sys
from mapd_api import limits
limits.LEASE_RETURN_S = 0.0
from mapd.runtime import leases
leases.PAUSE_S = float("inf")
leases.BEAT_S = 3600.0
from mapd.cli import run
sys.exit(run(["serve", "--single-process", *sys.argv[2:]]))
"""
"""A daemon that takes all time for time in which it was told."""


@contextmanager
def client(place: Place) -> Generator[tuple[subprocess.Popen[str], list[Path]]]:
    """A process with leased maps, and their pins."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(place.socket), str(LEASES), str(TTL_S)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, [Path(process.stdout.readline().strip()) for _ in range(LEASES)]
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def stopped(pid: int) -> Generator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def frozen(daemon: DaemonProcess, client: subprocess.Popen[str]) -> None:
    """Both stand still, as where a whole host does; the daemon goes on first."""
    with stopped(client.pid):
        with stopped(daemon.pid):
            time.sleep(leases.PAUSE_S + 0.5)
        time.sleep(leases.LOOK_S + 0.5)


def missing(pins: Sequence[Path]) -> int:
    return sum(not pin.exists() for pin in pins)


def until(true: Callable[[], bool], within_s: float) -> None:
    end = time.monotonic() + within_s
    while not true() and time.monotonic() < end:
        time.sleep(0.02)


def test_no_lease_ends_whose_client_lives_and_every_one_whose_client_is_killed(
    place: Place, size: Size, figure: Figures
) -> None:
    rounds, chance = size.pick(quick=1, full=9), random.Random(19)  # noqa: S311 - the same in every run
    lost = 0
    with ExitStack() as stack:
        daemon = stack.enter_context(daemon_process(place))
        process, pins = stack.enter_context(client(place))
        for _ in range(rounds):
            for victim in (daemon.pid, daemon.opener()):
                with stopped(victim):
                    time.sleep(chance.uniform(0.3, 2.5))
                lost = max(lost, missing(pins))
            frozen(daemon, process)
            lost = max(lost, missing(pins))
            daemon.process.kill()
            daemon.process.wait()
            time.sleep(chance.uniform(0.0, 2.0))
            daemon = stack.enter_context(daemon_process(place))
            # Longer than a lease has after a start: who has not come back by now has lost it.
            time.sleep(LEASE_RETURN_S + LEASES / 10 + leases.LOOK_S)
            lost = max(lost, missing(pins))
        process.kill()
        until(lambda: missing(pins) == LEASES, LEASE_RETURN_S + LEASES / 10 + 10 * leases.LOOK_S)
        left = LEASES - missing(pins)
        until(lambda: not any(pin.parent.exists() for pin in pins), 5 * leases.LOOK_S)
        left += sum(pin.parent.exists() for pin in pins)
    figure("R1", "leases that ended while their client lived", lost, at_most=0, of=LEASES * rounds)
    figure("R1", "leases and folders left when it was killed", left, at_most=0, of=LEASES)


def test_a_daemon_that_forgets_that_it_stood_still_is_caught(place: Place, canary: Canaries) -> None:
    caught = 0
    for _ in range(3):
        with (
            daemon_process(place, program=("-c", FORGETFUL)) as daemon,
            client(place) as (process, pins),
        ):
            frozen(daemon, process)
            caught += missing(pins) > 0
    canary("R1", "a daemon that lets leases end in time in which it stood still", caught=caught, of=3)
