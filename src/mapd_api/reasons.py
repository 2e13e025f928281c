"""Why something was refused: one table for both sides.

The only module that chooses a gRPC status code. The daemon raises with a ``Reason``; ``encode``
makes the google.rpc.Status; the client's ``decode`` gives the same ``Refusal`` back. Numbers and
meanings are documented in proto/mapd_api/v1/errors.proto.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Final, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN: Final = "mapd"
"""ErrorInfo.domain of every refusal that is ours."""

Code = grpc.StatusCode


class Reason(IntEnum):
    """errors.proto, enum Reason."""

    DONE = 0
    KEY_ABSENT = 1
    MAP_NOT_FOUND = 2
    KEY_SIZE_MISMATCH = 3
    VALUE_SIZE_MISMATCH = 4
    BAD_FLAGS = 5
    BAD_COLUMNS = 6
    BAD_SPEC = 7
    KEY_EXISTS = 8
    KEY_MISSING = 9
    MAP_FULL = 10
    KERNEL_MEMORY = 11
    INDEX_OUT_OF_RANGE = 12
    MAP_FROZEN = 13
    READ_ONLY = 14
    OPERATION_UNSUPPORTED = 15
    MAP_EXISTS = 16
    INCOMPATIBLE = 17
    DAEMON_CAPABILITY = 18
    POLICY = 19
    QUOTA = 20
    BUSY = 21
    DRAINING = 22
    STALE_HANDLE = 23
    EPOCH_CHANGED = 24
    OUTCOME_UNKNOWN = 25
    MAP_REPLACED = 26
    EXPIRED = 27
    INTERNAL = 28
    UNAUTHENTICATED = 29
    AUDIT = 30


STATUS: Final[Mapping[Reason, grpc.StatusCode]] = MappingProxyType(
    {
        Reason.MAP_NOT_FOUND: Code.NOT_FOUND,
        Reason.KEY_SIZE_MISMATCH: Code.INVALID_ARGUMENT,
        Reason.VALUE_SIZE_MISMATCH: Code.INVALID_ARGUMENT,
        Reason.BAD_FLAGS: Code.INVALID_ARGUMENT,
        Reason.BAD_COLUMNS: Code.INVALID_ARGUMENT,
        Reason.BAD_SPEC: Code.INVALID_ARGUMENT,
        Reason.KEY_EXISTS: Code.ALREADY_EXISTS,
        Reason.KEY_MISSING: Code.FAILED_PRECONDITION,
        Reason.MAP_FULL: Code.RESOURCE_EXHAUSTED,
        Reason.KERNEL_MEMORY: Code.RESOURCE_EXHAUSTED,
        Reason.INDEX_OUT_OF_RANGE: Code.OUT_OF_RANGE,
        Reason.MAP_FROZEN: Code.FAILED_PRECONDITION,
        Reason.READ_ONLY: Code.FAILED_PRECONDITION,
        Reason.OPERATION_UNSUPPORTED: Code.UNIMPLEMENTED,
        Reason.MAP_EXISTS: Code.ALREADY_EXISTS,
        Reason.INCOMPATIBLE: Code.FAILED_PRECONDITION,
        Reason.DAEMON_CAPABILITY: Code.FAILED_PRECONDITION,
        Reason.POLICY: Code.PERMISSION_DENIED,
        Reason.QUOTA: Code.RESOURCE_EXHAUSTED,
        Reason.BUSY: Code.UNAVAILABLE,
        Reason.DRAINING: Code.UNAVAILABLE,
        Reason.STALE_HANDLE: Code.FAILED_PRECONDITION,
        Reason.EPOCH_CHANGED: Code.ABORTED,
        Reason.OUTCOME_UNKNOWN: Code.ABORTED,
        Reason.MAP_REPLACED: Code.ABORTED,
        Reason.EXPIRED: Code.DEADLINE_EXCEEDED,
        Reason.INTERNAL: Code.INTERNAL,
        Reason.UNAUTHENTICATED: Code.UNAUTHENTICATED,
        Reason.AUDIT: Code.UNAVAILABLE,
    }
)
"""The status of a refused call. DONE and KEY_ABSENT are answers and have none."""

RETRY_AFTER_S: Final[Mapping[Reason, float]] = MappingProxyType(
    {Reason.QUOTA: 1.0, Reason.BUSY: 0.05, Reason.DRAINING: 0.5, Reason.AUDIT: 1.0}
)
"""How long to wait at least, where waiting helps (google.rpc.RetryInfo)."""


_TO_GRPC: Final[Callable[[status_pb2.Status], grpc.Status]] = cast("Any", rpc_status).to_status


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal, as it travels.

    Attributes:
        message: for a person: operation, object, their numbers, likely cause, next step.
        metadata: the same for a program: errno, operation, map, map_type, numbers.
        wait_s: how long to wait where that is known exactly (a rate limit); None: as the table has it.
    """

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    wait_s: float | None = None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds to wait before trying again; None where waiting does not help."""
        return RETRY_AFTER_S.get(self.reason) if self.wait_s is None else self.wait_s


def encode(refusal: Refusal) -> status_pb2.Status:
    """The google.rpc.Status of a refused call."""
    info = error_details_pb2.ErrorInfo(
        reason=refusal.reason.name, domain=DOMAIN, metadata=dict(refusal.metadata)
    )
    details = [any_pb2.Any(), any_pb2.Any()]
    details[0].Pack(info)
    if refusal.retry_after_s is None:
        details.pop()
    else:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(refusal.retry_after_s * 1e9))
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    code: int = STATUS[refusal.reason].value[0]
    return status_pb2.Status(code=code, message=refusal.message, details=details)


def to_grpc(status: status_pb2.Status) -> grpc.Status:
    """The same for grpc's abort_with_status: the details ride in the trailing metadata."""
    return _TO_GRPC(status)


def decode(status: status_pb2.Status) -> Refusal | None:
    """The refusal in a status, or None if it is not one of ours (a proxy's, gRPC's own)."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
            reason, wait = Reason[info.reason], retry_delay_s(status)
            own = None if wait == RETRY_AFTER_S.get(reason) else wait
            return Refusal(reason, status.message, dict(info.metadata), own)
    return None


def retry_delay_s(status: status_pb2.Status) -> float | None:
    """RetryInfo's delay in seconds, whoever put it there."""
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToNanoseconds()) / 1e9
    return None
