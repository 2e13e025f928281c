"""``mapctl top`` with many real maps: its first paint, and what client and daemon use while it is open. Root.

``python -m benchmarks.top [MAPS] [SECONDS]`` prints milliseconds from the start of the process to the first screen that
has a map on it, best and median of five, and percent of one core.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapd_client import U32, U64, connect
from tests.support.daemon import daemon_process, environment, private_place

KINDS: Final = ("hash", "lru_hash", "hash", "array", "hash")
FIRST: Final = "m000"
SCREEN: Final = (40, 120)
"""Lines and columns."""

SETTLED_S: Final = 2.0
STARTS: Final = 5
ENDS_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Top:
    """One that runs: its process, its terminal, and how long it took until it showed a map."""

    process: subprocess.Popen[bytes]
    terminal: int
    first_s: float

    def watch(self, seconds: float) -> None:
        """Read what it writes."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if select.select([self.terminal], [], [], left)[0]:
                os.read(self.terminal, 65_536)


@contextmanager
def top(socket: Path) -> Generator[Top]:
    """Start one, wait for its first map, end it by its key."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", *SCREEN, 0, 0))
    more = {"MAPD_ADDRESS": str(socket), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    command = [sys.executable, "-c", "from mapd_client.cli import main; main()", "top"]
    began = time.perf_counter()
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(**more)
    ) as process:
        os.close(terminal)
        said = b""
        while FIRST.encode() not in said:
            said += os.read(master, 65_536)
        found = Top(process, master, time.perf_counter() - began)
        try:
            yield found
        finally:
            os.write(master, b"q")
            with suppress(OSError):  # EIO: the last user of the terminal has gone
                found.watch(ENDS_S)
            process.wait(ENDS_S)
    os.close(master)


def used(pids: Sequence[int]) -> float:
    """Seconds of processor time that these have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and those below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in family(int(child)))]


async def fill(socket: Path, number: int) -> None:
    """So many maps, filled differently."""
    async with connect(str(socket)) as client:
        for one in range(number):
            kind = KINDS[one % len(KINDS)]
            made = client.create_map(f"m{one:03}", kind, key=U32, value=U64, max_entries=1024)
            async with made as opened:
                await opened.update_many({key: key for key in range(one * 4 % 1000)})


def main() -> None:
    """Measure and print."""
    number, seconds = (*map(float, sys.argv[1:3]), *(200.0, 20.0)[len(sys.argv[1:3]) :])
    with private_place() as place, daemon_process(place) as daemon:
        asyncio.run(fill(place.socket, int(number)))
        firsts: list[float] = []
        for _ in range(STARTS):
            with top(place.socket) as found:
                firsts.append(1000 * found.first_s)
        best, median = min(firsts), statistics.median(firsts)
        print(
            f"first paint with {number:.0f} maps: {best:.0f} ms at best, {median:.0f} ms median of {STARTS}"
        )
        with top(place.socket) as found:
            found.watch(SETTLED_S)
            daemons, client = family(daemon.pid), [found.process.pid]
            before, began = (used(client), used(daemons)), time.perf_counter()
            found.watch(seconds)
            passed = time.perf_counter() - began
            mine, its = (
                100 * (now - was) / passed
                for now, was in zip((used(client), used(daemons)), before, strict=True)
            )
        print(
            f"refreshed for {passed:.0f} s: {mine:.1f} % client, {its:.1f} % daemon, {mine + its:.1f} % of a core"
        )


if __name__ == "__main__":
    main()
