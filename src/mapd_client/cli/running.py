"""Connecting and opening for the verbs of mapctl."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable

from mapd_client.cli import interrupts
from mapd_client.cli.options import Options
from mapd_client.client import Client, connect
from mapd_client.map import Map


def with_client(options: Options, work: Callable[[Client], Awaitable[int]]) -> int:
    """Connect, work, disconnect; the exit code."""

    async def connected() -> int:
        async with connect(options.address, timeout=options.timeout) as client:
            return await work(client)

    return interrupts.run(connected())


def with_map(options: Options, ref: str, work: Callable[[Map[bytes, bytes], Client], Awaitable[int]]) -> int:
    """Connect, open a map, work, let go of both; the exit code."""

    async def opened(client: Client) -> int:
        async with client.open_map(ref) as found:
            return await work(found, client)

    return with_client(options, opened)


def complain(what: str, advice: str, code: int) -> int:
    """Say what is wrong and what to do about it; the exit code."""
    sys.stderr.write(f"mapctl: {what}\n{advice}\n")
    return code
