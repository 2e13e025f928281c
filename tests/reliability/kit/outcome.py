"""What a load and a nemesis come to: what the map has at the end, what cannot have been, how long nobody was served."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import mapd_client
from mapd_client import U64
from tests.reliability.kit.checker import Violation, check
from tests.reliability.kit.history import OK, REFUSED, UNKNOWN, History, Operation
from tests.reliability.kit.load import now
from tests.reliability.kit.model import ANSWERS_VALUE, MUTATIONS

NAME: Final = "words"
"""The map of all loads."""

ENTRIES: Final = 1 << 17

SWEEPER: Final = -1
"""The client that reads every key at the end."""


async def make(socket: Path) -> None:
    """Create the map."""
    async with (
        mapd_client.connect(str(socket)) as client,
        client.create_map(NAME, "hash", key=U64, value=U64, max_entries=ENTRIES),
    ):
        pass


async def sweep(socket: Path, history: History) -> None:
    """Read every key that anybody touched."""
    keys = sorted(history.by_key())
    async with (
        mapd_client.connect(str(socket)) as client,
        client.open_map(NAME, key=U64, value=U64) as opened,
    ):
        invoked = now()
        values = await opened.lookup_many(keys)
        returned = now()
    history.operations += [
        Operation(SWEEPER, 0, "lookup", key, (), invoked, returned, OK, value)
        for key, value in zip(keys, values, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of one history.

    Attributes:
        acknowledged: operations that change something and were answered.
        answers: values that were answered.
        unknown, refused: operations by how else they ended.
        reasons: why, as clients were told.
        lost: keys that do not have, or once did not have, what was acknowledged.
        ghosts: keys that had a value which nobody wrote, or of which the writer was told that it was refused.
    """

    acknowledged: int
    answers: int
    unknown: int
    refused: int
    reasons: Counter[str]
    lost: Sequence[Violation]
    ghosts: Sequence[Violation]

    @classmethod
    def of(cls, history: History) -> Outcome:
        """Check it. Raises Undecided."""
        found = check(history)
        return cls(
            acknowledged=history.count(OK, MUTATIONS),
            answers=history.count(OK, ANSWERS_VALUE),
            unknown=history.count(UNKNOWN),
            refused=history.count(REFUSED),
            reasons=Counter(each.why for each in history.operations if each.why),
            lost=[each for each in found if not each.ghost],
            ghosts=[each for each in found if each.ghost],
        )


def outages(history: History, strikes: Iterable[float]) -> list[float]:
    """For each strike and client the longest time between two answers, of those before the next strike.

    The first begins with the strike. In one that nobody noticed it is the time of one operation. A client that was
    not answered at all before the next strike counts from the first of the two.
    """
    ordered = sorted(strikes)
    found: list[float] = []
    for client in {each.client for each in history.operations} - {SWEEPER}:
        answered = sorted(
            each.returned for each in history.of(client) if each.outcome == OK and each.returned is not None
        )
        since = ordered[0]
        for strike, following in zip(ordered, [*ordered[1:], float("inf")], strict=True):
            within = answered[bisect_left(answered, strike) : bisect_left(answered, following)]
            if within:
                found.append(max(later - earlier for earlier, later in pairwise([since, *within])))
                since = following
    return found


def percentile(values: Sequence[float], part: float) -> float:
    """The value that ``part`` of them do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
