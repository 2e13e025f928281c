"""How many element operations a principal may ask for in a second: a token bucket each, exact to the nanosecond."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from mapd.access.principal import Principal
from mapd.access.quotas import Dimension, QuotasOf
from mapd.maps.errors import MapError
from mapd.runtime.shares import about
from mapd_api.reasons import Reason

_SECOND: Final = 1_000_000_000


@dataclass(slots=True)
class _Bucket:
    """``level``: operations there is room for, in billionths, so that a nanosecond of refill is ``rate`` of them."""

    level: int
    at: int

    def refill(self, rate: int, burst: int, now: int) -> None:
        self.level = min(burst * _SECOND, self.level + (now - self.at) * rate)
        self.at = now


class Rates:
    """The buckets of all principals. For one event loop; no timer runs.

    A bucket holds ``burst`` operations and gains ``ops_per_second``. A group of n elements takes n of them, and is
    refused as a whole where they are not there; a refused one takes none. A group larger than the burst is let through
    when the bucket is full, and leaves it below empty: what follows waits until that is paid, so that over time nobody
    gets more than its rate, and no group is too large to be ever let through.

    Args:
        clock, sleep: time.monotonic_ns and asyncio.sleep, or a test's.
    """

    def __init__(
        self,
        quotas_of: QuotasOf,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._quotas_of = quotas_of
        self._clock = clock
        self._sleep = sleep
        self._buckets: dict[Principal, _Bucket] = {}

    def take(self, principal: Principal, count: int, operation: Callable[[], str]) -> None:
        """Let ``count`` operations through.

        Args:
            operation: says what is asked for, where it is refused.

        Raises:
            MapError: QUOTA, with the exact time after which so many would be let through; nothing was taken.
        """
        wait = self._try(principal, count)
        if wait is None:
            return
        rate, burst = self._limits(principal) or (0, 0)
        raise self._refusal(principal, count, operation(), rate, burst, wait)

    def give_back(self, principal: Principal, count: int) -> None:
        """Operations that were let through and then not begun."""
        bucket = self._buckets.get(principal)
        if bucket is not None:
            bucket.level += count * _SECOND  # the next refill keeps it to the burst

    async def pace(self, principal: Principal, count: int) -> None:
        """Wait until ``count`` operations are let through: for streams, which are slowed down instead of refused.

        Cancelling takes nothing.
        """
        while (wait := self._try(principal, count)) is not None:
            await self._sleep(wait / _SECOND if wait else 1.0)

    def used(self, principal: Principal) -> int:
        """Of the burst, at this moment; more than that while a larger group is being paid for."""
        limits = self._limits(principal)
        bucket = self._buckets.get(principal)
        if limits is None or bucket is None:
            return 0
        bucket.refill(*limits, self._clock())
        return limits[1] - bucket.level // _SECOND

    def _limits(self, principal: Principal) -> tuple[int, int] | None:
        quotas = self._quotas_of(principal)
        rate = quotas.ops_per_second
        if rate is None:
            return None
        return rate, rate if quotas.burst is None else quotas.burst

    def _try(self, principal: Principal, count: int) -> int | None:
        """Take them; or the nanoseconds until they can be taken, 0: never under these quotas."""
        limits = self._limits(principal)
        if limits is None:
            if self._buckets:
                self._buckets.pop(principal, None)
            return None
        rate, burst = limits
        now = self._clock()
        bucket = self._buckets.get(principal)
        if bucket is None:
            bucket = self._buckets[principal] = _Bucket(burst * _SECOND, now)
        else:
            bucket.refill(rate, burst, now)
        needed = min(count, burst) * _SECOND
        if rate and bucket.level >= needed:
            bucket.level -= count * _SECOND
            return None
        return -(-(needed - bucket.level) // rate) if rate else 0

    def _refusal(
        self, principal: Principal, count: int, operation: str, rate: int, burst: int, wait: int
    ) -> MapError:
        room = max(0, self._buckets[principal].level // _SECOND)
        wait_s = wait / _SECOND if wait else None
        when = f"try again in {wait_s:.6f} s, " if wait_s else ""
        return MapError(
            Reason.QUOTA,
            f"{operation}: {count} operations are asked for and {principal.name} has room for {room} now, its limit is "
            f"{rate} a second and {burst} at once: {when}ask for less at a time, or have ops_per_second raised in the "
            f"policy ([principals.{principal.name}.quotas])",
            **about(operation),
            principal=principal.name,
            quota=Dimension.OPS_PER_SECOND.value,
            used=burst - room,
            asked=count,
            limit=rate,
            burst=burst,
        ).waiting(wait_s)
