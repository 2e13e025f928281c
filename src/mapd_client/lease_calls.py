"""What a client may say about leases by name: keep one alive, end it, ask how long it has."""

from __future__ import annotations

from collections.abc import Sequence

from mapd_api.v1 import leases_pb2
from mapd_client import leasing, methods, requests
from mapd_client.failures import Asked
from mapd_client.info import Lease, LeaseState
from mapd_client.link import Links


class LeaseCalls:
    """This part of ``Client``."""

    _links: Links

    async def keep_lease_alive(self, lease: Lease | str) -> float:
        """Give a lease its whole ttl again; seconds. Maps that this client has made do so by themselves.

        Args:
            lease: "job-7" or "ns/job-7"; or that of an open map, ``m.info.lease``.

        Cancelled: it may be kept alive.

        Raises:
            MapNotFound: no such lease, or none that the caller may know of: it has ended, or has no map left.
        """
        request = leases_pb2.LeaseKeepAliveRequest(lease=requests.lease_id(lease))
        link = await self._links.current()
        response = await link.call(methods.LEASE_KEEP_ALIVE, request, Asked("keep alive", request.lease))
        return response.ttl.ToMilliseconds() / 1_000

    async def revoke_lease(self, lease: Lease | str) -> Sequence[str]:
        """End a lease now: remove the pins of all its maps; which these were. Maps go when their last holder lets go.

        Cancelled: some may be removed.

        Raises:
            MapNotFound: as ``keep_lease_alive``.
            PermissionDenied: one of them may not be removed, and none was.
        """
        request = leases_pb2.LeaseRevokeRequest(lease=requests.lease_id(lease))
        link = await self._links.current()
        response = await link.call(
            methods.LEASE_REVOKE, request, Asked("revoke", request.lease, mutates=True)
        )
        return tuple(response.pins)

    async def lease_time_to_live(self, lease: Lease | str) -> LeaseState:
        """How long a lease has left, and its maps; keeps nothing alive. Cancelling costs nothing.

        Raises:
            MapNotFound: as ``keep_lease_alive``.
        """
        request = leases_pb2.LeaseTimeToLiveRequest(lease=requests.lease_id(lease))
        link = await self._links.current()
        asked = Asked("time to live", request.lease)
        return leasing.state(await link.call(methods.LEASE_TIME_TO_LIVE, request, asked))
