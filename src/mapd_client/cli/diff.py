"""Two sides compared, of maps, hosts and files: ``diff``."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

from cyclopts import Parameter

from mapd_client.cli import interrupts, outcomes
from mapd_client.cli.differences import for_networks, listed, records
from mapd_client.cli.feeds import SUFFIXES, File, Reading, read_feed, read_file
from mapd_client.cli.options import Given, Options
from mapd_client.cli.running import reached
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client, connect
from mapd_client.errors import Incompatible, Misuse
from mapd_client.info import MapInfo
from mapd_client.map import Map
from mapd_client.syncing.plan import Contradiction, Plan, Planner, wanted
from mapd_client.syncing.shape import Shape, shape_of

_ALL: Final = sys.maxsize

Told = Annotated[Literal["table", "json", "ndjson"], Parameter(name=["--output", "-o"])]


def diff(
    a: Annotated[str, Parameter(name="A", allow_leading_hyphen=True)],
    b: Annotated[str | None, Parameter(name="B", allow_leading_hyphen=True)] = None,
    /,
    *,
    reading: Reading | None = None,
    show: int | None = None,
    output: Told = "table",
    types: Source | None = None,
    options: Given,
) -> int:
    """What B has beside A: added (+), removed (-), changed (~); exit code 0 if nothing, 8 if they differ.

    A and B are maps ("flows", "ns/flows", "pin:/sys/fs/bpf/x", "id:42"), maps of another daemon ("flows@HOST", an
    address or a context), or files as 'mapctl sync' takes them ("feed.txt", "./feed", "-"). With one map and two hosts
    (-H one -H other), the map of the one is A, of the other B.

    Args:
        a: the one side.
        b: the other.
        reading: how a file is read.
        show: so many differences of each kind are shown at most; default: all.
        output: table; ndjson, a record for each difference; json, all of them in one document.
        types: where the map's types are from.
        options: of every verb.
    """
    names = _names(a, b, options)
    with saying("diff", " ".join(names)):
        files = [read_file(one.removeprefix("file:")) if _is_file(one) else None for one in names]

    async def work() -> int:
        async with AsyncExitStack() as stack:
            sides: list[File | Opened] = []
            for one, file in zip(names, files, strict=True):
                if file is None:
                    sides.append(await stack.enter_async_context(_opened(one, options)))
                else:
                    sides.append(file)
            with saying("diff", " ".join(names)):
                plan, shown = await _compared(sides, reading or Reading(), types or Source())
        _tell(plan, shown, names, output, _ALL if show is None else show)
        return outcomes.DIFFERS if plan else outcomes.OK

    return interrupts.run(work())


class Side(Protocol):
    """One side: columns of elements, part after part."""

    def parts(self) -> AsyncGenerator[tuple[bytes | memoryview, bytes | memoryview, int]]:
        """Packed keys, packed values, and of how many elements."""
        ...


@dataclass(frozen=True, slots=True)
class _Columns:
    """A side that is in memory."""

    keys: bytes
    values: bytes
    count: int

    async def parts(self) -> AsyncGenerator[tuple[bytes | memoryview, bytes | memoryview, int]]:
        yield self.keys, self.values, self.count


@dataclass(frozen=True, slots=True)
class _OfMap:
    """An open map, read once."""

    opened: Map[bytes, bytes]

    async def parts(self) -> AsyncGenerator[tuple[bytes | memoryview, bytes | memoryview, int]]:
        async with self.opened.chunks() as chunks:
            async for chunk in chunks:
                yield chunk.keys, chunk.values, chunk.count


Opened = tuple[Map[bytes, bytes], Client]


async def _compared(given: list[File | Opened], reading: Reading, types: Source) -> tuple[Plan, Shown]:
    maps = [one for one in given if not isinstance(one, File)]
    if not maps:
        raise Misuse(
            "one side has to be a map, which says what the elements are; for two files there is diff(1)"
        )
    one, client = maps[0]
    shown = await shown_by(one, client, for_networks(types, one.info))
    shape = shape_of(one.info, shown.byteorder)
    for other in maps[1:]:
        shape = await _matched(shape, one.info, *other)
    was, now = [
        _of_file(side, reading, shown) if isinstance(side, File) else _OfMap(side[0]) for side in given
    ]
    keys, values = bytearray(), bytearray()
    async for part in now.parts():
        keys += part[0]
        values += part[1]
    planner = Planner(wanted(shape, bytes(keys), bytes(values)))
    async for part in was.parts():
        planner.feed(*part)
    return planner.plan(), shown


async def _matched(shape: Shape, info: MapInfo, other: Map[bytes, bytes], client: Client) -> Shape:
    """The shape that both maps have; raises Incompatible."""
    there = shape_of(other.info, (await client.server_info()).byteorder)
    if (there.key_stride, there.value_stride, there.byteorder) != (
        shape.key_stride,
        shape.value_stride,
        shape.byteorder,
    ):
        raise Incompatible(
            f"diff: {info.label} has keys of {shape.key_stride} bytes and values of {shape.value_stride} "
            f"({shape.byteorder}-endian), {other.info.label} of {there.key_stride} and {there.value_stride} "
            f"({there.byteorder}-endian)",
            operation="diff",
            map=other.info.label,
        )
    return replace(shape, networks=shape.networks or there.networks)


def _of_file(file: File, reading: Reading, shown: Shown) -> Side:
    feed = read_feed(file, reading, shown)
    keys = b"".join([key for key, _ in feed.elements])
    values = b"".join([value for _, value in feed.elements])
    try:
        wanted(shape_of(shown.info, shown.byteorder), keys, values)
    except Contradiction as error:
        raise Misuse(
            f"{feed.name}: {feed.where(error.first)} and {feed.where(error.second)} are of one key, and their values "
            "differ"
        ) from None
    return _Columns(keys, values, len(feed.elements))


def _tell(plan: Plan, shown: Shown, names: tuple[str, str], output: str, most: int) -> None:
    report = plan.report(removed_first=False, dry_run=True)
    if output == "ndjson":
        sys.stdout.writelines(f"{one}\n" for one in records(plan, shown))
    elif output == "json":
        begin = {"a": names[0], "b": names[1], "added": report.added, "removed": report.removed}
        end = {"changed": report.changed, "unchanged": report.unchanged}
        sys.stdout.write(json.dumps({**begin, **end})[:-1] + ', "differences": [')
        for at, one in enumerate(records(plan, shown)):
            sys.stdout.write((",\n  " if at else "\n  ") + one)
        sys.stdout.write("\n]}\n" if plan else "]}\n")
    else:
        listed(plan, shown, most, sys.stdout)
        sys.stdout.write(f"{report}, {report.unchanged} unchanged\n")


# Which sides


def _names(a: str, b: str | None, options: Options) -> tuple[str, str]:
    hosts = options.hosts
    unknown = next((one for one in (a, b or "") if one.startswith("-") and one != "-"), None)
    if unknown is not None:
        raise Misuse(f"diff: unknown option {unknown}")
    if b is None:
        if len(hosts) != 2:
            raise Misuse(f"diff {a}: beside what? Give B, or two hosts: -H one -H other")
        return f"{a}@{hosts[0]}", f"{a}@{hosts[1]}"
    if hosts:
        raise Misuse("diff A B: write A@HOST and B@HOST instead of -H, which is for one map on two hosts")
    if a == b == "-":
        raise Misuse("diff - -: stdin can be one side")
    return a, b


def _is_file(text: str) -> bool:
    """Whether it is no map: names have no dot and do not begin with one or a slash."""
    if text.startswith(("pin:", "id:")) or "@" in text:
        return False
    return (
        text == "-"
        or text.startswith(("file:", "/", "."))
        or Path(text).suffix.lower() in SUFFIXES
        or "." in text
    )


@asynccontextmanager
async def _opened(text: str, options: Options) -> AsyncGenerator[Opened]:
    ref, _, host = text.partition("@")
    if host:
        is_address = "/" in host or ":" in host
        options = replace(options, address=host if is_address else None, context=None if is_address else host)
    where = reached(options)
    async with (
        connect(where.address, tls=where.tls, timeout=where.timeout) as client,
        client.open_map(ref, read_only=True) as opened,
    ):
        yield opened, client
