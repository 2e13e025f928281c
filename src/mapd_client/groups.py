"""Element operations on one map that travel together, and what becomes of each. Sans-I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from mapd_api.ops import ANSWERS_VALUE, MUTATES
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client import replies
from mapd_client.codec import decoded, harmless
from mapd_client.errors import MapdError
from mapd_client.fates import Fate
from mapd_client.held import ELEMENT_COST, Terms
from mapd_client.replies import Outcome

_MUTATING: Final = frozenset(int(op) for op in MUTATES)
_ANSWERING: Final = frozenset(int(op) for op in ANSWERS_VALUE)
_ABSENT: Final = int(Reason.KEY_ABSENT)


class Group:
    """Operations on one map with the same terms, in the order they were called.

    Attributes:
        terms: what they have in common.
        timeout: seconds that each was given.
        deadline: by the clock of the pipeline; their end.
        late: they were told that it has passed.
        tries: how often they were put into a message.
        handle: of the map, in the last of these messages.
        place: among all groups of its pipeline, in the order they were begun.
    """

    __slots__ = ("deadline", "handle", "late", "place", "terms", "timeout", "tries")

    def __init__(self, terms: Terms, timeout: float, deadline: float) -> None:
        self.terms = terms
        self.timeout = timeout
        self.deadline = deadline
        self.late = False
        self.tries = 0
        self.handle = 0
        self.place = 0

    @property
    def count(self) -> int:
        """Elements."""
        raise NotImplementedError

    @property
    def weight(self) -> int:
        """Bytes in a message, there or back, whichever is more."""
        raise NotImplementedError

    @property
    def mutates(self) -> bool:
        """Whether one of them may change something."""
        raise NotImplementedError

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for any of them any more."""
        raise NotImplementedError

    def drop_done(self) -> None:
        """Forget what nobody waits for any more."""
        raise NotImplementedError

    @property
    def cost(self) -> int:
        """Bytes that it counts for while it waits to leave."""
        raise NotImplementedError

    def write(self, message: elements_pb2.OpGroup, remaining_ms: int) -> None:
        """Fill in the message that carries it."""
        raise NotImplementedError

    def take(self, result: elements_pb2.GroupResult) -> None:
        """Tell each what the daemon says."""
        if result.HasField("error"):
            self.fail(refused(result.error))
        else:
            self.settle(result)

    def settle(self, result: elements_pb2.GroupResult) -> None:
        """Tell each what became of it."""
        raise NotImplementedError

    def fail(self, fate: Fate) -> None:
        """Tell all that there is no answer."""
        raise NotImplementedError

    def keep_reads(self, fate: Fate) -> None:
        """Tell those that may have changed something, and forget them."""
        raise NotImplementedError

    def _write(
        self,
        message: elements_pb2.OpGroup,
        ops: bytes,
        keys: bytes,
        values: bytes,
        remaining_ms: int,
    ) -> None:
        terms = self.terms
        self.handle = terms.held.handle
        message.map.handle = self.handle
        message.count = self.count
        message.ops = ops
        message.keys = keys
        message.values = values
        message.remaining_ms = remaining_ms
        if terms.flags:
            message.flags = terms.flags
        if terms.touch:
            message.touch = True
        if terms.cpu is not None:
            message.cpu = terms.cpu
        if terms.field is not None:
            message.field.offset, message.field.size = terms.field
            message.create = terms.create

    def _misfit(self, op: int, result: elements_pb2.GroupResult, count: int) -> MapdError:
        asked = self.terms.held.asked(op)
        return MapdError(
            f"{asked}: the daemon answered {len(result.statuses)} statuses and {len(result.values)} bytes "
            f"of values for {count} elements of {self.terms.value_bytes}",
            operation=asked.operation,
            map=asked.map,
        )


class Singles(Group):
    """Elements that were called one by one, each with a future of its own.

    A future is given the decoded value, None where the key is absent, of operations that answer values;
    else the status, which is done or KEY_ABSENT; without a codec always (status, value bytes).
    """

    __slots__ = ("keys", "ops", "values", "waiters")

    def __init__(self, terms: Terms, timeout: float, deadline: float) -> None:
        super().__init__(terms, timeout, deadline)
        self.ops = bytearray()
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.waiters: list[asyncio.Future[Any]] = []

    def add(self, op: int, key: bytes, value: bytes, waiter: asyncio.Future[Any]) -> None:
        """One more element."""
        self.ops.append(op)
        self.keys.append(key)
        self.values.append(value)
        self.waiters.append(waiter)

    @property
    def count(self) -> int:  # noqa: D102 - as Group
        return len(self.waiters)

    @property
    def weight(self) -> int:  # noqa: D102 - as Group
        return len(self.waiters) * self.terms.weight

    @property
    def mutates(self) -> bool:  # noqa: D102 - as Group
        return not _MUTATING.isdisjoint(self.ops)

    @property
    def abandoned(self) -> bool:  # noqa: D102 - as Group
        return all(waiter.done() for waiter in self.waiters)

    def drop_done(self) -> None:  # noqa: D102 - as Group
        done = [waiter.done() for waiter in self.waiters]
        if True in done:
            self._keep([at for at, over in enumerate(done) if not over])

    def _keep(self, places: list[int]) -> None:
        self.ops = bytearray(self.ops[at] for at in places)
        self.keys = [self.keys[at] for at in places]
        self.values = [self.values[at] for at in places]
        self.waiters = [self.waiters[at] for at in places]

    @property
    def cost(self) -> int:  # noqa: D102 - as Group
        return len(self.waiters) * self.terms.cost

    def write(self, message: elements_pb2.OpGroup, remaining_ms: int) -> None:  # noqa: D102 - as Group
        ops = bytes(self.ops)
        if ops.count(ops[:1]) == len(ops):
            ops = ops[:1]
        self._write(message, ops, b"".join(self.keys), b"".join(self.values), remaining_ms)

    def fail(self, fate: Fate) -> None:  # noqa: D102 - as Group
        for op, waiter in zip(self.ops, self.waiters, strict=True):
            if not waiter.done():
                waiter.set_exception(fate(self.terms.held.asked(op)))

    def keep_reads(self, fate: Fate) -> None:  # noqa: D102 - as Group
        reads: list[int] = []
        for at, (op, waiter) in enumerate(zip(self.ops, self.waiters, strict=True)):
            if op not in _MUTATING:
                reads.append(at)
            elif not waiter.done():
                waiter.set_exception(fate(self.terms.held.asked(op)))
        self._keep(reads)

    def settle(self, result: elements_pb2.GroupResult) -> None:  # noqa: D102 - as Group
        statuses, column, ops = result.statuses, result.values, self.ops
        count = len(self.waiters)
        uniform = ops.count(ops[:1]) == count
        answers = (ops[0] in _ANSWERING) * count if uniform else sum(op in _ANSWERING for op in ops)
        if len(statuses) != count or len(column) != answers * self.terms.value_bytes:
            for op, waiter in zip(ops, self.waiters, strict=True):
                if not waiter.done():
                    waiter.set_exception(self._misfit(op, result, count))
        elif uniform and statuses.count(0) == count and self.terms.codec is not None:
            self._settle_alike(column if answers else None)
        else:
            self._settle_each(result)

    def _settle_alike(self, column: bytes | None) -> None:
        """All of one operation, all done."""
        if column is None:
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(0)
            return
        assert self.terms.codec is not None
        try:
            values = decoded(self.terms.codec, column, len(self.waiters))
        except Exception:
            self._settle_values(column)  # a codec of the caller's own: each call is told of its own value
            return
        for waiter, value in zip(self.waiters, values, strict=True):
            if not waiter.done():
                waiter.set_result(value)

    def _settle_values(self, column: bytes) -> None:
        size = self.terms.value_bytes
        for at, waiter in enumerate(self.waiters):
            self._settle_value(waiter, column[at * size : (at + 1) * size])

    def _settle_value(self, waiter: asyncio.Future[Any], value: bytes) -> None:
        if waiter.done():
            return
        assert self.terms.codec is not None
        try:
            waiter.set_result(self.terms.codec.decode(value))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            waiter.set_exception(
                error if harmless(error) else RuntimeError(f"{self.terms.codec!r} raised {error!r}")
            )

    def _settle_each(self, result: elements_pb2.GroupResult) -> None:
        values = self._column(result.values)
        errnos = {one.index: one.errno for one in result.errors}
        raw = self.terms.codec is None
        rows = zip(self.ops, result.statuses, self.keys, self.waiters, strict=True)
        for at, (op, status, key, waiter) in enumerate(rows):
            value = next(values) if op in _ANSWERING else None
            if waiter.done():
                continue
            if status not in (0, _ABSENT):
                waiter.set_exception(
                    self.terms.held.element_error(op, status, errnos.get(at, 0), key, self.terms.shown_as)
                )
            elif raw:
                waiter.set_result((status, value or b""))
            elif value is None:
                waiter.set_result(status)
            elif status:
                waiter.set_result(None)
            else:
                self._settle_value(waiter, value)

    def _column(self, column: bytes) -> Iterator[bytes]:
        size = self.terms.value_bytes
        if not size:
            while True:
                yield b""
        for at in range(0, len(column), size):
            yield column[at : at + size]


class Bulk(Group):
    """Many elements of one call, as columns; its future is given the Outcome of all."""

    __slots__ = ("_count", "_weight", "keys", "op", "values", "waiter")

    def __init__(
        self,
        terms: Terms,
        timeout: float,
        deadline: float,
        op: int,
        count: int,
        keys: bytes,
        values: bytes,
        waiter: asyncio.Future[Outcome],
    ) -> None:
        super().__init__(terms, timeout, deadline)
        self.op = op
        self.keys = keys
        self.values = values
        self.waiter = waiter
        self._count = count
        answer = terms.value_bytes if op in _ANSWERING else 0
        self._weight = max(len(keys) + len(values), count * (1 + answer))

    @property
    def count(self) -> int:  # noqa: D102 - as Group
        return self._count

    @property
    def weight(self) -> int:  # noqa: D102 - as Group
        return self._weight

    @property
    def mutates(self) -> bool:  # noqa: D102 - as Group
        return self.op in _MUTATING

    @property
    def abandoned(self) -> bool:  # noqa: D102 - as Group
        return self.waiter.done()

    def drop_done(self) -> None:  # noqa: D102 - as Group
        if self.waiter.done():
            self._drop()

    def _drop(self) -> None:
        self.keys = self.values = b""
        self._count = self._weight = 0

    @property
    def cost(self) -> int:  # noqa: D102 - as Group
        return ELEMENT_COST + self._weight

    def write(self, message: elements_pb2.OpGroup, remaining_ms: int) -> None:  # noqa: D102 - as Group
        self._write(message, bytes((self.op,)), self.keys, self.values, remaining_ms)

    def fail(self, fate: Fate) -> None:  # noqa: D102 - as Group
        if not self.waiter.done():
            self.waiter.set_exception(fate(self.terms.held.asked(self.op)))

    def keep_reads(self, fate: Fate) -> None:  # noqa: D102 - as Group
        if self.op in _MUTATING:
            self.fail(fate)
            self._drop()

    def settle(self, result: elements_pb2.GroupResult) -> None:  # noqa: D102 - as Group
        if self.waiter.done():
            return
        answers = self._count if self.op in _ANSWERING else 0
        if len(result.statuses) != self._count or len(result.values) != answers * self.terms.value_bytes:
            self.waiter.set_exception(self._misfit(self.op, result, self._count))
            return
        errnos = {one.index: one.errno for one in result.errors}
        self.waiter.set_result(Outcome(result.statuses, result.values, errnos))


def refused(error: errors_pb2.Error) -> Fate:
    """A refusal, told to each call in the daemon's words."""
    return lambda asked: replies.refusal(error, asked)
