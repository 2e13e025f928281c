"""Which hosts there are, and whether each serves: ``hosts``, and ``health`` of several."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mapd_client.cli import outcomes
from mapd_client.cli.fanout import HOST, on_each, several
from mapd_client.cli.options import Format, Given, Options
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.running import many
from mapd_client.client import Client
from mapd_client.errors import Misuse

HOSTS: Final = (
    HOST,
    Field("address", str, "ADDRESS"),
    Field("state", str, "STATE"),
    Field("node", str, "NODE"),
    Field("version", str, "MAPD"),
    Field("kernel_release", str, "LINUX"),
    Field("profile", str, "PROFILE"),
    Field("principal", str, "YOU ARE"),
    Field(
        "labels",
        dict,
        "LABELS",
        lambda said: " ".join(f"{name}={text}" for name, text in said.items()) or "-",
    ),
)


def hosts(*, output: Format = "table", options: Given) -> int:
    """The hosts that -H, --hosts or the context name, and which of them answer; exit code 7 if some do not.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """
    if not many(options):
        raise Misuse(
            "hosts: name several, with -H twice or more, with --hosts FILE, or by a context that has them"
        )
    there = {one.name: one for one in several(options)}

    async def work(client: Client, host: str) -> Mapping[str, Any]:
        del host
        server = await client.server_info()
        return {
            "state": (await client.health()).lower().replace("_", " "),
            "node": server.node,
            "version": server.version,
            "kernel_release": server.kernel_release,
            "profile": server.profile,
            "principal": server.principal,
        }

    none = dict.fromkeys(("node", "version", "kernel_release", "profile", "principal"))

    def use(found: Mapping[str, Mapping[str, Any]]) -> None:
        rows = [
            {
                "host": name,
                "address": one.address,
                "labels": dict(one.labels),
                **(found.get(name) or {"state": "unreachable", **none}),
            }
            for name, one in there.items()
        ]
        records(rows, columns=HOSTS, output=output, file=sys.stdout)

    return on_each(options, work, use, output=output, always=True)


def health_of_each(options: Options, columns: Sequence[Field], output: Output) -> int:
    """``health`` of several hosts; a host that drains counts as one that failed."""
    codes: list[int] = []

    async def work(client: Client, host: str) -> str:
        del host
        return await client.health()

    def use(found: Mapping[str, str]) -> None:
        codes.extend(outcomes.OK if one == "SERVING" else outcomes.UNAVAILABLE for one in found.values())
        rows = [{"host": host, "status": one} for host, one in found.items()]
        records(rows, columns=(HOST, *columns), output=output, file=sys.stdout)

    failed = on_each(options, work, use, output=output)
    if failed or not any(codes):
        return failed
    return outcomes.UNAVAILABLE if all(codes) else outcomes.SOME_HOSTS
