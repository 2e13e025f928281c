"""What dumps that nobody reads cost the daemon in memory."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import mapd_client
from benchmarks.place import Place, daemon


@dataclass(frozen=True, slots=True)
class Growth:
    """A daemon's anonymous memory in bytes, over what it was before the first dump since its start.

    Attributes:
        before: when its clients were connected and had opened the map.
        stalled: the most that was added while nothing was read.
        peak: the most that was added at all.
    """

    streams: int
    stall_s: float
    entries: int
    before: int
    stalled: int
    peak: int


def anonymous(pid: int) -> int:
    """Bytes of memory that only this process has: neither libraries' pages nor other files'."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(kib) << 10 for kib in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.MULTILINE))


def growth(place: Place, name: str, entries: int, *, streams: int, stall_s: float) -> Growth:
    """Begin dumps over connections of their own, read one chunk of each, and then nothing for ``stall_s``.

    One dump is then read to its end; of many it would take a minute, and they are dropped.
    """
    with daemon(place) as pid, mapd_client(place, "stalled", name, streams) as client:
        client.ask("connected")
        before = peak = anonymous(pid)

        def sample() -> None:
            nonlocal peak
            peak = max(peak, anonymous(pid))

        client.ask("begin", sample)
        over = time.monotonic() + stall_s
        while time.monotonic() < over:
            sample()
            time.sleep(0.02)
        stalled = peak
        if streams == 1:
            read = client.ask("finish", sample).count
            if read != entries:
                raise SystemExit(f"a stalled dump of {name} gave {read} of {entries} elements")
        return Growth(streams, stall_s, entries, before, stalled - before, peak - before)
