"""What a person who starts the daemon by hand is told."""

from __future__ import annotations

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
    rows = [
        ("socket", f"{socket}"),
        ("backend", f"{facts.backend}, Linux {facts.kernel_release}, {facts.possible_cpus} possible CPUs"),
        (
            "names",
            f"{facts.pin_root}/<namespace>/<name>, namespace {admin.namespace or 'admin'} unless given",
        ),
        *(("visible", line) for line in visible(config, capabilities)),
        *(("not visible", line) for line in not_visible(capabilities)),
        ("admitted", ", ".join(["root", *admitted])),
        ("admit more", f'[principals.admin] users = ["alice"]   in {DEFAULT_PATH}, then restart'),
    ]
    lines = [f"  {name:<12} {value}" for name, value in rows]
    return "\n".join([f"mapd {__version__}, profile {facts.profile}", *lines])


def visible(config: Config, capabilities: frozenset[str]) -> list[str]:
    """What clients can reach."""
    found = ["maps by name", f"pins below {', '.join(config.daemon.pin_roots)} whose modes admit mapd"]
    if {"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"} & capabilities:
        found[1] = f"every pin below {', '.join(config.daemon.pin_roots)}"
    if "CAP_SYS_ADMIN" in capabilities:
        found.append("every map of the host by id")
    return found


def not_visible(capabilities: frozenset[str]) -> list[str]:
    """What they cannot, and what would mend it."""
    lines: list[str] = []
    if "CAP_SYS_ADMIN" not in capabilities:
        lines.append("maps by id, BTF of foreign maps: need CAP_SYS_ADMIN (profile inspector)")
    if not {"CAP_BPF", "CAP_SYS_ADMIN"} & capabilities:
        lines.append(
            "new maps cannot be created: needs CAP_BPF (start as root, or AmbientCapabilities=CAP_BPF)"
        )
    return lines
