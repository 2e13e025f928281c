"""Counters of calls and messages: plain numbers, which are looked at when somebody asks.

Incrementing one takes less than a microsecond and no lock. For one event loop; another thread may look at any time,
and sees each number as it was at some moment.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of buckets: from a third of the fastest call to more than any deadline that a unary call gets."""

OK: Final = "OK"
CANCELLED: Final = "CANCELLED"
"""The client went, or its deadline passed: nobody was told anything."""


@dataclass(slots=True)
class Histogram:
    """How many observations were at most each bound; the last bucket has those beyond all."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """Of all observations."""
        return sum(self.buckets)


class Calls:
    """What became of the calls of one daemon, and of the messages of its sessions.

    Attributes:
        handled: how long calls took, by method (its full name) and by what they were told: OK, a reason, CANCELLED.
        messages: how long messages of sessions took, from when they were read to when their answer was queued.
        groups: groups of elements that were refused as a whole, by reason.
        quotas: refusals for a quota, by principal and dimension.
        cuts: streams that were ended because their client took nothing, by method.
    """

    def __init__(self) -> None:
        self.handled: dict[tuple[str, str], Histogram] = {}
        self.messages = Histogram()
        self.groups: Counter[str] = Counter()
        self.quotas: Counter[tuple[str, str]] = Counter()
        self.cuts: Counter[str] = Counter()

    def ended(self, method: str, outcome: str, seconds: float) -> None:
        """A call is over."""
        found = self.handled.get((method, outcome))
        if found is None:
            found = self.handled[method, outcome] = Histogram()
        found.observe(seconds)

    def refused(self, reason: str, about: Mapping[str, str], stream: str = "") -> None:
        """Somebody was refused something.

        Args:
            about: the refusal's metadata: whose quota it was, and which.
            stream: the method, where a stream was ended.
        """
        if reason != "QUOTA":
            return
        if "quota" in about:
            self.quotas[about.get("principal", ""), about["quota"]] += 1
        elif stream:
            self.cuts[stream] += 1

    def group_refused(self, reason: str, about: Mapping[str, str]) -> None:
        """A group of elements was refused as a whole, in a call or message that goes on."""
        self.groups[reason] += 1
        self.refused(reason, about)
