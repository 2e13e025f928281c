"""Draws docs/images/top.svg: the first screen of ``mapctl top`` after a minute, by the app itself.

The samples are made up, so that the picture is the same each time; everything behind them is what users run.
``python -m scripts.top_picture`` writes it.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from mapd_api.uapi import MapType
from mapd_client.stats import MapStats, StatsSample
from mapd_client.top.app import TopApp
from mapd_client.top.source import Reader

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = ROOT / "docs" / "images" / "top.svg"
SIZE: Final = (112, 15)
SECONDS: Final = 60

TITLE: Final = "mapctl top"
DESCRIPTION: Final = (
    "A terminal: a table with a row for each map. Its columns are the name, the type, the entries, a bar of how full "
    "it is in green, amber from 80 % and red from 95 % on, what came and went each second, operations through mapd "
    "each second, kernel memory, and a line of the entries of the last minute."
)

_MAPS: Final[Sequence[tuple[str, MapType, int, int, Callable[[int], float | None], int]]] = (
    # name, type, max_entries, bytes, entries at the second t, elements each second
    ("edge/blocklist", MapType.LPM_TRIE, 200_000, 4_301_760, lambda t: 134_000 + 7 * t, 210),
    (
        "edge/conntrack",
        MapType.LRU_HASH,
        524_288,
        75_497_472,
        lambda t: 505_000 + 250 * math.sin(t / 4),
        1_840,
    ),
    ("edge/flows", MapType.HASH, 65_536, 11_010_048, lambda t: 30_000 + 380 * t, 12_400),
    ("edge/packets", MapType.PERCPU_ARRAY, 256, 18_688, lambda _: 256, 2),
    ("edge/ratelimits", MapType.HASH, 10_000, 823_296, lambda t: 3_000 + 900 * math.sin(t / 7), 96),
    ("lb/backends", MapType.HASH, 512, 45_056, lambda t: 48 + (t > 40), 0),
    ("lb/events", MapType.QUEUE, 4_096, 65_856, lambda _: None, 31),
    ("lb/services", MapType.HASH, 64, 6_912, lambda _: 62, 0),
    ("lb/sessions", MapType.LRU_HASH, 100_000, 14_401_536, lambda t: 9_000 + 11 * t * t / 10, 730),
)


class Nobody:
    """A source that never answers: what there is to see was there before."""

    async def sample(self) -> StatsSample:
        """Wait for ever."""
        never: asyncio.Future[StatsSample] = asyncio.get_running_loop().create_future()
        return await never

    def browse(self, stats: MapStats) -> AbstractAsyncContextManager[Reader]:
        """Nobody presses Enter."""
        raise NotImplementedError(stats.label)


def at(second: int) -> StatsSample:
    """All maps at one second."""
    maps = [
        MapStats(
            id=number,
            name=name,
            pin_path="",
            kernel_name="",
            type=kind,
            max_entries=most,
            memlock_bytes=memory,
            entries=None if (entries := held(second)) is None else round(entries),
            exact=kind is not MapType.LPM_TRIE,
            method="max_entries" if kind is MapType.PERCPU_ARRAY else "sum_elem_count",
            read_elements=each * second,
            written_elements=0,
        )
        for number, (name, kind, most, memory, held, each) in enumerate(_MAPS)
    ]
    return StatsSample(maps=maps, epoch="a", uptime=float(second), not_looked_at=())


async def draw() -> str:
    """The picture."""
    now = float(SECONDS)
    app = TopApp(Nobody(), interval=3600.0, clock=lambda: now)
    for second in range(SECONDS + 1):
        app.model.feed(at(second), float(second))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("down", "down", "down")
        await pilot.pause()
        picture = app.export_screenshot(title=TITLE)
    described = f"<title>{TITLE}</title><desc>{DESCRIPTION}</desc>"
    return re.sub(r"(<svg [^>]*>)", rf"\1{described}", picture, count=1) + "\n"


def words(picture: str) -> list[str]:
    """What a reader of the picture reads, without where it stands."""
    return [
        text.replace("&#160;", " ").strip() for text in re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    ]


def main() -> None:
    """Write the file."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(asyncio.run(draw()))


if __name__ == "__main__":
    main()
