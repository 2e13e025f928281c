"""How long a call is asked again that no daemon has answered. Sans-I/O.

A daemon that is replaced is away for about a second. What was not executed, or may be executed twice, is asked again
within the caller's own time; all else is told at once.
"""

from __future__ import annotations

import time
from typing import Final, TypeVar

from mapd_api.reasons import Reason
from mapd_client.errors import DeadlineExceeded, MapdError, NotSent, OutcomeUnknown, Unavailable, Unreachable
from mapd_client.failures import Asked

_Error = TypeVar("_Error", bound=MapdError)

TRIES: Final = 8
"""How often one call is sent that breaks its connection each time: one that ends the daemon must not for ever."""

_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.05

_ENOUGH_S: Final = 0.1
"""Time for a try. One that has less ends as a call that was perhaps sent, where nobody was there to send it to."""

_LEAST_S: Final = 0.001


class Patience:
    """The time of one call, which begins now.

    Args:
        timeout: seconds in all.
        impatient: nothing is asked again.
    """

    __slots__ = ("_asked", "_lost", "_pause", "_sent", "_timeout", "_until", "_why", "impatient")

    def __init__(self, asked: Asked, timeout: float, *, impatient: bool = False) -> None:
        self.impatient = impatient
        self._asked = asked
        self._timeout = timeout
        self._until = time.monotonic() + timeout
        self._pause = _PAUSE_S
        self._sent = 0
        self._why: MapdError | None = None
        self._lost: OutcomeUnknown | None = None

    def left(self) -> float:
        """Seconds for the next try.

        Raises:
            MapdError: too few, behind a try that failed: how that did.
        """
        left = self._until - time.monotonic()
        if self._why is not None and left < _ENOUGH_S:
            raise self._told(self._why)
        return max(left, _LEAST_S)

    def pause(self, error: MapdError) -> float:
        """Seconds until the next try after ``error``; raises it where there is to be none."""
        if self.impatient or not may_ask_again(error, self._asked):
            raise self._told(error) if isinstance(error, DeadlineExceeded) else self._unless_lost(error)
        if isinstance(error, OutcomeUnknown) and self._lost is None:
            self._lost = error
        self._sent += isinstance(error, Unreachable) and error.connected
        left = self._until - time.monotonic()
        if left - self._pause < _ENOUGH_S or self._sent >= TRIES:
            raise self._told(error)
        self._why = error
        pause, self._pause = self._pause, min(1.5 * self._pause, _LONGEST_PAUSE_S)
        if error.retry_after is not None and self._asked.mutates and not self._asked.repeatable:
            # Whoever asks a daemon again and again until it is gone is asking it when it goes, and gets no answer.
            pause = min(max(pause, error.retry_after), left - _ENOUGH_S)
        return pause

    def _told(self, error: MapdError) -> MapdError:
        """``error``, with what the call waited for before."""
        why = self._why
        if why is None:
            return error  # of the first try
        return self._unless_lost(self._with_all(error, why))

    def _unless_lost(self, error: MapdError) -> MapdError:
        """What became of the call: nobody knows where a try was lost, whatever the later ones were told."""
        if self._lost is None or isinstance(error, OutcomeUnknown):
            return error
        return lost_before(self._lost, error)

    def _with_all(self, error: MapdError, why: MapdError) -> MapdError:
        if isinstance(error, DeadlineExceeded):
            what = f"{self._asked}: no answer within {round(self._timeout, 3):g} s; before: {why}"
        elif self._sent >= TRIES:
            what = f"{error}; given up after {self._sent} tries"
        else:
            what = f"{error}; asked again for {round(self._timeout, 3):g} s"
        told = _retold(type(error), what, error, error)
        if isinstance(told, Unreachable) and isinstance(error, Unreachable):
            told.connected = error.connected
        return told


def lost_before(lost: OutcomeUnknown, error: MapdError) -> OutcomeUnknown:
    """How a call ends that was made again after a try whose outcome is unknown, and failed with ``error``."""
    return _retold(OutcomeUnknown, f"{lost}; asked again: {error}", error, lost)


def _retold(kind: type[_Error], what: str, error: MapdError, about: MapdError) -> _Error:
    """``error`` in other words, of the call that ``about`` names."""
    told = kind(
        what,
        reason=error.reason,
        errno=error.errno,
        operation=about.operation,
        map=about.map,
        metadata=error.metadata,
        retry_after=error.retry_after,
    )
    told.__cause__ = error
    return told


def may_ask_again(error: MapdError, asked: Asked) -> bool:
    """Whether a call that ended so may be made once more without being executed twice, and to some purpose."""
    if error.reason is Reason.DRAINING:
        return True  # refused before it was begun
    if error.reason is not None:
        return False
    if isinstance(error, OutcomeUnknown):
        return asked.repeatable
    return isinstance(error, (Unavailable, NotSent))
