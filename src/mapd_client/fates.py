"""How an element operation ends that the daemon never answered. Sans-I/O.

What has left this process may have been executed: a mutation's outcome is unknown, a read has changed
nothing. What has not left was not executed.
"""

from __future__ import annotations

from collections.abc import Callable

from mapd_api.reasons import Reason
from mapd_client.errors import (
    DeadlineExceeded,
    MapdError,
    Misuse,
    NotSent,
    OutcomeUnknown,
    Refused,
    Unavailable,
)
from mapd_client.failures import Asked

Fate = Callable[[Asked], MapdError]
"""The exception for one call; a new one each time."""


def late(target: str, timeout: float, *, written: bool, why: str) -> Fate:
    """Its time was over; ``why`` says what it waited for."""

    def fate(asked: Asked) -> MapdError:
        within = f"within {round(timeout, 3):g} s"
        if not written:
            kind: type[MapdError] = NotSent if asked.mutates else DeadlineExceeded
            return _made(kind, f"{asked}: not sent {within}: {why}", asked)
        what = f"{asked}: no answer from {target} {within}"
        if why:
            what = f"{what}: {why}"
        if asked.mutates:
            return _made(OutcomeUnknown, f"{what}; it may have been executed", asked)
        return _made(DeadlineExceeded, what, asked)

    return fate


def lost(why: str, reason: Reason | None = None) -> Fate:
    """It was written, and its answer is not to be had any more; ``reason`` is the daemon's, if it said why."""

    def fate(asked: Asked) -> MapdError:
        if asked.mutates:
            return _made(OutcomeUnknown, f"{asked}: {why}; it may have been executed", asked, reason)
        return _made(Unavailable, f"{asked}: {why}", asked, reason)

    return fate


def closed(*, written: bool) -> Fate:
    """The client was closed meanwhile."""

    def fate(asked: Asked) -> MapdError:
        what = f"{asked}: the client was closed meanwhile"
        if not asked.mutates:
            return _made(Unavailable, what, asked)
        if written:
            return _made(OutcomeUnknown, f"{what}; it may have been executed", asked)
        return _made(NotSent, f"{what}; it was not sent", asked)

    return fate


def unsent(cause: MapdError) -> Fate:
    """It was never written, and cannot be any more, because of ``cause``."""
    # A refusal says by its class that nothing was changed, and what to do.
    refused = isinstance(cause, (Refused, Misuse))

    def fate(asked: Asked) -> MapdError:
        kind: type[MapdError] = NotSent if asked.mutates and not refused else type(cause)
        return kind(
            f"{asked}: not sent: {cause}",
            reason=cause.reason,
            errno=cause.errno,
            operation=asked.operation,
            map=asked.map,
            metadata=cause.metadata,
            retry_after=cause.retry_after,
        )

    return fate


def _made(kind: type[MapdError], message: str, asked: Asked, reason: Reason | None = None) -> MapdError:
    return kind(message, reason=reason, operation=asked.operation, map=asked.map)
