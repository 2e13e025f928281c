"""What each principal has of what is limited: counted here, checked against the policy in force at each taking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mapd.access.principal import Principal
from mapd.access.quotas import Dimension, QuotasOf, limit
from mapd.maps.errors import MapError
from mapd_api.reasons import Reason

_NEXT: Final[Mapping[Dimension, tuple[str, str]]] = MappingProxyType(
    {
        Dimension.MAPS: ("maps", "unpin maps that are not needed"),
        Dimension.MAP_BYTES: ("bytes of kernel memory in maps", "ask for fewer entries, or unpin other maps"),
        Dimension.HANDLES: ("handles open", "close some, or use one handle for all calls on a map"),
        Dimension.STREAMS: (
            "sessions, dumps and loads open",
            "end some; one session carries many calls at once",
        ),
        Dimension.DUMPS: ("dumps running", "wait for one to end"),
        Dimension.CONNECTIONS: ("connections", "close some; one connection carries many calls at once"),
        Dimension.OPS_PER_SECOND: ("operations a second", "ask for less at a time"),
    }
)


def about(operation: str) -> dict[str, str]:
    """The metadata in a message's first words: "update map 41 (flows)" is an operation, and a map."""
    word, _, what = operation.partition(" ")
    return {"operation": word, "map": what} if what else {"operation": word}


def over(
    principal: Principal,
    dimension: Dimension,
    operation: str,
    *,
    used: int,
    most: int,
    asked: int = 1,
) -> MapError:
    """The refusal of what is beyond a quota, with both numbers and what to do.

    Args:
        operation: the caller's word for it, and behind that perhaps the map.
        used: what the principal has now, of ``most``; ``asked`` for is more than is left.
    """
    what, step = _NEXT[dimension]
    wanted = f", and {asked} more are asked for" if asked > 1 else ""
    return MapError(
        Reason.QUOTA,
        f"{operation}: {principal.name} has {used} {what}{wanted}, its limit is {most}: {step}, or have "
        f"{dimension} raised in the policy ([principals.{principal.name}.quotas])",
        **about(operation),
        principal=principal.name,
        quota=dimension.value,
        used=used,
        asked=asked,
        limit=most,
    )


@dataclass(frozen=True, slots=True)
class Share:
    """What one principal has of one thing, and may have (None: as much as there is)."""

    used: int
    limit: int | None


class Shares:
    """What is held until it is given back: handles, streams, dumps, connections. For one event loop.

    A policy that is put in force with less than somebody holds takes nothing away: it refuses the next.
    """

    def __init__(self, quotas_of: QuotasOf) -> None:
        self.quotas_of: Final = quotas_of
        self._held: dict[Dimension, Counter[Principal]] = {one: Counter() for one in Dimension}
        self._measured: dict[Dimension, Callable[[Principal], int]] = {}

    def limit(self, principal: Principal, dimension: Dimension) -> int | None:
        """How much the principal may have at this moment; None: not limited."""
        return limit(self.quotas_of(principal), dimension)

    def held(self, principal: Principal, dimension: Dimension) -> int:
        """How much it has."""
        return self._held[dimension][principal]

    def total(self, dimension: Dimension) -> int:
        """How much all of them have."""
        return self._held[dimension].total()

    def take(self, principal: Principal, dimension: Dimension, operation: str) -> None:
        """Count one more until ``give_back``.

        Raises:
            MapError: QUOTA; nothing was counted.
        """
        held = self._held[dimension]
        used, most = held[principal], self.limit(principal, dimension)
        if most is not None and used >= most:
            raise over(principal, dimension, operation, used=used, most=most)
        held[principal] = used + 1

    def give_back(self, principal: Principal, dimension: Dimension) -> None:
        """One less; who has none is forgotten."""
        held = self._held[dimension]
        held[principal] -= 1
        if held[principal] <= 0:
            del held[principal]

    @contextmanager
    def hold(self, principal: Principal, dimension: Dimension, operation: str) -> Generator[None]:
        """Count one more until the block ends. Raises as ``take``."""
        self.take(principal, dimension, operation)
        try:
            yield
        finally:
            self.give_back(principal, dimension)

    def measure(self, dimension: Dimension, used: Callable[[Principal], int]) -> None:
        """Let somebody else say what is used of a thing that is not counted here."""
        self._measured[dimension] = used

    def of(self, principal: Principal) -> Mapping[Dimension, Share]:
        """All that one principal has and may have, for whoever asks who it is.

        Maps and their memory are told as 0 used: counting them looks at the kernel (``MapHost.charged``).
        """
        return {
            one: Share(
                self._measured[one](principal) if one in self._measured else self.held(principal, one),
                self.limit(principal, one),
            )
            for one in Dimension
        }
