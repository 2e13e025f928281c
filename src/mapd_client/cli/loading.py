"""Many elements written from a file: ``load``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Annotated, Final

from cyclopts import Parameter

from mapd_client.cli import blocks, outcomes
from mapd_client.cli.blocks import Block, Blocks
from mapd_client.cli.care import DryRun
from mapd_client.cli.complaints import complain
from mapd_client.cli.feeds import Reading
from mapd_client.cli.options import Given
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.progress import progress, wanted
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import saying, shown_by
from mapd_client.client import Client
from mapd_client.errors import BatchFailed, MapdError, Misuse, OutcomeUnknown
from mapd_client.info import UpdateFlag
from mapd_client.map import Map
from mapd_client.syncing.shape import cells

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

_LOADED: Final = (
    Field("written", int),
    Field("refused", int),
    Field("refusals", list),
    Field("dry_run", bool),
)

_TOLD: Final = 16
"""Elements that were refused of which each is told; the rest are counted."""


@dataclass(slots=True)
class _Tally:
    """How far it came.

    Attributes:
        sent: elements that were handed to the daemon.
        written: those of them that it wrote.
        refused: some of the others, by where they are in the file.
    """

    sent: int = 0
    written: int = 0
    refused: dict[int, MapdError] = field(default_factory=dict[int, MapdError])

    def add(self, error: BatchFailed, block: Block) -> None:
        """A block of which some elements were not written."""
        self.written += error.applied
        self.sent += error.sent
        for at, why in islice(error.errors.items(), _TOLD - len(self.refused)):
            self.refused[block.places[at]] = why


def load(
    map: Ref,
    file: Annotated[str, Parameter(allow_leading_hyphen=True)] = "-",
    /,
    *,
    format: blocks.Format | None = None,
    flags: UpdateFlag = "any",
    value: str | None = None,
    key_column: str | None = None,
    value_column: str | None = None,
    dry_run: DryRun = False,
    output: Format = "table",
    types: Source | None = None,
    options: Given,
) -> int:
    """Write the elements of a file: what dump writes, what bpftool prints, CSV, or a list of keys.

    Elements that are there and not in the file stay: see 'mapctl sync' for a map that is to be equal to a file. One
    that is refused does not stop the rest. Where the file itself is wrong, what stands before that place is written,
    and it is said how many elements that are.

    Args:
        map: name, pin:PATH or id:NUMBER.
        file: "-" is stdin, and the default.
        format: ndjson (a record a line), json (a list of them), bpftool (what 'bpftool -j map dump' prints), csv, list
            (a key a line), parquet or arrow; default: as the file is called, or begins.
        flags: any; noexist (only create); exist (only replace).
        value: of all elements that the file gives none: u32=1, as in a list of keys.
        key_column: which column of a table is the key, where it is not "key".
        value_column: which is the value, likewise.
        dry_run: read all of it, as the map's types want it, and write nothing.
        output: table, json, ndjson, csv, arrow or parquet: how many were written and refused.
        types: where the map's types are from.
        options: of every verb.
    """
    if file.startswith("-") and file != "-":
        raise Misuse(f"load {map}: no such option: {file}; a file of that name is ./{file}")

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        reading = Reading(value=value, key_column=key_column, value_column=value_column)
        tally = _Tally()
        with saying("load", map), _saying_how_far(tally, dry_run=dry_run):
            shown = await shown_by(opened, client, types or Source())
            async with blocks.opened(file, format, reading, shown) as source:
                with progress(f"load {map}", None, shown=wanted(options)) as advance:
                    await _loaded(opened, source, flags, tally, advance, dry_run=dry_run)
        return _tell(map, source, tally, output, dry_run=dry_run)

    return with_map(options, map, work)


async def _loaded(
    opened: Map[bytes, bytes],
    source: Blocks,
    flags: UpdateFlag,
    tally: _Tally,
    advance: Callable[[int], None],
    *,
    dry_run: bool,
) -> None:
    async for block in source.blocks:
        count = len(block.places)
        if dry_run:
            tally.sent += count
        else:
            await _written(opened, block, flags, tally)
        advance(count)


async def _written(opened: Map[bytes, bytes], block: Block, flags: UpdateFlag, tally: _Tally) -> None:
    info = opened.info
    elements = zip(cells(block.keys, info.key_stride), cells(block.values, info.value_stride), strict=True)
    try:
        tally.written += await opened.load(elements, flags=flags)
    except BatchFailed as error:
        tally.add(error, block)
        if error.cause is not None:
            raise error.cause from error
    else:
        tally.sent += len(block.places)


@contextmanager
def _saying_how_far(tally: _Tally, *, dry_run: bool) -> Generator[None]:
    """What ends a load in the middle is told with how many elements had been written by then."""
    try:
        yield
    except asyncio.CancelledError:
        if not dry_run:
            sys.stderr.write(
                f"mapctl: interrupted; {tally.written} elements were written for certain, and some more may be\n"
            )
        raise
    except MapdError as error:
        if not tally.sent:
            error.message += "; nothing was written"
        elif dry_run:
            error.message += f"; {tally.sent} elements before it can be read"
        elif isinstance(error, OutcomeUnknown):
            error.message += f"; {tally.written} elements were written for certain, and some more may be"
        else:
            error.message += f"; {tally.written} elements were written before it"
        raise


def _tell(ref: str, source: Blocks, tally: _Tally, output: Output, *, dry_run: bool) -> int:
    failed = 0 if dry_run else tally.sent - tally.written
    told = [
        {source.unit: place, "message": str(why).removeprefix(f"load {ref}: ")}
        for place, why in tally.refused.items()
    ]
    if output != "table":
        row = {"written": tally.written, "refused": failed, "refusals": told, "dry_run": dry_run}
        records([row], columns=_LOADED, output=output, file=sys.stdout, one=True)
    else:
        what = f"{tally.sent} elements would be" if dry_run else f"{tally.written} elements"
        sys.stdout.write(f"{what} written\n")
    if not failed:
        return outcomes.OK
    if output == "table":
        for one in told:
            sys.stderr.write(f"mapctl: {source.name}: {source.unit} {one[source.unit]}: {one['message']}\n")
    more = failed - len(told)
    first = next(iter(tally.refused.values()), None)
    code, advice = (outcomes.FAILURE, "") if first is None else outcomes.of_error(first)
    return complain(
        f"load {ref}: {failed} of {tally.sent} elements were refused, {tally.written} were written"
        + (f"; {more} of them are not told one by one" if more else ""),
        advice,
        code,
        as_json=output in ("json", "ndjson"),
        error=first,
    )
