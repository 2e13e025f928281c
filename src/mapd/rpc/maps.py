"""MapService."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

from mapd.maps.errors import MapError
from mapd.maps.listing import ListedMap, Wanted
from mapd.maps.store import NameRef, PinRef
from mapd.maps.types import TYPES
from mapd.rpc import convert, listed
from mapd.rpc.admit import admit, admitted
from mapd.rpc.guard import Call, Handler
from mapd.rpc.server_info import Facts
from mapd.runtime.host import HandleRef, MapHost
from mapd_api.ops import Verb
from mapd_api.v1 import maps_pb2 as pb
from mapd_api.v1.types_pb2 import Btf

_TEMPLATE: Final = frozenset({Verb.LIST})
"""Of a template its shape is used, which is what a listing tells."""

LIST_LIMIT: Final = 1_000
"""Maps of one ListMaps answer; about 300 bytes each, and at most 64 holders of 30."""


class MapHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, host: MapHost, facts: Facts) -> None:
        self._host = host
        self._facts = facts

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {
            "GetServerInfo": self.get_server_info,
            "CreateMap": self.create_map,
            "OpenMap": self.open_map,
            "GetMap": self.get_map,
            "ListMaps": self.list_maps,
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
        creation = call.authorize(new)
        async with AsyncExitStack() as stack:
            template = None
            if new.spec.inner and TYPES[new.spec.map_type].template:  # elsewhere it is refused unopened
                template = await stack.enter_async_context(
                    admitted(self._host, call, request.inner, "create", _TEMPLATE)
                )
            keep = stack.enter_context(self._host.handles.reserve(call.principal, session))
            opened, created = await self._host.create(creation, template)
            try:
                handle = keep(call.authorize(opened))
            except MapError:
                opened.fd.close()
                if created:
                    await self._host.uncreate(creation, opened.facts.id)
                raise
        return pb.CreateMapResponse(handle=handle, info=convert.map_info(opened.described), created=created)

    async def open_map(self, call: Call, request: pb.OpenMapRequest) -> pb.OpenMapResponse:
        """Open what exists."""
        ref = convert.ref(request.map, call.principal, "open")
        if isinstance(ref, HandleRef):
            raise convert.bad_spec("a handle is open already; give a name, a pin or an id", "open")
        session = self._host.handles.session(request.session, call.principal)
        with self._host.handles.reserve(call.principal, session) as keep:
            opened = await self._host.open(ref, read_only=request.read_only)
            try:
                handle = keep(admit(call, opened, ref))
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
        wanted = Wanted(glob=request.glob or "*", pins=request.pins, ids=request.ids, holders=request.holders)
        verbs = call.access.verbs | {Verb.OPEN_BY_ID} if request.ids else call.access.verbs
        after = listed.after(request.page_token)
        listing = await self._host.list(call.authorize(wanted, verbs))
        rest = [
            one for one in listing.maps if self._may_see(call, one) and (after is None or one.order > after)
        ]
        size = min(request.page_size or LIST_LIMIT, LIST_LIMIT)
        return pb.ListMapsResponse(
            maps=[listed.info(one) for one in rest[:size]],
            next_page_token=listed.token(rest[size - 1]) if len(rest) > size else "",
            sources=listing.sources,
            not_looked_at=listing.not_looked_at,
        )

    @staticmethod
    def _may_see(call: Call, found: ListedMap) -> bool:
        try:
            call.authorize(found)
        except MapError:
            return False
        return True

    async def close_map(self, call: Call, request: pb.CloseMapRequest) -> pb.CloseMapResponse:
        """Give a handle back."""
        self._host.handles.close(request.handle, call.principal)
        return pb.CloseMapResponse()

    async def pin_map(self, call: Call, request: pb.PinMapRequest) -> pb.PinMapResponse:
        """One more pin."""
        async with admitted(self._host, call, request.map, "pin") as opened:
            await self._host.pin(opened, request.path)
        return pb.PinMapResponse()

    async def unpin_map(self, call: Call, request: pb.UnpinMapRequest) -> pb.UnpinMapResponse:
        """One pin less."""
        ref = convert.ref(request.map, call.principal, "unpin")
        if not isinstance(ref, NameRef | PinRef):
            raise convert.bad_spec(f"{ref} names no pin; give the name or the path", "unpin")
        await self._host.unpin(call.authorize(ref))
        return pb.UnpinMapResponse()

    async def rename_map(self, call: Call, request: pb.RenameMapRequest) -> pb.RenameMapResponse:
        """Another name."""
        name = convert.name_ref(request.name, call.principal, "rename")
        new = convert.name_ref(request.new_name, call.principal, "rename")
        return pb.RenameMapResponse(
            pin_path=await self._host.rename(call.authorize(name), call.authorize(new))
        )

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
