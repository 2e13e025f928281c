"""LeaseService."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from mapd.maps.errors import MapError
from mapd.maps.leased import LeaseId
from mapd.maps.store import PinRef
from mapd.rpc import convert
from mapd.rpc.admit import decided, wanted
from mapd.rpc.guard import Call, Handler
from mapd.rpc.maps import MapHandlers
from mapd.runtime.leases import Judged, Lease, Leases
from mapd_api.ops import Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import leases_pb2 as pb
from mapd_api.v1.maps_pb2 import UnpinMapRequest
from mapd_api.v1.types_pb2 import MapRef

_LISTED: Final = frozenset({Verb.LIST})


class LeaseHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, leases: Leases, maps: MapHandlers) -> None:
        self._leases = leases
        self._maps = maps

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {
            "LeaseKeepAlive": self.keep_alive,
            "LeaseRevoke": self.revoke,
            "LeaseTimeToLive": self.time_to_live,
        }

    async def keep_alive(self, call: Call, request: pb.LeaseKeepAliveRequest) -> pb.LeaseKeepAliveResponse:
        """The whole ttl again. Asks nobody but the policy: it is answered while the opener does not answer."""
        lease = self._permitted(call, request.lease, "keep alive")
        self._leases.keep_alive(lease)
        return pb.LeaseKeepAliveResponse(ttl=convert.duration(lease.ttl_ms))

    async def revoke(self, call: Call, request: pb.LeaseRevokeRequest) -> pb.LeaseRevokeResponse:
        """Unpin all, then forget it."""
        lease = self._permitted(call, request.lease, "revoke")
        paths, removed = sorted(lease.maps), list[str]()
        for path in paths:
            with _gone_already():
                await self._maps.check_unpin(call, PinRef(path))
        for path in paths:
            with _gone_already():
                await self._maps.unpin_map(call, UnpinMapRequest(map=MapRef(pin=path)))
                removed.append(path)
            lease.maps.pop(path, None)
        if not (lease.maps or lease.making or lease.ending):
            await self._leases.end(lease)
        return pb.LeaseRevokeResponse(pins=removed)

    async def time_to_live(
        self, call: Call, request: pb.LeaseTimeToLiveRequest
    ) -> pb.LeaseTimeToLiveResponse:
        """What is left, and what is in it."""
        lease_id = convert.lease_id(request.lease, call.principal, "time to live")
        lease = self._leases.find(lease_id)
        if lease is None:
            raise _missing(lease_id, "time to live")
        listed = self._listed(call, lease)
        if not listed:
            raise self._refusal(call, lease)
        return pb.LeaseTimeToLiveResponse(
            ttl=convert.duration(lease.ttl_ms),
            remaining=convert.duration(round(self._leases.remaining(lease) * 1_000)),
            pins=[one.map.path for one in listed],
        )

    def _permitted(self, call: Call, text: str, operation: str) -> Lease:
        """A lease on each of whose maps the caller has the rights that the method asks for.

        Raises:
            MapError: there is no such lease, or none that the caller may know of; POLICY.
        """
        lease_id = convert.lease_id(text, call.principal, operation)
        lease = self._leases.find(lease_id)
        if lease is None:
            raise _missing(lease_id, operation)
        for one in lease.maps.values():
            self._decide(call, lease, one, operation)
        return lease

    def _decide(self, call: Call, lease: Lease, one: Judged, operation: str) -> None:
        asked, missing = wanted(operation, PinRef(one.map.path)), _missing(lease.id, operation)
        # First whether he may know of it: a refusal to create tells, for that is about a place that the caller names.
        for verbs in (_LISTED, call.access.verbs):
            decided(call, one.map, verbs, one.subject, asked, missing)

    def _listed(self, call: Call, lease: Lease) -> Sequence[Judged]:
        """The maps of a lease that the caller may know of, by path."""
        view = call.authorizer.view(call.principal)
        found = sorted(lease.maps.values(), key=lambda one: one.map.path)
        return found if view is None else [one for one in found if view.lists(one.subject)]

    def _refusal(self, call: Call, lease: Lease) -> MapError:
        """Why somebody who may list no map of a lease is told that there is none; the audit knows by which rule."""
        for one in lease.maps.values():
            try:
                self._decide(call, lease, one, "time to live")
            except MapError as error:
                return error
        return _missing(lease.id, "time to live")


@contextmanager
def _gone_already() -> Generator[None]:
    """Others may unpin a map of a lease at any moment; that is what was wanted."""
    try:
        yield
    except MapError as error:
        if error.reason is not Reason.MAP_NOT_FOUND:
            raise


def _missing(lease_id: LeaseId, operation: str) -> MapError:
    return MapError(
        Reason.MAP_NOT_FOUND,
        f"{operation} {lease_id}: no such lease: it has ended, or has no map left; a map that is created in it begins "
        "it again",
        operation=operation,
        lease=lease_id,
    )
