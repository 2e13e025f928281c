"""``doctor``: what a user of the daemon has here, and what mends each thing that is missing.

It shows what the daemon tells over its API. What the host permits the daemon itself is ``mapd doctor``'s, on that host.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Annotated, Final, NamedTuple

from cyclopts import Parameter

import mapd_api
from mapd_client import discovery
from mapd_client.cli import outcomes
from mapd_client.cli.options import Given, Options
from mapd_client.cli.outputs import Field, Output, records
from mapd_client.cli.running import reached, with_client
from mapd_client.client import Client
from mapd_client.errors import MapdError
from mapd_client.info import ServerInfo
from mapd_client.rights import Principal

Format = Annotated[Output, Parameter(name=["--output", "-o"])]

_COLUMNS: Final = (
    Field("check", str, "CHECK"),
    Field("state", str, "STATE"),
    Field("text", str, "WHAT IS THERE"),
    Field("fix"),
)

_PROGRAMS: Final = {
    "vector_read": "many lookups in one run of a program",
    "vector_write": "many updates and deletes in one run of a program",
}


class Finding(NamedTuple):
    """One line: ``state`` is ok, no (something is not to be had) or bad (mapctl cannot work)."""

    check: str
    state: str
    text: str
    fix: str = ""


def doctor(*, output: Format = "table", options: Given) -> int:
    """What you have here: the daemon, who you are for it, what it and its kernel can do, and what mends the rest.

    Without a daemon it says where it looked and what is there; exit code 5. What the host permits the daemon is said
    by 'mapd doctor', there.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        server, principal = await client.server_info(), await client.whoami()
        found = [*_sockets(options), *_daemon(server, await client.health()), *_caller(principal)]
        found += [*[one async for one in _rights(client, principal)], await _facts(client)]
        found += [*await _quarantined(client), *_programs(server), *_types(server)]
        if output == "table":
            records(_lines(found), columns=_COLUMNS[:3], output=output, file=sys.stdout)
        else:
            records([one._asdict() for one in found], columns=_COLUMNS, output=output, file=sys.stdout)
        return outcomes.UNAVAILABLE if any(one.state == "bad" for one in found) else outcomes.OK

    return with_client(options, work)


def _lines(found: Iterable[Finding]) -> Iterator[dict[str, str]]:
    """For people what mends a thing stands below it."""
    for one in found:
        yield {"check": one.check, "state": one.state, "text": one.text}
        if one.fix:
            yield {"check": " ", "state": "fix:", "text": one.fix}


def _sockets(options: Options) -> Iterator[Finding]:
    """Which daemon was asked, and the others on this host."""
    asked = reached(options).address
    if asked is None:
        yield Finding(
            "address", "ok", f"{discovery.discover()}, as found here: neither an option nor a context says"
        )
    else:
        yield Finding("address", "ok", f"{asked}, as an option or a context says")
    for path, problem in discovery.sockets():
        yield Finding(
            "socket",
            "no" if problem else "ok",
            f"{path}: {problem or 'open to you'}",
            "another principal's: its users are in /etc/mapd/policy.toml, on this host" if problem else "",
        )


_RIGHTS: Final = {
    "create": ("create maps", "mapd policy allow {who} owner '{namespace}/*'"),
    "open_by_id": (
        "open maps by id",
        'a rule with verbs = ["open_by_id"] and every_map = true in policy.toml',
    ),
    "admin": ("administer", "mapd policy allow {who} admin every-map"),
}


async def _rights(client: Client, principal: Principal) -> AsyncIterator[Finding]:
    """What is not of one map; 'mapctl can' tells of those."""
    for verb, (what, fix) in _RIGHTS.items():
        about = f"{principal.namespace}/any" if verb == "create" and principal.namespace else None
        try:
            decision = await client.explain(verb, about)
        except MapdError as error:
            yield Finding(what, "no", str(error), _ask(principal))
            continue
        yield Finding(
            what,
            "ok" if decision else "no",
            decision.text,
            ""
            if decision
            else f"{_ask(principal)}: {fix.format(who=principal.name, namespace=principal.namespace)}",
        )


def _ask(principal: Principal) -> str:
    return f"ask {principal.contact}" if principal.contact else "ask who administers the daemon"


def _daemon(server: ServerInfo, health: str) -> Iterator[Finding]:
    yield Finding(
        "daemon",
        "ok" if health == "SERVING" else "bad",
        f"mapd {server.version} on {server.node}, Linux {server.kernel_release}, {health.lower().replace('_', ' ')}",
        "" if health == "SERVING" else "it is stopping: try again when it is back",
    )
    yield Finding("features", "ok", " ".join(sorted(server.features)))
    yield Finding("mapctl", "ok", f"{mapd_api.__version__}, Python {sys.version.split()[0]}")
    yield Finding(
        "profile", "ok", f"{server.profile}: {_PROFILES.get(server.profile, 'unknown to this mapctl')}"
    )
    if server.backend != "kernel":
        yield Finding(
            "backend", "no", f"{server.backend}: no maps of the kernel", "start mapd on Linux as root"
        )


_PROFILES: Final = {
    "minimal": "its own maps, and pins whose modes admit it",
    "pins-ro": "its own maps, and any pin below its roots to read",
    "pins-rw": "its own maps, and any pin below its roots",
    "network": "as minimal, and maps of devices and sockets",
    "inspector": "every map of the host, by id too",
}


def _caller(principal: Principal) -> Iterator[Finding]:
    roles = " ".join(principal.roles)
    ask = _ask(principal)
    yield Finding("you", "ok", f"{principal.name}, by {principal.attested_by}")
    yield Finding("namespace", "ok", f"{principal.namespace}: names without one are there")
    yield Finding(
        "roles",
        "ok" if roles else "no",
        roles or "none: the policy gives you nothing but your own maps, if that",
        ""
        if roles
        else f"{ask} for a rule: mapd policy allow {principal.name} viewer '{principal.namespace}/*'",
    )
    for name, share in principal.shares.items():
        if share.limit is not None and share.used >= share.limit:
            yield Finding(
                name, "no", f"{share.used} of {share.limit} are in use", f"give some back, or {ask} for more"
            )


async def _quarantined(client: Client) -> Iterable[Finding]:
    """Pins below the folder of names that the daemon found and does not serve; what you may not list is not told."""
    listing = client.list_maps("-")  # no name is that: what was not looked at is told of all
    try:
        async for _ in listing:
            pass
    except MapdError:
        return ()
    return [Finding("pin", "no", line) for line in listing.not_looked_at if ": quarantined: " in line]


async def _facts(client: Client) -> Finding:
    try:
        await client.host_info(devices=False, cgroups=False)
    except MapdError as error:
        return Finding(
            "host facts",
            "no",
            f"times, interfaces and cgroups are numbers: {error}",
            'a rule with verbs = ["host"] and every_map = true',
        )
    return Finding("host facts", "ok", "times, interfaces and cgroups have names")


def _programs(server: ServerInfo) -> Iterator[Finding]:
    for name, what in _PROGRAMS.items():
        if name in server.programs:
            yield Finding(name, "ok", what)
        else:
            yield Finding(
                name, "no", "a system call for each element instead", "'mapd doctor' on its host says why"
            )


def _types(server: ServerInfo) -> Iterable[Finding]:
    by_answer: dict[str, list[str]] = {"ok": [], "unknown": [], "refused": []}
    for name, answer in server.types.items():
        by_answer[answer].append(name)
    texts: dict[str, tuple[str, str, str]] = {
        "ok": ("types of maps", "ok", ""),
        "unknown": (
            "types the daemon may not create",
            "no",
            "start it in a profile that may: network, inspector",
        ),
        "refused": ("types its kernel lacks", "no", "a newer kernel, or one configured for them"),
    }
    for kind, (check, state, fix) in texts.items():
        names = sorted(by_answer[kind])
        if names:
            yield Finding(check, state, f"{len(names)}: {' '.join(names)}", fix)
