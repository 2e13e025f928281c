"""The contract's methods that this library calls, with their messages. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

from mapd_api.v1 import access_pb2, elements_pb2, host_pb2, leases_pb2, maps_pb2

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

_MAPS: Final = "/mapd_api.v1.MapService"
_ELEMENTS: Final = "/mapd_api.v1.ElementService"
_ACCESS: Final = "/mapd_api.v1.AccessService"
_HOST: Final = "/mapd_api.v1.HostService"
_LEASES: Final = "/mapd_api.v1.LeaseService"


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One method: its HTTP/2 path and how its messages become bytes.

    The request's type is a phantom: it only ties a call to its request.
    """

    path: str
    request: type[Request]
    decode: Callable[[bytes], Response]
    encode: Callable[[Message], bytes] = _serialize


GET_SERVER_INFO: Final = Method(
    f"{_MAPS}/GetServerInfo", maps_pb2.GetServerInfoRequest, maps_pb2.GetServerInfoResponse.FromString
)
CREATE_MAP: Final = Method(
    f"{_MAPS}/CreateMap", maps_pb2.CreateMapRequest, maps_pb2.CreateMapResponse.FromString
)
OPEN_MAP: Final = Method(f"{_MAPS}/OpenMap", maps_pb2.OpenMapRequest, maps_pb2.OpenMapResponse.FromString)
LIST_MAPS: Final = Method(f"{_MAPS}/ListMaps", maps_pb2.ListMapsRequest, maps_pb2.ListMapsResponse.FromString)
LIST_MAP_STATS: Final = Method(
    f"{_MAPS}/ListMapStats", maps_pb2.ListMapStatsRequest, maps_pb2.ListMapStatsResponse.FromString
)
CLOSE_MAP: Final = Method(f"{_MAPS}/CloseMap", maps_pb2.CloseMapRequest, maps_pb2.CloseMapResponse.FromString)
PIN_MAP: Final = Method(f"{_MAPS}/PinMap", maps_pb2.PinMapRequest, maps_pb2.PinMapResponse.FromString)
UNPIN_MAP: Final = Method(f"{_MAPS}/UnpinMap", maps_pb2.UnpinMapRequest, maps_pb2.UnpinMapResponse.FromString)
RENAME_MAP: Final = Method(
    f"{_MAPS}/RenameMap", maps_pb2.RenameMapRequest, maps_pb2.RenameMapResponse.FromString
)
UPDATE_REFERENCE: Final = Method(
    f"{_ELEMENTS}/UpdateReference",
    elements_pb2.UpdateReferenceRequest,
    elements_pb2.UpdateReferenceResponse.FromString,
)
FREEZE_MAP: Final = Method(
    f"{_MAPS}/FreezeMap", maps_pb2.FreezeMapRequest, maps_pb2.FreezeMapResponse.FromString
)
GET_BTF: Final = Method(f"{_MAPS}/GetBtf", maps_pb2.GetBtfRequest, maps_pb2.GetBtfResponse.FromString)
APPLY: Final = Method(f"{_ELEMENTS}/Apply", elements_pb2.ApplyRequest, elements_pb2.ApplyResponse.FromString)
COUNT_ENTRIES: Final = Method(
    f"{_ELEMENTS}/CountEntries",
    elements_pb2.CountEntriesRequest,
    elements_pb2.CountEntriesResponse.FromString,
)
DUMP: Final = Method(f"{_ELEMENTS}/Dump", elements_pb2.DumpRequest, elements_pb2.DumpResponse.FromString)
LOAD: Final = Method(f"{_ELEMENTS}/Load", elements_pb2.LoadRequest, elements_pb2.LoadResponse.FromString)
SESSION: Final = Method(
    f"{_ELEMENTS}/Session", elements_pb2.SessionRequest, elements_pb2.SessionResponse.FromString
)
WHO_AM_I: Final = Method(f"{_ACCESS}/WhoAmI", access_pb2.WhoAmIRequest, access_pb2.WhoAmIResponse.FromString)
EXPLAIN: Final = Method(
    f"{_ACCESS}/Explain", access_pb2.ExplainRequest, access_pb2.ExplainResponse.FromString
)
GET_HOST_INFO: Final = Method(
    f"{_HOST}/GetHostInfo", host_pb2.GetHostInfoRequest, host_pb2.GetHostInfoResponse.FromString
)
LEASE_KEEP_ALIVE: Final = Method(
    f"{_LEASES}/LeaseKeepAlive",
    leases_pb2.LeaseKeepAliveRequest,
    leases_pb2.LeaseKeepAliveResponse.FromString,
)
LEASE_REVOKE: Final = Method(
    f"{_LEASES}/LeaseRevoke", leases_pb2.LeaseRevokeRequest, leases_pb2.LeaseRevokeResponse.FromString
)
LEASE_TIME_TO_LIVE: Final = Method(
    f"{_LEASES}/LeaseTimeToLive",
    leases_pb2.LeaseTimeToLiveRequest,
    leases_pb2.LeaseTimeToLiveResponse.FromString,
)
