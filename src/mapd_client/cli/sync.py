"""A map made equal to a file: ``sync``."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from mapd_client.cli import outcomes, render
from mapd_client.cli.complaints import complain
from mapd_client.cli.differences import for_networks, listed
from mapd_client.cli.feeds import Feed, Reading, read_feed, read_file
from mapd_client.cli.options import Given, Options
from mapd_client.cli.references import Ref
from mapd_client.cli.running import many, with_map
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, saying, shown_by
from mapd_client.client import Client
from mapd_client.errors import BatchFailed, MapdError, Misuse, RemovalsRefused, Unreachable
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
    their host bits. Ended in the middle, the same command does the rest. Several hosts (-H) are done one after the
    other; one that fails is named, and the others are done (exit code 7).

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
        told.add(report, seen, opened.info.label)
        return outcomes.DIFFERS if exit_code and report else outcomes.OK

    told = _Told(output)
    if not many(options):
        code = with_map(options, map, work)
    else:
        code = _on_each(options, told, lambda one: with_map(one, map, work))
    told.end()
    return code


def _on_each(options: Options, told: _Told, work: Callable[[Options], int]) -> int:
    """One host after the other: where the first shows that the file is wrong, there is time to press Ctrl-C."""
    from mapd_client.cli.fanout import several

    codes: set[int] = set()
    failed: list[str] = []
    hosts = several(options)
    for host in hosts:
        told.on(host.name)
        try:
            codes.add(work(replace(options, hosts=(host.address,), hosts_file=None, tls=host.tls)))
        except MapdError as error:
            code, advice = outcomes.of_error(error)
            complain(f"{host.name}: {error}", advice, code, as_json=told.as_json, error=error)
            failed.append(host.name)
    if failed:
        sys.stderr.write(f"mapctl: {len(failed)} of {len(hosts)} hosts failed: {', '.join(failed)}\n")
        return outcomes.SOME_HOSTS
    return max(codes)


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


class _Told:
    """Reports as they are printed; of several hosts with the name of each."""

    def __init__(self, output: str) -> None:
        self.as_json = output != "table"
        self._output = output
        self._host: str | None = None
        self._records: list[dict[str, object]] = []

    def on(self, host: str) -> None:
        """What follows is of this host."""
        self._host = host
        if not self.as_json:
            sys.stdout.write(f"{host}:\n")
            sys.stdout.flush()  # before what stderr says of it

    def add(self, report: SyncReport, seen: _Seen, label: str) -> None:
        """How one ended."""
        if report.removed_first:
            seen.remark(
                "the new elements have no room beside the old ones: old ones "
                + ("would be removed first" if report.dry_run else "were removed first")
            )
        if self._output == "table":
            would = " (nothing was written)" if report.dry_run and report else ""
            sys.stdout.write(f"{report}, {report.unchanged} unchanged{would}\n")
            return
        host = {} if self._host is None else {"host": self._host}
        record: dict[str, object] = {**host, "map": label, **dataclasses.asdict(report)}
        if self._output == "ndjson":
            render.write_record(record, sys.stdout)
        else:
            self._records.append(record)

    def end(self) -> None:
        """The document of ``-o json``: a record, a list of them for several hosts."""
        if self._output != "json" or not (self._records or self._host):
            return
        document = self._records[0] if self._host is None else self._records
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


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
