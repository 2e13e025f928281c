"""What a person who starts the daemon by hand is told."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from mapd.access.policy.holder import NOBODY_ELSE
from mapd.access.policy.model import Policy
from mapd.access.principal import ADMIN
from mapd.config import Config
from mapd.isolation import Isolation
from mapd.rpc.server_info import Facts
from mapd.rpc.sockets import SOCKET_NAME
from mapd_api import __version__

SHOWN: Final = 8
"""Principals in a banner; a policy may have a thousand."""


def banner(
    config: Config,
    facts: Facts,
    policy: Policy,
    capabilities: frozenset[str],
    isolation: Isolation | None = None,
    tcp: Sequence[str] = (),
) -> None:
    """Print it to a terminal, or where console logs are asked for; JSON readers get the ready event."""
    style = config.daemon.log_format
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        sys.stderr.write(text(config, facts, policy, capabilities, isolation, tcp) + "\n")


def text(
    config: Config,
    facts: Facts,
    policy: Policy,
    capabilities: frozenset[str],
    isolation: Isolation | None = None,
    tcp: Sequence[str] = (),
) -> str:
    """Sockets and TCP addresses and whom they admit, backend, what is visible and what is not, how to admit a user.

    Before them, how the processes are kept apart; without ``isolation``, that nothing is.
    """
    names = policy.members[ADMIN].namespace
    rows = [
        *(("socket", line) for line in sockets(config, policy)),
        *(("tcp", line) for line in addresses(tcp, policy)),
        ("policy", in_force(config, policy)),
        ("audit", audit(config)),
        ("backend", backend(facts)),
        *(("processes", line) for line in processes(isolation)),
        ("names", f"{facts.pin_root}/<namespace>/<name>, the admin's namespace {names} unless given"),
        *(("visible", line) for line in visible(config, facts, capabilities)),
        *(("not visible", line) for line in not_visible(facts, capabilities)),
        (
            "admit more",
            f'[principals.admin] users = ["alice"]   in {config.daemon.policy}; read again by itself',
        ),
    ]
    lines = [f"  {name:<12} {value}" for name, value in rows]
    return "\n".join([f"mapd {__version__}, profile {facts.profile}", *lines])


def audit(config: Config) -> str:
    """Where changes and refusals are told, and what becomes of a change that cannot be."""
    chosen = config.audit
    if not chosen.path:
        return 'off: nobody can tell later who changed what ([audit] path = "/var/log/mapd/audit.jsonl" writes it)'
    full = "refused" if chosen.on_full == "deny" else "made, and counted"
    return f"{chosen.path}; a change that cannot be written there is {full}"


def processes(isolation: Isolation | None) -> list[str]:
    """How many there are, and how they are locked in."""
    if isolation is None:
        return [
            "ONE, for debugging (--single-process): who breaks in through gRPC has all its rights; no sandbox"
        ]
    return [*isolation.lines, *isolation.one_user, *(f"missing: {line}" for line in isolation.missing)]


def sockets(config: Config, policy: Policy) -> list[str]:
    """Where each principal connects, and who it is."""
    own = [f"uid {os.geteuid()}, which mapd runs as"] if os.geteuid() else []
    lines: list[str] = []
    for member in list(policy.members.values())[:SHOWN]:
        named = [*(f"user {user}" for user in member.users), *(f"group {group}" for group in member.groups)]
        admitted = ["whoever has the folder mounted"] if member.mount else named
        who = ", ".join(["root", *own, *admitted])
        lines.append(f"{config.daemon.runtime_dir}/{member.name}/{SOCKET_NAME}: {who}")
    if len(policy.members) > SHOWN:
        lines.append(f"and {len(policy.members) - SHOWN} more")
    return lines


def addresses(tcp: Sequence[str], policy: Policy) -> list[str]:
    """Where TCP listens, and whose certificates it takes; nothing where it is switched off."""
    if not tcp:
        return []
    known = [f"{member.name} ({', '.join(member.tls)})" for member in policy.members.values() if member.tls]
    if not known:
        known = ['nobody yet: [principals.NAME] tls = ["spiffe://..."] in the policy admits a certificate']
    more = [f"and {len(known) - SHOWN} more"] if len(known) > SHOWN else []
    return [f"{', '.join(tcp)}: {'; '.join([*known[:SHOWN], *more])}"]


def in_force(config: Config, policy: Policy) -> str:
    """Which policy it is."""
    if policy is NOBODY_ELSE:
        return f"none, there is no {config.daemon.policy}: admin alone"
    count = len(policy.rules)
    return f"{policy.source}, version {policy.version}: {count or 'no'} rule{'' if count == 1 else 's'}"


def backend(facts: Facts) -> str:
    """Where the maps are."""
    cpus = f"{facts.possible_cpus} possible CPUs"
    if facts.backend == "memory":
        return f"memory: maps of this daemon alone, which end with it; for tests; {cpus}"
    return f"{facts.backend}, Linux {facts.kernel_release}, {cpus}"


def visible(config: Config, facts: Facts, capabilities: frozenset[str]) -> list[str]:
    """What clients can reach."""
    if facts.backend == "memory":
        return ["what clients of this daemon make: by name, by pin, by id"]
    found = ["maps by name", f"pins below {', '.join(config.daemon.pin_roots)} whose modes admit mapd"]
    if {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"} & capabilities:
        found[1] = f"every pin below {', '.join(config.daemon.pin_roots)}"
    if "CAP_SYS_ADMIN" in capabilities:
        found.append("every map of the host by id")
    return found


def not_visible(facts: Facts, capabilities: frozenset[str]) -> list[str]:
    """What they cannot, and what would mend it."""
    if facts.backend == "memory":
        return ["any map of the kernel, for any program: pins are names and no files (--backend kernel)"]
    lines: list[str] = []
    if "CAP_SYS_ADMIN" not in capabilities:
        lines.append("maps by id, BTF of foreign maps: need CAP_SYS_ADMIN (profile inspector)")
    if not {"CAP_BPF", "CAP_SYS_ADMIN"} & capabilities:
        lines.append(
            "new maps cannot be created: needs CAP_BPF (start as root, or AmbientCapabilities=CAP_BPF)"
        )
    return lines
