"""What the RPC layer may ask for: maps to open, groups to run, dumps to read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from mapd.access.authorize import Authorized, View
from mapd.access.policy.decide import Grants
from mapd.access.policy.model import Subject
from mapd.access.principal import ADMIN, Principal
from mapd.access.quotas import OwnersOf, nobody
from mapd.maps import references, spec
from mapd.maps.counting import Counted, by_kernel, by_shape
from mapd.maps.errors import MapError
from mapd.maps.execute import next_key
from mapd.maps.groups import Group, Plan, plan
from mapd.maps.hostfacts import Facts, HostFacts
from mapd.maps.hostfacts import Wanted as HostWanted
from mapd.maps.job import Outcome
from mapd.maps.leased import LeasedRef
from mapd.maps.listing import Listing, SortKey, Wanted
from mapd.maps.opened import Described, MapFacts, OpenMap
from mapd.maps.scan import ScanOptions
from mapd.maps.spec import MapSpec
from mapd.maps.store import Btf, IdRef, MapStore, NameRef, PinRef, Place, Ref
from mapd.maps.targets import Inner, Target
from mapd.maps.tokens import MOST_RANGES
from mapd.runtime.budget import ByteBudget
from mapd.runtime.charges import Account, Charges, Held
from mapd.runtime.filtered import execute_permitted
from mapd.runtime.handles import Handle, HandleTable
from mapd.runtime.inline import passes
from mapd.runtime.pool import Done, Lane, SyscallPool
from mapd.runtime.rates import Rates
from mapd.runtime.reach import Reach, Reached
from mapd.runtime.scans import Dump
from mapd.runtime.sessions import Order
from mapd.runtime.statistics import Look, Statistics
from mapd.runtime.traffic import Traffic, elements
from mapd_api import contract
from mapd_api.ops import MUTATES, Op, Verb
from mapd_api.reasons import Reason

T = TypeVar("T")

BULK_FROM = 512
"""Elements from which a group runs in the bulk lane: about a millisecond of syscalls."""

_OP_VERBS = contract.op_verbs()

_NOT_BEGUN: Final = frozenset({Reason.BUSY, Reason.DRAINING, Reason.EXPIRED, Reason.STALE_HANDLE})
"""What a group is refused for by the pool, before anything of it was executed."""

_LOOKING = frozenset({Verb.LIST, Verb.READ, Verb.WATCH, Verb.OPEN_BY_ID})
"""Rights that a descriptor which only reads can serve: all that a pin of mode 0444 gives."""


@dataclass(frozen=True, slots=True)
class HandleRef:
    """A map by handle."""

    handle: int

    def __str__(self) -> str:
        return f"handle {self.handle:#x}"


AnyRef = Ref | HandleRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMap:
    """A map to create."""

    name: Place
    spec: MapSpec
    exist_ok: bool = False


def _close(reached: Reached) -> None:
    reached.opened.fd.close()


def _close_created(created: tuple[Reached, bool]) -> None:
    created[0].opened.fd.close()


async def _nothing(*_: object) -> None:
    """What becomes of a dump that is only counted."""


class MapHost:
    """The maps of this host, for one event loop. Cancelling any method leaves no fd behind.

    Args:
        owners: whose namespace one is: they are charged for maps that others make in it.
        inline_elements: groups of at most so many elements, on types that cannot block, run in the loop's own turn
            where nothing is queued for the map; 0: none.
        memory: bytes that all maps together may come to take; None: whatever the kernel gives.
    """

    def __init__(
        self,
        store: MapStore,
        pool: SyscallPool,
        handles: HandleTable,
        budget: ByteBudget,
        *,
        owners: OwnersOf = nobody,
        inline_elements: int = 0,
        memory: int | None = None,
    ) -> None:
        self._store = store
        self.reach: Final = Reach(store)
        self.facts: Final = HostFacts()
        self._owners = owners
        self.charges: Final = Charges(store, memory)
        self.shares: Final = handles.shares
        self.rates: Final = Rates(handles.shares.quotas_of)
        self.traffic: Final = Traffic()
        self._statistics: Final = Statistics(store, self.reach)
        self._inline = inline_elements
        self._pool = pool
        self._budget = budget
        self.handles = handles
        self._naming: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def create(
        self,
        new: Authorized[NewMap],
        template: Authorized[OpenMap] | None = None,
        view: View | None = None,
    ) -> tuple[Reached, bool]:
        """Create a map; (map, whether it is new). The caller owns the map's fd.

        ``template``: of the inner maps of a map of maps; only its shape is used. ``view``: of who asks, None for the
        admin; what exists and is not in it is not compared with what is wanted, and its name is taken.

        Cancelling: the map may exist, under its name.

        Raises:
            MapError: QUOTA, its maker or the owner of the namespace has all the maps or memory that it may.
        """
        wanted = new.demand({Verb.CREATE})
        spec.check(wanted.spec, self._store.possible_cpus)
        call = partial(
            _create,
            self._store,
            self.reach,
            view,
            self.charges,
            wanted,
            template.demand({Verb.LIST}) if template else None,
            self._accounts(new.principal, wanted.name.namespace),
            self.handles.holds,
        )
        return await self._pool.run(
            Lane.SLOW, str(wanted.name), call, discard=_close_created, owner=new.principal
        )

    def _accounts(self, maker: Principal, namespace: str) -> Sequence[Account]:
        """Who is charged for a map: its maker, and the owners of the namespace where that is not its own."""
        others = () if namespace == maker.namespace or maker.name == ADMIN else self._owners(namespace)
        quotas_of = self.shares.quotas_of
        return [Account(principal=one, quotas=quotas_of(one)) for one in (maker, *others)]

    async def charged(self, principal: Principal) -> tuple[int, int]:
        """Maps of a principal, and bytes of kernel memory that they may come to take."""
        call = partial(self.charges.used, principal, self.handles.holds)
        return await self._pool.run(Lane.SLOW, f"quotas of {principal.name}", call, owner=principal)

    async def look_at_host(
        self, facts: Authorized[HostFacts], wanted: HostWanted, told: Callable[[Facts], T]
    ) -> T:
        """Facts of the host itself. One look at a time, whoever asks: together they walk the cgroups once.

        ``told`` makes of them what is sent, in the thread too: of thousands of names that takes milliseconds.
        """
        host = facts.demand({Verb.HOST})

        def call() -> T:
            return told(host.look(wanted))

        return await self._pool.run(Lane.SLOW, "facts of the host", call, owner=facts.principal)

    async def uncreate(self, new: Authorized[NewMap], map_id: int) -> None:
        """Take the name of a map away that was created and cannot be handed out, if it still leads to it.

        Cancelling: the name may be left.
        """
        wanted = new.demand({Verb.CREATE})
        call = partial(self._store.uncreate, wanted.name, map_id)
        await self._pool.run(Lane.SLOW, str(wanted.name), call)

    async def open(
        self,
        ref: Ref,
        view: View | None,
        verbs: frozenset[Verb],
        *,
        read_only: bool = False,
        operation: str = "open",
    ) -> Reached:
        """Open a map so that it can be authorised; the caller owns its fd.

        Raises:
            Unlisted: in this ``view`` there is none; nothing was opened.
            MapError: it is not there.
        """
        call = partial(self.reach.open, ref, view, verbs, read_only=read_only, operation=operation)
        owner = None if view is None else view.principal
        return await self._pool.run(Lane.POINT, str(ref), call, discard=_close, owner=owner)

    @asynccontextmanager
    async def borrow(
        self,
        principal: Principal,
        ref: AnyRef,
        view: View | None,
        verbs: frozenset[Verb],
        operation: str = "open",
    ) -> AsyncGenerator[Handle]:
        """A map for the length of one call: the handle's, or opened for it, to write only if it must.

        Raises:
            Unlisted, MapError: as ``open``; QUOTA.
        """
        if isinstance(ref, HandleRef):
            with self.handles.borrow(ref.handle, principal) as handle:
                yield handle
            return
        with self.handles.opening(principal):
            by_id = isinstance(ref, IdRef)
            needed = verbs | {Verb.OPEN_BY_ID} if by_id else verbs
            reached = await self.open(ref, view, needed, read_only=verbs <= _LOOKING, operation=operation)
            with self.handles.lend(reached.opened, principal, reached.subject, by_id=by_id) as handle:
                yield handle

    async def called(self, opened: Authorized[OpenMap]) -> Subject:
        """All that a map is called now, for whoever asks about the rights of others."""
        target = opened.demand({Verb.LIST})
        call = partial(self.reach.called, target)
        return await self._pool.run(Lane.POINT, target.facts.id, call, owner=opened.principal)

    def missing(self, ref: Ref | LeasedRef, operation: str) -> MapError:
        """What is said where there is no such map."""
        return self._store.not_found(ref, operation)

    @asynccontextmanager
    async def naming(self, map_id: int) -> AsyncGenerator[None]:
        """No other call changes what this map is called until the block ends: two may not be harmless together."""
        lock = self._naming.get(map_id)
        if lock is None:
            lock = self._naming[map_id] = asyncio.Lock()
        async with lock:
            yield

    async def check_pins(self, path: str = "", map_id: int = 0, *, owner: Principal | None = None) -> None:
        """Look at what leads where; mark handles whose maps are called otherwise now, or whose pins were replaced.

        Args:
            path, map_id: only handles that were opened by this pin, or on this map; all without.
            owner: whose call it is for; None: the daemon's own.

        Raises:
            MapError: it could not be looked: BUSY, QUOTA, KERNEL_MEMORY, DRAINING.
        """
        handles = [
            one
            for one in self.handles.held()
            if not (path or map_id) or one.opened.facts.id == map_id or one.opened.pin_path == path
        ]
        if not handles:
            return
        call = partial(self.reach.check, [(one.opened.facts, one.opened.pin_path) for one in handles])
        for handle, (subject, replaced) in zip(
            handles, await self._pool.run(Lane.BULK, "pins", call, owner=owner), strict=True
        ):
            handle.replaced = replaced
            handle.unpinned = not subject.pins
            # A map that has lost its last pin is judged as it was: by those that it had.
            if handle.principal.name != ADMIN and subject.pins:
                handle.judge_as(subject)

    async def list(self, wanted: Wanted, view: View | None) -> Listing:
        """Maps that match and that are in this ``view``. One listing of each principal runs at a time."""
        owner = None if view is None else view.principal
        call = partial(self.reach.listing, wanted, view)
        return await self._pool.run(Lane.BULK, ("list", owner), call, owner=owner)

    async def look(self, wanted: Wanted, view: View | None, after: SortKey | None, size: int) -> Look:
        """Maps that match, counted: ``size`` of those behind ``after``.

        Of each principal one look runs at a time, and a listing is such a look. Cancelling costs nothing.
        """
        owner = None if view is None else view.principal
        call = partial(self._statistics.look, wanted, view, after, size)
        return await self._pool.run(Lane.BULK, ("list", owner), call, owner=owner)

    async def describe(self, opened: Authorized[OpenMap], right: Verb = Verb.LIST) -> Described:
        """A map as it is now: frozen, memory, whether its name and pin still lead to it.

        Args:
            right: the one it is told under; who may read a map is told what it reads.
        """
        target = opened.demand({right})
        return await self._on(
            target, Lane.POINT, partial(self._store.describe, target), owner=opened.principal
        )

    async def apply(
        self, opened: Authorized[OpenMap], group: Group, *, expires: float | None = None
    ) -> Outcome:
        """Run one group. ``expires`` (time.monotonic()): not begun after it, nor gone on with.

        Cancelling: what a thread has begun is executed to its end, what waits is not.
        """
        checked = plan(group, opened.target)
        target, lane = _placed(opened, checked)
        count = self._charge(opened, checked)
        try:
            call = partial(_execute, self._store, target, checked, opened.grants, expires)
            return await self._on(target, lane, call, expires=expires, owner=opened.principal)
        except MapError as error:
            self._refund(opened, checked, count, error)
            raise

    def _charge(self, opened: Authorized[OpenMap], checked: Plan) -> int:
        """Count the elements of a group against its principal's rate; how many.

        Raises:
            MapError: QUOTA.
        """
        count = max(1, checked.group.count)
        self.rates.take(
            opened.principal, count, lambda: f"{checked.group.operation} {opened.target.facts.label}"
        )
        self.traffic.add(opened.target.facts.id, *elements(checked))
        return count

    def _refund(
        self, opened: Authorized[OpenMap], checked: Plan, count: int, error: BaseException | None
    ) -> None:
        """Give operations back that were refused after all, before they were begun."""
        if isinstance(error, MapError) and error.reason in _NOT_BEGUN:
            self.rates.give_back(opened.principal, count)
            read, written = elements(checked)
            self.traffic.add(opened.target.facts.id, -read, -written)

    def submit(
        self,
        opened: Authorized[OpenMap],
        checked: Plan,
        done: Done,
        order: Order,
        *,
        expires: float | None = None,
    ) -> Outcome | None:
        """Run one group that ``plan`` has checked, without a task: ``done`` is told how it ended, once, in the loop.

        Its outcome where it was run at once ([pool] inline_elements); ``done`` is told nothing then.

        Args:
            order: of the caller; groups for one map run in the order they were submitted with it.
            expires: time.monotonic() after which it is not begun any more, nor gone on with.

        Raises:
            MapError: BUSY, STALE_HANDLE, DRAINING; where it was run at once, whatever ``execute`` raises.
        """
        target, lane = _placed(opened, checked)
        key = target.facts.id
        lease = target.lease()
        try:
            count = self._charge(opened, checked)
        except MapError:
            lease.release()
            raise
        run = partial(_execute, self._store, target, checked, opened.grants, expires, lease.fd)
        if self._inline and passes(target, checked, self._inline) and self._pool.idle(key):
            with lease:
                return run()

        def ended(outcome: Outcome | None, error: BaseException | None) -> None:
            order.leave(key)
            self._refund(opened, checked, count, error)
            done(outcome, error)

        lane = order.enter(key, lane)
        try:
            self._pool.submit(
                lane, key, run, ended, lease=lease, expires=expires, at_once=True, owner=opened.principal
            )
        except MapError as error:
            order.leave(key)
            self._refund(opened, checked, count, error)
            raise
        return None

    async def update_reference(
        self,
        opened: Authorized[OpenMap],
        key: bytes,
        op: Op,
        target: Target | Authorized[OpenMap],
        *,
        expires: float | None = None,
    ) -> None:
        """Write an element that stands for a kernel object; an inner map comes with the right to read it.

        Cancelling: the element may still be written.
        """
        outer = opened.demand({Verb.WRITE})
        named = Inner(target.demand({Verb.READ})) if isinstance(target, Authorized) else target
        references.check(outer, key, op, named)
        call = partial(_update_reference, self._store, outer, key, op, named)
        lane = _lane(outer, writes=True)
        self.traffic.add(outer.facts.id, 0, 1)
        await self._on(outer, lane, call, expires=expires, owner=opened.principal)

    async def next_key(self, opened: Authorized[OpenMap], key: bytes | None) -> bytes | None:
        """The key after ``key`` (None: the first), or None."""
        target = opened.demand({Verb.READ})
        self.traffic.add(target.facts.id, 1, 0)
        return await self._on(
            target, Lane.POINT, partial(_next_key, self._store, target.facts, key), owner=opened.principal
        )

    async def count(self, opened: Authorized[OpenMap]) -> Counted:
        """How many elements a map has: by the kernel's counter, or by a scan, which is no count of a moment.

        Cancelling costs nothing.
        """
        target = opened.demand({Verb.READ})
        found = by_shape(target.facts)
        if found is None:
            call = partial(by_kernel, self._store.kernel, target.facts)
            found = await self._on(target, Lane.POINT, call, owner=opened.principal)
        if found is None:
            target.facts.iterable("count")
            trailer = await self.dump(opened, ScanOptions(values=False)).run(_nothing, _nothing)
            found = Counted(trailer.entries, False, "scan")
        return found

    def dump(self, opened: Authorized[OpenMap], options: ScanOptions) -> Dump:
        """A dump to ``run``."""
        # A thread for each CPU is as fast as it gets, and the lane has no more.
        ranges = min(self._pool.threads(Lane.BULK), len(os.sched_getaffinity(0)), MOST_RANGES)
        only = opened.grants.filters.get(Verb.READ) if opened.grants is not None else None
        if only is not None:
            options, ranges = replace(options, only=only), 1  # no marks of keys in its tokens
        scan = self._store.scan(opened.demand({Verb.READ}), options, ranges=ranges)
        return Dump(self._pool, self._budget, opened, scan, self.shares, self.rates, self.traffic)

    async def pin(self, opened: Authorized[OpenMap], path: str) -> None:
        """Pin a map at one more path."""
        target = opened.demand({Verb.PIN})
        call = partial(_pin, self._store, self.charges, target, path)
        await self._pool.run(Lane.POINT, path, call, owner=opened.principal)

    async def unpin(self, ref: Authorized[NameRef | PinRef], map_id: int) -> None:
        """Remove a pin of this map.

        Raises:
            MapError: MAP_REPLACED, it leads to another one by now, and nothing was removed.
        """
        target = ref.demand({Verb.PIN})
        call = partial(self._store.unpin, target, map_id)
        await self._pool.run(Lane.POINT, str(target), call, owner=ref.principal)

    async def rename(self, name: Authorized[NameRef], new: Authorized[NameRef], map_id: int) -> str:
        """Give this map another name; the path of its pin. Cancelling: it may have the new name.

        Raises:
            MapError: MAP_REPLACED, the name leads to another one by now, and nothing was done.
        """
        names = name.demand({Verb.PIN}), new.demand({Verb.PIN})
        call = partial(_rename, self._store, self.charges, *names, map_id)
        return await self._pool.run(Lane.POINT, str(name.target), call, owner=name.principal)

    async def freeze(self, opened: Authorized[OpenMap]) -> None:
        """Freeze a map, behind what is queued for it."""
        target = opened.demand({Verb.FREEZE})
        lane = _lane(target, writes=True)
        call = partial(self._store.freeze, target)
        await self._pool.run(lane, target.facts.id, call, owner=opened.principal)

    async def btf(self, opened: Authorized[OpenMap]) -> Btf:
        """A map's type information."""
        target = opened.demand({Verb.LIST})
        call = partial(self._store.btf, target)
        return await self._pool.run(Lane.POINT, target.facts.id, call, owner=opened.principal)

    async def _on(
        self,
        opened: OpenMap,
        lane: Lane,
        call: Callable[[int], T],
        *,
        owner: Principal,
        expires: float | None = None,
    ) -> T:
        """Run something on a map's fd, in line with everything else for that map."""
        lease = opened.lease()
        return await self._pool.run(
            lane, opened.facts.id, partial(call, lease.fd), lease=lease, expires=expires, owner=owner
        )


def _placed(opened: Authorized[OpenMap], checked: Plan) -> tuple[OpenMap, Lane]:
    """The map of a group, whose rights are there, and the lane that it belongs to."""
    target = opened.demand(verb for op in checked.ops for verb in _OP_VERBS[op])
    return target, _lane(target, writes=not MUTATES.isdisjoint(checked.ops), count=checked.group.count)


def _create(
    store: MapStore,
    reach: Reach,
    view: View | None,
    charges: Charges,
    new: NewMap,
    template: OpenMap | None,
    accounts: Sequence[Account],
    held: Held,
) -> tuple[Reached, bool]:
    may_list = None if view is None else reach.may_list(view)
    with charges.reserve(new.name, new.spec, accounts, held) as bill:
        opened, created = store.create(
            new.name, new.spec, exist_ok=new.exist_ok, template=template, may_list=may_list
        )
        try:
            if created:
                bill.made(opened.facts.id)
        except BaseException:
            opened.fd.close()
            store.uncreate(new.name, opened.facts.id)
            raise
    try:
        return Reached(opened, reach.named(opened, view)), created
    except BaseException:
        opened.fd.close()
        if created:
            store.uncreate(new.name, opened.facts.id)
        raise


def _pin(store: MapStore, charges: Charges, opened: OpenMap, path: str) -> None:
    store.pin(opened, path)
    charges.pinned(opened.facts.id, path)


def _rename(store: MapStore, charges: Charges, name: NameRef, new: NameRef, map_id: int) -> str:
    path = store.rename(name, new, map_id)
    charges.renamed(store.path_of(name), path)
    return path


def _execute(
    store: MapStore,
    opened: OpenMap,
    checked: Plan,
    grants: Grants | None,
    expires: float | None,
    map_fd: int,
) -> Outcome:
    return execute_permitted(store.kernel, map_fd, opened, checked, grants, expires)


def _next_key(store: MapStore, of: MapFacts, key: bytes | None, map_fd: int) -> bytes | None:
    return next_key(store.kernel, map_fd, of, key)


def _update_reference(
    store: MapStore, opened: OpenMap, key: bytes, op: Op, target: Target, map_fd: int
) -> None:
    references.update_reference(store, opened, map_fd, key, op, target)


def _lane(opened: OpenMap, *, writes: bool, count: int = 1) -> Lane:
    """Where work on a map waits: writes that take milliseconds whatever their count have a lane of their own.

    Calls of one map keep their order within a lane. A read of a slow map does not wait behind its writes:
    who wants to read what was written awaits the write first, as the groups of one Apply do.
    """
    traits = opened.facts.traits
    if writes and traits is not None and traits.slow:
        return Lane.SLOW
    return Lane.POINT if count < BULK_FROM else Lane.BULK
