"""Messages to the daemon's own types and back. Pure; everything a client sends is checked here first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

from google.protobuf.duration_pb2 import Duration

from mapd.access.principal import Principal
from mapd.maps import leased
from mapd.maps.answers import ElementFailure
from mapd.maps.errors import MapError
from mapd.maps.groups import FieldSpec, Group
from mapd.maps.job import Outcome
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.opened import MapFacts
from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.store import IdRef, NameRef, PinRef, Place
from mapd.maps.traits import Iteration
from mapd.maps.types import type_name
from mapd.runtime.host import AnyRef, HandleRef, NewMap
from mapd_api import limits
from mapd_api.names import is_part, split_name
from mapd_api.ops import Op
from mapd_api.reasons import Reason, Refusal
from mapd_api.v1 import elements_pb2, errors_pb2, maps_pb2, types_pb2

_ITERATION: Final = {
    Iteration.EXACT: types_pb2.ITERATION_EXACT,
    Iteration.BEST_EFFORT: types_pb2.ITERATION_BEST_EFFORT,
    Iteration.NONE: types_pb2.ITERATION_NONE,
}

UPDATE_OPS: Final[Mapping[int, Op]] = {
    elements_pb2.UPDATE_FLAG_UNSPECIFIED: Op.UPDATE,
    elements_pb2.UPDATE_FLAG_ANY: Op.UPDATE,
    elements_pb2.UPDATE_FLAG_NOEXIST: Op.UPDATE_NOEXIST,
    elements_pb2.UPDATE_FLAG_EXIST: Op.UPDATE_EXIST,
}


def bad_spec(message: str, operation: str) -> MapError:
    """A request that says nothing, or something that is none."""
    return MapError(Reason.BAD_SPEC, f"{operation}: {message}", operation=operation)


def name_ref(name: str, principal: Principal, operation: str) -> NameRef:
    """A name as the principal means it."""
    try:
        return NameRef(*split_name(name, principal.namespace))
    except ValueError as error:
        raise bad_spec(str(error), operation) from None


def lease_id(lease: str, principal: Principal, operation: str) -> LeaseId:
    """A lease as the principal means it."""
    try:
        return LeaseId(*split_name(lease, principal.namespace, what="lease"))
    except ValueError as error:
        raise bad_spec(str(error), operation) from None


def leased_ref(message: maps_pb2.Lease, principal: Principal) -> LeasedRef:
    """The place of a map in a lease.

    Raises:
        MapError: BAD_SPEC, no id, no name, or a ttl that no lease has.
    """
    lease = lease_id(message.id, principal, "create")
    if not is_part(message.name):
        raise bad_spec(
            f"{message.name!r} is no name of a map in a lease: 1 to 63 of a-z, 0-9, '_', '-', beginning with a letter "
            "or digit",
            "create",
        )
    ttl = message.ttl
    # Before any arithmetic: seconds may be any 64 bits.
    ttl_ms = ttl.seconds * 1_000 + ttl.nanos // 1_000_000 if abs(ttl.seconds) < 1 << 32 else -1
    if not leased.takes(ttl_ms):
        raise bad_spec(
            f"a lease of {ttl.seconds} s and {ttl.nanos} ns: from {limits.LEASE_MIN_S:g} to {limits.LEASE_MAX_S:g} s "
            "are taken; what shall stay longer has a name",
            "create",
        )
    return LeasedRef(lease, ttl_ms, message.name)


def ref(message: types_pb2.MapRef, principal: Principal, operation: str) -> AnyRef:
    """Which map is meant."""
    match message.WhichOneof("ref"):
        case "handle":
            return HandleRef(message.handle)
        case "name":
            return name_ref(message.name, principal, operation)
        case "pin":
            return PinRef(message.pin)
        case "id":
            return IdRef(message.id)
        case _:
            raise bad_spec("the request names no map (MapRef has handle, name, pin or id)", operation)


def update_op(flag: int, operation: str) -> Op:
    """The operation behind an UpdateFlag."""
    op = UPDATE_OPS.get(flag)
    if op is None:
        raise MapError(
            Reason.BAD_FLAGS,
            f"{operation}: {flag} is no UpdateFlag; this daemon knows 1 ANY, 2 NOEXIST, 3 EXIST",
            operation=operation,
        )
    return op


def new_map(request: maps_pb2.CreateMapRequest, principal: Principal) -> NewMap:
    """The map that a request describes.

    Raises:
        MapError: BAD_SPEC or OPERATION_UNSUPPORTED; what this version cannot do is refused, never ignored.
    """
    match request.WhichOneof("lifetime"):
        case "named":
            place: Place = name_ref(request.named.name, principal, "create")
        case "lease":
            place = leased_ref(request.lease, principal)
        case _:
            raise bad_spec("say how long the map lives: named {name}, or lease {id, ttl, name}", "create")
    btf = None
    if request.HasField("btf"):
        btf = BtfSpec(
            blob=request.btf.blob,
            key_type_id=request.btf.key_type_id,
            value_type_id=request.btf.value_type_id,
        )
    return NewMap(
        name=place,
        exist_ok=request.exist_ok,
        spec=MapSpec(
            map_type=request.type,
            key_size=request.key_size,
            value_size=request.value_size,
            max_entries=request.max_entries,
            flags=request.map_flags,
            kernel_name=request.kernel_name,
            map_extra=request.map_extra,
            numa_node=request.numa_node if request.HasField("numa_node") else None,
            btf=btf,
            inner=request.HasField("inner"),
            btf_vmlinux_value_type_id=request.btf_vmlinux_value_type_id,
            exclusive_program_hash=request.exclusive_program_hash,
        ),
    )


class Told(Protocol):
    """A map as it is told of: a description of it, or its row in a listing."""

    @property
    def facts(self) -> MapFacts:
        """What is true of it."""
        ...

    @property
    def name(self) -> str:
        """As "namespace/name", or ""."""
        ...

    @property
    def pin_path(self) -> str:
        """A pin of it, or ""."""
        ...

    @property
    def leased(self) -> LeasedRef | None:
        """What keeps that pin, where it is one of a lease."""
        ...


def map_info(found: Told) -> types_pb2.MapInfo:
    """What a client is told of a map."""
    facts = found.facts
    info, traits = facts.info, facts.traits
    return types_pb2.MapInfo(
        id=info.id,
        type=cast("types_pb2.MapType", info.map_type),
        kernel_name=info.name,
        key_size=info.key_size,
        value_size=info.value_size,
        max_entries=info.max_entries,
        map_flags=info.map_flags,
        map_extra=info.map_extra,
        key_stride=facts.key_stride,
        value_stride=facts.value_stride,
        frozen=info.frozen,
        name=found.name,
        pin_path=found.pin_path,
        btf_id=info.btf_id,
        btf_key_type_id=info.btf_key_type_id,
        btf_value_type_id=info.btf_value_type_id,
        memlock_bytes=info.memlock,
        supported_operations=_operations(facts),
        iteration=_ITERATION[traits.iteration] if traits else types_pb2.ITERATION_NONE,
        has_lock=facts.has_lock,
        lease=None if found.leased is None else map_lease(found.leased),
    )


def map_lease(place: LeasedRef) -> types_pb2.MapLease:
    """What keeps a map that has no name."""
    return types_pb2.MapLease(id=str(place.lease), ttl=duration(place.ttl_ms))


def duration(ms: int) -> Duration:
    """Milliseconds as they travel."""
    found = Duration()
    found.FromMilliseconds(ms)
    return found


def _operations(facts: MapFacts) -> Sequence[str]:
    """What its type has, less what takes a lock that its values do not have."""
    if facts.traits is None:
        return ()
    lacking = () if facts.has_lock else (Op.COMPARE_UPDATE.name.lower(),)
    return [name for name in facts.traits.operations if name not in lacking]


def group(message: elements_pb2.OpGroup) -> Group:
    """One group of operations."""
    return Group(
        count=message.count,
        ops=message.ops,
        keys=message.keys,
        values=message.values,
        flags=message.flags,
        cpu=message.cpu if message.HasField("cpu") else None,
        touch=message.touch,
        field=FieldSpec(message.field.offset, message.field.size) if message.HasField("field") else None,
        create=message.create,
    )


def outcome(result: Outcome) -> elements_pb2.GroupResult:
    """What became of a group that ran."""
    return elements_pb2.GroupResult(
        statuses=bytes(result.statuses),
        values=bytes(result.values.view),
        errors=element_errors(result.errors),
    )


def element_errors(failures: Sequence[ElementFailure], offset: int = 0) -> list[errors_pb2.ElementError]:
    """Failures, counted from ``offset``."""
    return [
        errors_pb2.ElementError(
            index=offset + failure.index,
            reason=cast("errors_pb2.Reason", int(failure.reason)),
            errno=failure.errno,
        )
        for failure in failures
    ]


def error(refusal: Refusal) -> errors_pb2.Error:
    """A refusal inside an answer."""
    message = errors_pb2.Error(
        reason=cast("errors_pb2.Reason", int(refusal.reason)),
        message=refusal.message,
        metadata=dict(refusal.metadata),
    )
    if refusal.retry_after_s is not None:
        message.retry_after.FromNanoseconds(round(refusal.retry_after_s * 1e9))
    return message


def check_type(number: int) -> None:
    """Refuse a map type that the contract does not know."""
    if number not in types_pb2.MapType.values() or number == 0:
        raise bad_spec(f"{type_name(number)} is no map type", "create")
