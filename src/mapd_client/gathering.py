"""Calls that wait to leave: what is gathered into groups, and the groups into messages. Sans-I/O.

Calls on one map gather in a group while they have the same terms; another group is begun where they have not, so
that operations on one map leave in the order they were called. A message takes the groups that wait.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import inf
from typing import Any, Final, Protocol

from mapd_api import limits
from mapd_client import fates
from mapd_client.errors import Misuse
from mapd_client.groups import Bulk, Group, Singles
from mapd_client.held import Held, Terms
from mapd_client.replies import Outcome

QUEUE_BYTES: Final = 8 << 20
"""What waits to leave at most; callers beyond it wait before anything of theirs is kept."""

ALONE_BYTES: Final = 64 << 10
"""A group of more travels alone: smaller ones would wait for its answer."""

JOIN_S: Final = 0.01
"""While nothing can leave, a call joins a group that was begun so many seconds before it at most: they share a
deadline, which may be so much later than the call's own."""


class Port(Protocol):
    """What a pipeline needs of the world around it."""

    def now(self) -> float:
        """The clock that deadlines are read by."""
        ...

    def rouse(self) -> None:
        """``Pipeline.next`` has something, or ``drained`` is true."""
        ...

    def alarm(self, when: float) -> None:
        """Call ``Pipeline.expire`` then; instead of what was said before."""
        ...

    def reopen(self, held: Held) -> None:
        """Open a map again whose handle is stale, and call ``Pipeline.reopened``."""
        ...


class Nobody:
    """The port of a pipeline that is closed: a real one would keep the connection until Python collects cycles."""

    def now(self) -> float:
        """As Port."""
        return inf

    def rouse(self) -> None:
        """As Port."""

    def alarm(self, when: float) -> None:
        """As Port."""

    def reopen(self, held: Held) -> None:
        """As Port."""


class Gathering:
    """The calls of one event loop that wait to leave.

    Attributes:
        home: the event loop that it serves; None once it serves none.
        timeout: seconds of a call without one of its own.
        queued: bytes that wait, also for a map to be opened again.
    """

    def __init__(self, port: Port, home: AbstractEventLoop, timeout: float) -> None:
        self.home: AbstractEventLoop | None = home
        self.timeout = timeout
        self.queued: int = 0
        self._port: Port = port
        self._future = home.create_future
        self._ready = False  # messages can be written
        self._asleep = True  # the next call rouses
        self._queue: deque[Group] = deque()
        self._begun = 0
        self._open: dict[int, Singles] = {}
        self._join_until = inf
        self._alarm = inf
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._to_come = 0  # calls that were told to wait, and have not come yet

    def single(
        self, terms: Terms, op: int, key: bytes, value: bytes = b"", timeout: float | None = None
    ) -> Future[Any]:
        """One element; what the future is given: groups.Singles.

        Cancelling the future before its message is written takes the element out; after that it goes on.
        A pipeline that serves nobody any more fails it at once.
        """
        if self._asleep:
            if self.home is None:
                return self._too_late(terms, op)
            self._begin_turn()
        if timeout is None:
            timeout = self.timeout
        group = self._open.get(terms.map_id)
        if (
            group is None
            or group.terms is not terms
            or group.timeout != timeout
            or len(group.waiters) >= terms.limit
        ):
            group = self._begin(terms, timeout)
        future: Future[Any] = self._future()
        group.ops.append(op)
        group.keys.append(key)
        group.values.append(value)
        group.waiters.append(future)
        self.queued += terms.cost
        return future

    def _begin(self, terms: Terms, timeout: float) -> Singles:
        now = self._port.now()
        slack = min(timeout / 16, JOIN_S)
        group = Singles(terms, timeout, now + timeout + slack)
        self._open[terms.map_id] = group
        self._join_until = min(self._join_until, now + slack)
        self._enqueue(group)
        return group

    def bulk(
        self, terms: Terms, op: int, count: int, keys: bytes, values: bytes, timeout: float | None = None
    ) -> Future[Outcome]:
        """Many elements of one operation; they fit into a message. Cancelling, and the end, as for ``single``."""
        if self._asleep:
            if self.home is None:
                return self._too_late(terms, op)
            self._begin_turn()
        if timeout is None:
            timeout = self.timeout
        future: Future[Outcome] = self._future()
        group = Bulk(terms, timeout, self._port.now() + timeout, op, count, keys, values, future)
        self._open.pop(terms.map_id, None)
        self._enqueue(group)
        self.queued += group.cost
        return future

    def _too_late(self, terms: Terms, op: int) -> Future[Any]:
        """For a call on a pipeline that is over."""
        future: Future[Any] = self._future()
        future.set_exception(fates.closed(written=False)(terms.held.asked(op)))
        return future

    def _enqueue(self, group: Group) -> None:
        self._begun += 1
        group.place = self._begun
        self._queue.append(group)
        if group.deadline < self._alarm:
            self._alarm = group.deadline
            self._port.alarm(group.deadline)

    def _rouse(self) -> None:
        if self._asleep:
            self._asleep = not self._ready
            self._port.rouse()

    def _sleep(self) -> None:
        """Nothing can leave now: the next call rouses."""
        self._asleep = True

    def _begin_turn(self) -> None:
        """The first call since: whatever can leave does so at the end of this turn of the loop."""
        if self._open and self._port.now() > self._join_until:
            self._close_groups()
        self._rouse()

    def _close_group(self, group: Group) -> None:
        """Nobody joins it any more."""
        if self._open.get(group.terms.map_id) is group:
            del self._open[group.terms.map_id]

    def _close_groups(self) -> None:
        """Nobody joins what waits any more."""
        self._open.clear()
        self._join_until = inf

    # Room

    @property
    def open_to_all(self) -> bool:
        """Whether a call may be made now that has not waited: it overtakes none that has."""
        return not self._to_come and self.queued < QUEUE_BYTES

    def room(self, cost: int) -> Future[None] | None:
        """None where a call may be made now; else what to wait for, in turn, before it is made.

        Who has waited calls ``come`` with the same cost, whatever the wait ended with.
        """
        if self.open_to_all or self.home is None:  # a call on a pipeline that is over fails at once
            return None
        ahead = len(self._waiting)
        if ahead & (ahead - 1) == 0:
            # For the first, and when so many more have come: a walk over the queue for each of 36,000 calls took 3.7 s.
            self._purge()
            if self.open_to_all:
                return None
        waiting: Future[None] = self._future()
        self._waiting.append((waiting, cost))
        self._to_come += 1
        return waiting

    def come(self, waiting: Future[None], cost: int) -> None:
        """Give back what was kept free for who waited; a call that is made now counts by itself."""
        self._to_come -= 1
        if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
            self.queued -= cost
        self._admit()  # nothing may leave that would do it: who has come need not make the call

    def _admit(self) -> None:
        while self._waiting and self.queued < QUEUE_BYTES:
            waiting, cost = self._waiting.popleft()
            if not waiting.done():
                self.queued += cost
                waiting.set_result(None)

    def _purge(self) -> None:
        """Forget queued elements that nobody waits for any more."""
        for group in self._groups_queued():
            self._forget_done(group)
        self._admit()

    def _groups_queued(self) -> Iterator[Group]:
        """All whose cost is counted in ``queued``."""
        yield from self._queue

    def _forget_done(self, group: Group) -> None:
        """Of a group that is counted in ``queued``."""
        before = group.cost
        group.drop_done()
        self.queued -= before - group.cost

    def _turn_away(self) -> None:
        """Of those who wait for room; the client is closed."""
        waiting, self._waiting = self._waiting, deque()
        for one, _ in waiting:
            if not one.done():
                one.set_exception(Misuse("the client is closed"))

    # Leaving

    def _take(self, waits: Callable[[Group], bool], aside: Callable[[Group], bool]) -> list[Group]:
        """The groups of the next message; none, or more than none.

        One that ``waits`` stays, and what is asked of its map after it. Takes out those that ``aside`` takes, which
        counts them again while it keeps them.
        """
        taken: list[Group] = []
        staying: list[Group] = []
        weight = 0
        queue = self._queue
        while queue:
            group = queue[0]
            if taken and not self._fits(group, len(taken), weight):
                break
            queue.popleft()
            if waits(group) or (staying and _of_one_map(group, staying)):
                staying.append(group)
                continue
            self.queued -= group.cost
            self._close_group(group)
            group.drop_done()
            if group.count and not aside(group):
                taken.append(group)
                weight += group.weight + limits.REFUSAL_BYTES
                if group.weight > ALONE_BYTES:
                    break
        queue.extendleft(reversed(staying))
        if not queue:
            self._close_groups()
        self._admit()
        return taken

    @staticmethod
    def _fits(group: Group, groups: int, weight: int) -> bool:
        more = group.weight
        return groups < limits.GROUPS and more <= ALONE_BYTES and weight + more <= limits.COLUMN_BYTES

    def _requeue(self, groups: Iterable[Group]) -> None:
        """Where they stood: of several messages in flight each may be refused by itself, the first one first."""
        again = [group for group in groups if group.count]
        self.queued += sum(group.cost for group in again)
        self._queue = deque(sorted((*again, *self._queue), key=_place))


def _of_one_map(group: Group, others: list[Group]) -> bool:
    return any(other.terms.map_id == group.terms.map_id for other in others)


def _place(group: Group) -> int:
    return group.place
