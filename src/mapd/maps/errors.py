"""The exception of this package and everything above it, and errno's way into it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Self

from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import ControlEnded, LimitRefused, SyscallError
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import ENOTSUPP

MESSAGE_MAX: Final = 700
METADATA_MAX: Final = 200
"""Characters. A status rides in HTTP/2 metadata, of which a connection takes 8 KiB; what a client sent
(a name of any length) stands in messages, so they are cut in the middle."""


def shortened(text: str, most: int) -> str:
    """``text``, without its middle where it is longer than ``most`` characters."""
    if len(text) <= most:
        return text
    head = most * 2 // 3
    return f"{text[:head]} [... {len(text) - most} characters ...] {text[head - most :]}"


class MapError(Exception):
    """A refusal on its way to the client; ``refusal`` is all of it."""

    def __init__(self, reason: Reason, message: str, **metadata: object) -> None:
        message = shortened(message, MESSAGE_MAX)
        super().__init__(message)
        self.refusal = Refusal(
            reason, message, {name: shortened(str(value), METADATA_MAX) for name, value in metadata.items()}
        )

    def waiting(self, seconds: float | None) -> Self:
        """The same, with the exact time after which trying again may help; None: as is usual for the reason."""
        self.refusal = replace(self.refusal, wait_s=seconds)
        return self

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.refusal.reason


UNSUPPORTED: Final = frozenset({ENOTSUPP, errno.EOPNOTSUPP})
"""Two errnos for one thing: the kernel's internal 524 leaks out beside 95."""

PASSING: Final = frozenset({errno.EBUSY, errno.EAGAIN, errno.EINTR})
"""Nothing is wrong but the moment: the same call may go through when it is made again."""

_SCARCE: Final[Mapping[int, tuple[Reason, str]]] = MappingProxyType(
    {
        errno.ENOMEM: (
            Reason.KERNEL_MEMORY,
            "the kernel has no memory for it; give the daemon's cgroup more, or the host",
        ),
        errno.EMFILE: (
            Reason.QUOTA,
            "the daemon has no file descriptors left; close maps, or raise LimitNOFILE",
        ),
        errno.ENFILE: (Reason.QUOTA, "the host has no file descriptors left"),
    }
)

_CREATE_HINTS: Final[Mapping[int, tuple[Reason, str]]] = MappingProxyType(
    {
        errno.ENOMEM: (
            Reason.KERNEL_MEMORY,
            "the kernel has no memory for it; ask for fewer entries, or give the daemon's cgroup more",
        ),
        errno.E2BIG: (
            Reason.BAD_SPEC,
            "larger than this map type can be, or a field is new to this kernel; ask for fewer or smaller entries",
        ),
        errno.EINVAL: (Reason.BAD_SPEC, "the kernel refuses this combination of type, sizes and flags"),
        errno.ERANGE: (Reason.BAD_SPEC, "memory at this map_extra would cross a 4 GiB boundary"),
        errno.EOVERFLOW: (
            Reason.BAD_SPEC,
            "larger than the kernel can count; ask for fewer or smaller entries",
        ),
        ENOTSUPP: (
            Reason.OPERATION_UNSUPPORTED,
            "this kernel cannot create it so",
        ),
        errno.EOPNOTSUPP: (Reason.OPERATION_UNSUPPORTED, "this kernel cannot create it so"),
    }
)


def scarcity(error: OSError, what: str, **metadata: object) -> MapError | None:
    """The refusal where the daemon, its opener or its host has no more to give; None for any other errno."""
    number = error.errno or 0
    if isinstance(error, ControlEnded):
        return ended(error, what, **metadata)
    if isinstance(error, LimitRefused):
        return _limit(error, what, errno=errno_name(number), **metadata)
    if number not in _SCARCE:
        return None
    reason, hint = _SCARCE[number]
    return MapError(reason, f"{what}: {hint} [{errno_name(number)}]", errno=errno_name(number), **metadata)


def not_now(error: OSError, what: str, **metadata: object) -> MapError | None:
    """As ``scarcity``, and BUSY where the kernel was busy: asked again, it may go through."""
    number = error.errno or 0
    if number in PASSING:
        name = errno_name(number)
        return MapError(
            Reason.BUSY, f"{what}: the kernel was busy; try again [{name}]", errno=name, **metadata
        )
    return scarcity(error, what, **metadata)


def ended(error: ControlEnded, what: str, **metadata: object) -> MapError:
    """The refusal of what the opener's end stopped: mapd connects to another one, or stops too."""
    about = {**metadata, "errno": errno_name(error.errno or 0)}
    if error.unknown:
        return MapError(
            Reason.OUTCOME_UNKNOWN,
            f"{what}: mapd's opener ended while it did this: whether it was done is not known; look once there is "
            "another",
            **about,
        )
    return MapError(
        Reason.DRAINING,
        f"{what}: nothing was done: mapd's opener has ended; ask again once there is another",
        **about,
    )


def _limit(error: LimitRefused, what: str, **metadata: object) -> MapError:
    return MapError(
        Reason.QUOTA,
        f"{what}: a limit of mapd's opener, for all clients together: {error.limit} [{errno_name(error.errno or 0)}]",
        **metadata,
    )


def from_create(error: SyscallError, what: str, *, needs: str = "CAP_BPF", **metadata: object) -> MapError:
    """The refusal for a failed BPF_MAP_CREATE of ``what`` ("hash map ns/flows, 1024 x (8, 8) bytes").

    ``needs``: the capability that this type asks for.
    """
    number = error.errno or 0
    about = {"errno": errno_name(number), "operation": "create", **metadata}
    if isinstance(error, ControlEnded):
        return ended(error, f"create {what}", **about)
    if isinstance(error, LimitRefused):
        return _limit(error, f"create {what}", **about)
    if number == errno.EPERM:
        return capability(needs, f"create {what}", **about)
    if number in PASSING:
        return MapError(
            Reason.BUSY, f"create {what}: the kernel was busy; try again [{errno_name(number)}]", **about
        )
    reason, hint = _CREATE_HINTS.get(number) or _SCARCE.get(number, (Reason.INTERNAL, "unexpected"))
    return MapError(reason, f"create {what}: {hint} [{error.command}: {errno_name(number)}]", **about)


def capability(name: str, what: str, **metadata: object) -> MapError:
    """The daemon itself may not: which capability, and the two ways to mend it."""
    fix = (
        f"give mapd {name} (systemd: AmbientCapabilities={name}; by hand: start it as root), "
        "or use a map that a process with it has created and pinned where mapd may open it"
    )
    return MapError(
        Reason.DAEMON_CAPABILITY,
        f"{what}: the daemon lacks {name}; {fix}",
        **{**metadata, "capability": name, "fix": fix},
    )
