"""From what came back instead of an answer to the exception that says so. Sans-I/O."""

from __future__ import annotations

import errno as errnos
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from mapd_api import reasons
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import ENOTSUPP
from mapd_client import errors

CLASSES: Final[Mapping[Reason, type[errors.MapdError]]] = MappingProxyType(
    {
        Reason.DONE: errors.MapdError,  # never refuses anything
        Reason.KEY_ABSENT: errors.KeyMissing,
        Reason.MAP_NOT_FOUND: errors.MapNotFound,
        Reason.KEY_SIZE_MISMATCH: errors.SizeMismatch,
        Reason.VALUE_SIZE_MISMATCH: errors.SizeMismatch,
        Reason.BAD_FLAGS: errors.Misuse,
        Reason.BAD_COLUMNS: errors.Misuse,
        Reason.BAD_SPEC: errors.Misuse,
        Reason.KEY_EXISTS: errors.KeyExists,
        Reason.KEY_MISSING: errors.KeyMissing,
        Reason.MAP_FULL: errors.MapFull,
        Reason.KERNEL_MEMORY: errors.Refused,
        Reason.INDEX_OUT_OF_RANGE: errors.IndexOutOfRange,
        Reason.MAP_FROZEN: errors.MapFrozen,
        Reason.READ_ONLY: errors.PermissionDenied,
        Reason.OPERATION_UNSUPPORTED: errors.Unsupported,
        Reason.MAP_EXISTS: errors.MapExists,
        Reason.INCOMPATIBLE: errors.Incompatible,
        Reason.DAEMON_CAPABILITY: errors.DaemonCapability,
        Reason.POLICY: errors.PermissionDenied,
        Reason.QUOTA: errors.QuotaExceeded,
        Reason.BUSY: errors.Unavailable,
        Reason.DRAINING: errors.Unavailable,
        Reason.STALE_HANDLE: errors.Unavailable,
        Reason.EPOCH_CHANGED: errors.NotSent,
        Reason.OUTCOME_UNKNOWN: errors.OutcomeUnknown,
        Reason.MAP_REPLACED: errors.Incompatible,
        Reason.EXPIRED: errors.DeadlineExceeded,
        Reason.INTERNAL: errors.MapdError,
        Reason.UNAUTHENTICATED: errors.PermissionDenied,
        Reason.AUDIT: errors.Unavailable,
    }
)
"""The exception for each Reason: the one table of this side."""

_NEXT_STEP: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.STALE_HANDLE: "open the map again",
        Reason.EPOCH_CHANGED: "nothing was executed; open the map again",
    }
)

# grpc-core's words for a call that waited for a connection and got none: no byte of it was sent.
_NEVER_CONNECTED: Final = (
    "failed to connect to all addresses",
    "errors resolving",  # 1.85; before, the next
    "DNS resolution failed",
)
_DENIED: Final = "Permission denied"
_CONNECT_CAUSES: Final = (
    ("No such file", "there is no such socket: is the daemon running?"),
    ("Connection refused", "nobody listens on it: the daemon has stopped"),
    (
        _DENIED,
        'this user may not open it: root makes principals in /etc/mapd/policy.toml, [principals.NAME] users = ["..."]',
    ),
)
# The daemon's refusal of a certificate is the end of the connection, for whoever speaks TLS 1.3.
_NOT_TAKEN: Final = (
    "it ended the connection in the handshake. It does so where no authority in its [tcp] client_ca signed the "
    "client's certificate, where that has ended, or where it has too many connections; its log says which. "
    "This client shows"
)
_TLS_CAUSES: Final = (
    ("Connection refused", "nobody listens there: is it running, and has its configuration [tcp] listen?"),
    (
        "Hostname Verification Check failed",
        "its certificate is for other names: connect to one of these, or say which in Tls(server_name=...)",
    ),
    (
        "certificate has expired",
        "its certificate has ended: renew the one that [tcp] certificate names on its host",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "none of the authorities in Tls(ca=...) signed its certificate: are these the authorities of that daemon?",
    ),
    ("errors resolving", "there is no such host"),
    ("DNS resolution failed", "there is no such host"),
    ("WRONG_VERSION_NUMBER", "what listens there speaks no TLS"),
    ("Socket closed", _NOT_TAKEN),
)
_LARGER: Final = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, for the messages of what goes wrong with it.

    Attributes:
        operation: "lookup", "open", "dump".
        map: how the caller names the map, "" where there is none.
        mutates: whether it may have changed something once it has left.
        repeatable: a mutation that may be executed twice: the second finds what the first has made, and says the same.
    """

    operation: str
    map: str = ""
    mutates: bool = False
    repeatable: bool = False

    def __str__(self) -> str:
        return f"{self.operation} {self.map}" if self.map else self.operation


@dataclass(frozen=True, slots=True)
class Failure:
    """What gRPC knows of a failed call.

    Attributes:
        code: the name of its status ("UNAVAILABLE").
        details: its text.
        status: google.rpc.Status as bytes, if the daemon attached one.
        target: the daemon's address, for the message.
        timeout: the seconds that the call was given, None if it had no limit.
        version: the daemon's version, "" if unknown.
        certificate: what the client showed, of a call over TLS that was never connected.
        login: why this user's login may be what a socket refuses (``logins.stale_group``).
    """

    code: str
    details: str
    status: bytes | None
    target: str
    timeout: float | None = None
    version: str = ""
    certificate: str = ""
    login: str = ""


_ERRNO_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "EPERM",
        2: "ENOENT",
        4: "EINTR",
        7: "E2BIG",
        11: "EAGAIN",
        12: "ENOMEM",
        14: "EFAULT",
        16: "EBUSY",
        17: "EEXIST",
        22: "EINVAL",
        28: "ENOSPC",
        95: "EOPNOTSUPP",
        ENOTSUPP: "ENOTSUPP",
    }
)


def errno_name(number: int) -> str:
    """Linux's name for an errno of an element operation; this host may count otherwise."""
    return _ERRNO_NAMES.get(number, f"errno {number}")


def errno_number(name: str) -> int | None:
    """``"E2BIG"`` as a number, None for a name that this host's libc does not have."""
    if name == "ENOTSUPP":
        return ENOTSUPP
    number = getattr(errnos, name, None)
    return number if isinstance(number, int) else None


def of_refusal(refusal: Refusal, asked: Asked, *, retry_after: float | None = None) -> errors.MapdError:
    """The exception for a refusal by the daemon; ``asked`` fills in what the refusal leaves out."""
    step = _NEXT_STEP.get(refusal.reason)
    message = refusal.message or refusal.reason.name.lower().replace("_", " ")
    if not refusal.message:
        message = f"{asked}: {message}"
    if step is not None and step not in message:
        message = f"{message}; {step}"
    return CLASSES[refusal.reason](
        message,
        reason=refusal.reason,
        errno=errno_number(refusal.metadata.get("errno", "")),
        operation=refusal.metadata.get("operation", asked.operation),
        map=refusal.metadata.get("map", asked.map),
        metadata=refusal.metadata,
        retry_after=refusal.retry_after_s if retry_after is None else retry_after,
    )


def of_failure(failure: Failure, asked: Asked) -> errors.MapdError:
    """The exception for a call that ended without an answer."""
    if failure.status is not None:
        status = _parse(failure.status)
        refusal = None if status is None else reasons.decode(status)
        if status is not None and refusal is not None:
            return of_refusal(refusal, asked, retry_after=reasons.retry_delay_s(status))
    match failure.code:
        case "UNAVAILABLE":
            return _unavailable(failure, asked)
        case "DEADLINE_EXCEEDED":
            return _late(failure, asked)
        case "RESOURCE_EXHAUSTED":
            return _exhausted(failure, asked)
        case "UNIMPLEMENTED":
            return _unimplemented(failure, asked)
        case "PERMISSION_DENIED" | "UNAUTHENTICATED":
            return _make(errors.PermissionDenied, f"{asked}: {failure.details or 'refused'}", asked)
        case _:
            return _broken(failure, asked)


def _make(kind: type[errors.MapdError], message: str, asked: Asked) -> errors.MapdError:
    return kind(message, operation=asked.operation, map=asked.map)


def _parse(status: bytes) -> status_pb2.Status | None:
    try:
        return status_pb2.Status.FromString(status)
    except DecodeError:
        return None


def never_connected(details: str) -> bool:
    """Whether grpc says of a call that not a byte of it was sent."""
    return details.startswith(_NEVER_CONNECTED)


def _unavailable(failure: Failure, asked: Asked) -> errors.MapdError:
    if never_connected(failure.details):
        known = _TLS_CAUSES if failure.certificate else _CONNECT_CAUSES
        _, cause = next((each for each in known if each[0] in failure.details), ("", failure.details))
        if failure.certificate and cause == _NOT_TAKEN:
            cause = f"{cause} {failure.certificate}"
        if failure.login and _DENIED in failure.details:
            cause = failure.login
        kind = errors.NotSent if asked.mutates else errors.Unavailable
        error = kind(
            f"{asked}: no daemon at {failure.target}: {cause}", operation=asked.operation, map=asked.map
        )
        error.connected = False
        return error
    return _broken(failure, asked)


def _broken(failure: Failure, asked: Asked) -> errors.MapdError:
    what = f"{asked}: the connection to {failure.target} broke before the answer ({failure.details})"
    if failure.code not in ("UNAVAILABLE", "CANCELLED"):
        what = f"{asked}: {failure.target} answered {failure.code} ({failure.details})"
    if asked.mutates:
        return _make(errors.OutcomeUnknown, f"{what}; it may have been executed", asked)
    if failure.code in ("UNAVAILABLE", "CANCELLED"):
        return _make(errors.Unavailable, what, asked)
    return _make(errors.MapdError, what, asked)


def _late(failure: Failure, asked: Asked) -> errors.MapdError:
    within = "in time" if failure.timeout is None else f"within {round(failure.timeout, 3):g} s"
    what = f"{asked}: no answer from {failure.target} {within}"
    if asked.mutates:
        return _make(errors.OutcomeUnknown, f"{what}; it may have been executed", asked)
    return _make(errors.DeadlineExceeded, what, asked)


def _exhausted(failure: Failure, asked: Asked) -> errors.MapdError:
    found = _LARGER.search(failure.details)
    if found is not None:
        size, bound = found.groups()
        what = f"{asked}: a message of {size} bytes, at most {bound} are carried; ask for less at once"
        return errors.SizeMismatch(
            what, operation=asked.operation, map=asked.map, metadata={"size": size, "limit": bound}
        )
    # gRPC's own limits (concurrent calls, streams) refuse before a handler runs.
    return _make(errors.Unavailable, f"{asked}: {failure.target} is at its limit: {failure.details}", asked)


def _unimplemented(failure: Failure, asked: Asked) -> errors.MapdError:
    version = f" (version {failure.version})" if failure.version else ""
    return _make(
        errors.Unsupported,
        f"{asked}: the daemon at {failure.target}{version} does not know this call: "
        f"it is older than this client, or has it switched off ({failure.details})",
        asked,
    )
