"""R15: a daemon that is told to stop ends in time, and what takes its place goes on where it was."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import mapd_client
from mapd_client import U32, U64
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.kit.nemesis import unleashed
from tests.reliability.kit.points import Rules
from tests.support.daemon import DaemonProcess, Place, daemon_process, spawn, wait_ready

GRACE_S = 1.0
EXTRA = f"grace_s = {GRACE_S}\n"
WORKERS = 6
ELEMENTS = 60_000


@dataclass
class Going:
    """Workers that write and read back, each a key of its own, and a reader of all elements; none may see an error."""

    failed: list[str] = field(default_factory=list[str])
    calls: int = 0
    dumps: int = 0
    resumed: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def write(self, opened: mapd_client.Map[int, int], key: int) -> int:
        """Rising values; the last that was acknowledged."""
        value = 0
        while not self.ended.is_set():
            value += 1
            try:
                await opened.update(key, value)
                assert await opened.lookup(key) == value
            except mapd_client.MapdError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            await self._one_more(2)
        return value

    async def read(self, opened: mapd_client.Map[int, int]) -> None:
        """Dump after dump."""
        while not self.ended.is_set():
            try:
                async with opened.keys() as keys:
                    found = [key async for key in keys]
            except mapd_client.MapdError as error:
                self.failed.append(f"{type(error).__name__}: {error}")
                continue
            assert len(found) == len(set(found)) == ELEMENTS + WORKERS
            self.dumps += 1
            await self._one_more(1)

    async def _one_more(self, calls: int) -> None:
        async with self.more:
            self.calls += calls
            self.more.notify_all()

    async def go_on(self, calls: int) -> None:
        """Wait until there were so many more."""
        until = self.calls + calls
        async with asyncio.timeout(60), self.more:
            await self.more.wait_for(lambda: self.calls >= until)


async def stopped(daemon: DaemonProcess) -> float:
    """SIGTERM, and wait; seconds until it has ended."""
    pidfd = os.pidfd_open(daemon.pid)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        began = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(ended.wait(), 30)
        return time.monotonic() - began
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        daemon.process.wait()


async def test_an_upgrade_under_load_costs_no_call(place: Place, size: Size, figure: Figures) -> None:
    going, seconds, ids = Going(), list[float](), set[int]()
    daemon = spawn(place, extra=EXTRA)
    try:
        wait_ready(daemon)
        async with (
            mapd_client.connect(str(place.socket), timeout=20) as client,
            client.create_map("m", "hash", key=U32, value=U64, max_entries=2 * ELEMENTS) as opened,
        ):
            await opened.load((key, 0) for key in range(ELEMENTS + WORKERS))
            ids.add(opened.info.id)
            async with asyncio.TaskGroup() as group:
                writers = [group.create_task(going.write(opened, key)) for key in range(WORKERS)]
                group.create_task(going.read(opened))
                for _ in range(size.pick(quick=2, full=20)):
                    await going.go_on(size.pick(quick=100, full=500))
                    seconds.append(await stopped(daemon))
                    daemon = spawn(place, extra=EXTRA)
                    await asyncio.to_thread(wait_ready, daemon)
                    async with mapd_client.connect(str(place.socket)) as other, other.open_map("m") as again:
                        ids.add(again.info.id)
                await going.go_on(100)
                going.ended.set()
            last = [await opened.lookup(key) for key in range(WORKERS)]
            lost = sum(found != writer.result() for found, writer in zip(last, writers, strict=True))
    finally:
        daemon.stop()
    assert not going.failed, going.failed[:3]
    figure("R15", "calls that failed across stops and starts", len(going.failed), at_most=0, of=going.calls)
    figure("R15", "acknowledged writes lost", lost, at_most=0, of=WORKERS)
    figure("R15", "dumps read meanwhile, each exact", going.dumps, at_least=1)
    figure("R15", "kernel ids of the map", len(ids), at_most=1)
    bar = GRACE_S + (5 if size.quick else 0.5)
    figure("R15", "longest stop with nothing stuck", max(seconds), at_most=bar, unit="s")


async def going(opened: mapd_client.Map[int, int], key: int) -> None:
    """Writes, until it is cancelled; whatever becomes of them."""
    while True:
        with suppress(mapd_client.MapdError):
            await opened.update(key, key)


async def stuck(place: Place, point: str) -> float:
    """How long a daemon of two processes takes to stop whose thread stands in a system call and never returns."""
    with unleashed(place, seed=15) as nemesis:
        nemesis.extra = EXTRA
        nemesis.start(Rules(point=point, nth=3))
        nemesis.wait_ready()
        async with (
            mapd_client.connect(str(place.socket), timeout=5) as client,
            client.create_map("m", "hash", key=U32, value=U64, max_entries=64) as opened,
        ):
            updates = [asyncio.create_task(going(opened, key)) for key in range(8)]
            assert await asyncio.to_thread(nemesis.stand) == point
            seconds = await stopped(nemesis.daemon)
            assert not any(update.done() and not update.cancelled() for update in updates)
            for update in updates:
                update.cancel()
            await asyncio.wait(updates)
        return seconds


async def test_a_thread_that_is_stuck_in_a_system_call_does_not_hold_the_process(
    place: Place, size: Size, figure: Figures
) -> None:
    seconds = await stuck(place, "before syscall")
    bar = GRACE_S + (10 if size.quick else 0.5)
    figure("R15", "stop with a syscall that never returns, grace 1 s", seconds, at_most=bar, unit="s")


def put_another(place: Place) -> None:
    """Something of somebody else's where the socket was."""
    place.socket.rename(place.socket.with_suffix(".first"))
    place.socket.touch()


async def test_a_second_daemon_is_refused_and_takes_nobodys_socket(place: Place, figure: Figures) -> None:
    refused = 0
    with daemon_process(place, extra=EXTRA) as daemon:
        inode = place.socket.stat().st_ino
        for _ in range(3):
            second = spawn(place, extra=EXTRA)
            refused += second.process.wait(20) == 1
            assert place.socket.stat().st_ino == inode
        async with mapd_client.connect(str(place.socket)) as client:
            await client.server_info()
        # One that came behind it keeps its socket: it is not the first one's to remove.
        put_another(place)
        await stopped(daemon)
    figure("R15", "second daemons refused", refused, at_least=3, of=3)
    figure("R15", "sockets of others removed", int(not place.socket.exists()), at_most=0)


JOINING = """
import os, signal, threading, time
reader, writer = os.pipe()
thread = threading.Thread(target=os.read, args=(reader, 1))
thread.start()
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), os.write(writer, b"x")))
print("ready", flush=True)
thread.join()
"""


@contextmanager
def joining(place: Place) -> Generator[DaemonProcess]:
    """A process whose end waits for a thread that stands in a system call."""
    with subprocess.Popen([sys.executable, "-c", JOINING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield DaemonProcess(place, process, place.root / "log", 0)


async def test_the_measurement_sees_one_that_waits_for_its_thread(place: Place, canary: Canaries) -> None:
    with joining(place) as process:
        seconds = await stopped(process)
    canary("R15", "an end that waits for its thread", caught=int(seconds > GRACE_S + 0.5), of=1)
