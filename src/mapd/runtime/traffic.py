"""What was done with each map through this daemon: elements read and written, since it started."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mapd.maps.groups import Plan
from mapd_api.ops import MUTATES

MOST: Final = 16_384
"""Maps that are counted for, about 150 bytes each; of more, the one that was not used for longest is forgotten."""


@dataclass(slots=True)
class Flow:
    """Elements of one map that clients have read and written."""

    read: int = 0
    written: int = 0


class Traffic:
    """The counters of all maps, by kernel id, which no other map gets before the next boot. For one event loop.

    Attributes:
        read, written: elements of all maps that were let through; never less than before.
    """

    def __init__(self, most: int = MOST) -> None:
        self.read = 0
        self.written = 0
        self._most = most
        self._flows: dict[int, Flow] = {}

    def add(self, map_id: int, read: int, written: int) -> None:
        """Count elements; less than nothing takes back what was counted and then not begun."""
        flow = self._flows.pop(map_id, None)
        if flow is None:
            if len(self._flows) >= self._most:
                del self._flows[next(iter(self._flows))]
            flow = Flow()
        self._flows[map_id] = flow  # the last that was used
        flow.read = max(0, flow.read + read)
        flow.written = max(0, flow.written + written)
        self.read += max(0, read)
        self.written += max(0, written)

    def of(self, map_ids: Iterable[int]) -> list[Flow]:
        """What was counted of each, as it is now."""
        none = Flow()
        flows = self._flows
        return [Flow(one.read, one.written) for one in (flows.get(map_id, none) for map_id in map_ids)]


def elements(checked: Plan) -> tuple[int, int]:
    """How many elements a group reads, and how many it writes: an operation that does both is one that writes."""
    group = checked.group
    written = sum(group.count_of(op) for op in checked.ops if op in MUTATES)
    return group.count - written, written
