"""A request for every method and operation of the contract, on any resource. What has none fails the matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from google.protobuf.message import Message

from mapd.bpf import possible_cpus
from mapd_api import contract
from mapd_api.layout import value_stride
from mapd_api.ops import ATOMICS, MUTATES, TAKES_VALUE, Op, Verb
from mapd_api.v1 import access_pb2 as access
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1 import host_pb2 as host
from mapd_api.v1 import leases_pb2 as leases
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import VERB_READ, MapRef
from tests.e2e.rights.world import Resource, T, World, lease_of

PER_OP: Final = ("Apply", "Session")
INSIDE: Final = {"Explain": frozenset({Verb.LIST})}
"""Of a method for everyone: what it takes on the map that a request names."""
LISTINGS: Final = frozenset({"ListMaps", "ListMapStats"})
CHANGES_NAMES: Final = frozenset({"CreateMap", "PinMap", "UnpinMap", "RenameMap", "LeaseRevoke"})
CHANGES_MAPS: Final = frozenset({"FreezeMap", "Update", "Delete", "UpdateReference", "Load"})
MADE: Final = "made"
"""The last part of whatever name or pin an admitted call makes."""

METHODS: Final = {method.name: method for service in contract.SERVICES for method in service.methods}

Build = Callable[[World, Resource], list[Message] | None]


@dataclass(frozen=True, slots=True)
class Action:
    """A method, and the operation where rights depend on it.

    Attributes:
        verbs: that the contract asks for; for a method that is for everyone none.
    """

    method: Any
    op: Op | None
    verbs: frozenset[Verb]

    @property
    def name(self) -> str:
        """``Apply POP``."""
        return f"{self.method.name} {self.op.name}" if self.op else str(self.method.name)

    @property
    def changes(self) -> bool:
        """Whether it may change anything where it is admitted."""
        if self.op is not None:
            return self.op in MUTATES
        return self.method.name in CHANGES_MAPS | CHANGES_NAMES


def actions() -> Iterator[Action]:
    """Every (RPC, op) of the contract."""
    for service in contract.SERVICES:
        for method in service.methods:
            access = contract.method_access(method)
            if access.per_op or method.name == "Session":
                for op, verbs in contract.op_verbs().items():
                    yield Action(method, op, access.verbs | verbs)
            else:
                yield Action(method, None, access.verbs or INSIDE.get(method.name, access.verbs))


def operation_on(resource: Resource, op: Op) -> pb.OpGroup:
    """One element of one operation, of the sizes that this map takes."""
    like = resource.like
    stride = value_stride(like.type, like.value_size, possible_cpus())
    found = pb.OpGroup(map=resource.ref, count=1, ops=bytes([op]), keys=resource.key[: like.key_size])
    if op in ATOMICS:
        found.field.offset, found.field.size = (8 if like.value_size > 8 else 0), 8
        found.values = bytes(16 if op is Op.COMPARE_EXCHANGE else 8)
    elif op is Op.COMPARE_UPDATE:
        found.values = bytes(2 * stride)
    elif op in TAKES_VALUE:
        found.values = (like.value or bytes(stride))[:stride]
    return found


def apply(resource: Resource, op: Op) -> pb.ApplyRequest:
    """A message with one group."""
    return pb.ApplyRequest(groups=[operation_on(resource, op)])


def _create(world: World, resource: Resource) -> list[Message] | None:
    del world
    if resource.ref.WhichOneof("ref") != "name":
        return None
    like = resource.like
    if like.type == T.ARRAY_OF_MAPS or like.value_size == 16:
        return None
    request = maps.CreateMapRequest(
        type=int(like.type),  # type: ignore[arg-type]
        key_size=like.key_size,
        value_size=like.value_size,
        max_entries=8,
        map_flags=like.flags,
        kernel_name="rights",
    )
    request.named.name = resource.ref.name
    return [request]


def _pin(world: World, resource: Resource) -> list[Message] | None:
    return [maps.PinMapRequest(map=resource.ref, path=f"{world.place.bpffs}/foreign/{MADE}")]


def _unpin(world: World, resource: Resource) -> list[Message] | None:
    del world
    return None if resource.by_id or resource.by_handle else [maps.UnpinMapRequest(map=resource.ref)]


def _rename(world: World, resource: Resource) -> list[Message] | None:
    del world
    if resource.ref.WhichOneof("ref") != "name":
        return None
    namespace = resource.ref.name.partition("/")[0]
    return [maps.RenameMapRequest(name=resource.ref.name, new_name=f"{namespace}/{MADE}")]


def _list(world: World, resource: Resource) -> list[Message] | None:
    del world
    return [maps.ListMapsRequest(pins=True, ids=resource.by_id)]


def _stats(world: World, resource: Resource) -> list[Message] | None:
    del world
    return [maps.ListMapStatsRequest(pins=True, ids=resource.by_id)]


def _reference(world: World, resource: Resource) -> list[Message] | None:
    inner = MapRef(name="team/flows")
    if resource.of is world.maps["map of maps"]:
        return [pb.UpdateReferenceRequest(map=resource.ref, key=resource.key[:4], inner=inner)]
    return [pb.UpdateReferenceRequest(map=resource.ref, key=resource.key, cpu=pb.CpuQueue(size=0))]


def _load(world: World, resource: Resource) -> list[Message] | None:
    del world
    like = resource.like
    stride = value_stride(like.type, like.value_size, possible_cpus())
    request = pb.LoadRequest(map=resource.ref)
    request.columns.count = 1
    request.columns.keys = resource.key[: like.key_size]
    request.columns.values = (like.value or bytes(stride))[:stride]
    return [request]


def _explain(world: World, resource: Resource) -> list[Message] | None:
    del world
    return None if resource.by_handle else [access.ExplainRequest(verb=VERB_READ, map=resource.ref)]


def _leased(kind: type[Message]) -> Build:
    """About the lease of a map that is in one."""

    def build(world: World, resource: Resource) -> list[Message] | None:
        del world
        lease = lease_of(resource.ref.pin)
        return [kind(lease=lease)] if lease else None

    return build


BUILDERS: Final[Mapping[str, Build]] = {
    "WhoAmI": lambda _w, _r: [access.WhoAmIRequest()],
    "Explain": _explain,
    # Of the host, whatever map: asked once for each resource all the same, for the answer depends on none.
    "GetHostInfo": lambda _w, _r: [host.GetHostInfoRequest(all_devices=True, all_cgroups=True)],
    "GetServerInfo": lambda _w, _r: [maps.GetServerInfoRequest()],
    "CreateMap": _create,
    "OpenMap": lambda _w, r: None if r.by_handle else [maps.OpenMapRequest(map=r.ref)],
    "GetMap": lambda _w, r: [maps.GetMapRequest(map=r.ref)],
    "ListMaps": _list,
    "ListMapStats": _stats,
    "CloseMap": lambda _w, _r: [maps.CloseMapRequest(handle=1)],
    "PinMap": _pin,
    "UnpinMap": _unpin,
    "RenameMap": _rename,
    "FreezeMap": lambda _w, r: [maps.FreezeMapRequest(map=r.ref)],
    "GetBtf": lambda _w, r: [maps.GetBtfRequest(map=r.ref)],
    "Lookup": lambda _w, r: [pb.LookupRequest(map=r.ref, key=r.key)],
    "Update": lambda _w, r: [pb.UpdateRequest(map=r.ref, key=r.key, value=r.like.value)],
    "Delete": lambda _w, r: [pb.DeleteRequest(map=r.ref, key=r.key)],
    "UpdateReference": _reference,
    "CountEntries": lambda _w, r: [pb.CountEntriesRequest(map=r.ref)],
    "GetNextKey": lambda _w, r: [pb.GetNextKeyRequest(map=r.ref)],
    "Dump": lambda _w, r: [pb.DumpRequest(map=r.ref)],
    "Load": _load,
    "LeaseKeepAlive": _leased(leases.LeaseKeepAliveRequest),
    "LeaseRevoke": _leased(leases.LeaseRevokeRequest),
    "LeaseTimeToLive": _leased(leases.LeaseTimeToLiveRequest),
}


def without_builder() -> set[str]:
    """Methods that the matrix could not ask for."""
    return {action.method.name for action in actions()} - {*BUILDERS, *PER_OP}


def requests(world: World, action: Action, resource: Resource) -> list[Message] | None:
    """What to send; None where the method cannot name this resource."""
    if action.op is not None:
        return [apply(resource, action.op)]
    return BUILDERS[action.method.name](world, resource)


def on(resource: Resource, ref: MapRef) -> Resource:
    """The same element by another way to its map."""
    return replace(resource, ref=ref)
