"""The log of processes that import the standard library alone: JSON lines on stderr.

Of the opener's no more of one kind than a front that floods may fill a disk with.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TextIO

EVERY_S: Final = 10.0
"""Of each kind of event one line in this time; the next one says how many were left out."""


class Log:
    """Safe to use from many threads. A line that cannot be written is lost: logging stops nobody."""

    def __init__(
        self,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        name: str = "mapd.opener",
        every_s: float = EVERY_S,
    ) -> None:
        self._stream: Final = stream
        self._name: Final = name
        self._every_s: Final = every_s
        self._now: Final = now
        self._lock: Final = threading.Lock()
        self._last: Final[dict[str, float]] = {}
        self._left_out: Final[dict[str, int]] = {}

    def write(self, level: str, event: str, **details: object) -> None:
        """One line. ``event`` is one of few: what differs from time to time belongs into ``details``."""
        with self._lock:
            now = self._now()
            if event in self._last and now - self._last[event] < self._every_s:
                self._left_out[event] = self._left_out.get(event, 0) + 1
                return
            self._last[event] = now
            if left_out := self._left_out.pop(event, 0):
                details["left_out"] = left_out
            line = {
                "event": event,
                "logger": self._name,
                **{
                    name: value if isinstance(value, int) else str(value)[:500]
                    for name, value in details.items()
                },
                "level": level,
                "timestamp": datetime.now(UTC).isoformat(),
            }
            try:
                print(json.dumps(line), file=self._stream or sys.stderr, flush=True)
            except (OSError, ValueError):  # nobody reads, or it is closed
                return
