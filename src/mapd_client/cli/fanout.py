"""One verb on many hosts at the same time: results tagged by host, who failed named, exit code 7 where some did."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, TypeVar

from mapd_client.cli import interrupts, outcomes
from mapd_client.cli.complaints import HOST as HOST_NOW
from mapd_client.cli.complaints import complain, summary
from mapd_client.cli.options import Options
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.outputs.listed import Row
from mapd_client.cli.running import context_of
from mapd_client.client import Client
from mapd_client.errors import MapdError, Misuse
from mapd_client.fleet import Fleet, Host
from mapd_client.fleet.targets import read, unique

T = TypeVar("T")

HOST: Final = Field("host", str, "HOST")

_TIMEOUT_S: Final = 5.0
"""For each host, where nobody says more: one that is dead holds the others' results no longer than this."""


def several(options: Options) -> Sequence[Host]:
    """The hosts that are meant, where ``running.many`` says that there are several.

    Those of ``-H``; or of a file of hosts, of which ``-H`` chooses some, by shell patterns too.

    Raises:
        Misuse: a file that cannot be read, a name that is not in it, one host twice; an address beside them.
    """
    hosts: Sequence[str] = options.hosts
    file: str | Path | None = options.hosts_file
    if options.address is not None:
        raise Misuse("--address is one daemon: leave it out, or -H and --hosts")
    context = context_of(options)
    tls = None
    if not hosts and file is None:
        assert context is not None  # as many() found
        hosts, file, tls = context.hosts, context.hosts_file, context.tls
    if file is None:
        return unique(Host(one, one, tls=tls) for one in hosts)
    there = [one if one.tls is not None else replace(one, tls=tls) for one in read(file)]
    for pattern in hosts:
        if not any(fnmatchcase(one.name, pattern) for one in there):
            names = ", ".join(one.name for one in there)
            raise Misuse(f"-H {pattern}: {file} has no such host; it has {names}")
    return [one for one in there if not hosts or any(fnmatchcase(one.name, pattern) for pattern in hosts)]


def on_each(
    options: Options,
    work: Callable[[Client, str], Awaitable[T]],
    use: Callable[[Mapping[str, T]], object],
    *,
    output: Output = "table",
    deadline: bool = True,
    always: bool = False,
) -> int:
    """Do the work on all hosts at once, give the results that came to ``use``, name the hosts that failed.

    Args:
        options: of the verb; ``timeout`` is each host's.
        work: takes a host's client and its name.
        use: takes the results by host, in the order of the hosts.
        output: JSON asks for errors as JSON.
        deadline: all of a host's work has the timeout; False: each answer of it has, for what is long.
        always: give the results to ``use`` where there are none, too.

    Returns:
        0; 7 where some hosts failed; where all did, the exit code of the first.
    """
    if options.grpcurl:
        raise Misuse("--print-grpcurl shows the call to one daemon: give --address")

    hosts = several(options)

    async def tagged(client: Client, host: str) -> T:
        HOST_NOW.set(host)  # of this host's task alone
        return await work(client, host)

    async def asked() -> int:
        context = context_of(options)
        said = context.timeout if options.timeout is None and context is not None else options.timeout
        timeout = _TIMEOUT_S if said is None else said
        async with Fleet(hosts, timeout=timeout) as fleet:
            found = await fleet.each(tagged, deadline=deadline)
            if found or always:
                use(found)
                sys.stdout.flush()
            return _told(fleet, as_json=output in ("json", "ndjson"))

    return interrupts.run(asked())


def _told(fleet: Fleet, *, as_json: bool) -> int:
    failed = fleet.unreachable
    if not failed:
        return outcomes.OK
    codes = [_tell(host, failed[host], as_json=as_json) for host in fleet.hosts if host in failed]
    if not as_json:
        summary(len(failed), len(fleet.hosts))
    return codes[0] if len(failed) == len(fleet.hosts) else outcomes.SOME_HOSTS


def _tell(host: str, error: MapdError, *, as_json: bool) -> int:
    code, advice = outcomes.of_error(error)
    return complain(f"{host}: {error}", advice, code, as_json=as_json, error=error)


def codes(options: Options, work: Callable[[Client], Awaitable[int]]) -> int:
    """Work that prints nothing, on all hosts: 0 where it is 0 on each; the code that all have; else 7."""
    found: dict[str, int] = {}

    async def of_host(client: Client, host: str) -> None:
        found[host] = await work(client)

    failed = on_each(options, of_host, lambda _: None)
    if failed not in (outcomes.OK, outcomes.SOME_HOSTS):
        return failed
    there = {*found.values(), *([failed] if failed else [])}
    return there.pop() if len(there) == 1 else outcomes.SOME_HOSTS


def rows(
    options: Options,
    gather: Callable[[Client], Awaitable[Sequence[Row]]],
    *,
    columns: Sequence[Field],
    output: Output,
) -> int:
    """Print the records of many hosts, each with its host's name first.

    Args:
        options: of the verb.
        gather: takes a client and gives its records.
        columns: their schema.
        output: the format.
    """

    async def of_host(client: Client, host: str) -> Sequence[Row]:
        del host
        return await gather(client)

    def use(found: Mapping[str, Sequence[Row]]) -> None:
        tagged = [{"host": host, **row} for host, of_it in found.items() for row in of_it]
        records(tagged, columns=(HOST, *columns), output=output, file=sys.stdout)

    return on_each(options, of_host, use, output=output)
