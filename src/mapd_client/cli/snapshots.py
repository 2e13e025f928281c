"""``snapshot`` and ``restore``: maps into a file, and back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from mapd_client.cli import outcomes
from mapd_client.cli.care import DryRun, agreed
from mapd_client.cli.options import Given
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_client
from mapd_client.client import Client
from mapd_client.errors import MapNotFound, Misuse
from mapd_client.snapshots import Kept, Policy, Restored, SnapshotMap, read, restore, take

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

_TAKEN: Final = (
    Field("map", str, "MAP"),
    Field("type", str, "TYPE"),
    Field("entries", int, "ENTRIES"),
    Field("exact", bool, "EXACT"),
    Field("types", bool, "FIELDS"),
)
_RESTORED: Final = (
    Field("map", str, "MAP"),
    Field("created", bool, "CREATED"),
    Field("added", int, "ADDED"),
    Field("changed", int, "CHANGED"),
    Field("removed", int, "REMOVED"),
    Field("kept", int, "KEPT"),
    Field("dry_run", bool),
)


def snapshot(
    map: Ref,
    file: Path,
    /,
    *,
    skip_unfit: bool = False,
    output: Format = "table",
    options: Given,
) -> int:
    """Write what a map is, and what is in it, to a file; or all maps whose names match.

    The file is the old one or the whole new one, whenever this ends. 'mapctl restore' reads it, 'mapctl diff' compares
    it. It is a zip archive with a manifest in JSON.

    Args:
        map: name, pin:PATH or id:NUMBER; or a shell pattern over names: 'ns/*'.
        file: where to; a file that is there is replaced.
        skip_unfit: leave out maps whose contents no file can keep (programs, sockets, other maps), and say which.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        taken = await take(client, await _matching(client, map), file, skip_unfit=skip_unfit)
        rows = [_taken_row(one) for one in taken.maps]
        records(rows, columns=_TAKEN, output=output, file=sys.stdout)
        sys.stderr.writelines(f"mapctl: left out: {one.label}: {one.why}\n" for one in taken.left_out)
        if not options.quiet:
            sys.stderr.write(f"mapctl: {file}: {taken.bytes} bytes\n")
        return outcomes.OK

    return with_client(options, work)


async def _matching(client: Client, pattern: str) -> list[str]:
    if pattern.startswith(("pin:", "id:")) or not any(one in pattern for one in "*?["):
        return [pattern]
    names = [info.name async for info in client.list_maps(pattern) if info.name]
    if not names:
        raise MapNotFound(f"snapshot {pattern!r}: no map that you may see has such a name")
    return names


def _taken_row(one: Kept) -> dict[str, Any]:
    return {
        "map": one.name or one.label,
        "type": one.type,
        "entries": one.entries,
        "exact": one.trailer["complete"],
        "types": one.types is not None,
    }


def restore_(
    file: Path,
    map: Ref | None = None,
    /,
    *,
    to: str | None = None,
    policy: Policy = "merge",
    dry_run: DryRun = False,
    output: Format = "table",
    options: Given,
) -> int:
    """Write maps of a snapshot back; maps that are not there are created, and have their names once they are whole.

    The whole file is checked before anything is written, and so are type, sizes and fields of each map.

    Args:
        file: of 'mapctl snapshot'.
        map: one map of the file; all of them without it.
        to: another name for that one map.
        policy: merge: write what the file has, leave the rest; replace: also remove what the file does not have;
            only-missing: write only keys that are not there.
        dry_run: say what would be written.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        with read(file) as found:
            chosen = list(found.maps) if map is None else [found[map]]
            if to is not None and len(chosen) != 1:
                raise Misuse(f"restore {file} --to {to}: the file has {len(chosen)} maps: say which one")
            planned = [await restore(client, one, to, policy=policy, dry_run=True) for one in chosen]
            if not dry_run and not _agreed(planned):
                return outcomes.FAILURE
            done = planned if dry_run else [await _restored(client, one) for one in chosen]
        rows = [_restored_row(one) for one in done]
        records(rows, columns=_RESTORED, output=output, file=sys.stdout)
        if dry_run and not options.quiet:
            sys.stderr.write("mapctl: nothing was written\n")
        return outcomes.OK

    async def _restored(client: Client, one: SnapshotMap) -> Restored:
        return await restore(client, one, to, policy=policy)

    def _agreed(planned: list[Restored]) -> bool:
        losing = [one for one in planned if one.removed or one.changed]
        if not losing:
            return True
        what = ", ".join(f"{one.name}: {one.changed} changed, {one.removed} removed" for one in losing)
        return agreed(options, f"restore {file}", f"elements that are there now would be lost ({what})")

    return with_client(options, work)


def _restored_row(one: Restored) -> dict[str, Any]:
    return {
        "map": one.name,
        "created": one.created,
        "added": one.added,
        "changed": one.changed,
        "removed": one.removed,
        "kept": one.kept,
        "dry_run": one.dry_run,
    }
