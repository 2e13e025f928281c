"""Locking a process in: everything at once, in the one order that works, or an error."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mapd.sandbox import capabilities, landlock, seccomp
from mapd.sandbox.capabilities import SandboxError
from mapd.sandbox.landlock import Rules, Ruleset
from mapd.sandbox.users import Account

MAKE_THREADS: Final = ("grpc", "numpy")
"""Packages whose import starts threads, which landlock would leave free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """How a process is locked in.

    Attributes:
        uid: whose process it is.
        capabilities: what it keeps, by name.
        landlock: the ABI in force; 0: none.
        missing: what this kernel or start could not give, each with what would.
    """

    uid: int
    capabilities: frozenset[str]
    landlock: int
    missing: tuple[str, ...]


def lock_front(user: Account | None, rules: Rules, *, tcp: bool = False) -> Locked:
    """Lock in the process that speaks to clients: no capability, ``rules``, bpf(2) on held descriptors alone.

    ``user``: whom to become; None: who we are. ``tcp``: whether it may have TCP sockets, on the ports of ``rules``.

    Raises:
        SandboxError: it could not be, or there is a thread already; the process must end.
    """
    _refuse_threads()
    families = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) if tcp else (socket.AF_UNIX,)
    calls = seccomp.Calls(bpf=seccomp.FRONT_COMMANDS, families=frozenset(map(int, families)))
    return _lock(user, 0, rules, calls)


def lock_opener(user: Account | None, keep: frozenset[str], rules: Rules) -> Locked:
    """Lock in the process that holds the capabilities ``keep``: no network, names below the pin roots alone.

    Raises:
        SandboxError: as ``lock_front``.
    """
    _refuse_threads()
    return _lock(user, capabilities.bits_of(keep), rules, seccomp.Calls(bpf=seccomp.OPENER_COMMANDS))


def _lock(user: Account | None, keep: int, rules: Rules, calls: seccomp.Calls) -> Locked:
    try:
        ruleset = Ruleset.make(rules)
        missing = capabilities.give_up(keep, user)
        ruleset.enforce()
        seccomp.enforce(calls)
    except OSError as error:
        raise SandboxError(f"locking in: {error.strerror or error}") from error
    in_force = ruleset.version if ruleset.version >= landlock.ABI_NEEDED else 0
    _look(in_force, rules)
    return Locked(
        uid=os.geteuid(),
        capabilities=frozenset(capabilities.names_of(capabilities.held().effective)),
        landlock=in_force,
        missing=(*missing, *landlock.missing_of(ruleset.version)),
    )


def _refuse_threads() -> None:
    loaded = [name for name in MAKE_THREADS if name in sys.modules]
    if loaded:
        raise SandboxError(
            f"locking in: {', '.join(loaded)} is imported already, and its threads would stay free"
        )
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names, not paths
    if count != 1:
        raise SandboxError(f"locking in: {count} threads run already, and those would stay free")


def _look(in_force: int, rules: Rules) -> None:
    """Look at the outcome, from inside.

    Raises:
        SandboxError: something that was put in force is not.
    """
    found = capabilities.held()
    if not found.no_new_privs or found.seccomp != 2:
        raise SandboxError(f"locking in: {found} is not locked in")
    if in_force and "/" not in _allowed(rules):
        try:
            os.close(os.open("/", os.O_RDONLY | os.O_DIRECTORY))
        except PermissionError:
            return
        raise SandboxError("locking in: landlock is in force, and / can be read")


def _allowed(rules: Rules) -> Sequence[str]:
    return [str(Path(path).resolve()) for path in (*rules.read, *rules.write, *rules.names)]
