"""How this daemon's processes are kept apart, for those who put it together and for those who are told."""

from __future__ import annotations

import select
from dataclasses import dataclass
from typing import Final

from mapd.bpf import Kernel
from mapd.launch.renewing import Renewing
from mapd.rpc.socket_trials import Others

TWO_PROCESSES: Final = "two-processes"
"""A feature: the process that speaks to clients holds no capability."""
SINGLE_PROCESS: Final = "single-process"
"""A feature, of the other kind: what breaks in through gRPC has all of the daemon's rights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the process that speaks to clients was given before it locked itself in.

    Attributes:
        kernel: reaches the opener; None where maps are in memory, and there is none.
        capabilities: the opener's, by name.
        names_root: where the opener pins names.
        names_owner: the user who makes folders there.
        lines: how both processes are locked in, for people.
        one_user: why both run as one user, and the lines that mend it; (): they do not.
        missing: what this host or start could not give, each with what would.
        others: tries once who may connect, by connecting; None where that cannot be.
        memory: bytes that all maps of the opener may come to take; None: nobody says.
        ended: readable once the opener has gone; None without one.
        renewing: what connects to another opener then; None where nobody starts any.
    """

    kernel: Kernel | None
    capabilities: frozenset[str]
    names_root: str
    names_owner: int
    lines: tuple[str, ...]
    one_user: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    others: Others | None = None
    memory: int | None = None
    ended: select.epoll | None = None
    renewing: Renewing | None = None
