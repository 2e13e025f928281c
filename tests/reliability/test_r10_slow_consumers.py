"""R10: readers that stand still cost a client beside them nothing, and the daemon as much memory as is promised."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import mapd_client
from mapd_client import U32, U64, Bytes
from tests.e2e.settling import until
from tests.e2e.test_stalled_readers import Still, begin_anew, memory
from tests.reliability import greedy
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.kit.outcome import percentile
from tests.reliability.telling import Told, telling
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

READERS = 64
ENTRIES, VALUE = 100_000, 248
"""24 MiB: several times what gRPC and the socket carry ahead of a reader."""

MORE_MIB = 32
TIMES = 1.5


@asynccontextmanager
async def filled(daemon: DaemonProcess) -> AsyncGenerator[mapd_client.Map[int, int]]:
    """A large map for the readers; a small one, which is answered, for who looks up beside them."""
    async with (
        mapd_client.connect(str(daemon.place.socket), timeout=30) as client,
        client.create_map("large", "hash", key=U64, value=Bytes(VALUE), max_entries=ENTRIES) as large,
        client.create_map("small", "hash", key=U32, value=U32, max_entries=4) as small,
    ):
        assert await large.load((np.arange(ENTRIES), np.zeros((ENTRIES, VALUE), np.uint8))) == ENTRIES
        await small.update(1, 1)
        yield small


@asynccontextmanager
async def stalled(
    daemon: DaemonProcess, readers: int = READERS, finish: int = 0, *, rests: bool = True
) -> AsyncGenerator[Told]:
    """Dumps of which nobody takes anything, and ``finish`` that go on later; once the daemon ``rests``."""
    address = str(daemon.place.socket)
    async with telling("tests.reliability.stalled", address, "large", str(readers), str(finish)) as told:
        assert await told.line() == {"held": readers}
        assert not rests or await until(Still(daemon), within_s=60.0)
        yield told


@dataclass
class Beside:
    """One lookup after the other at two daemons in turn: whatever disturbs the host disturbs both."""

    busy: mapd_client.Map[int, int]
    idle: mapd_client.Map[int, int]
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    async def look_up(self, count: int) -> None:
        for _ in range(count):
            for small, seconds in zip((self.busy, self.idle), self.seconds, strict=True):
                began = time.monotonic()
                assert await small.lookup(1) == 1
                seconds.append(time.monotonic() - began)

    def p99s(self) -> tuple[float, float]:
        busy, idle = (percentile(seconds, 0.99) for seconds in self.seconds)
        return busy, idle


def descriptors(daemon: DaemonProcess) -> int:
    """How many the daemon has, but for those of BPF objects: it loads a program for a map when it is used much."""
    return sum("bpf" not in one for one in daemon.fds())


@contextmanager
def greedy_daemon(greed: str) -> Generator[DaemonProcess]:
    """A daemon with a planted fault."""
    prefix = ("env", f"{greedy.VARIABLE}={greed}")
    with (
        private_place() as place,
        daemon_process(place, prefix=prefix, program=(str(Path(greedy.__file__)),)) as daemon,
    ):
        yield daemon


async def test_stalled_dumps_cost_a_client_beside_them_nothing(
    place: Place, size: Size, figure: Figures
) -> None:
    lookups = size.pick(quick=500, full=12_000)
    finish = size.pick(quick=8, full=READERS)
    with daemon_process(place) as daemon, private_place() as elsewhere, daemon_process(elsewhere) as other:
        async with filled(daemon) as busy, filled(other) as idle:
            fds = descriptors(daemon)
            beside = Beside(busy, idle)
            await beside.look_up(100)  # programs are loaded
            begin_anew(daemon)
            before = memory(daemon, "VmRSS")
            async with stalled(daemon, finish=finish) as told:
                more = (memory(daemon, "VmHWM") - before) / (1 << 20)
                beside = Beside(busy, idle)
                await beside.look_up(lookups)
                told.go_on()
                complete = (await told.line())["complete"]
            left = await until(lambda: descriptors(daemon) <= fds)
    busy_s, idle_s = beside.p99s()
    figure("R10", "memory for stalled dumps", more, at_most=MORE_MIB, of=READERS, unit="MiB")
    figure("R10", "p99 of lookups beside them", 1_000 * busy_s, unit="ms")
    figure("R10", "p99 of lookups at an idle daemon", 1_000 * idle_s, unit="ms")
    most = 10 * TIMES if size.quick else TIMES
    figure("R10", "the one by the other", busy_s / idle_s, at_most=most, of=2 * lookups, unit="times")
    figure("R10", "stalled dumps that went on to their end, complete", complete, at_least=finish, of=finish)
    figure("R10", "descriptors left", int(not left), at_most=0)


async def test_dumps_that_hold_what_they_like_are_caught(canary: Canaries) -> None:
    with greedy_daemon("holds") as daemon:
        async with filled(daemon):
            begin_anew(daemon)
            before = memory(daemon, "VmRSS")
            async with stalled(daemon):
                more = (memory(daemon, "VmHWM") - before) / (1 << 20)
    canary("R10", "dumps that hold what they like", caught=int(more > MORE_MIB), of=1)


async def test_waits_that_hold_the_event_loop_are_caught(place: Place, size: Size, canary: Canaries) -> None:
    with greedy_daemon("blocks") as daemon, daemon_process(place) as other:
        async with filled(daemon) as busy, filled(other) as idle, stalled(daemon, 16, rests=False):
            beside = Beside(busy, idle)
            await beside.look_up(size.pick(quick=20, full=200))
    busy_s, idle_s = beside.p99s()
    canary("R10", "waits for readers that hold the event loop", caught=int(busy_s / idle_s > TIMES), of=1)
