"""MapService."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import structlog

from mapd.access.policy.explain import Asked
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef
from mapd.maps.listing import Wanted
from mapd.maps.store import IdRef, NameRef, PinRef
from mapd.maps.types import TYPES
from mapd.rpc import convert, listed
from mapd.rpc.admit import Use, admitted, check_name, check_unpin, decided, unlisted, used, wanted
from mapd.rpc.guard import Call, Handler
from mapd.rpc.server_info import Facts
from mapd.runtime import statistics
from mapd.runtime.host import HandleRef, MapHost
from mapd.runtime.leases import Leases
from mapd.runtime.reach import Unlisted
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2 as pb
from mapd_api.v1.types_pb2 import Btf, MapRef

_log = structlog.stdlib.get_logger("mapd.rpc")

_LISTED: Final = frozenset({Verb.LIST})
"""What opening takes; and of a template its shape is used, which is what a listing tells."""

LIST_LIMIT: Final = 1_000
"""Maps of one ListMaps answer; about 300 bytes each, and at most 64 holders of 30."""


STATS_LIMIT: Final = statistics.MOST
"""Maps of one ListMapStats answer; at most about 5 KiB each, of which a pin's path may take 4."""


class MapHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, host: MapHost, facts: Facts, leases: Leases) -> None:
        self._host = host
        self._leases = leases
        self._facts = facts
        self._started_ns = time.monotonic_ns()

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {
            "GetServerInfo": self.get_server_info,
            "CreateMap": self.create_map,
            "OpenMap": self.open_map,
            "GetMap": self.get_map,
            "ListMaps": self.list_maps,
            "ListMapStats": self.list_map_stats,
            "CloseMap": self.close_map,
            "PinMap": self.pin_map,
            "UnpinMap": self.unpin_map,
            "RenameMap": self.rename_map,
            "FreezeMap": self.freeze_map,
            "GetBtf": self.get_btf,
        }

    async def get_server_info(
        self, call: Call, _request: pb.GetServerInfoRequest
    ) -> pb.GetServerInfoResponse:
        """What this daemon is."""
        return pb.GetServerInfoResponse(server=self._facts.server_info(call.principal))

    async def create_map(self, call: Call, request: pb.CreateMapRequest) -> pb.CreateMapResponse:
        """Create, pin, open."""
        convert.check_type(request.type)
        new = convert.new_map(request, call.principal)
        session = self._host.handles.session(request.session, call.principal)
        place = self._host.reach.place_of(new.name, new.spec.map_type, new.spec.key_size)
        asked, nothing = wanted("create", new.name), self._host.missing(new.name, "create")
        creation = decided(call, new, call.access.verbs, place, asked, nothing)
        view = call.authorizer.view(call.principal)
        async with AsyncExitStack() as stack:
            template = None
            if new.spec.inner and TYPES[new.spec.map_type].template:  # elsewhere it is refused unopened
                template = await stack.enter_async_context(
                    admitted(self._host, call, request.inner, "create", _LISTED)
                )
            keep = stack.enter_context(self._host.handles.reserve(call.principal, session))
            making = self._host.create(creation, template, view)
            if isinstance(new.name, LeasedRef):
                making = self._leases.make(new.name, making)
            reached, created = await making
            opened = reached.opened
            try:
                # Who has made it may hold it; what was there is opened as by OpenMap.
                needed = call.access.verbs if created else _LISTED
                handle = keep(decided(call, opened, needed, reached.subject, asked, nothing))
            except MapError:
                opened.fd.close()
                if created:
                    await self._host.uncreate(creation, opened.facts.id)
                raise
        await self._named(opened.pin_path)
        return pb.CreateMapResponse(handle=handle, info=convert.map_info(opened.described), created=created)

    async def open_map(self, call: Call, request: pb.OpenMapRequest) -> pb.OpenMapResponse:
        """Open what exists."""
        ref = convert.ref(request.map, call.principal, "open")
        if isinstance(ref, HandleRef):
            raise convert.bad_spec("a handle is open already; give a name, a pin or an id", "open")
        session = self._host.handles.session(request.session, call.principal)
        by_id = isinstance(ref, IdRef)
        verbs = call.access.verbs | {Verb.OPEN_BY_ID} if by_id else call.access.verbs
        view, nothing = call.authorizer.view(call.principal), self._host.missing(ref, "open")
        with self._host.handles.reserve(call.principal, session) as keep:
            try:
                reached = await self._host.open(ref, view, verbs, read_only=request.read_only)
            except Unlisted as error:
                raise unlisted(call, error, verbs, nothing) from None
            opened = reached.opened
            try:
                asked = wanted("open", ref, reached.subject)
                handle = keep(decided(call, opened, verbs, reached.subject, asked, nothing), by_id=by_id)
            except MapError:
                opened.fd.close()
                raise
        return pb.OpenMapResponse(handle=handle, info=convert.map_info(opened.described))

    async def get_map(self, call: Call, request: pb.GetMapRequest) -> pb.GetMapResponse:
        """Describe."""
        async with admitted(self._host, call, request.map, "get") as opened:
            return pb.GetMapResponse(info=convert.map_info(await self._host.describe(opened)))

    async def list_maps(self, call: Call, request: pb.ListMapsRequest) -> pb.ListMapsResponse:
        """Maps that match, from after the page token on."""
        looked_for = Wanted(
            glob=request.glob or "*", pins=request.pins, ids=request.ids, holders=request.holders
        )
        _check_ids(call, looked_for)
        after = listed.after(request.page_token)
        listing = await self._host.list(looked_for, call.authorizer.view(call.principal))
        rest = [one for one in listing.maps if after is None or one.order > after]
        size = min(request.page_size or LIST_LIMIT, LIST_LIMIT)
        return pb.ListMapsResponse(
            maps=[listed.info(one) for one in rest[:size]],
            next_page_token=listed.token(rest[size - 1]) if len(rest) > size else "",
            sources=listing.sources,
            not_looked_at=listing.not_looked_at,
        )

    async def list_map_stats(self, call: Call, request: pb.ListMapStatsRequest) -> pb.ListMapStatsResponse:
        """The same maps, counted."""
        looked_for = Wanted(glob=request.glob or "*", pins=request.pins, ids=request.ids)
        _check_ids(call, looked_for)
        after = listed.after(request.page_token)
        size = min(request.page_size or STATS_LIMIT, STATS_LIMIT)
        view = call.authorizer.view(call.principal)
        look = await self._host.look(looked_for, view, after, size)
        flows = self._host.traffic.of(one.listed.facts.id for one in look.maps)
        response = pb.ListMapStatsResponse(
            stats=[listed.stats(one, flow) for one, flow in zip(look.maps, flows, strict=True)],
            next_page_token=listed.token(look.maps[-1].listed) if look.more else "",
            not_looked_at=look.not_looked_at,
            epoch=self._facts.epoch,
        )
        response.uptime.FromNanoseconds(time.monotonic_ns() - self._started_ns)
        return response

    async def close_map(self, call: Call, request: pb.CloseMapRequest) -> pb.CloseMapResponse:
        """Give a handle back."""
        self._host.handles.close(request.handle, call.principal)
        return pb.CloseMapResponse()

    async def pin_map(self, call: Call, request: pb.PinMapRequest) -> pb.PinMapResponse:
        """One more pin."""
        host, reach = self._host, self._host.reach
        async with used(host, call, request.map, "pin") as use:
            reach.check_path(request.path, "pin")
            async with self._naming(use):
                opened, subject = use.again(), use.handle.subject
                # Of the pins that are gone no denial is left once there is another.
                now = reach.without_pins(subject) if use.handle.unpinned else subject
                after = reach.also_at(now, request.path)
                check_name(host, call, opened, PinRef(request.path), subject, after, "pin")
                await host.pin(opened, request.path)
        await self._named(request.path, opened.target.facts.id)
        return pb.PinMapResponse()

    @asynccontextmanager
    async def _naming(self, use: Use) -> AsyncGenerator[None]:
        """What a map is called is known, and stays as it is but for pins that others than mapd make or remove."""
        map_id = use.handle.opened.facts.id
        async with self._host.naming(map_id):
            if use.call.authorizer.view(use.call.principal) is not None:
                await self._host.check_pins(map_id=map_id, owner=use.call.principal)
            yield

    async def _named(self, path: str, map_id: int = 0) -> None:
        """Names were changed: look at once what that makes of the handles that are open.

        The change is made. Where it cannot be looked, no refusal may say otherwise: the daemon looks again within a
        second.
        """
        try:
            await self._host.check_pins(path, map_id)
        except MapError as error:
            _log.warning("names were changed and could not be looked at", pin=path, error=str(error))

    async def unpin_map(self, call: Call, request: pb.UnpinMapRequest) -> pb.UnpinMapResponse:
        """One pin less."""
        ref = convert.ref(request.map, call.principal, "unpin")
        if not isinstance(ref, NameRef | PinRef):
            raise convert.bad_spec(f"{ref} names no pin; give the name or the path", "unpin")
        host = self._host
        async with used(host, call, request.map, "unpin", missing_as="unpin") as use, self._naming(use):
            authorized, subject = use.again(), use.handle.subject
            opened = authorized.target
            asked, nothing = wanted("unpin", ref), host.missing(ref, "unpin")
            pin = decided(call, ref, call.access.verbs, subject, asked, nothing)
            check_unpin(call, authorized, ref, subject, self._host.reach.less(subject, opened.pin_path))
            await host.unpin(pin, opened.facts.id)
        await self._named(opened.pin_path, opened.facts.id)
        return pb.UnpinMapResponse()

    async def check_unpin(self, call: Call, pin: PinRef) -> None:
        """Refuse what ``unpin_map`` would refuse, and do nothing."""
        message = MapRef(pin=pin.path)
        async with used(self._host, call, message, "unpin", missing_as="unpin") as use:
            subject = use.handle.subject
            less = self._host.reach.less(subject, use.authorized.target.pin_path)
            check_unpin(call, use.authorized, pin, subject, less)

    async def rename_map(self, call: Call, request: pb.RenameMapRequest) -> pb.RenameMapResponse:
        """Another name."""
        name = convert.name_ref(request.name, call.principal, "rename")
        new = convert.name_ref(request.new_name, call.principal, "rename")
        host, reach = self._host, self._host.reach
        message = MapRef(name=str(name))
        async with used(host, call, message, "rename", missing_as="rename") as use, self._naming(use):
            authorized, subject = use.again(), use.handle.subject
            opened = authorized.target
            after = reach.also_at(subject, reach.path_of(new), instead_of=opened.pin_path)
            check_name(host, call, authorized, new, subject, after, "rename")
            asked, nothing = wanted("rename", name), host.missing(name, "rename")
            old_name = decided(call, name, call.access.verbs, subject, asked, nothing)
            new_name = decided(call, new, call.access.verbs, after, asked, nothing)
            path = await host.rename(old_name, new_name, opened.facts.id)
        await self._named(path, opened.facts.id)
        return pb.RenameMapResponse(pin_path=path)

    async def freeze_map(self, call: Call, request: pb.FreezeMapRequest) -> pb.FreezeMapResponse:
        """No more writes from user space."""
        async with admitted(self._host, call, request.map, "freeze") as opened:
            await self._host.freeze(opened)
        return pb.FreezeMapResponse()

    async def get_btf(self, call: Call, request: pb.GetBtfRequest) -> pb.GetBtfResponse:
        """Type information."""
        async with admitted(self._host, call, request.map, "btf") as opened:
            btf = await self._host.btf(opened)
        return pb.GetBtfResponse(
            btf=Btf(blob=btf.blob, key_type_id=btf.key_type_id, value_type_id=btf.value_type_id)
        )


def _check_ids(call: Call, looked_for: Wanted) -> None:
    """Refuse a walk over ids to whom no rule about every map gives one."""
    if looked_for.ids:
        # On no map: a walk over ids meets every one. So the refusal tells of none.
        asked = Asked(operation="list", what="maps by id", selector="")
        refused = MapError(
            Reason.POLICY,
            f"list: a walk over kernel ids meets every map of the host, so a rule must give you, "
            f"{call.principal.name!r}, open_by_id with every_map = true; list without ids for those that you may "
            "see by name or pin",
            operation="list",
            principal=call.principal.name,
        )
        decided(call, looked_for, frozenset({Verb.OPEN_BY_ID}), None, asked, refused)
