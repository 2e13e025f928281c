"""Exit codes and advice: what mapctl says and returns when something went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mapd_api.reasons import Reason
from mapd_client import errors

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3  # key or map
PERMISSION: Final = 4
UNAVAILABLE: Final = 5  # or the deadline passed
CONFLICT: Final = 6  # exists, frozen
SOME_HOSTS: Final = 7  # of several failed; the others' output is complete
DIFFERS: Final = 8  # diff: the sides differ; sync --exit-code: something was changed
INTERRUPTED: Final = 130  # SIGINT
BROKEN_PIPE: Final = 141  # the reader went away, as SIGPIPE would end it

_ADMIT: Final = (
    'have root make you a principal: [principals.NAME] users = ["..."] in /etc/mapd/policy.toml; '
    "mapd reads it by itself"
)
_RIGHTS: Final = "see 'mapctl whoami' for who you are here, and 'mapctl can' for what you may do"
_SOCKET: Final = "if it is elsewhere, say where with --address or MAPD_ADDRESS"
_SHAPE: Final = "see 'mapctl show' for the map's type and sizes"
_AGAIN: Final = "nothing was executed; try again"

_BY_REASON: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.INDEX_OUT_OF_RANGE: "an array has the indexes 0 to max_entries - 1: see 'mapctl show'",
        Reason.KEY_SIZE_MISMATCH: _SHAPE,
        Reason.VALUE_SIZE_MISMATCH: _SHAPE,
        Reason.BAD_COLUMNS: _SHAPE,
        Reason.BAD_FLAGS: _SHAPE,
        Reason.KERNEL_MEMORY: "free memory on the daemon's host, or create a smaller map",
        Reason.READ_ONLY: "open the map for writing",
        Reason.POLICY: _RIGHTS,
        Reason.OPERATION_UNSUPPORTED: "see 'mapctl show' for what this map supports",
        Reason.BUSY: _AGAIN,
        Reason.DRAINING: "the daemon is stopping; try again when it is back",
        Reason.STALE_HANDLE: _AGAIN,
        Reason.EPOCH_CHANGED: _AGAIN,
        Reason.MAP_REPLACED: "another map has taken the name; try again to use that one",
        Reason.INTERNAL: "a fault of the daemon: its log has more",
    }
)
"""What to do, where the daemon's reason says more than the class of the error."""

_TABLE: Final[tuple[tuple[type[errors.MapdError], int, str], ...]] = (
    (errors.MapNotFound, NOT_FOUND, "see 'mapctl list' for the maps that you may see"),
    (errors.KeyMissing, NOT_FOUND, "see 'mapctl dump' for the keys that are there"),
    (
        errors.DaemonCapability,
        PERMISSION,
        "the daemon's log says at its start what it may reach and what not",
    ),
    (errors.PermissionDenied, PERMISSION, _ADMIT),
    (errors.OutcomeUnknown, UNAVAILABLE, "look whether it was done before you repeat it"),
    (errors.DumpIncomplete, FAILURE, "repeat it, or take what there is with --partial-ok"),
    (errors.DeadlineExceeded, UNAVAILABLE, "give it longer with --timeout"),
    (errors.Unreachable, UNAVAILABLE, _SOCKET),
    (errors.MapExists, CONFLICT, "choose another name, or remove the one that is there"),
    (errors.KeyExists, CONFLICT, "use 'any' or 'exist' to replace it"),
    (errors.MapFrozen, CONFLICT, "only BPF programs can still write it"),
    (errors.Incompatible, CONFLICT, "see its shape with 'mapctl show'"),
    (
        errors.RemovalsRefused,
        CONFLICT,
        "look at what would go ('mapctl sync --dry-run'); if that is meant, allow it with --max-removals",
    ),
    (errors.MapFull, FAILURE, ""),
    (errors.QuotaExceeded, FAILURE, "wait, or ask the daemon's administrator for more"),
    (
        errors.Unsupported,
        FAILURE,
        "daemon and mapctl are of different versions: bring the older one up to date",
    ),
    (errors.SizeMismatch, USAGE, _SHAPE),
    (errors.Misuse, USAGE, ""),
)


def of_error(error: errors.MapdError) -> tuple[int, str]:
    """The exit code for an error, and what to do about it."""
    for kind, code, advice in _TABLE:
        if isinstance(error, kind):
            return code, _advice(error, advice)
    return FAILURE, _advice(error, "see the daemon's log")


def _advice(error: errors.MapdError, of_its_class: str) -> str:
    if isinstance(error, errors.DaemonCapability) and error.fix:
        return error.fix
    if isinstance(error, errors.MapNotFound) and "lease" in error.metadata:
        return "see 'mapctl lease list' for the leases of maps that you may see"
    if isinstance(error, errors.MapNotFound) and (noted := getattr(error, "__notes__", ())):
        return str(noted[0])
    if isinstance(error, errors.MapExists) and error.operation == "create":
        return "to use the one that is there, if its shape is the same: --exist-ok"
    if isinstance(error, errors.Unsupported) and error.reason is None and error.map:
        return f"see 'mapctl show {error.map}' for what it supports"
    if error.reason is not None:
        return _BY_REASON.get(error.reason, of_its_class)
    return of_its_class
