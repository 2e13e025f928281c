"""Maps that the configuration names, as metrics: how full they are, and what they hold. Looked at now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mapd.maps.errors import MapError
from mapd.maps.listing import Wanted
from mapd.runtime.host import MapHost
from mapd.runtime.statistics import MOST, Watched

_log = structlog.stdlib.get_logger("mapd.metrics")

LOOK_S: Final = 8.0
"""A look that takes longer is given up: a scraper waits for ten seconds, unless told otherwise."""

Look = Callable[[], Awaitable[Sequence[Metric]]]


class Looking:
    """Runs one look at a time, and keeps what it saw for ``every_s`` seconds, however many ask.

    Who asks waits for a look that is under way. Cancelling one who asks cancels no look; ``aclose`` does.
    """

    def __init__(self, looks: Sequence[Look], every_s: float) -> None:
        self._looks = looks
        self._every_s = every_s
        self._seen: Sequence[Metric] = ()
        self._at = float("-inf")
        self._look: asyncio.Task[None] | None = None

    async def families(self) -> Sequence[Metric]:
        """What was seen last, a look that is due included."""
        if not self._looks:
            return ()
        if self._look is None and time.monotonic() - self._at >= self._every_s:
            self._look = asyncio.create_task(self._run(), name="metrics of maps")
            self._look.add_done_callback(self._done)
        if self._look is not None:
            await asyncio.wait({self._look})
        return self._seen

    def _done(self, _task: asyncio.Task[None]) -> None:
        self._look = None

    async def _run(self) -> None:
        began, seen, failed = time.monotonic(), list[Metric](), 0
        try:
            async with asyncio.timeout(LOOK_S):
                for look in self._looks:
                    try:
                        seen += await look()
                    except MapError as error:
                        failed += 1
                        _log.warning("maps were not looked at", reason=error.reason.name, message=str(error))
                    except Exception:  # a fault of ours; what else was seen is told
                        failed += 1
                        _log.exception("maps were not looked at")
        except TimeoutError:
            failed += 1
            _log.warning("a look at maps was given up", seconds=LOOK_S)
        self._at = time.monotonic()
        seen.append(
            GaugeMetricFamily("mapd_look_seconds", "How long the last look at maps took.", self._at - began)
        )
        seen.append(
            GaugeMetricFamily("mapd_look_failures", "What the last look at maps could not tell of.", failed)
        )
        self._seen = seen

    async def aclose(self) -> None:
        """End a look that is under way."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait({self._look})


class Fill:
    """How full the maps are whose names match patterns, and what was done with them through this daemon."""

    def __init__(self, host: MapHost, patterns: Sequence[str]) -> None:
        self._host = host
        self._patterns = patterns
        self._told: dict[int, tuple[int, int]] = {}

    async def __call__(self) -> Sequence[Metric]:
        """Look now; about 0.3 ms of a thread for a map that the kernel counts.

        Raises:
            MapError: as ``MapHost.look``.
        """
        found: dict[int, Watched] = {}
        left_out = 0
        for pattern in self._patterns:
            look = await self._host.look(Wanted(glob=pattern), None, None, MOST)
            found |= {one.listed.facts.id: one for one in look.maps}
            left_out += look.more
        return [*self._families(list(found.values())), _left_out(left_out)]

    def _families(self, maps: Sequence[Watched]) -> Iterator[Metric]:
        labels = ("map", "type")
        entries = GaugeMetricFamily(
            "mapd_map_entries", "Elements; of types that the kernel does not count, none.", labels=labels
        )
        most = GaugeMetricFamily("mapd_map_max_entries", "Elements that it was made for.", labels=labels)
        fill = GaugeMetricFamily("mapd_map_fill_ratio", "Entries over max_entries.", labels=labels)
        memory = GaugeMetricFamily(
            "mapd_map_memory_bytes", "Kernel memory that the map takes, as the kernel says.", labels=labels
        )
        read = CounterMetricFamily(
            "mapd_map_elements_read", "Elements that were read through this daemon.", labels=labels
        )
        written = CounterMetricFamily(
            "mapd_map_elements_written", "Elements that were written or deleted through it.", labels=labels
        )
        for one, (reads, writes) in zip(maps, self._flows(maps), strict=True):
            info, key = one.listed.facts.info, (_called(one), one.listed.facts.type_name)
            most.add_metric(key, info.max_entries)
            memory.add_metric(key, info.memlock)
            read.add_metric(key, reads)
            written.add_metric(key, writes)
            if one.counted is not None:
                entries.add_metric(key, one.counted.entries)
                fill.add_metric(key, one.counted.entries / max(1, info.max_entries))
        yield from (entries, most, fill, memory, read, written)

    def _flows(self, maps: Sequence[Watched]) -> list[tuple[int, int]]:
        """Reads and writes. What is taken back of a refused group would look like a restart: never less than before."""
        ids = [one.listed.facts.id for one in maps]
        now: dict[int, tuple[int, int]] = {}
        for map_id, flow in zip(ids, self._host.traffic.of(ids), strict=True):
            was = self._told.get(map_id, (0, 0))
            now[map_id] = max(flow.read, was[0]), max(flow.written, was[1])
        self._told = now
        return [now[map_id] for map_id in ids]


def _called(one: Watched) -> str:
    return one.listed.name or one.listed.pin_path


def _left_out(patterns: int) -> Metric:
    return GaugeMetricFamily(
        "mapd_map_patterns_cut",
        f"Patterns that more than {MOST} maps match, of which the rest is not told.",
        patterns,
    )
