"""``Map.sync``: what a map has becomes what is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_client import batches
from mapd_client.bulk import Bulk
from mapd_client.codec import BadElement
from mapd_client.dumping import Dumps
from mapd_client.errors import MapFull, Misuse, RemovalsRefused, Unsupported
from mapd_client.failures import Asked
from mapd_client.handle import named
from mapd_client.syncing.plan import Contradiction, Plan, Planner, Wanted, Wishes
from mapd_client.syncing.report import SyncReport
from mapd_client.syncing.shape import shape_of
from mapd_client.tables.needs import ArrowTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapd_client.map import Map

K = TypeVar("K")
V = TypeVar("V")

_NEEDS: Final = ("dump", "update", "delete")

_PART: Final = 16_384
"""Elements compared at once: 5 ms in which the event loop does nothing else. A whole chunk may be 87,000 networks."""


class Syncing(Bulk[K, V], Dumps[K, V], Generic[K, V]):
    """What ``Map`` does with what it should have."""

    async def sync(
        self,
        desired: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        max_removals: float = 0.2,
        dry_run: bool = False,
    ) -> SyncReport:
        """Make the map have these elements and no others; only what differs is written.

        The map is read once, compared here, and what differs is written in messages of many elements: changed and new
        elements first, then what nobody wants is removed. Where the new ones have no room beside the old ones it is
        the other way round (``removed_first``), and for a moment elements are missing that were there and stay.
        Nothing is written unless all of it would fit, and before ``desired`` was read to its end.

        It is no transaction. What others write meanwhile may be seen or not, and is overwritten or not. Ended in the
        middle, by whatever, the map has some of both; the same call again does the rest. In a map of type LRU the
        kernel may evict what was written.

        Args:
            desired: as ``load`` takes it, but all of it is held in memory, some 250 bytes an element. Networks (the
                keys of an LPM trie) count without their host bits, as the kernel compares them.
            max_removals: the share of the map's elements, 0.0 to 1.0, that may be removed at most: a list that was cut
                short on its way must not empty a firewall.
            dry_run: write nothing, and report what would be.

        Cancelled: any number of the differences may have been written.

        Raises:
            MapFull: more elements than max_entries; nothing was read or written.
            RemovalsRefused: more would go than ``max_removals`` allows; nothing was written.
            Misuse: ``desired`` has one key twice with different values; a share beyond 0.0 to 1.0.
            Unsupported: the map's elements cannot be read, written and removed one by one (arrays, queues).
            DumpIncomplete: the map could not be read to its end; nothing was written.
            BatchFailed, OutcomeUnknown: in the middle, as ``update_many`` and ``delete_many``.
        """
        return await self._synced(desired, max_removals, dry_run=dry_run, review=lambda _: None)

    async def _synced(
        self,
        desired: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        max_removals: float,
        *,
        dry_run: bool,
        review: Callable[[Plan], object],
    ) -> SyncReport:
        asked = Asked("sync", self._name, mutates=True)
        if not 0.0 <= max_removals <= 1.0:
            raise _misuse(
                asked, f"max_removals is a share of the map's elements, 0.0 to 1.0, not {max_removals}"
            )
        missing = [one for one in _NEEDS if one not in self.info.supported_operations]
        if missing:
            raise Unsupported(
                f"{asked}: a map of type {self.info.type_name} has no {' and no '.join(missing)} of elements here",
                reason=Reason.OPERATION_UNSUPPORTED,
                operation=asked.operation,
                map=asked.map,
            )
        wish = await self._wish(desired, asked)
        _check_room(wish, self.info.max_entries, asked)
        planner = Planner(wish)
        async with self.chunks() as chunks:
            async for chunk in chunks:
                for part in wish.shape.parts(chunk.keys, chunk.values, chunk.count, _PART):
                    planner.feed(*part)
                    await asyncio.sleep(0)  # the other tasks' turn
        plan = planner.plan()
        review(plan)
        if plan.excessive(max_removals):
            raise _excessive(plan, max_removals, asked)
        removed_first = bool(plan.removed) and not plan.fits(self.info.max_entries)
        if not dry_run:
            await self._carry_out(plan, removed_first=removed_first)
        return plan.report(removed_first=removed_first, dry_run=dry_run)

    async def _wish(
        self,
        desired: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        asked: Asked,
    ) -> Wanted:
        server = await (await self._link()).server()
        batches.chunk_elements(self.info, server.limits, asked)  # that one fits
        wishes = Wishes(shape_of(self.info, server.byteorder))
        try:
            for batch in self._sources(desired, _PART):
                wishes.add(batch.keys, batch.values)
                await asyncio.sleep(0)  # the other tasks' turn
            return wishes.wanted()
        except BadElement as bad:
            raise named(bad, asked) from None
        except Contradiction as error:
            raise Contradiction(
                f"{asked}: {error}", first=error.first, second=error.second, operation="sync", map=asked.map
            ) from None
        except Misuse as error:
            raise _misuse(asked, error.message) from None

    async def _carry_out(self, plan: Plan, *, removed_first: bool) -> None:
        link, per_update = await self._sizing(Op.UPDATE)
        _, per_delete = await self._sizing(Op.DELETE)
        steps = [(Op.UPDATE, plan.writes(per_update)), (Op.DELETE, plan.removals(per_delete))]
        for op, source in reversed(steps) if removed_first else steps:
            await self._mutate(link, op, source)


async def reviewed(
    opened: Map[bytes, bytes],
    desired: Iterable[tuple[bytes, bytes]] | ArrowTable,
    max_removals: float,
    *,
    dry_run: bool,
    review: Callable[[Plan], object],
) -> SyncReport:
    """``Map.sync`` that shows what will be written before anything is; what ``review`` raises ends it."""
    return await opened._synced(  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] # of this very module
        desired, max_removals, dry_run=dry_run, review=review
    )


def _check_room(wish: Wanted, max_entries: int, asked: Asked) -> None:
    count = len(wish.elements)
    if count > max_entries:
        raise MapFull(
            f"{asked}: {count} elements are wanted, max_entries is {max_entries}: nothing was written; take fewer, or "
            "create a larger map",
            operation=asked.operation,
            map=asked.map,
            metadata={"wanted": str(count), "max_entries": str(max_entries)},
        )


def _excessive(plan: Plan, max_removals: float, asked: Asked) -> RemovalsRefused:
    removals, entries = len(plan.removed), plan.entries
    return RemovalsRefused(
        f"{asked}: {removals} of {entries} elements ({removals / entries:.0%}) would be removed, at most "
        f"{max_removals:.0%} may be: nothing was written",
        operation=asked.operation,
        map=asked.map,
        metadata={"removals": str(removals), "entries": str(entries), "max_removals": str(max_removals)},
    )


def _misuse(asked: Asked, text: str) -> Misuse:
    return Misuse(f"{asked}: {text}", operation=asked.operation, map=asked.map)
