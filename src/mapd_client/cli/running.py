"""Connecting and opening for the verbs of mapctl."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from mapd_client import discovery
from mapd_client.cli import contexts, interrupts
from mapd_client.cli.options import Options
from mapd_client.client import Client, connect
from mapd_client.map import Map
from mapd_client.tls import Tls

_TIMEOUT_S: Final = 30.0


class Reached(NamedTuple):
    """One daemon, as ``connect`` takes it."""

    address: str | None
    tls: Tls | None
    timeout: float


def with_client(options: Options, work: Callable[[Client], Awaitable[int]]) -> int:
    """Connect, work, disconnect; the exit code."""

    async def connected() -> int:
        where = reached(options)
        async with connect(where.address, tls=where.tls, timeout=where.timeout) as client:
            return await work(client)

    return interrupts.run(connected())


def with_map(options: Options, ref: str, work: Callable[[Map[bytes, bytes], Client], Awaitable[int]]) -> int:
    """Connect, open a map, work, let go of both; the exit code."""

    async def opened(client: Client) -> int:
        async with client.open_map(ref) as found:
            return await work(found, client)

    return with_client(options, opened)


def reached(options: Options) -> Reached:
    """Which daemon the options, the environment and the contexts mean.

    Raises:
        Misuse: no such context, a configuration that cannot be read.
    """
    timeout, address, tls = options.timeout, options.address, None
    if address is None and (options.context is not None or not os.environ.get(discovery.VARIABLE)):
        one = contexts.chosen(options.context)
        if one is not None:
            address, tls = one.address, one.tls
            timeout = one.timeout if timeout is None else timeout
    return Reached(address, tls, _TIMEOUT_S if timeout is None else timeout)
