"""What readers that stand still cost the daemon: as much memory as is promised, however many they are."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

import mapd_client
from mapd_client import U64, Bytes, Chunk, Dump
from tests.e2e.settling import until
from tests.support.daemon import DaemonProcess

ENTRIES = 100_000
VALUE = 248
"""With it a map is 24 MiB: several times what gRPC and the socket carry ahead of a reader."""

CONNECTIONS = 8
STILL_S = 0.3


def memory(daemon: DaemonProcess, what: str) -> int:
    """A line of /proc/PID/status, in bytes."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    (line,) = [one for one in status.splitlines() if one.startswith(f"{what}:")]
    return int(line.split()[1]) << 10


def begin_anew(daemon: DaemonProcess) -> None:
    """Forget how much memory the daemon had before."""
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


def ticks(daemon: DaemonProcess) -> str:
    """CPU time that the daemon has used."""
    return " ".join(Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[11:13])


class Still:
    """Whether the daemon has done nothing for a while."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._used = ""
        self._since = 0.0

    def __call__(self) -> bool:
        used = ticks(self._daemon)
        if used != self._used:
            self._used, self._since = used, time.monotonic()
        return time.monotonic() - self._since > STILL_S


@pytest.mark.parametrize(("readers", "most"), [(1, 8 << 20), (64, 32 << 20)])
async def test_the_daemon_grows_no_more_than_it_says_for_readers_that_stand_still(
    daemon: DaemonProcess, readers: int, most: int
) -> None:
    async with (
        AsyncExitStack() as stack,
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("large", "hash", key=U64, value=Bytes(VALUE), max_entries=ENTRIES) as large,
    ):
        rows = np.arange(ENTRIES * VALUE, dtype=np.uint8).reshape(ENTRIES, VALUE)
        assert await large.load((np.arange(ENTRIES), rows)) == ENTRIES
        maps = [large]
        for _ in range(min(readers, CONNECTIONS) - 1):
            other = await stack.enter_async_context(mapd_client.connect(str(daemon.place.socket)))
            maps.append(await stack.enter_async_context(other.open_map("large", key=U64, value=Bytes(VALUE))))
        begin_anew(daemon)
        before = memory(daemon, "VmRSS")
        dumps: list[Dump[Chunk]] = []
        for at in range(readers):
            dump = await stack.enter_async_context(maps[at % len(maps)].chunks())
            await anext(dump)  # one chunk is taken, and then none
            dumps.append(dump)
        assert await until(Still(daemon), within_s=60.0)
        assert memory(daemon, "VmHWM") - before <= most
        # They had stood still, and were not cut off: each goes on to its end.
        last = dumps[-1]
        assert last.trailer is None
        assert [chunk async for chunk in last]
        assert last.trailer is not None
        assert (last.trailer.entries, last.trailer.complete) == (ENTRIES, True)
