"""What can go wrong, by what a caller would do about it.

* ``MapdError``
    * ``Misuse``: the call is wrong; fix the program
        * ``SizeMismatch`` (``ValueError``): bytes of a key or value, or a number out of its range
        * ``TypeMismatch`` (``TypeError``): a codec was given something else
        * ``IndexOutOfRange`` (``IndexError``): an array has ``max_entries`` indexes
        * ``Unsupported``: the map's type, this kernel or this daemon cannot do it
        * ``NoTypeInfo``: fields by name, of a map whose types are not known
    * ``Refused``: the daemon or the kernel said no
        * ``MapNotFound`` (``LookupError``), ``MapExists``, ``Incompatible``
        * ``KeyMissing`` (``KeyError``), ``KeyExists``, ``MapFull``, ``MapFrozen``
        * ``BatchFailed``: some elements of many; ``.applied``, ``.errors``, ``.cause``, ``.sent``
        * ``RemovalsRefused``: by ``Map.sync`` itself, what it would remove
        * ``PermissionDenied`` (``PermissionError``): the policy, or a read-only handle
        * ``QuotaExceeded``: ``.retry_after``
        * ``DaemonCapability``: ``.capability``, ``.fix``
    * ``Unreachable``: no answer, or not the whole of it
        * ``Unavailable`` (``ConnectionError``): nothing was executed; ``.retry_after``
        * ``NotSent``: a mutation that never left this process
        * ``OutcomeUnknown``: a mutation that left it and was never answered
        * ``DeadlineExceeded`` (``TimeoutError``): nothing was changed
        * ``DumpIncomplete``: ``.trailer``, ``.token``

A plain ``MapdError`` is a fault of the daemon; its message names the incident in the daemon's log.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from mapd_api.reasons import Reason

if TYPE_CHECKING:
    from mapd_client.info import Trailer

__all__ = [
    "BatchFailed",
    "DaemonCapability",
    "DeadlineExceeded",
    "DumpIncomplete",
    "Incompatible",
    "IndexOutOfRange",
    "KeyExists",
    "KeyMissing",
    "MapExists",
    "MapFrozen",
    "MapFull",
    "MapNotFound",
    "MapdError",
    "Misuse",
    "NoTypeInfo",
    "NotSent",
    "OutcomeUnknown",
    "PermissionDenied",
    "QuotaExceeded",
    "Refused",
    "RemovalsRefused",
    "SizeMismatch",
    "TypeMismatch",
    "Unavailable",
    "Unreachable",
    "Unsupported",
]


class MapdError(Exception):
    """Everything that this library raises on purpose.

    Attributes:
        reason: the daemon's word for it, None where the daemon never answered.
        errno: Linux's number where the kernel refused, else None.
        operation: what was asked ("update", "open"), "" where none was.
        map: the map as the caller or the daemon names it, "" where there is none.
        metadata: the numbers that the message speaks of, for programs.
        retry_after: seconds after which trying again may help, None where it does not.
    """

    reason: Reason | None
    errno: int | None
    operation: str
    map: str
    metadata: Mapping[str, str]
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        errno: int | None = None,
        operation: str = "",
        map: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.errno = errno
        self.operation = operation
        self.map = map
        self.metadata = MappingProxyType(dict(metadata or {}))
        self.retry_after = retry_after

    def __str__(self) -> str:
        # KeyError would print its repr, OSError its number.
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        # A mappingproxy cannot be pickled, nor an OSError's errno found in __dict__.
        state = {**self.__dict__, "metadata": dict(self.metadata), "errno": self.errno}
        return type(self), (self.message,), state


class Misuse(MapdError):
    """The call is wrong and was not executed; the same call will fail again."""


class SizeMismatch(Misuse, ValueError):
    """A key or value of the wrong number of bytes, or a number that its bytes cannot hold."""


class TypeMismatch(Misuse, TypeError):
    """A codec was given, or asked to read, something that it cannot express."""


class IndexOutOfRange(Misuse, IndexError):
    """An array map has the indexes 0 to max_entries - 1."""


class Unsupported(Misuse):
    """The map's type, the daemon's kernel, the daemon or this client cannot do it."""


class NoTypeInfo(Misuse):
    """Fields by name were asked for, and nothing says what the map's keys and values are made of.

    The message names the ways out: an object file, classes, codecs (``Map.typed``); or ``Field(offset, size)``.
    """


class Refused(MapdError):
    """The daemon or the kernel said no; nothing was changed by what was refused."""


class MapNotFound(Refused, LookupError):
    """No such map, or none that the caller may know of."""


class MapExists(Refused):
    """A map of that name, or a pin at that path, is there."""


class Incompatible(Refused):
    """The map is there with another shape, is no longer the map that was opened, or is quarantined by the daemon."""


class KeyMissing(Refused, KeyError):
    """``m[key]`` or an update with ``flags="exist"`` found no such key."""


class KeyExists(Refused):
    """An update with ``flags="noexist"`` found the key."""


class MapFull(Refused):
    """No room for another key; the message gives max_entries where the daemon told it."""


class MapFrozen(Refused):
    """The map is frozen: no writes from user space, for ever."""


class RemovalsRefused(Refused):
    """``Map.sync`` would remove a larger share of the map than it may (``max_removals``); nothing was written.

    ``metadata`` has the numbers: removals, entries, max_removals.
    """


class PermissionDenied(Refused, PermissionError):
    """The daemon's policy forbids it, or the map was opened read-only."""


class QuotaExceeded(Refused):
    """Over the caller's share; ``retry_after`` seconds later there may be room."""


class DaemonCapability(Refused):
    """The daemon itself lacks a right.

    Attributes:
        capability: which: "CAP_SYS_ADMIN", or a file mode.
        fix: how the administrator mends it.
    """

    @property
    def capability(self) -> str:
        """What the daemon lacks, "" if it did not say."""
        return self.metadata.get("capability", "")

    @property
    def fix(self) -> str:
        """How the administrator mends it, "" if the daemon did not say."""
        return self.metadata.get("fix", "")


class BatchFailed(Refused):
    """Some elements of many were not written; the others were.

    Elements are sent in order, in messages. One that is refused does not stop the rest. What ends the
    call early is its ``cause`` (and ``__cause__``): the connection broke (OutcomeUnknown), the daemon
    refused a message (MapFrozen, Unavailable ...), an element cannot be encoded (SizeMismatch ...).
    If that befalls the first message, before anything was answered, it is raised by itself, not as a
    BatchFailed; so ``except OutcomeUnknown`` alone does not see every write whose fate is unknown:

        except (OutcomeUnknown, BatchFailed) as error:
            unknown = isinstance(getattr(error, "cause", error), OutcomeUnknown)

    Attributes:
        applied: how many elements were written.
        errors: why the others were not, by their place in what the caller passed, from 0. Each is made
            when it is looked at. Where a whole message failed, all its elements are in it. ``load``
            lists the first sixteen only.
        failed: how many were not written, or may not have been; without those that were never sent.
        cause: what ended the call before its end, None if every element was sent.
        sent: how many elements, from the first, left this process; nothing after them was written.
            Of a ``load``: how many the daemon took.
    """

    applied: int
    errors: Mapping[int, MapdError]
    failed: int
    cause: MapdError | None
    sent: int

    def __init__(
        self,
        message: str,
        *,
        applied: int = 0,
        errors: Mapping[int, MapdError] | None = None,
        failed: int | None = None,
        cause: MapdError | None = None,
        sent: int | None = None,
        operation: str = "",
        map: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        found: Mapping[int, MapdError] = {} if errors is None else errors
        first = cause if cause is not None else next(iter(found.values()), None)
        super().__init__(
            message,
            reason=first.reason if first is not None else None,
            errno=first.errno if first is not None else None,
            operation=operation,
            map=map,
            metadata=metadata,
            retry_after=cause.retry_after if cause is not None else None,
        )
        self.applied = applied
        self.errors = found
        self.failed = len(found) if failed is None else failed
        self.cause = cause
        self.sent = applied + self.failed if sent is None else sent


class Unreachable(MapdError):
    """No answer, or not the whole of it.

    Attributes:
        connected: False where there was no connection by which the call could have left.
    """

    connected: bool = True


class Unavailable(Unreachable, ConnectionError):
    """The daemon cannot be reached or is too busy; nothing was executed."""


class NotSent(Unreachable):
    """A mutation that was not executed: it never left, or met another start of the daemon."""


class OutcomeUnknown(Unreachable):
    """A mutation that left this process and was never answered: it may have been executed.

    Of many elements, after some were answered, it is ``BatchFailed.cause``.
    """


class DeadlineExceeded(Unreachable, TimeoutError):
    """The time was over before anything was executed, or the call only reads."""


class DumpIncomplete(Unreachable):
    """A dump ended before the end of the map.

    Attributes:
        trailer: what the daemon said at the end, None if the stream broke.
        token: pass it as ``resume`` to go on after the last chunk handed out in full.
    """

    trailer: Trailer | None
    token: bytes

    def __init__(
        self,
        message: str,
        *,
        trailer: Trailer | None = None,
        token: bytes = b"",
        operation: str = "dump",
        map: str = "",
    ) -> None:
        super().__init__(message, operation=operation, map=map)
        self.trailer = trailer
        self.token = token
