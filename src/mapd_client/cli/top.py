"""Maps as they fill and change: ``top``."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated

from cyclopts import Parameter

from mapd_client.cli import outcomes
from mapd_client.cli.options import Given
from mapd_client.cli.running import with_client
from mapd_client.client import Client
from mapd_client.errors import Misuse, Unsupported
from mapd_client.top.source import ClientSource


def top(
    glob: str = "*",
    /,
    *,
    pins: bool = False,
    ids: bool = False,
    interval: Annotated[float, Parameter(name=["--interval", "-d"])] = 1.0,
    options: Given,
) -> int:
    """Maps with their entries, how full they are, what changes, and what goes through mapd. Needs a terminal.

    Keys: / filters, s sorts by the next column, r turns the order round, Enter shows the elements of a map, Esc goes
    back, space stands still, q ends. Amber is 80 % of max_entries, red 95 %; ~ is a count that was worked out from
    the map's memory, - one that nobody knows without reading the elements.

    Args:
        glob: shell pattern over "namespace/name"; over pins and kernel name of maps without a name.
        pins: also maps that other programs have pinned.
        ids: also all others of the host.
        interval: seconds from one look to the next; longer by itself where a look takes long.
        options: of every verb.
    """
    if find_spec("textual") is None:
        raise Unsupported("top needs textual: pip install 'bpf-mapd[top]'", operation="top")
    if not 0.1 <= interval <= 3600:
        raise Misuse(f"top: --interval {interval:g}: 0.1 to 3600 seconds")
    if not sys.stdout.isatty():
        raise Misuse("top: the output is no terminal; 'mapctl list' prints maps")

    async def work(client: Client) -> int:
        source = ClientSource(client, glob, pins, ids)
        # The daemon counts while Python loads textual: the first paint has the maps.
        first, module = await asyncio.gather(
            source.sample(), asyncio.to_thread(import_module, "mapd_client.top.app")
        )
        app = module.TopApp(source, first, interval=interval)
        await app.run_async()
        return outcomes.OK if app.return_code is None else int(app.return_code)

    return with_client(options, work)
