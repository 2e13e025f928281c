"""What became of many elements: how many were written, and why the others were not. Sans-I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mapd_api.reasons import Reason
from mapd_client import replies
from mapd_client.batches import Batch
from mapd_client.codec import Codec
from mapd_client.errors import BatchFailed, MapdError, NotSent, OutcomeUnknown
from mapd_client.failures import Asked
from mapd_client.info import MapInfo
from mapd_client.replies import Outcome

_ANSWERS = (Reason.DONE, Reason.KEY_ABSENT)


@dataclass(frozen=True, slots=True)
class _Part:
    """One message of which elements failed: their statuses, or one error for all."""

    batch: Batch
    failed: int
    statuses: bytes
    errnos: Mapping[int, int]
    error: MapdError | None = None


class ElementErrors(Mapping[int, MapdError]):
    """Why elements were not written, by their place; each exception is made when it is looked at.

    Holds a byte of status and the key of each element of a message in which one failed: 300,000
    exceptions would be 325 MiB.
    """

    def __init__(self, asked: Asked, info: MapInfo, key: Codec[Any]) -> None:
        self._asked = asked
        self._info = info
        self._key = key
        self._parts: list[_Part] = []
        self._firsts: list[int] = []

    def append(self, part: _Part) -> None:
        """The failures of the next message."""
        self._parts.append(part)
        self._firsts.append(part.batch.first)

    def __len__(self) -> int:
        return sum(part.failed for part in self._parts)

    def __iter__(self) -> Iterator[int]:
        for part in self._parts:
            first = part.batch.first
            if part.error is not None:
                yield from range(first, first + part.batch.count)
            else:
                yield from (first + at for at, status in enumerate(part.statuses) if status not in _ANSWERS)

    def __getitem__(self, index: int) -> MapdError:
        found = bisect_right(self._firsts, index) - 1
        if found < 0:
            raise KeyError(index)
        part = self._parts[found]
        at = index - part.batch.first
        if at >= part.batch.count:
            raise KeyError(index)
        if part.error is not None:
            return part.error
        if part.statuses[at] in _ANSWERS:
            raise KeyError(index)
        stride = self._info.key_stride
        key = part.batch.keys[at * stride : (at + 1) * stride]
        return replies.element_error(
            part.statuses[at],
            errno=part.errnos.get(at, 0),
            key=key,
            shown=f"key of element {index}: {replies.key_text(key, self._key)}"
            if key
            else f"element {index}",
            asked=self._asked,
            info=self._info,
        )

    def __repr__(self) -> str:
        return f"<{len(self)} errors of elements>"

    def __reduce__(self) -> tuple[object, ...]:
        return dict, (dict(self),)  # codecs cannot be pickled


class Tally:
    """One bulk call, message by message.

    Attributes:
        applied: elements written so far.
        sent: elements that left this process so far; none after them did.
        answered: whether any message was answered.
        cause: what the first message that failed as a whole failed with; the first whose outcome is unknown goes
            before.
    """

    applied: int
    sent: int
    answered: bool
    cause: MapdError | None

    def __init__(self, asked: Asked, info: MapInfo, key: Codec[Any]) -> None:
        self.applied = 0
        self.sent = 0
        self.answered = False
        self.cause = None
        self._refused = False  # a message before the one that was lost
        self._asked = asked
        self._errors = ElementErrors(asked, info, key)

    def add(self, batch: Batch, outcome: Outcome) -> None:
        """A message that was answered."""
        done = outcome.statuses.count(Reason.DONE)
        failed = batch.count - done - outcome.absent
        self.applied += done
        self.sent = batch.first + batch.count
        self.answered = True
        if failed:
            self._errors.append(_Part(batch, failed, outcome.statuses, outcome.errnos))

    def failure(self) -> BatchFailed | None:
        """The exception for a call that came to its end, None if nothing failed."""
        return self._made(None) if self._errors else None

    def fail(self, batch: Batch, error: MapdError) -> None:
        """A message of which nothing is known to be written."""
        if self.cause is None:
            self.cause = error
        elif isinstance(error, OutcomeUnknown) and not isinstance(self.cause, OutcomeUnknown):
            self.cause, self._refused = error, True
        if not isinstance(error, NotSent):
            self.sent = batch.first + batch.count
        self._errors.append(_Part(batch, batch.count, b"", MappingProxyType({}), error))

    def ended(self) -> MapdError:
        """The exception for a call that ended because a message failed.

        It is the cause itself where no message was answered, by a refusal either.
        """
        assert self.cause is not None
        return self._made(self.cause) if self.answered or self._refused else self.cause

    def ended_before(self, cause: MapdError, index: int) -> MapdError:
        """The exception for a call that ended because the element at ``index`` cannot be encoded."""
        if not self.answered:
            return cause
        self._errors.append(_Part(Batch(index, 1, b""), 1, b"", MappingProxyType({}), cause))
        return self._made(cause)

    def _made(self, cause: MapdError | None) -> BatchFailed:
        return replies.batch_failed(self.applied, self._errors, self._asked, cause=cause, sent=self.sent)
