"""A map made equal to a file: ``sync``."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from mapd_client.cli import outcomes, render
from mapd_client.cli.differences import for_networks, listed
from mapd_client.cli.feeds import Feed, Reading, read_feed, read_file
from mapd_client.cli.options import Given
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client
from mapd_client.errors import BatchFailed, Misuse, RemovalsRefused, Unreachable
from mapd_client.map import Map
from mapd_client.syncing.facade import reviewed
from mapd_client.syncing.plan import Contradiction, Plan
from mapd_client.syncing.report import SyncReport

_MAX_REMOVALS: Final = 0.2

Told = Annotated[Literal["table", "json", "ndjson"], Parameter(name=["--output", "-o"])]


def sync(
    map: Ref,
    /,
    *,
    source: Annotated[str, Parameter(name="--from", allow_leading_hyphen=True)],
    reading: Reading | None = None,
    max_removals: str | None = None,
    dry_run: bool = False,
    exit_code: bool = False,
    show: int = 10,
    output: Told = "table",
    types: Source | None = None,
    options: Given,
) -> int:
    """Make a map equal to a file, writing only what differs.

    Prints what is added (+), removed (-) and changed (~). Room is checked first. New elements are written before old
    ones are removed; the other way round only if they would not fit, and stderr says so. Networks are taken without
    their host bits. Ended in the middle, the same command does the rest.

    Args:
        map: name, pin:PATH or id:NUMBER.
        source: the file; "-" for stdin.
        reading: how the file is read.
        max_removals: the share of the map's elements that may be removed at most, 30% or 0.3; default: 20%. An empty
            file is taken only if this is given.
        dry_run: show what would be done, and do nothing.
        exit_code: exit with 8 if something was changed (with --dry-run: would be), with 0 only if nothing was.
        show: so many elements of each kind are shown at most.
        output: table; json or ndjson, the numbers as a record.
        types: where the map's types are from.
        options: of every verb.
    """
    with saying("sync", map):
        allowed, file = _share(max_removals), read_file(source)

    async def work(opened: Map[bytes, bytes], client: Client) -> int:
        with saying("sync", map):
            shown = await shown_by(opened, client, for_networks(types or Source(), opened.info))
            feed = read_feed(file, reading or Reading(), shown)
        if not feed.elements and max_removals is None:
            raise RemovalsRefused(
                f"sync {map}: {feed.name} has no elements; an empty file is taken only with --max-removals 100%",
                operation="sync",
                map=map,
            )
        seen = _Seen(feed, shown, show if output == "table" else 0, quiet=options.quiet)
        report = await _synced(opened, feed, allowed, dry_run=dry_run, seen=seen)
        _tell(report, seen, output, opened.info.label)
        return outcomes.DIFFERS if exit_code and report else outcomes.OK

    return with_map(options, map, work)


class _Seen:
    """What is said before anything is written."""

    def __init__(self, feed: Feed, shown: Shown, most: int, *, quiet: bool) -> None:
        self._feed, self._shown, self._most, self._quiet = feed, shown, most, quiet

    def __call__(self, plan: Plan) -> None:
        listed(plan, self._shown, self._most, sys.stdout)
        wish, feed = plan.wanted, self._feed
        if wish.merged:
            twins = ", ".join(f"{feed.where(at)} is {feed.where(first)}" for first, at in wish.twins)
            more = ", ..." if wish.merged > len(wish.twins) else ""
            self.remark(
                f"merged: {wish.merged} of {len(feed.elements)} elements are given twice: {twins}{more}"
            )
        if wish.canonicalised:
            self.remark(
                f"host bits are taken as zero in {wish.canonicalised} of {len(feed.elements)} networks"
            )
        if feed.passed_over:
            self.remark(f"lines passed over, of the other family of addresses: {feed.passed_over}")

    def remark(self, text: str) -> None:
        """A line on stderr."""
        if not self._quiet:
            sys.stderr.write(f"mapctl: {text}\n")


async def _synced(
    opened: Map[bytes, bytes], feed: Feed, allowed: float, *, dry_run: bool, seen: _Seen
) -> SyncReport:
    try:
        return await reviewed(opened, feed.elements, allowed, dry_run=dry_run, review=seen)
    except Contradiction as error:
        raise Misuse(
            f"sync {opened.info.label}: {feed.name}: {feed.where(error.first)} and {feed.where(error.second)} are of "
            "one key, and their values differ",
            operation="sync",
            map=opened.info.label,
        ) from None
    except (BatchFailed, Unreachable) as error:
        if error.operation in ("update", "delete"):
            seen.remark("ended in the middle; the same command again does the rest")
        raise


def _tell(report: SyncReport, seen: _Seen, output: str, label: str) -> None:
    if report.removed_first:
        seen.remark(
            "the new elements have no room beside the old ones: old ones "
            + ("would be removed first" if report.dry_run else "were removed first")
        )
    if output == "table":
        would = " (nothing was written)" if report.dry_run and report else ""
        sys.stdout.write(f"{report}, {report.unchanged} unchanged{would}\n")
        return
    record = {"map": label, **dataclasses.asdict(report)}
    if output == "json":
        sys.stdout.write(json.dumps(record, indent=2) + "\n")
    else:
        render.write_record(record, sys.stdout)


def _share(text: str | None) -> float:
    if text is None:
        return _MAX_REMOVALS
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise Misuse(
            f"--max-removals {text!r}: a share of the map's elements is due, 0% to 100% or 0.0 to 1.0"
        )
    return share
