"""Leases of one daemon: how long each has left, who keeps it alive, and how it ends.

The pins say which leases there are (``mapd.maps.leased``); here is only what ends with the daemon: the time that is
left. It is counted by CLOCK_BOOTTIME, which nobody sets. Time in which the daemon was not there to be told that a lease
is wanted does not count. Where it has just started, was stopped, or its host slept, every lease has its whole ttl
again, and at least the time that a client may need to find the daemon again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog

from mapd.access.policy.model import Subject
from mapd.maps import leases
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.leases import LeasedMap
from mapd.maps.store import MapStore
from mapd.runtime.pool import Lane, SyscallPool
from mapd.runtime.reach import Reach, Reached
from mapd_api import limits
from mapd_api.reasons import Reason

LOOK_S: Final = 1.0
"""Between two looks at the pins of leases; a lease that is over ends at the next."""

BEAT_S: Final = 0.2
"""Between two looks at the clock while there are leases. What goes by beyond twice that does not count: the daemon
could not be told meanwhile what is wanted."""

PAUSE_S: Final = 2.0
"""A daemon that has not looked at its clock for so long was stopped, or its host slept: leases begin anew."""

_log = structlog.stdlib.get_logger("mapd.runtime")


def boottime() -> float:
    """Seconds of CLOCK_BOOTTIME: they go on while the host sleeps, and nobody sets them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Judged:
    """A map of a lease, and all that it is called, as far as that was last looked at."""

    map: LeasedMap
    subject: Subject


@dataclass(slots=True, eq=False)
class Lease:
    """One lease.

    Attributes:
        maps: by path; none in a lease that is about to end.
        until: by the clock of ``Leases``.
        making: maps that are being made in it.
        unused: it had no map at the last look either.
        ending: its pins are being removed.
    """

    id: LeaseId
    ttl_ms: int
    until: float
    maps: dict[str, Judged] = field(default_factory=dict[str, Judged])
    making: int = 0
    unused: bool = False
    ending: bool = False

    @property
    def ttl(self) -> float:
        """Seconds."""
        return self.ttl_ms / 1_000


@dataclass(slots=True)
class Counts:
    """What has become of leases since the start."""

    adopted: int = 0
    granted: int = 0
    kept_alive: int = 0
    expired: int = 0
    paused: int = 0


class Leases:
    """The table of leases; for one event loop.

    Args:
        clock: ``boottime``, or a test's.
        ended: is told of each lease that has expired, with the pins that were removed.
    """

    def __init__(
        self,
        store: MapStore,
        reach: Reach,
        pool: SyscallPool,
        *,
        clock: Callable[[], float] = boottime,
        ended: Callable[[LeaseId, leases.Ended], None] = lambda _lease, _ended: None,
    ) -> None:
        self._store = store
        self._reach = reach
        self._pool = pool
        self._clock = clock
        self._told = ended
        self._table: dict[LeaseId, Lease] = {}
        self._seen = clock()
        self._wanted = asyncio.Event()
        self._adopted = False
        self._making: set[asyncio.Task[tuple[Reached, bool]]] = set()
        self.counts: Final = Counts()

    def __len__(self) -> int:
        return len(self._table)

    async def adopt(self) -> None:
        """Take over every lease that there is; to be done before anybody may ask for one.

        A daemon that has run out of something starts all the same, and looks again as long as it has to.
        """
        try:
            found = await self._pool.run(Lane.SLOW, "leases", partial(leases.find, self._store))
        except MapError as error:
            _log.warning("leases were not taken over yet", reason=error.reason.name, message=str(error))
            return
        self._adopted = True
        for note in found.notes:
            _log.warning("not a lease, left alone", what=note)
        for one in found.leases:
            lease = self._table.setdefault(one.id, Lease(one.id, one.ttl_ms, 0.0))
            for each in one.maps:
                lease.maps.setdefault(each.path, self._judged(each))
        self.counts.adopted = len(found.leases)
        self._begin_anew(self._clock())

    @asynccontextmanager
    async def kept(self, every: float = LOOK_S) -> AsyncGenerator[None]:
        """Inside the block leases end when they are over; outside of it none does. Each has its whole ttl at first.

        ``every``: seconds between two looks.
        """
        self._begin_anew(self._clock())
        # No TaskGroup: it would wrap what is raised in the block into a group.
        tasks = {
            asyncio.create_task(self._beat(), name="leases' clock"),
            asyncio.create_task(self._keep(every), name="leases"),
        }
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def find(self, lease_id: LeaseId) -> Lease | None:
        """A lease that has maps and is not ending."""
        lease = self._table.get(lease_id)
        return lease if lease is not None and lease.maps and not lease.ending else None

    def keep_alive(self, lease: Lease) -> None:
        """Its whole ttl from now on."""
        self.counts.kept_alive += 1
        lease.until = self._now() + lease.ttl

    def remaining(self, lease: Lease) -> float:
        """Seconds that a lease has left if nobody keeps it alive."""
        now = self._now()
        return max(0.0, lease.until - now)

    async def make(
        self, place: LeasedRef, create: Coroutine[Any, Any, tuple[Reached, bool]]
    ) -> tuple[Reached, bool]:
        """Make a map in a lease, which begins with its first and does not end meanwhile; what ``create`` returns.

        Cancelled: it goes on, and what it makes is in the lease.

        Raises:
            MapError: BAD_SPEC, the lease has another ttl; QUOTA, too many; BUSY, it is just ending; what ``create``
                does.
        """
        fresh = place.lease not in self._table
        try:
            lease = self._enter(place)
        except BaseException:
            create.close()
            raise
        task = asyncio.create_task(self._made(lease, place, create, fresh=fresh), name=f"create {place}")
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_nobody_takes)
            raise

    def _enter(self, place: LeasedRef) -> Lease:
        """The lease of a place, with one map more on its way."""
        about = {"operation": "create", "map": str(place)}
        lease = self._table.get(place.lease)
        if lease is None:
            own = sum(one.namespace == place.lease.namespace for one in self._table)
            if own >= limits.LEASES - len(self._table):
                raise MapError(
                    Reason.QUOTA,
                    f"create {place}: there are {len(self._table)} leases, {own} of them of {place.lease.namespace}; "
                    f"a daemon has at most {limits.LEASES}, and no namespace more of them than are left for others; "
                    "put several maps into one",
                    **about,
                )
            lease = self._table[place.lease] = Lease(
                place.lease, place.ttl_ms, self._now() + place.ttl_ms / 1_000
            )
            self.counts.granted += 1
            self._wanted.set()
        if lease.ending:
            raise MapError(
                Reason.BUSY, f"create {place}: the lease {place.lease} is just ending; try again", **about
            )
        if lease.ttl_ms != place.ttl_ms:
            raise MapError(
                Reason.BAD_SPEC,
                f"create {place}: the lease {place.lease} has a ttl of {lease.ttl:g} s, not {place.ttl_ms / 1_000:g}; "
                "a lease has one for all its maps",
                **about,
            )
        if len(lease.maps) + lease.making >= limits.LEASE_MAPS:
            raise MapError(
                Reason.QUOTA,
                f"create {place}: the lease {place.lease} has {len(lease.maps) + lease.making} maps, and may have "
                f"{limits.LEASE_MAPS}; use another one",
                **about,
            )
        lease.making += 1
        return lease

    async def _made(
        self,
        lease: Lease,
        place: LeasedRef,
        create: Coroutine[Any, Any, tuple[Reached, bool]],
        *,
        fresh: bool,
    ) -> tuple[Reached, bool]:
        try:
            reached, created = await create
            facts = reached.opened.facts
            path = self._store.path_of(place)
            lease.maps[path] = self._judged(LeasedMap(place, path, facts))
            lease.unused = False
            lease.until = self._now() + lease.ttl
            return reached, created
        finally:
            lease.making -= 1
            if fresh and not (lease.maps or lease.making):
                self._forget(lease)  # it began with a map that was refused

    def _judged(self, one: LeasedMap) -> Judged:
        """A map as it is called as far as its place tells; the next look tells the rest."""
        info = one.facts.info
        return Judged(one, self._reach.place_of(one.place, info.map_type, info.key_size))

    # Time

    def _now(self) -> float:
        """The time; where nobody has asked for it too long, what has gone by since does not count."""
        now = self._clock()
        unseen = now - self._seen
        if self._table and unseen > PAUSE_S:
            _log.warning(
                "stopped for a while: leases begin anew", seconds=round(unseen, 3), leases=len(self._table)
            )
            self.counts.paused += 1
            self._begin_anew(now)
        elif unseen > 2 * BEAT_S:
            for lease in self._table.values():
                lease.until += unseen - BEAT_S
        self._seen = now
        return now

    def _begin_anew(self, now: float) -> None:
        self._seen = now
        for lease in self._table.values():
            lease.until = now + max(lease.ttl, limits.LEASE_RETURN_S)
        if self._table:
            self._wanted.set()

    async def _beat(self) -> None:
        """Look at the clock: what stops this stops the daemon."""
        while True:
            await self._awaited()
            self._now()
            await asyncio.sleep(BEAT_S)

    async def _awaited(self) -> None:
        """Return at once while there may be leases; where there are none, with the next one."""
        if not self._table and self._adopted:
            self._wanted.clear()
            await self._wanted.wait()
            self._seen = self._clock()

    # Ends

    async def _keep(self, every: float) -> None:
        while True:
            await self._awaited()
            await asyncio.sleep(every)
            try:
                if not self._adopted:
                    await self.adopt()
                await self._look()
                for lease in self._over():
                    await self._expire(lease)
            except MapError as error:
                # Draining, or out of descriptors: the next look tries again.
                _log.warning("leases were not looked at", reason=error.reason.name, message=str(error))
            except Exception:
                # A fault of ours; without this task no lease would end.
                _log.exception("leases were not looked at")

    def _over(self) -> Sequence[Lease]:
        """Leases whose time is over, and those that have no map."""
        now = self._now()
        return [
            lease
            for lease in self._table.values()
            if not lease.making and not lease.ending and (lease.until <= now or lease.unused)
        ]

    async def _look(self) -> None:
        """See what the maps of leases are called now, and which have been unpinned or replaced."""
        known = [one for lease in self._table.values() for one in lease.maps.values()]
        empty = [lease for lease in self._table.values() if not lease.maps and not lease.making]
        if not known and not empty:
            return
        held = [(one.map.facts, one.map.path) for one in known]
        found = await self._pool.run(Lane.BULK, "leases", partial(self._reach.check, held))
        moved: set[LeaseId] = {lease.id for lease in empty}
        for one, (subject, _) in zip(known, found, strict=True):
            lease, path = self._table.get(one.map.place.lease), one.map.path
            if lease is None or lease.maps.get(path) is not one:
                continue
            if path in subject.pins:
                lease.maps[path] = Judged(one.map, subject)
            else:
                del lease.maps[path]
                moved.add(lease.id)
        for lease_id in moved:
            await self._look_again(self._table.get(lease_id))

    async def _look_again(self, lease: Lease | None) -> None:
        """Others have changed a lease's folder: its maps are what is in there, whoever has pinned it.

        A lease is unused at the second look that finds nothing: who replaces a pin has a second for that.
        """
        if lease is None:
            return
        was_empty = not lease.maps
        call = partial(leases.maps_in, self._store, lease.id, lease.ttl_ms, [])
        for one in await self._pool.run(Lane.BULK, "leases", call):
            if one.path not in lease.maps:
                lease.maps[one.path] = self._judged(one)
        lease.unused = was_empty and not lease.maps

    def _forget(self, lease: Lease) -> None:
        """Another one may have its name by now."""
        if self._table.get(lease.id) is lease:
            del self._table[lease.id]

    async def _expire(self, lease: Lease) -> None:
        if lease.making or (lease.until > self._now() and not lease.unused):
            return  # kept alive while others ended
        ended = await self.end(lease)
        if ended.pins:
            self.counts.expired += 1
            _log.info(
                "a lease has expired",
                lease=str(lease.id),
                ttl_s=lease.ttl,
                pins=[path for path, _ in ended.pins],
            )
            self._told(lease.id, ended)

    async def end(self, lease: Lease) -> leases.Ended:
        """Remove a lease with all its pins. Cancelling: they are removed nevertheless, and it is forgotten later.

        Nothing of one that has ended, or is just ending: another may have begun in its folder.

        Raises:
            MapError: some may be removed; the lease is there still.
        """
        if self._table.get(lease.id) is not lease or lease.ending:
            return leases.Ended((), ())
        lease.ending = True
        try:
            call = partial(leases.end, self._store, lease.id, lease.ttl_ms)
            ended = await self._pool.run(Lane.POINT, str(lease.id), call)
        finally:
            lease.ending = False
        for note in ended.left:
            _log.warning("left behind by a lease that has ended", lease=str(lease.id), what=note)
        self._forget(lease)
        return ended


def _nobody_takes(task: asyncio.Task[tuple[Reached, bool]]) -> None:
    """Close the map that a cancelled call has made: it stays, by its pin."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].opened.fd.close()
