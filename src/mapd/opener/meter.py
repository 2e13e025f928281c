"""How much may be made over time: a bucket that fills steadily and is emptied by those who make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Meter:
    """``burst`` at once, ``per_s`` after that. Safe to use from many threads.

    Args:
        now: seconds on a clock that never goes back.
    """

    def __init__(self, burst: int, per_s: int, now: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_s = per_s
        self._now = now
        self._lock = threading.Lock()
        self._left = float(burst)
        self._at = now()

    def take(self, amount: int) -> float:
        """Take that much: 0.0; or nothing, and the seconds until there is as much."""
        with self._lock:
            now = self._now()
            self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
            self._at = now
            if amount > self._left:
                return (amount - self._left) / self._per_s
            self._left -= amount
            return 0.0
