"""Leases, which keep maps without a name: ``lease list``, ``show``, ``keep-alive``, ``revoke``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any, Final

from cyclopts import App

from mapd_client.cli import outcomes, render
from mapd_client.cli.care import DryRun, agreed, would
from mapd_client.cli.options import Format, Given, Options
from mapd_client.cli.outputs import Field, records
from mapd_client.cli.running import many, with_client
from mapd_client.client import Client
from mapd_client.errors import Unavailable

_TIMES: Final = 3
"""How often a lease is kept alive within its ttl, as the client does it."""


def _seconds(value: float) -> str:
    return f"{value:g} s"


LISTED: Final = (
    Field("lease", str, "LEASE"),
    Field("ttl_s", float, "TTL", _seconds),
    Field("maps", int, "MAPS"),
    Field("pins", list),
)

LEASE: Final = (Field("lease"), Field("ttl_s", float), Field("remaining_s", float), Field("pins", list))

lease = App(name="lease", help="Leases, which keep maps without a name: list, show, keep-alive, revoke.")


@lease.command(name="list")
def list_(*, output: Format = "table", options: Given) -> int:
    """The leases whose maps you may see.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def gather(client: Client) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        async for info in client.list_maps():
            if info.lease is not None:
                none: dict[str, Any] = {"ttl_s": info.lease.ttl, "maps": 0, "pins": []}
                row = found.setdefault(info.lease.id, {"lease": info.lease.id, **none})
                row["maps"] += 1
                row["pins"].append(info.pin_path)
        return [found[name] for name in sorted(found)]

    async def work(client: Client) -> int:
        records(await gather(client), columns=LISTED, output=output, file=sys.stdout)
        return outcomes.OK

    if many(options):
        from mapd_client.cli import fanout

        return fanout.rows(options, gather, columns=LISTED, output=output)
    return with_client(options, work)


@lease.command
def show(name: str, /, *, output: Format = "table", options: Given) -> int:
    """One lease: its ttl, how much of it is left, and its maps. Keeps nothing alive.

    Args:
        name: "job-7" or "ns/job-7", as 'mapctl lease list' has it.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        state = await client.lease_time_to_live(name)
        row = {
            "lease": name,
            "ttl_s": state.ttl,
            "remaining_s": round(state.remaining, 3),
            "pins": list(state.pins),
        }
        if output == "table":
            render.write_fields(_lines(row), sys.stdout)
        else:
            records([row], columns=LEASE, output=output, file=sys.stdout, one=True)
        return outcomes.OK

    return with_client(options, work)


def _lines(row: Mapping[str, Any]) -> Mapping[str, str]:
    return {
        "lease": row["lease"],
        "ttl": _seconds(row["ttl_s"]),
        "remaining": _seconds(row["remaining_s"]),
        **{f"map {number}": pin for number, pin in enumerate(row["pins"], 1)},
    }


@lease.command(name="keep-alive")
def keep_alive(name: str, /, *, once: bool = False, options: Given) -> int:
    """Keep a lease alive until this is interrupted: its maps go their ttl later.

    Args:
        name: "job-7" or "ns/job-7", as 'mapctl lease list' has it.
        once: give it its whole ttl again, and end.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        ttl = await client.keep_lease_alive(name)
        how_long = "for" if once else "until this ends, and"
        sys.stdout.write(f"{name}: kept alive {how_long} {_seconds(ttl)}\n")
        sys.stdout.flush()
        while not once:
            await asyncio.sleep(ttl / _TIMES)
            ttl = await _again(client, name, ttl, options)
        return outcomes.OK

    return with_client(options, work)


async def _again(client: Client, name: str, ttl: float, options: Options) -> float:
    """The ttl; that of before where no daemon is there, for the next one begins each lease anew."""
    try:
        return await client.keep_lease_alive(name)
    except Unavailable as error:
        if not options.quiet:
            sys.stderr.write(f"mapctl: {error}; going on\n")
        return ttl


@lease.command
def revoke(name: str, /, *, dry_run: DryRun = False, options: Given) -> int:
    """End a lease now: the pins of all its maps are removed, and printed. A map that something else holds stays.

    Args:
        name: "job-7" or "ns/job-7", as 'mapctl lease list' has it.
        dry_run: say what would be removed.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        if dry_run or not options.yes:
            state = await client.lease_time_to_live(name)
            maps = f"{len(state.pins)} map{'s' * (len(state.pins) != 1)}"
            what = f"revoke lease {name} ({maps} that you may see)"
            if dry_run:
                would(f"{what}, and remove {', '.join(state.pins) or 'nothing'}")
                return outcomes.OK
            if not agreed(options, what, "maps that nothing else holds are gone, with what is in them"):
                return outcomes.FAILURE
        sys.stdout.writelines(f"{pin}\n" for pin in await client.revoke_lease(name))
        return outcomes.OK

    return with_client(options, work)
