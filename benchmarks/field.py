"""The field: who takes part, and in which pieces of work."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks import builds
from benchmarks.client import COUNTERS, ELEMENTS
from benchmarks.contenders import Contender, bpftool, mapctl, mapd_client, raw, served
from benchmarks.place import Place
from benchmarks.rounds import Race, Results, Runner
from benchmarks.tables import FLOWS, Instead

PLAIN: Final = "benchmarks.peers.plain"
"""Modules of the plain peer begin so."""

COMMANDS: Final = (
    ("mapctl ndjson", ELEMENTS, "ndjson"),
    ("mapctl arrow", ELEMENTS, "arrow"),
    ("mapctl typed ndjson", FLOWS, "ndjson"),
    ("mapctl typed arrow", FLOWS, "arrow"),
)
"""Race, map, format."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is measured.

    Attributes:
        entries: of the map.
        rounds: turns of every contender at every piece of work.
        many: random keys of one call of a ``*_many``.
        flight: lookups of which some are under way at once; ``plain_flight`` by the plain peer.
        one: lookups one after the other.
        great_entries: of the map whose dump stalls.
        stall_s: for so long.
    """

    quick: bool
    entries: int
    rounds: int
    many: int
    flight: int
    plain_flight: int
    one: int
    great_entries: int
    stall_s: float


def settings(quick: bool, entries: int) -> Settings:
    """The usual ones, or those of a run of less than a minute."""
    if quick:
        return Settings(
            True, entries, 3, entries, min(32_000, entries), min(4_000, entries), 1_000, entries, 2.0
        )
    great = entries if entries < 1_000_000 else 10 * entries
    return Settings(
        False, entries, 7, entries, min(64_000, entries), min(16_000, entries), 4_000, great, 10.0
    )


@dataclass(frozen=True, slots=True)
class Field:
    """Everybody on one map, and those that count on another.

    Attributes:
        elements, counters: contenders by name.
        tables: mapd's client with a typed map.
        commands: whole commands by their race, mapctl's and bpftool's.
        left_out: peers that cannot be had, and why.
    """

    elements: Mapping[str, Contender]
    counters: Mapping[str, Contender]
    tables: Contender
    commands: Mapping[str, Mapping[str, Contender]]
    left_out: Mapping[str, str]


@contextlib.contextmanager
def field(place: Place, wanted: Settings, build: Path) -> Generator[Field]:
    """All contenders that can be had, started."""
    pin, entries = str(place.pin(ELEMENTS)), wanted.entries
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        elements: dict[str, Contender] = {}
        counters: dict[str, Contender] = {}
        try:
            binary = builds.raw(build)
        except builds.Missing as error:
            left_out["raw"] = str(error)
        else:
            elements["raw"] = stack.enter_context(raw(place, binary, ELEMENTS, entries))
            counters["raw"] = stack.enter_context(raw(place, binary, COUNTERS, entries))
        if (tool := shutil.which("bpftool")) is None:
            left_out["bpftool"] = "bpftool is not installed (apt-get install bpftool)"
        else:
            elements["bpftool"] = bpftool(tool, pin, entries)
        try:
            go = builds.go(build)
        except builds.Missing as error:
            left_out["go"] = str(error)
        else:
            programs = [str(go / "server"), pin], [str(go / "client")]
            elements["go"] = stack.enter_context(served(place, "go", *programs, entries))
        python = [sys.executable, "-m"]
        modules = [*python, f"{PLAIN}_server", pin], [*python, f"{PLAIN}_client"]
        elements["plain"] = stack.enter_context(served(place, "plain", *modules, entries))
        for name, contenders in ((ELEMENTS, elements), (COUNTERS, counters)):
            contenders["mapd"] = stack.enter_context(mapd_client(place, "client", name, entries))
            contenders["mapd"].ask("fill" if name == ELEMENTS else "zero")
        tables = stack.enter_context(mapd_client(place, "tables", FLOWS, entries))
        tables.ask("fill")
        place.compile()
        commands: dict[str, Mapping[str, Contender]] = {}
        for race, name, output in COMMANDS:
            beside = {} if tool is None else {"bpftool": bpftool(tool, str(place.pin(name)), entries)}
            commands[race] = {**beside, "mapd": mapctl(place, name, output, entries)}
        yield Field(elements, counters, tables, commands, left_out)


def races(field: Field, wanted: Settings) -> list[Race]:
    """All pieces of work. Those that remove elements come last: they move them in memory."""

    def runners(count: int, *names: str, **counts: int) -> dict[str, Runner]:
        found = [name for name in (*names, "mapd") if name in field.elements]
        return {name: Runner(field.elements[name], counts.get(name, count)) for name in found}

    def flight(width: int) -> Race:
        taking_part = runners(wanted.flight, "go", "plain", plain=wanted.plain_flight)
        return Race(f"flight {width}", f"flight {width} {{count}} {{seed}}", taking_part)

    def many(operation: str) -> Race:
        return Race(operation, f"{operation} {{count}} {{seed}}", runners(wanted.many, "raw"))

    def table(kind: str) -> Race:
        drained = Runner(Instead(field.tables, "drain"), wanted.entries)
        return Race(f"typed {kind}", kind, {"drained": drained, "mapd": Runner(field.tables, wanted.entries)})

    def command(race: str) -> Race:
        taking_part = field.commands[race].items()
        return Race(race, "dump", {name: Runner(one, wanted.entries) for name, one in taking_part})

    counting = {name: Runner(contender, wanted.many) for name, contender in field.counters.items()}
    ours = field.elements["mapd"]
    return [
        Race("dump", "dump", runners(wanted.entries, "raw", "bpftool", "go")),
        *[command(race) for race, _, _ in COMMANDS],
        flight(64),
        flight(256),
        Race("one", "one {count} {seed}", runners(wanted.one, "go", "plain")),
        table("numpy"),
        table("arrow"),
        many("lookup"),
        many("update"),
        replace(many("fetch_add"), runners=counting),
        replace(many("delete"), restore=lambda: ours.ask("fill")),
    ]


def check_counters(field: Field, results: Results) -> None:
    """No addition was lost: the counters' sum is what all contenders added."""
    if "fetch_add" not in results:  # with --only
        return
    added = sum(answer.count for answers in results["fetch_add"].values() for answer in answers)
    found = field.counters["mapd"].ask("sum").count
    if found != added:
        raise SystemExit(f"the counters' sum is {found}, and {added} were added")
