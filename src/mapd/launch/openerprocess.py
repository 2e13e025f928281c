"""The opener's process: locks itself in, says so, and serves its front until that is gone.

Imports the standard library, ``mapd_api``'s plain modules, ``mapd.bpf``, ``mapd.opener`` and ``mapd.sandbox`` alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from mapd.bpf.cpus import POSSIBLE, possible_cpus
from mapd.launch import LaunchError, cgroup
from mapd.launch.folders import make_names_root
from mapd.launch.nameslock import lock_names
from mapd.launch.settings import OpenerSettings, python_files
from mapd.opener import BadLimits, Limits, serve
from mapd.sandbox import Account, Rules, SandboxError, capabilities_of, held, lock_opener
from mapd.sandbox.capabilities import names_of

GREETING_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The opener's first message: how it is locked in, or why it could not be.

    Attributes:
        uid: whom it runs as.
        capabilities: what it kept, sorted.
        landlock: the ABI in force, 0: none.
        missing: what this kernel or start could not give.
        names_root: where it pins names.
        memory: bytes that its memory cgroup admits; 0: no limit.
        error: why it ends; the rest means nothing then.
    """

    uid: int = -1
    capabilities: tuple[str, ...] = ()
    landlock: int = 0
    missing: tuple[str, ...] = ()
    names_root: str = ""
    memory: int = 0
    error: str = ""

    def pack(self) -> bytes:
        """As it is sent."""
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)}).encode()

    @classmethod
    def unpack(cls, message: bytes) -> Self:
        """What ``pack`` made.

        Raises:
            ValueError: it made no such thing.
        """
        try:
            said: dict[str, Any] = json.loads(message)
            for name in ("capabilities", "missing"):  # JSON knows no tuples
                said[name] = tuple(said[name])
            return cls(**said)
        except (TypeError, KeyError) as error:
            raise ValueError("no greeting of an opener") from error


def main(text: str) -> None:
    """Run until the front is gone. Locked in before a byte is read from the socket."""
    settings = OpenerSettings.from_json(text)
    if settings.with_front:
        # Ctrl-C and a supervisor's signal reach all processes of a group; the front drains first, and needs this one.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
    sock = socket.socket(fileno=settings.fd)
    sock.set_inheritable(False)
    try:
        greeting, limits = lock_in(settings)
    except (LaunchError, SandboxError, BadLimits, OSError) as error:
        sock.send(Greeting(error=str(error)).pack())
        raise SystemExit(1) from None
    try:
        sock.send(greeting.pack())
    except BrokenPipeError:
        return  # the front has ended meanwhile
    serve(sock, limits)


def lock_in(settings: OpenerSettings) -> tuple[Greeting, Limits]:
    """Make the folder for names, and give up all but the profile's capabilities.

    Raises:
        LaunchError, SandboxError, BadLimits: it cannot be.
    """
    cgroup.join(settings.cgroup)
    memory = cgroup.memory_limit()
    user = Account(settings.uid, settings.gid) if settings.uid >= 0 else None
    make_names_root(settings.bpffs, settings.names_root, user, private=settings.private_bpffs)
    lock_names(settings.names_root)  # as long as this process lives
    kept = capabilities_of(settings.profile) & set(names_of(held().permitted))
    # The kernel asks for it too; by this nothing is asked of the kernel.
    ids = "CAP_SYS_ADMIN" in kept
    limits = Limits(**settings.limits, names_root=settings.names_root, ids=ids)
    possible_cpus()  # read once, here
    rules = Rules(
        read=(*python_files(), "/proc/self", "/sys/kernel/btf", str(POSSIBLE)),
        names=(settings.names_root, *limits.pin_roots),
        # Who holds a map: other processes are counted. Looking into one is beyond any landlock domain.
        lists=("/proc",),
    )
    locked = lock_opener(user, frozenset(kept), rules)
    if not os.access(settings.names_root, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise LaunchError(
            f"{settings.names_root}: uid {locked.uid}, whom the opener runs as, cannot use it; "
            f"chmod a+x {settings.bpffs} (deploy/tmpfiles.d does), or profile pins-rw"
        )
    return Greeting(
        uid=locked.uid,
        capabilities=tuple(sorted(locked.capabilities)),
        landlock=locked.landlock,
        missing=locked.missing,
        names_root=settings.names_root,
        memory=memory,
    ), limits
