"""Sessions: which messages have been run, what was answered, and which stream is there to be told.

A session outlives its stream for a while, so that a client whose connection broke can ask again. ``Slots`` decides
what a message is: new, a retry of one that runs or was answered, or one whose fate nobody knows. ``Sessions`` owns
every session of one start of the daemon. No I/O; for one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.runtime.handles import HandleTable, Session
from mapd.runtime.pool import Lane
from mapd_api import limits
from mapd_api.reasons import Reason


class Arrival(Enum):
    """What is to be done with a message that has arrived."""

    RUN = "run"
    JOINED = "joined"  # it runs already; it is answered once


@dataclass(slots=True)
class _Slot:
    high: int = 0  # the highest sequence that was begun
    running: int = 0  # 0: none
    replied: int = 0  # whose reply is kept
    reply: bytes | None = None


class Slots:
    """The messages of one session, by slot and sequence.

    No message that may change something is begun twice: a sequence up to the highest begun is answered with its
    reply while that is kept, and is OUTCOME_UNKNOWN after that. One that only reads is simply run again.

    Args:
        count: of slots; each has one message under way.
        reply_bytes: of all replies kept together.
    """

    def __init__(self, count: int, reply_bytes: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        self._room = reply_bytes
        self.running = 0
        """Messages under way."""

    @property
    def kept(self) -> int:
        """How many replies are kept."""
        return sum(slot.reply is not None for slot in self._slots)

    def arrive(self, slot: int, sequence: int, acknowledged: int, *, reads: bool) -> Arrival | bytes:
        """What a message is; its reply where that is kept. Begins nothing.

        Args:
            acknowledged: replies up to this sequence are forgotten.
            reads: nothing in it can change anything.

        Raises:
            MapError: BAD_SPEC, there is no such slot, it is busy with another message, or the numbers make no
                sense; OUTCOME_UNKNOWN. Nothing of the message is executed then.
        """
        if slot >= len(self._slots):
            raise _bad(
                f"slot {slot}; there are {len(self._slots)}, 0 to {len(self._slots) - 1}", slot, sequence
            )
        if acknowledged >= sequence:
            raise _bad(
                f"sequence {sequence} of slot {slot} acknowledges {acknowledged}; sequences rise from 1, and what is "
                "acknowledged was answered before",
                slot,
                sequence,
            )
        found = self._slots[slot]
        if found.replied <= acknowledged:
            self._forget(found)
        if sequence == found.running:
            return Arrival.JOINED
        if found.running and (reads or sequence > found.high):
            raise _bad(
                f"sequence {sequence} of slot {slot}, where {found.running} is under way; wait for its answer, or use "
                "another slot",
                slot,
                sequence,
            )
        if sequence > found.high:
            return Arrival.RUN
        if found.reply is not None and sequence == found.replied:
            return found.reply
        if reads:
            return Arrival.RUN
        raise MapError(
            Reason.OUTCOME_UNKNOWN,
            f"session: sequence {sequence} of slot {slot} was begun before, and its reply is not kept any more; it is "
            "not executed again",
            operation="session",
            slot=slot,
            sequence=sequence,
        )

    def begin(self, slot: int, sequence: int) -> None:
        """A message that was to RUN is under way. What the slot answered before is forgotten: its client went on."""
        found = self._slots[slot]
        if sequence > found.high:
            found.high = sequence
            self._forget(found)
        found.running = sequence
        self.running += 1

    def answer(self, slot: int, reply: bytes, *, reads: bool) -> None:
        """The message under way in ``slot`` has ended; keep its reply if it needs to be and there is room."""
        found = self._slots[slot]
        if not reads and len(reply) <= self._room:
            self._room -= len(reply)
            found.replied, found.reply = found.running, reply
        found.running = 0
        self.running -= 1

    def forget(self) -> None:
        """Keep no reply any more."""
        for slot in self._slots:
            self._forget(slot)

    def _forget(self, slot: _Slot) -> None:
        if slot.reply is not None:
            self._room += len(slot.reply)
            slot.reply = None


def _bad(message: str, slot: int, sequence: int) -> MapError:
    return MapError(Reason.BAD_SPEC, f"session: {message}", operation="session", slot=slot, sequence=sequence)


class Order:
    """Keeps what a session has under way for a map in one lane, so that its messages stay in order there."""

    def __init__(self) -> None:
        self._busy: dict[Hashable, tuple[Lane, int]] = {}

    def __len__(self) -> int:
        return len(self._busy)

    def enter(self, key: Hashable, lane: Lane) -> Lane:
        """Where something for ``key`` is to be queued: ``lane``, unless another one has some of it."""
        lane, count = self._busy.get(key, (lane, 0))
        self._busy[key] = lane, count + 1
        return lane

    def leave(self, key: Hashable) -> None:
        """It has ended."""
        lane, count = self._busy[key]
        if count == 1:
            del self._busy[key]
        else:
            self._busy[key] = lane, count - 1


class Stream(Protocol):
    """What a session needs of the stream that it is attached to."""

    def deliver(self, reply: bytes) -> None:
        """Send an encoded SessionResponse."""
        ...

    def supplant(self) -> None:
        """Another stream has the session now; end."""
        ...


@dataclass(slots=True, eq=False)
class Conversation:
    """One session with its slots.

    Attributes:
        owner: of its handles.
        stream: who is told of answers; None while it is detached, and when it is closed.
        closed: nothing more is begun for it.
        due: bytes that what is under way may be answered at most, whichever stream began it.
    """

    owner: Session
    slots: Slots
    order: Order = field(default_factory=Order)
    stream: Stream | None = None
    closed: bool = False
    expiry: asyncio.TimerHandle | None = None
    due: int = 0

    @property
    def id(self) -> str:
        """Names it."""
        return self.owner.id

    def answered(self, slot: int, reply: bytes, *, reads: bool) -> None:
        """A message has ended: its reply is kept, if it needs to be, and goes to the stream there is."""
        self.slots.answer(slot, reply, reads=reads or self.closed)
        if self.stream is not None:
            self.stream.deliver(reply)


class Sessions:
    """Every session of one start of the daemon: attached to a stream, or detached and kept for a while.

    Its timers are the only thing that runs by itself; ``close_all`` ends them.
    """

    def __init__(self, handles: HandleTable, epoch: str) -> None:
        self._handles = handles
        self._conversations: dict[str, Conversation] = {}
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._conversations)

    @property
    def detached(self) -> int:
        """Sessions without a stream."""
        return sum(one.stream is None for one in self._conversations.values())

    @property
    def kept_replies(self) -> int:
        """Replies that are kept for a retry, of all sessions."""
        return sum(one.slots.kept for one in self._conversations.values())

    def open(self, principal: Principal) -> Conversation:
        """Begin a session; the caller attaches it, or closes it.

        Where the principal has all the sessions it may, the one of them that has been without a stream for longest
        ends for it: clients that were killed do not keep new ones out.

        Raises:
            MapError: QUOTA, and all of them have a stream.
        """
        try:
            owner = self._handles.open_session(principal)
        except MapError:
            longest = self._longest_detached(principal)
            if longest is None:
                raise
            self.close(longest)
            owner = self._handles.open_session(principal)
        made = Conversation(owner, Slots(limits.SLOTS, limits.SESSION_REPLY_BYTES))
        self._conversations[owner.id] = made
        return made

    def _longest_detached(self, principal: Principal) -> Conversation | None:
        waiting = [
            (one.expiry.when(), one)
            for one in self._conversations.values()
            if one.expiry is not None and one.owner.principal == principal
        ]
        return min(waiting, key=lambda found: found[0])[1] if waiting else None

    def find(self, name: str, epoch: str, principal: Principal) -> Conversation | None:
        """The session to go on with, if it is of this start of the daemon, of this principal, and still kept."""
        found = self._conversations.get(name)
        if found is None or epoch != self.epoch or found.owner.principal != principal:
            return None
        return found

    def attach(self, conversation: Conversation, stream: Stream) -> None:
        """Let ``stream`` have the session. One that has it already is ended: its connection may be half open."""
        earlier, conversation.stream = conversation.stream, stream
        self._stop_expiry(conversation)
        if earlier is not None:
            earlier.supplant()

    def detach(self, conversation: Conversation, stream: Stream) -> None:
        """The stream broke: keep the session for limits.SESSION_RESUME_S. Nothing if it has another stream."""
        if conversation.stream is not stream:
            return
        conversation.stream = None
        conversation.expiry = asyncio.get_running_loop().call_later(
            limits.SESSION_RESUME_S, self.close, conversation
        )

    def close(self, conversation: Conversation) -> None:
        """End it: its handles are closed and its replies forgotten. What a thread has begun is finished. Idempotent."""
        self._conversations.pop(conversation.id, None)
        self._stop_expiry(conversation)
        conversation.closed = True
        conversation.stream = None
        conversation.slots.forget()
        self._handles.close_session(conversation.owner)

    def close_of(self, principal: Principal) -> None:
        """End every session of one who is nobody any more, and close every handle of his."""
        for conversation in list(self._conversations.values()):
            if conversation.owner.principal == principal:
                self.close(conversation)
        self._handles.close_of(principal)

    def close_all(self) -> None:
        """End every session (the daemon stops)."""
        for conversation in list(self._conversations.values()):
            self.close(conversation)

    @staticmethod
    def _stop_expiry(conversation: Conversation) -> None:
        if conversation.expiry is not None:
            conversation.expiry.cancel()
            conversation.expiry = None
