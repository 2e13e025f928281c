"""The messages of one session: what may leave when, and what comes of each. Sans-I/O.

A message leaves as soon as there is something to send and a slot is free; while all slots are busy, calls gather.
What is asked of one map is executed in the order it was called: the daemon begins the first groups of messages in
the order in which they arrive, the others when those before them have ended. A message that is sent again after the
stream broke keeps its stamp, and its place among the others.
"""

from __future__ import annotations

import logging
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, errors_pb2
from mapd_client import fates, requests
from mapd_client.errors import MapdError, NotSent, TypeMismatch, Unavailable
from mapd_client.failures import Asked
from mapd_client.gathering import Gathering, Nobody, Port
from mapd_client.groups import Group, refused
from mapd_client.held import Held, Tenure

_LOG: Final = logging.getLogger("mapd_client")

TRIES: Final = 8
"""How often one operation is put into a message: one that ends the daemon each time must not do so for ever."""


class _Slot:
    """A place for one message in flight."""

    __slots__ = ("acknowledged", "number", "sequence")

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequence = 0
        self.acknowledged = 0


class Message:
    """Some groups under one stamp."""

    __slots__ = ("_behind", "acknowledged", "groups", "sequence", "slot", "streams")

    def __init__(self, slot: _Slot, groups: list[Group]) -> None:
        slot.sequence += 1
        self.slot = slot
        self.sequence = slot.sequence
        self.acknowledged = slot.acknowledged
        self.groups = groups
        self.streams = 0  # that it was handed to
        self._behind: dict[
            int, bool
        ] = {}  # maps of groups that are not the first, and whether one changes it
        for group in groups[1:]:
            map_id = group.terms.map_id
            self._behind[map_id] = self._behind.get(map_id, False) or group.mutates

    def precedes(self, group: Group) -> bool:
        """Whether ``group`` must not be sent while this is under way.

        The daemon begins a group when the one before it in its message has ended, but the first of a message when that
        arrives: it might overtake one that was sent earlier.
        """
        changes = self._behind.get(group.terms.map_id)
        return changes is not None and (changes or group.mutates)

    def encode(self, tenure: Tenure, now: float) -> elements_pb2.SessionRequest:
        """As it is sent; groups say how much time is left to them."""
        request = elements_pb2.SessionRequest()
        stamp = request.apply.stamp
        stamp.session = tenure.session
        stamp.epoch = tenure.epoch
        stamp.slot = self.slot.number
        stamp.sequence = self.sequence
        stamp.acknowledged = self.acknowledged
        groups = request.apply.groups
        for group in self.groups:
            group.write(groups.add(), requests.remaining_ms(group.deadline - now))
        return request


class Pipeline(Gathering):
    """What is asked of the daemon in one event loop, from the call to its answer.

    Attributes:
        target: the daemon's address, for messages.
        trouble: why nothing can leave, for messages; "" while a stream is open.
    """

    def __init__(self, port: Port, home: AbstractEventLoop, target: str, timeout: float) -> None:
        super().__init__(port, home, timeout)
        self.trouble = "not connected yet"
        self.target = target
        self._tenure = Tenure("", "")
        self._free: list[_Slot] = []
        self._flying: dict[int, Message] = {}
        self._again: deque[Message] = deque()
        self._aside: dict[Held, list[Group]] = {}

    # Messages

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._queue or self._aside or self._flying or self._waiting)

    @property
    def drained(self) -> bool:
        """Whether the stream was told to end, and nothing more will come in it."""
        return not self._ready and not self._flying

    def waits_for(self, held: Held) -> bool:
        """Whether somebody waits for the map to be opened again."""
        groups = self._aside.get(held, ())
        for group in groups:
            self._forget_done(group)
        self._admit()
        return any(group.count for group in groups)

    def next(self) -> elements_pb2.SessionRequest | None:
        """What is to be written now; None until ``Port.rouse``."""
        while self._ready:
            message = self._again.popleft() if self._again else self._compose()
            if message is None:
                break
            try:
                request = message.encode(self._tenure, self._port.now())
            except Exception:
                if message.streams or not self._take_back(message):  # an earlier stream may have carried it
                    raise
                continue
            message.streams += 1
            return request
        self._sleep()
        return None

    def _take_back(self, message: Message) -> bool:
        """A message cannot be written, for arguments of some calls in it: these are told, the others leave in another.

        False where that is not why.
        """
        right: list[Group] = []
        for group in message.groups:
            try:
                group.write(elements_pb2.OpGroup(), 0)
            except Exception as error:
                _LOG.debug("a group that cannot be written", exc_info=True)
                group.fail(fates.unsent(TypeMismatch(str(error))))
            else:
                right.append(group)
        if len(right) == len(message.groups):
            return False
        message.groups = right
        self._not_sent(message)
        return True

    def unwritten(self, request: elements_pb2.SessionRequest) -> None:
        """What ``next`` gave was not written: the stream had ended before."""
        message = self._flying[request.apply.stamp.slot]
        if message.streams == 1:  # else an earlier one may have carried it
            self._not_sent(message)

    def _not_sent(self, message: Message) -> None:
        del self._flying[message.slot.number]
        message.slot.sequence -= 1
        self._free.append(message.slot)
        for group in message.groups:
            group.tries -= 1
        self._ask_again(message.groups)

    def _compose(self) -> Message | None:
        if not self._queue or not self._free:
            return None
        groups = self._take(self._waits, self._set_aside_stale)
        if not groups:
            return None
        for group in groups:
            group.tries += 1
        message = Message(self._free.pop(), groups)
        self._flying[message.slot.number] = message
        return message

    def _waits(self, group: Group) -> bool:
        return any(message.precedes(group) for message in self._flying.values())

    def _ask_again(self, groups: Iterable[Group]) -> None:
        """What was tried too often is given up."""
        again: list[Group] = []
        for group in groups:
            if group.tries < TRIES:
                again.append(group)
            else:
                group.fail(fates.lost(f"given up after {group.tries} tries, of which none was answered"))
        self._requeue(again)

    # Answers

    def answered(self, response: elements_pb2.ApplyResponse) -> None:
        """A reply came."""
        stamp = response.stamp
        message = self._flying.get(stamp.slot)
        if message is None or message.sequence != stamp.sequence:
            _LOG.warning("a reply that nobody waits for, slot %d, sequence %d", stamp.slot, stamp.sequence)
            return
        del self._flying[stamp.slot]
        message.slot.acknowledged = stamp.sequence
        self._free.append(message.slot)
        if response.HasField("error"):
            self._refused(message, response.error)
        elif message.groups:
            self._read(message.groups, response)
        if self._queue or not self._ready:
            self._rouse()

    def _read(self, groups: list[Group], response: elements_pb2.ApplyResponse) -> None:
        try:
            self._settle(groups, response)
        except BaseException as fault:
            # Nobody else knows those who wait for it any more: they would wait for ever.
            _LOG.exception("an answer could not be read")
            for group in groups:
                group.fail(fates.lost(f"its answer could not be read: {fault!r}"))
            if isinstance(fault, (KeyboardInterrupt, SystemExit)):
                raise

    def _settle(self, groups: list[Group], response: elements_pb2.ApplyResponse) -> None:
        results = response.results
        if len(results) != len(groups):
            what = f"the daemon answered {len(results)} groups for {len(groups)}"
            for group in groups:
                group.fail(
                    lambda asked: MapdError(f"{asked}: {what}", operation=asked.operation, map=asked.map)
                )
            return
        for group, result in zip(groups, results, strict=True):
            if not result.HasField("error"):
                group.settle(result)
            elif result.error.reason == errors_pb2.REASON_STALE_HANDLE and _may_reopen(group):
                self._stale_handle(group)
            else:
                group.fail(refused(result.error))

    def _refused(self, message: Message, error: errors_pb2.Error) -> None:
        """A whole message."""
        reason = error.reason
        if reason in (errors_pb2.REASON_EPOCH_CHANGED, errors_pb2.REASON_DRAINING):
            for group in message.groups:
                group.tries -= 1  # not executed
            self._ask_again(message.groups)
            self.farewell(error.message)
            return
        for group in message.groups:
            if reason == errors_pb2.REASON_OUTCOME_UNKNOWN:
                group.keep_reads(fates.lost(error.message, Reason.OUTCOME_UNKNOWN))
            else:
                group.fail(refused(error))
        if reason == errors_pb2.REASON_OUTCOME_UNKNOWN:
            self._ask_again(message.groups)

    # Handles that are stale

    def _set_aside_stale(self, group: Group) -> bool:
        held = group.terms.held
        if (held.tenure is None or not held.tenure.ended) and held not in self._aside:
            return False
        self._set_aside(group)
        return True

    def _stale_handle(self, group: Group) -> None:
        """The daemon does not know the handle; nothing was executed."""
        if group.handle != group.terms.held.handle:  # opened again meanwhile
            self._ask_again((group,))
        else:
            self._set_aside(group)

    def _set_aside(self, group: Group) -> None:
        held = group.terms.held
        if not _may_reopen(group):
            group.fail(_stale_fate)
            return
        self.queued += group.cost
        waiting = self._aside.get(held)
        if waiting is None:
            self._aside[held] = [group]
            self._port.reopen(held)
        else:
            waiting.append(group)

    def reopened(self, held: Held, error: MapdError | None = None) -> None:
        """A map was opened again, or cannot be."""
        groups = self._aside.pop(held, [])
        self.queued -= sum(group.cost for group in groups)
        if error is None:
            self._requeue(groups)
            self._rouse()
        else:
            for group in groups:
                group.fail(fates.unsent(error))
        self._admit()

    # Streams

    def lost(self) -> None:
        """The session is over, and its replies with it: of what was under way nobody knows whether it was executed."""
        self._tenure.ended = True
        flying, self._flying = self._flying, {}
        self._again.clear()
        self._free.clear()
        fate = fates.lost(
            "the session was lost before the answer: the daemon was restarted, or away for too long"
        )
        groups = [group for message in flying.values() for group in message.groups]
        for group in groups:
            group.keep_reads(fate)
        self._ask_again(groups)

    def begun(self, tenure: Tenure, slots: int) -> None:
        """A stream is open, with a new session."""
        self.lost()
        self._tenure = tenure
        self._free = [_Slot(number) for number in range(slots)]
        self._go()

    def resumed(self) -> None:
        """A stream is open, with the same session: what was under way is asked for again, under its stamp.

        The elements of a message stay as they were: the daemon may answer from what it has kept.
        """
        for message in self._flying.values():
            if message.streams >= TRIES:
                for group in message.groups:
                    group.fail(fates.lost(f"given up after {message.streams} streams, each of which broke"))
            if all(group.abandoned for group in message.groups):
                message.groups = []
        self._again = deque(self._flying.values())
        self._go()

    def _go(self) -> None:
        self._ready = self.home is not None
        self.trouble = ""
        self._rouse()

    def farewell(self, why: str) -> None:
        """Nothing new is to be written in this stream."""
        self._ready = False
        self.trouble = f"the daemon said goodbye: {why}"
        if self.drained:
            self._rouse()

    def cut(self, why: str) -> None:
        """The stream has ended."""
        self._ready = False
        self._asleep = True
        self.trouble = why

    def refuse(self, error: MapdError) -> None:
        """No session is to be had: tell all that wait."""
        for group in self._groups_queued():
            group.fail(fates.unsent(error))
            self.queued -= group.cost  # not all of it: calls that were admitted have room kept for them
        for group in self._groups_in_flight():
            group.fail(fates.lost(str(error)))
        self._queue.clear()
        self._aside.clear()
        self._open.clear()
        self._flying.clear()
        self._again.clear()
        self._admit()

    def close(self) -> None:
        """The client is closed, or the daemon takes no messages in sessions any more."""
        self._end()
        self._tenure.ended = True
        for group in self._groups_in_flight():
            group.fail(fates.closed(written=True))
        for group in self._groups_queued():
            group.fail(fates.closed(written=False))
        self._turn_away()
        self._port = Nobody()

    def abandon(self) -> None:
        """Serve nobody any more; for a loop that is closed, where nobody can be told."""
        self._end()
        self._port = Nobody()

    def _end(self) -> None:
        self.home = None
        self._ready = False
        self._asleep = True  # the next call looks whether there is a home

    # Time

    def expire(self) -> None:
        """Tell calls that their time is over."""
        now = self._port.now()
        earliest = inf
        for group in self._groups_in_flight():
            earliest = min(earliest, self._expired(group, now, written=True, why=self.trouble))
        why = self.trouble or f"{len(self._flying)} messages of this client are under way"
        for group in self._groups_queued():
            earliest = min(earliest, self._expired(group, now, written=False, why=why))
        self._purge()
        self._alarm = earliest
        if earliest < inf:
            self._port.alarm(earliest)

    def _expired(self, group: Group, now: float, *, written: bool, why: str) -> float:
        if group.late:
            return inf
        if group.deadline > now:
            return group.deadline
        group.late = True
        self._close_group(group)
        group.fail(fates.late(self.target, group.timeout, written=written, why=why))
        return inf

    def _groups_in_flight(self) -> Iterator[Group]:
        return (group for message in self._flying.values() for group in message.groups)

    def _groups_queued(self) -> Iterator[Group]:
        yield from self._queue
        for groups in self._aside.values():
            yield from groups


def _may_reopen(group: Group) -> bool:
    held = group.terms.held
    return held.ref is not None and not held.closed and group.tries < TRIES


def _stale_fate(asked: Asked) -> MapdError:
    kind = NotSent if asked.mutates else Unavailable
    return kind(
        f"{asked}: the handle is stale, for the daemon was restarted or the session was lost, and the map has no "
        "name, pin or id by which it could be opened again; nothing was executed; open the map again",
        reason=Reason.STALE_HANDLE,
        operation=asked.operation,
        map=asked.map,
    )
