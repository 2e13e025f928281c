"""``./dev bench [--quick] [--only WORK] [--json FILE] [ENTRIES]``: mapd beside what people run otherwise, as ratios."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final, NoReturn

import mapd_client as library
from benchmarks import reach, report
from benchmarks.client import COUNTERS, ELEMENTS
from benchmarks.contenders import mapd_client
from benchmarks.field import Settings, check_counters, field, races, settings
from benchmarks.memory import Growth, growth
from benchmarks.place import TREE, Place, daemon, private_place
from benchmarks.rounds import run
from mapd_client import U64

CPUS: Final = 2
"""Everybody has as many, and the same ones: figures of larger hosts can be compared then."""

GREAT: Final = "great"
"""The map of the memory rows."""


WORK: Final = (
    "memory",
    "dump",
    "mapctl ndjson",
    "mapctl arrow",
    "mapctl typed ndjson",
    "mapctl typed arrow",
    "flight 64",
    "flight 256",
    "one",
    "typed numpy",
    "typed arrow",
    "lookup",
    "update",
    "fetch_add",
    "delete",
)
"""Pieces of work that ``--only`` takes."""


def say(text: str = "") -> None:
    """One line about the run, apart from its results."""
    print(text, file=sys.stderr, flush=True)


async def create(place: Place, name: str, entries: int) -> str:
    """A hash map of 8-byte keys and values; answers the daemon's profile."""
    async with (
        library.connect(str(place.socket)) as client,
        client.create_map(name, "hash", key=U64, value=U64, max_entries=entries),
    ):
        return (await client.server_info()).profile


async def remove(place: Place, name: str) -> None:
    """Give a map's memory back."""
    async with library.connect(str(place.socket)) as client:
        await client.unpin_map(name)


def stalls(place: Place, wanted: Settings) -> dict[str, Growth]:
    """The memory rows: a fresh daemon each, on a map of their own."""
    entries = wanted.great_entries
    say(f"memory: 1 and 64 dumps of {entries:,} elements that stand still for {wanted.stall_s:g} s")
    with daemon(place):
        asyncio.run(create(place, GREAT, entries))
        with mapd_client(place, "client", GREAT, entries) as filler:
            filler.ask("fill")
    grown = {
        f"stalled {streams}": growth(place, GREAT, entries, streams=streams, stall_s=wanted.stall_s)
        for streams in (1, 64)
    }
    with daemon(place):
        asyncio.run(remove(place, GREAT))
    return grown


def measure(wanted: Settings, build: Path, only: Sequence[str]) -> report.Measured:
    """All pieces of work, or ``only`` these, in a place of its own."""
    with private_place() as place:
        grown = stalls(place, wanted) if "memory" in only else {}
        with daemon(place):
            profile = asyncio.run(create(place, ELEMENTS, wanted.entries))
            asyncio.run(create(place, COUNTERS, wanted.entries))
            with field(place, wanted, build) as everybody:
                asked = [race for race in races(everybody, wanted) if race.name in only]
                results = run(asked, wanted.rounds, say)
                check_counters(everybody, results)
    return report.Measured(
        settings=asdict(wanted),
        profile=profile,
        rows=reach.rows(results, grown, everybody.left_out),
        left_out=everybody.left_out,
        results=results,
        growths=grown,
    )


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="mapd beside what people run otherwise")
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything that was measured")
    parser.add_argument("--only", action="append", choices=WORK, help="this piece of work; may be repeated")
    parser.add_argument("entries", nargs="?", type=int, default=1_000_000, help="of the map (1,000,000)")
    return parser.parse_args()


def _stop(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> None:
    """Measure, print, write."""
    asked = arguments()
    if os.geteuid() != 0:
        raise SystemExit("benchmarks create real kernel maps, which only root may: sudo ./dev bench")
    signal.signal(signal.SIGTERM, _stop)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CPUS])
    build = Path(os.environ.get("MAPD_BENCH_BUILD", TREE / "build" / "bench"))
    host = report.host_facts()
    measured = measure(settings(asked.quick, asked.entries), build, asked.only or WORK)
    print("\n".join(report.page(measured, host)))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report.as_json(measured, host), indent=1) + "\n")


if __name__ == "__main__":
    main()
