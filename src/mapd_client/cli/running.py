"""Connecting and opening for the verbs of mapctl."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from mapd_client import discovery
from mapd_client.cli import contexts, interrupts
from mapd_client.cli.options import Options
from mapd_client.client import Client, connect
from mapd_client.errors import MapNotFound, Misuse
from mapd_client.map import Map
from mapd_client.tls import Tls

if TYPE_CHECKING:
    from mapd_client.cli.contextfile import Context

_TIMEOUT_S: Final = 30.0


class Reached(NamedTuple):
    """One daemon, as ``connect`` takes it."""

    address: str | None
    tls: Tls | None
    timeout: float


def with_client(
    options: Options, work: Callable[[Client], Awaitable[int]], *, everywhere: bool = False
) -> int:
    """Connect, work, disconnect; the exit code. ``everywhere``: on each of several hosts, if they are meant."""
    if everywhere and many(options):
        from mapd_client.cli.fanout import codes

        return codes(options, work)
    where = reached(options)
    if options.grpcurl:
        from mapd_client.cli.grpcurl import instead

        work = instead(work, where.tls)

    async def connected() -> int:
        async with connect(
            where.address, tls=where.tls, timeout=where.timeout, wait_for_ready=options.wait
        ) as client:
            try:
                return await work(client)
            except MapNotFound as error:
                from mapd_client.cli import near

                await near.note(client, error)
                raise

    return interrupts.run(connected())


def with_map(
    options: Options,
    ref: str,
    work: Callable[[Map[bytes, bytes], Client], Awaitable[int]],
    *,
    everywhere: bool = False,
) -> int:
    """Connect, open a map, work, let go of both; the exit code. ``everywhere`` as for ``with_client``."""

    async def opened(client: Client) -> int:
        async with client.open_map(ref) as found:
            return await work(found, client)

    return with_client(options, opened, everywhere=everywhere)


def many(options: Options) -> bool:
    """Whether several hosts are meant, or a file of them; raises as ``reached`` for a context."""
    hosts, file = options.hosts, options.hosts_file
    if options.address is None and not hosts and file is None:
        one = context_of(options)
        if one is not None and one.address is None:
            hosts, file = one.hosts, Path(one.hosts_file) if one.hosts_file is not None else None
    return len(hosts) > 1 or file is not None


def reached(options: Options) -> Reached:
    """Which daemon the options, the environment and the contexts mean, for a verb that takes one host.

    Raises:
        Misuse: several hosts; no such context, a configuration that cannot be read.
    """
    address, one, tls = options.address, context_of(options), options.tls
    if address is None:
        address = _the_one(options.hosts, options.hosts_file, "-H and --hosts name")
    if one is not None:
        tls = one.tls
        address = one.address or _the_one(one.hosts, one.hosts_file, "the context names")
    timeout = options.timeout if options.timeout is not None or one is None else one.timeout
    return Reached(address, tls, _TIMEOUT_S if timeout is None else timeout)


def context_of(options: Options) -> Context | None:
    """The context that counts; None where the command line or the environment say more."""
    if options.address is not None or options.hosts or options.hosts_file is not None:
        return None
    if options.context is None and os.environ.get(discovery.VARIABLE):
        return None
    return contexts.chosen(options.context)


def _the_one(hosts: Sequence[str], hosts_file: object, who: str) -> str | None:
    if hosts_file is None and len(hosts) < 2:
        return hosts[0] if hosts else None
    raise Misuse(
        f"{who} {f'{len(hosts)} hosts' if hosts else 'the hosts of a file'}, this verb takes one: "
        "give its address with --address"
    )
