"""Every reason and every gRPC failure has its exception."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from mapd_api import reasons
from mapd_api.reasons import Reason, Refusal
from mapd_client import errors
from mapd_client.failures import CLASSES, Asked, Failure, errno_number, of_failure, of_refusal

READ = Asked("lookup", "flows")
WRITE = Asked("update", "flows", mutates=True)


def failure(code: str, details: str = "", status: bytes | None = None) -> Failure:
    return Failure(code, details, status, "unix:/run/mapd/mapd.sock", 2.0, "0.0.9")


def test_every_reason_has_a_class() -> None:
    assert set(CLASSES) == set(Reason)


@pytest.mark.parametrize("why", [one for one in Reason if one in reasons.STATUS])
def test_a_refusal_survives_the_way(why: Reason) -> None:
    refusal = Refusal(
        why, "update ns/flows: no", {"errno": "E2BIG", "operation": "update", "map": "ns/flows"}
    )
    status = reasons.encode(refusal).SerializeToString()
    error = of_failure(failure(reasons.STATUS[why].name, "update ns/flows: no", status), WRITE)
    assert type(error) is CLASSES[why]
    assert str(error).startswith("update ns/flows: no")
    assert (error.reason, error.errno, error.operation, error.map) == (why, errno.E2BIG, "update", "ns/flows")
    assert error.retry_after == reasons.RETRY_AFTER_S.get(why)


@pytest.mark.parametrize("name", errors.__all__)
def test_every_class_is_in_the_drawing_and_can_be_copied(name: str) -> None:
    assert f"``{name}``" in str(errors.__doc__)
    kind: type[errors.MapdError] = getattr(errors, name)
    error = kind("what and why")
    error.errno = 5
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert (type(twin), str(twin), twin.errno) == (kind, "what and why", 5)


def test_the_capability_and_its_mending_are_attributes() -> None:
    refusal = Refusal(
        Reason.DAEMON_CAPABILITY, "no", {"capability": "CAP_SYS_ADMIN", "fix": "profile inspector"}
    )
    error = of_refusal(refusal, READ)
    assert isinstance(error, errors.DaemonCapability)
    assert (error.capability, error.fix) == ("CAP_SYS_ADMIN", "profile inspector")


@pytest.mark.parametrize(
    ("code", "details", "read", "write", "text"),
    [
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: connect: No such file or directory",
            errors.Unavailable,
            errors.NotSent,
            "no daemon at unix:/run/mapd/mapd.sock: there is no such socket",
        ),
        (
            "UNAVAILABLE",
            "failed to connect to all addresses; last error: connect: Connection refused",
            errors.Unavailable,
            errors.NotSent,
            "nobody listens",
        ),
        (
            "UNAVAILABLE",
            "Socket closed",
            errors.Unavailable,
            errors.OutcomeUnknown,
            "broke before the answer",
        ),
        ("CANCELLED", "", errors.Unavailable, errors.OutcomeUnknown, "broke before the answer"),
        ("DEADLINE_EXCEEDED", "", errors.DeadlineExceeded, errors.OutcomeUnknown, "within 2 s"),
        ("UNIMPLEMENTED", "Method not found!", errors.Unsupported, errors.Unsupported, "version 0.0.9"),
        ("RESOURCE_EXHAUSTED", "limit", errors.Unavailable, errors.Unavailable, "at its limit"),
        ("PERMISSION_DENIED", "no", errors.PermissionDenied, errors.PermissionDenied, "no"),
        ("UNKNOWN", "Unexpected", errors.MapdError, errors.OutcomeUnknown, "answered UNKNOWN"),
    ],
)
def test_a_failure_without_a_refusal(
    code: str, details: str, read: type[Exception], write: type[Exception], text: str
) -> None:
    for asked, kind in ((READ, read), (WRITE, write)):
        error = of_failure(failure(code, details), asked)
        assert type(error) is kind
        assert text in str(error)
        assert str(error).startswith(str(asked))
    assert ("may have been executed" in str(of_failure(failure(code, details), WRITE))) == (
        write is errors.OutcomeUnknown
    )


def test_a_message_too_large_has_both_numbers() -> None:
    error = of_failure(
        failure("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (5000000 vs. 4194304)"), READ
    )
    assert isinstance(error, errors.SizeMismatch)
    assert dict(error.metadata) == {"size": "5000000", "limit": "4194304"}


def test_a_status_that_is_no_status_is_ignored() -> None:
    assert type(of_failure(failure("UNAVAILABLE", "x", b"\xff"), READ)) is errors.Unavailable


def test_errnos_by_name() -> None:
    assert (errno_number("ENOTSUPP"), errno_number("ENOENT"), errno_number("EWHAT"), errno_number("")) == (
        524,
        errno.ENOENT,
        None,
        None,
    )
