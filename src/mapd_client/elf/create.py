"""Creating what an object declares, map by map, so that a failure in the middle leaves nothing half made.

A map gets its name when it is complete: one with contents (a data section, an outer map with slots) is created as
NAME--xxxxxxxx, filled, frozen, and renamed in one step. So whoever opens a name finds the whole map, and a client that
was killed is followed by one with ``exist_ok``, which goes on where that stopped.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mapd_api.reasons import Reason
from mapd_api.uapi import PER_CPU_TYPES
from mapd_client.codec import Bytes, Codec
from mapd_client.elf.naming import unfinished
from mapd_client.elf.plan import Plan, Planned
from mapd_client.elf.undoing import Step, Undoing
from mapd_client.errors import Incompatible, MapdError, MapExists, MapNotFound, Misuse, OutcomeUnknown
from mapd_client.info import Btf
from mapd_client.link import Link
from mapd_client.map import Map
from mapd_client.objectmaps import ObjectMap, ObjectMaps
from mapd_client.percpu import PerCpu
from mapd_client.refs import MapRef, Name, Pin

if TYPE_CHECKING:
    from mapd_client.client import Client

_Map: TypeAlias = Map[Any, Any]

_INDEX_0: Final = bytes(4)
"""Of the only element of a data section's map."""

_NO_TYPES: Final = "the map that is there has none"


async def create(client: Client, link: Link, plan: Plan, *, exist_ok: bool) -> ObjectMaps:
    """See ``Client.create_from_object``; ``link``: its tasks go on when the caller's is cancelled."""
    making = _Making(client, plan, exist_ok=exist_ok)
    try:
        return await link.finished(making.run(), making.take_back)
    except asyncio.CancelledError:
        making.stopped = True
        with suppress(TimeoutError):
            async with asyncio.timeout(link.timeout):
                await making.undone.wait()
        raise


class _Stopped(MapdError):
    """The caller was cancelled: nobody sees this."""


class _Making:
    """One call: what it has made so far, and how each step is undone.

    Attributes:
        stopped: no further step is begun.
        undone: everything is undone; never set where all went well.
    """

    def __init__(self, client: Client, plan: Plan, *, exist_ok: bool) -> None:
        self._client = client
        self._plan = plan
        self._exist_ok = exist_ok
        self._maps: dict[int, _Map] = {}
        self._told: dict[int, ObjectMap] = {}
        self._undo = Undoing(client)
        self.stopped = False
        self.undone = asyncio.Event()

    async def run(self) -> ObjectMaps:
        """All maps, or none of those that were not there before."""
        at = -1
        try:
            # What is pinned first: a path that the daemon does not serve is told before anything is made.
            for at in self._plan.pinned:
                await self._find_pinned(at)
            for at in self._plan.order:
                if at not in self._maps:
                    await self._place(at)
            for at in self._plan.order:
                await self._insert_again(at)
            self._check()
        except BaseException as error:
            done = await self._undo_all()
            where = f"create_from_object {self._plan.label}: "
            if at >= 0:
                where += f"map {self._plan.maps[at].declared!r}: "
            if isinstance(error, MapdError):
                error.message = f"{where}{error.message}; {done}"
            else:
                error.add_note(where + done)
            raise
        places = range(len(self._plan.maps))
        return ObjectMaps(
            self._plan.convention,
            self._plan.rule,
            [self._told[at] for at in places],
            [self._maps[at] for at in places],
            self._plan.left_out,
        )

    async def take_back(self, _result: ObjectMaps) -> None:
        """Undo everything: it was made, and nobody waits for it any more."""
        await self._undo_all()

    def _check(self) -> None:
        if self.stopped:
            raise _Stopped("cancelled")

    def _keep(self, at: int, held: _Map, name: str, *, created: bool, btf_refused: str = "") -> None:
        one = self._plan.maps[at]
        self._maps[at] = held
        self._told[at] = ObjectMap(
            declared=one.declared,
            kernel_name=one.kernel_name,
            index=at,
            created=created,
            name=name,
            pin=one.pin,
            btf_refused=btf_refused,
        )

    # One map

    async def _find_pinned(self, at: int) -> None:
        self._check()
        one = self._plan.maps[at]
        try:
            found = await self._found(one, Pin(one.pin))
        except Misuse as error:
            error.message += "; pin_root= moves the pins of an object"
            raise
        if found is not None:
            self._keep(at, found, found.info.name, created=False)

    async def _place(self, at: int) -> None:
        self._check()
        one = self._plan.maps[at]
        made, created, why = await self._named(one)
        self._keep(at, made, made.info.name, created=created, btf_refused=why)
        if one.pin:
            await self._pin(at, made, created=created)

    async def _named(self, one: Planned) -> tuple[_Map, bool, str]:
        """The map of its name; whether this call made it; why without BTF."""
        if not one.filled:
            made, why = await self._create(one, one.name, exist_ok=self._exist_ok)
            if made.created:
                self._undo.made(Name(one.name), made)
            return made, made.created, why
        if self._exist_ok and (found := await self._found(one, Name(one.name))) is not None:
            return found, False, ""
        made, why = await self._create(one, unfinished(one.name), exist_ok=False)
        step = self._undo.made(Name(made.info.name), made)
        await self._fill(one, made)
        try:
            await self._client.rename_map(made.info.name, one.name)
        except MapExists:
            if not self._exist_ok or (found := await self._found(one, Name(one.name))) is None:
                raise
            await self._undo.now(step)
            return found, False, ""
        step.ref = Name(one.name)
        # Under a name that stays: the handle is opened again by it after the daemon's restart.
        renamed = await self._open(one, Name(one.name))
        await made.aclose()
        return renamed, True, why

    async def _create(self, one: Planned, name: str, *, exist_ok: bool) -> tuple[_Map, str]:
        inner: MapRef | None = None
        step: Step | None = None
        if isinstance(one.template, Planned):
            held, _ = await self._create(one.template, unfinished(one.name), exist_ok=False)
            own = inner = Name(held.info.name)
            step = self._undo.made(own, held)
        elif one.template is not None:
            inner = self._ref(one.template)
        why = ""
        try:
            made = await self._ask(one, name, inner, one.btf, exist_ok=exist_ok)
        except Misuse as error:
            # As libbpf does; never where the BTF is not what was refused.
            if one.btf is None or error.metadata.get("field") != "btf":
                raise
            why = error.message
            made = await self._ask(one, name, inner, None, exist_ok=exist_ok)
        except Incompatible:
            found = await self._untyped(one, name, exist_ok=exist_ok)
            if found is None:
                raise
            made, why = found, _NO_TYPES
        if step is not None:
            await self._undo.now(step)
        return made, why

    async def _untyped(self, one: Planned, name: str, *, exist_ok: bool) -> _Map | None:
        """The map of that name if all it lacks are the types: its first creation was refused them, too."""
        if not exist_ok or one.btf is None:
            return None
        found = await self._found(one, Name(name))
        if found is None or (not found.info.btf_id and found.info.kernel_name == one.kernel_name):
            return found
        await found.aclose()
        return None

    async def _ask(
        self, one: Planned, name: str, inner: MapRef | None, btf: Btf | None, *, exist_ok: bool
    ) -> _Map:
        key, value = codecs(one)
        try:
            return await self._client.create_map(
                name,
                one.shape.type,
                key=key,
                value=value,
                max_entries=one.shape.max_entries,
                flags=one.shape.flags,
                kernel_name=one.kernel_name,
                map_extra=one.shape.map_extra,
                numa_node=one.numa_node,
                inner=inner,
                btf=btf,
                exist_ok=exist_ok,
            )
        except OutcomeUnknown as error:
            error.message += f"; {name} may have been created, and is not undone"
            raise

    async def _fill(self, one: Planned, made: _Map) -> None:
        if one.contents:
            await made.update(_INDEX_0, one.contents)
        for key, inner in one.slots:
            self._check()
            await made.update_reference(key, inner=self._maps[inner])
        if one.frozen:
            await made.freeze()

    async def _insert_again(self, at: int) -> None:
        """Into an outer map that was there: what its convention inserts at every load, last of all."""
        one = self._plan.maps[at]
        if self._told[at].created or not one.inserts:
            return
        for key, inner in one.slots:
            self._check()
            await self._maps[at].update_reference(key, inner=self._maps[inner])

    # Pins

    async def _pin(self, at: int, made: _Map, *, created: bool) -> None:
        self._check()
        one = self._plan.maps[at]
        try:
            await made.pin(one.pin)
        except MapExists:
            # Somebody was faster; once more, as loaders do.
            found = await self._found(one, Pin(one.pin))
            if found is None:
                raise
            self._keep(at, found, found.info.name, created=False)
            if created:
                await self._undo.now(self._undo.last())
            await made.aclose()
            return
        self._undo.made(Pin(one.pin), made)

    def _ref(self, at: int) -> MapRef:
        told = self._told[at]
        return Name(told.name) if told.name else Pin(told.pin)

    # What is there

    async def _found(self, one: Planned, ref: MapRef) -> _Map | None:
        """The map that is there, if it is one as declared; None where there is none.

        Raises:
            Incompatible: it is another; the message says in which fields.
        """
        try:
            there = await self._client.open_map(ref)
        except MapNotFound:
            return None
        differing = list(one.shape.differences(there.info))
        if not differing and there.info.type not in PER_CPU_TYPES:
            return there
        await there.aclose()
        if differing:
            raise Incompatible(
                f"{ref} is there with another shape: {'; '.join(differing)}; unpin it, or declare it so",
                reason=Reason.INCOMPATIBLE,
                operation="create",
                map=str(ref),
            )
        return await self._open(one, ref)

    async def _open(self, one: Planned, ref: MapRef) -> _Map:
        key, value = codecs(one)
        return await self._client.open_map(ref, key=key, value=value)

    async def _undo_all(self) -> str:
        """Everything, and all handles given back; a sentence about it."""
        told = await self._undo.all()
        for held in self._maps.values():
            with suppress(MapdError):
                await held.aclose()
        self.undone.set()
        return told


def codecs(one: Planned) -> tuple[Codec[Any], Codec[Any]]:
    """Bytes; for per-CPU types those of each CPU."""
    value = Bytes(one.shape.value_size)
    return Bytes(one.shape.key_size), PerCpu(value) if one.shape.type in PER_CPU_TYPES else value
