"""Two sides compared, of maps, hosts and files: ``diff``."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from mapd_client.cli import interrupts, outcomes
from mapd_client.cli.differences import listed, records
from mapd_client.cli.feeds import SUFFIXES, File, Reading, read_file
from mapd_client.cli.options import Given, Options
from mapd_client.cli.running import reached
from mapd_client.cli.sides import OfMap, OfSnapshot, compared, of_snapshot
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying
from mapd_client.client import connect
from mapd_client.errors import Misuse
from mapd_client.syncing.plan import Plan

_ALL: Final = sys.maxsize

_SNAPSHOT: Final = b"PK\x03\x04"
"""How a snapshot begins, as any zip archive."""

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
    address or a context), snapshots (of several maps in one the other side's name says which), or files as 'mapctl
    sync' takes them ("feed.txt", "./feed", "-"). With one map and two hosts (-H one -H other), the map of the one is A,
    of the other B.

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
            was, now = [
                await stack.enter_async_context(_opened(one, options))
                if file is None
                else _unpacked(file, stack, other)
                for one, file, other in zip(names, files, reversed(names), strict=True)
            ]
            with saying("diff", " ".join(names)):
                plan, shown = await compared(was, now, reading or Reading(), types or Source())
        _tell(plan, shown, names, output, _ALL if show is None else show)
        return outcomes.DIFFERS if plan else outcomes.OK

    return interrupts.run(work())


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
async def _opened(text: str, options: Options) -> AsyncGenerator[OfMap]:
    ref, _, host = text.partition("@")
    if host:
        is_address = "/" in host or ":" in host
        options = replace(
            options,
            address=host if is_address else None,
            context=None if is_address else host,
            hosts=(),
            hosts_file=None,
        )
    where = reached(options)
    async with (
        connect(where.address, tls=where.tls, timeout=where.timeout) as client,
        client.open_map(ref, read_only=True) as opened,
    ):
        yield OfMap(opened, client, (await client.server_info()).byteorder)


def _unpacked(file: File, stack: AsyncExitStack, other: str) -> File | OfSnapshot:
    """The map of a snapshot: its only one, or the one that is called as the other side; other files as they are."""
    if not file.data.startswith(_SNAPSHOT):
        return file
    from mapd_client.snapshots import read

    snapshot = stack.enter_context(read(file.path))
    if len(snapshot.maps) == 1:
        return of_snapshot(snapshot, snapshot.maps[0])
    return of_snapshot(snapshot, snapshot[other.partition("@")[0]])
