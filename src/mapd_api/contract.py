"""The contract read back from its descriptors: methods, and the rights that each asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from mapd_api.ops import Op, Verb
from mapd_api.v1 import access_pb2, elements_pb2, host_pb2, leases_pb2, maps_pb2, types_pb2

MAP_SERVICE: Final[ServiceDescriptor] = maps_pb2.DESCRIPTOR.services_by_name["MapService"]
ELEMENT_SERVICE: Final[ServiceDescriptor] = elements_pb2.DESCRIPTOR.services_by_name["ElementService"]
ACCESS_SERVICE: Final[ServiceDescriptor] = access_pb2.DESCRIPTOR.services_by_name["AccessService"]
HOST_SERVICE: Final[ServiceDescriptor] = host_pb2.DESCRIPTOR.services_by_name["HostService"]
LEASE_SERVICE: Final[ServiceDescriptor] = leases_pb2.DESCRIPTOR.services_by_name["LeaseService"]
# protoc's stubs type an extension by its descriptor, typeshed's Extensions by its value.
_ACCESS: Final[Any] = types_pb2.access
_OP_VERBS: Final[Any] = types_pb2.op_verbs
SERVICES: Final = (MAP_SERVICE, ELEMENT_SERVICE, ACCESS_SERVICE, HOST_SERVICE, LEASE_SERVICE)


class ContractError(Exception):
    """The contract lacks something without which a daemon must not start."""


@dataclass(frozen=True, slots=True)
class MethodAccess:
    """The rights that a method asks for (types.proto, message Access)."""

    verbs: frozenset[Verb]
    per_op: bool
    everyone: bool


def method_access(method: MethodDescriptor) -> MethodAccess:
    """The rights of one method.

    Raises:
        ContractError: it has no option ``access``, or one that says nothing.
    """
    access = method.GetOptions().Extensions[_ACCESS]
    found = MethodAccess(frozenset(Verb(v) for v in access.verbs), access.per_op, access.everyone)
    if not (found.verbs or found.per_op or found.everyone):
        raise ContractError(f"{method.full_name} states no rights: add option (access) to the proto")
    if found.everyone and (found.verbs or found.per_op):
        raise ContractError(f"{method.full_name} is for everyone and asks for rights: choose one")
    return found


def op_verbs() -> Mapping[Op, frozenset[Verb]]:
    """The rights of each element operation.

    Raises:
        ContractError: an operation has no option ``op_verbs``, or is unknown to ``Op``.
    """
    verbs: dict[Op, frozenset[Verb]] = {}
    for value in elements_pb2.DESCRIPTOR.enum_types_by_name["Op"].values:
        if value.number == 0:
            continue
        found = frozenset(Verb(v) for v in value.GetOptions().Extensions[_OP_VERBS])
        if not found:
            raise ContractError(f"{value.name} states no rights: add option (op_verbs) to the proto")
        verbs[Op(value.number)] = found
    return MappingProxyType(verbs)


def full_name(method: MethodDescriptor) -> str:
    """The method as it stands in an HTTP/2 path: ``/mapd_api.v1.MapService/ListMaps``."""
    return f"/{method.containing_service.full_name}/{method.name}"


def check(services: tuple[ServiceDescriptor, ...] = SERVICES) -> Mapping[str, MethodAccess]:
    """The rights of every method by full name; raises ContractError where any are missing."""
    op_verbs()
    return MappingProxyType(
        {full_name(method): method_access(method) for service in services for method in service.methods}
    )
