"""What a person who starts the daemon by hand is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mapd.config import DEFAULT_PATH, Config
from mapd.rpc.server_info import Facts
from mapd_api import __version__


def banner(config: Config, facts: Facts, socket: Path, capabilities: frozenset[str]) -> None:
    """Print it to a terminal, or where console logs are asked for; JSON readers get the ready event."""
    style = config.daemon.log_format
    if style == "console" or (style == "auto" and sys.stderr.isatty()):
        sys.stderr.write(text(config, facts, socket, capabilities) + "\n")


def text(config: Config, facts: Facts, socket: Path, capabilities: frozenset[str]) -> str:
    """Socket, backend, what is visible and what is not, and the line that admits a user."""
    admin = config.principals["admin"]
    admitted = [*(f"user {user}" for user in admin.users), *(f"group {group}" for group in admin.groups)]
    own = [f"uid {os.geteuid()}, which mapd runs as"] if os.geteuid() else []
    rows = [
        ("socket", f"{socket}"),
        ("backend", backend(facts)),
        (
            "names",
            f"{facts.pin_root}/<namespace>/<name>, namespace {admin.namespace or 'admin'} unless given",
        ),
        *(("visible", line) for line in visible(config, facts, capabilities)),
        *(("not visible", line) for line in not_visible(facts, capabilities)),
        ("admitted", ", ".join(["root", *own, *admitted])),
        ("admit more", f'[principals.admin] users = ["alice"]   in {DEFAULT_PATH}, then restart'),
    ]
    lines = [f"  {name:<12} {value}" for name, value in rows]
    return "\n".join([f"mapd {__version__}, profile {facts.profile}", *lines])


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
