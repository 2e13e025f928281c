"""R14: a daemon without free descriptors serves who is connected, says why it refuses, and recovers by itself."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

import mapd_client
from mapd_client import U32
from tests.e2e.settling import until
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.hostile.peer import peer
from tests.reliability.processes import share_of_cpu
from tests.support.daemon import Place, daemon_process, fds_of

LIMIT = 64
CONNECTIONS = 120

SPINNING = """
import resource, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(128)
resource.setrlimit(resource.RLIMIT_NOFILE, (listener.fileno() + 1, 64))
print("ready", flush=True)
while True:
    try:
        listener.accept()
    except OSError:
        pass  # EMFILE: the connection stays in the queue, and accept() is tried again at once
"""


async def test_connections_beyond_the_limit_neither_stop_nor_busy_the_daemon(
    place: Place, size: Size, figure: Figures, canary: Canaries
) -> None:
    path = str(place.socket)
    prefix = ("prlimit", f"--nofile={LIMIT}:{LIMIT}")
    with daemon_process(place, prefix=prefix) as daemon:
        async with (
            mapd_client.connect(path) as client,
            client.create_map("m", "hash", key=U32, value=U32, max_entries=64) as opened,
        ):
            await opened.update(1, 1)
            async with peer(path, "silent", CONNECTIONS):
                assert await until(lambda: len(daemon.fds()) == LIMIT)
                took: list[float] = []
                for _ in range(size.pick(quick=200, full=1_000)):
                    began = time.monotonic()
                    assert await opened.lookup(1) == 1
                    took.append(1_000 * (time.monotonic() - began))
                busy = await share_of_cpu(daemon.pid, size.pick(quick=1, full=3))
            began = time.monotonic()
            async with mapd_client.connect(path, timeout=30) as other:
                await other.server_info()
            recovered = time.monotonic() - began
    p99 = sorted(took)[int(len(took) * 0.99)]
    figure("R14", "p99 of a connected client's lookups", p99, at_most=100 if size.quick else 10, unit="ms")
    figure("R14", "CPU of the daemon meanwhile", busy, at_most=20 if size.quick else 5, unit="%")
    figure("R14", "until new clients are served again", recovered, at_most=10 if size.quick else 3, unit="s")
    canary("R14", "a listener that tries again at once", caught=await a_spinning_listener(place), of=1)


async def a_spinning_listener(place: Place) -> int:
    """1 if the measurement sees the CPU that a listener burns whose accept() fails again and again."""
    path = str(place.root / "spinning.sock")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPINNING, path, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        async with peer(path, "silent", 4):
            return int(await share_of_cpu(process.pid, 0.5) > 20)
    finally:
        process.kill()
        await process.wait()


async def several(work: Callable[[], Awaitable[None]], times: int) -> None:
    for _ in range(times):
        await work()


async def test_maps_beyond_the_limit_are_refused_with_the_remedy_and_fit_again_later(
    place: Place, figure: Figures
) -> None:
    prefix = ("prlimit", f"--nofile={LIMIT}:{LIMIT}")
    with daemon_process(place, prefix=prefix) as daemon:
        async with mapd_client.connect(str(place.socket)) as client:
            held = len(daemon.fds()), len(fds_of(daemon.opener()))
            async with AsyncExitStack() as stack:
                made: list[mapd_client.Map[int, int]] = []

                async def another() -> None:
                    opening = client.create_map(f"m{len(made)}", "hash", key=U32, value=U32, max_entries=4)
                    made.append(await stack.enter_async_context(opening))

                with pytest.raises(mapd_client.QuotaExceeded, match=r"no file descriptors left.*LimitNOFILE"):
                    await several(another, LIMIT)
                for number, one in enumerate(made):
                    await one.update(1, number)
                    assert await one.lookup(1) == number
            assert await until(
                lambda: len(daemon.fds()) <= held[0] and len(fds_of(daemon.opener())) <= held[1]
            )
            figure("R14", "maps made before descriptors ended, all usable", len(made), at_least=1)
            async with client.create_map("again", "hash", key=U32, value=U32, max_entries=4) as again:
                await again.update(1, 1)
            for number in range(len(made)):
                await client.unpin_map(f"m{number}")
            refused = place.names / "admin" / f"m{len(made)}"
            figure("R14", "pins of refused creations", int(refused.exists()), at_most=0)
