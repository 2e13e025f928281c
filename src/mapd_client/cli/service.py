"""The daemon itself: ``health``."""

from __future__ import annotations

import sys
from typing import Annotated, Final

from cyclopts import Parameter

from mapd_client.cli import outcomes
from mapd_client.cli.options import Given
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.running import many, with_client
from mapd_client.client import Client

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

_HEALTH: Final = (Field("status", str, "STATUS"),)


def health(*, output: Format = "table", options: Given) -> int:
    """Whether the daemon serves; exit code 5 if it does not. For probes: any caller may ask.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        found = await client.health()
        if output == "table":
            sys.stdout.write(f"{found.lower().replace('_', ' ')}\n")
        else:
            records([{"status": found}], columns=_HEALTH, output=output, file=sys.stdout, one=True)
        return outcomes.OK if found == "SERVING" else outcomes.UNAVAILABLE

    if many(options):
        from mapd_client.cli.hosts import health_of_each

        return health_of_each(options, _HEALTH, output)
    return with_client(options, work)
