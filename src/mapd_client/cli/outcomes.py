"""Exit codes and advice: what mapctl says and returns when something went wrong."""

from __future__ import annotations

from typing import Final

from mapd_client import errors

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3  # key or map
PERMISSION: Final = 4
UNAVAILABLE: Final = 5  # or the deadline passed
CONFLICT: Final = 6  # exists, frozen
INTERRUPTED: Final = 130  # SIGINT
BROKEN_PIPE: Final = 141  # the reader went away, as SIGPIPE would end it

_TABLE: Final[tuple[tuple[type[errors.MapdError], int, str], ...]] = (
    (errors.MapNotFound, NOT_FOUND, "see 'mapctl list' for the maps that you may see"),
    (errors.KeyMissing, NOT_FOUND, "see 'mapctl dump' for the keys that are there"),
    (errors.DaemonCapability, PERMISSION, "the daemon's administrator can mend it: 'mapd doctor'"),
    (errors.PermissionDenied, PERMISSION, "ask the daemon's administrator for the right"),
    (errors.OutcomeUnknown, UNAVAILABLE, "look whether it was done before you repeat it"),
    (errors.DumpIncomplete, FAILURE, "repeat it, or take what there is with --partial-ok"),
    (errors.DeadlineExceeded, UNAVAILABLE, "give it longer with --timeout"),
    (errors.Unreachable, UNAVAILABLE, "is mapd running? name its socket with --address or MAPD_ADDRESS"),
    (errors.MapExists, CONFLICT, "choose another name, or remove the one that is there"),
    (errors.KeyExists, CONFLICT, "use 'any' or 'exist' to replace it"),
    (errors.MapFrozen, CONFLICT, "only BPF programs can still write it"),
    (errors.Incompatible, CONFLICT, "see its shape with 'mapctl show'"),
    (errors.MapFull, FAILURE, "delete something first, or create a larger map"),
    (errors.QuotaExceeded, FAILURE, "wait, or ask the daemon's administrator for more"),
    (errors.Unsupported, FAILURE, "see 'mapctl show' for what this map supports"),
    (errors.Misuse, USAGE, "see 'mapctl --help'"),
)


def of_error(error: errors.MapdError) -> tuple[int, str]:
    """The exit code for an error, and what to do about it."""
    if isinstance(error, errors.DaemonCapability) and error.fix:
        return PERMISSION, error.fix
    for kind, code, advice in _TABLE:
        if issubclass(type(error), kind):
            return code, advice
    return FAILURE, "see the daemon's log"
