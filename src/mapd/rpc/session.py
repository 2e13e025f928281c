"""Session: one bidi stream of a session, from its first message to how it ends.

Four tasks per stream and none per message. The reader never waits between reading a message
and queueing its first group; it does wait while the client takes no answers, so that what is queued for it is
bounded: ``slots`` replies, and limits.SESSION_OUT_BYTES of them and of what messages under way may be answered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import grpc.aio

from mapd.access.principal import Principal
from mapd.access.quotas import Dimension
from mapd.maps.errors import MapError
from mapd.rpc import convert, reading
from mapd.rpc.apply import Applier, Message, check_groups, most_answered, only_reads
from mapd.rpc.guard import Call, Guard, Handler, Unreadable, readable
from mapd.runtime.sessions import Arrival, Conversation, Sessions
from mapd.runtime.shares import over
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.errors_pb2 import REASON_DRAINING, REASON_EXPIRED

SETTLE_S: Final = 0.02
"""grpc reports the end of a client's side and a broken stream alike, as the end of messages; the handler of a broken
one is cancelled 0.06 to 0.8 ms later. A session is closed when that has not come for so long."""

STAMP_BYTES: Final = 256
"""A stamp with foreign names in it is answered up to this size."""

BEFORE_EXPIRY_S: Final = 1.0
"""A stream is told goodbye so long before its caller's certificate ends: what is under way is answered, and a client
that has a new certificate goes on with it."""

JITTER: Final = 0.1
"""Part of its age by which a stream may end earlier or later, so that clients do not come back all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """How long a stream may last, in seconds; ``limit`` 0: for ever. ``grace`` comes after the goodbye."""

    limit: float = 0.0
    grace: float = 5.0


class _End(Enum):
    CLEAN = "the client ended it, and all is answered"
    SUPPLANTED = "another stream has the session"
    STALLED = "the client takes no answers"
    AGED = "it was old"


class SessionHandlers:
    """The method Session. Owns the sessions of one daemon; ``aclose`` ends those whose streams have gone."""

    def __init__(self, applier: Applier, sessions: Sessions, guard: Guard, age: Age | None = None) -> None:
        self.applier = applier
        self.sessions = sessions
        self.guard = guard
        self.age = age or Age()
        self._silent: Counter[Principal] = Counter()

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {"Session": self.session}

    async def session(self, call: Call, _requests: object) -> None:
        """A new session, or one whose stream broke.

        Ended by the client, it is closed when all is answered. Cancelled (the client or the connection broke): it is
        kept for limits.SESSION_RESUME_S, and what is under way goes on.
        """
        with self._beginning(call.principal):
            first = await reading.read_on(call.context, "session", self.guard.draining)
        if first is None or first.WhichOneof("message") != "open":
            raise convert.bad_spec("a session begins with `open`", "session")
        found = self.sessions.find(first.open.session, first.open.epoch, call.principal)
        conversation = found or self.sessions.open(call.principal)
        stream = _Stream(self, call, conversation)
        stream.open(resumed=found is not None)
        self.sessions.attach(conversation, stream)
        try:
            end = await stream.run()
            if end is _End.CLEAN and conversation.stream is stream:
                self.sessions.close(conversation)
        finally:
            self.sessions.detach(conversation, stream)
        _check(end)

    @contextmanager
    def _beginning(self, principal: Principal) -> Generator[None]:
        """Until a stream says whether it goes on with a session, it is none that the principal's streams count.

        Raises:
            MapError: QUOTA, so many of the principal's say nothing as it may have streams.
        """
        used, most = (
            self._silent[principal],
            self.applier.host.shares.limit(principal, Dimension.STREAMS),
        )
        if most is not None and used >= most:
            raise over(principal, Dimension.STREAMS, "session", used=used, most=most)
        self._silent[principal] = used + 1
        try:
            yield
        finally:
            self._silent[principal] -= 1
            if not self._silent[principal]:
                del self._silent[principal]

    async def aclose(self) -> None:
        """Close every session, and end what still waits for a map."""
        await self.applier.aclose()
        self.sessions.close_all()


def _check(end: _End) -> None:
    """What the client of a stream that the daemon ended is told, if it is still there."""
    if end is _End.SUPPLANTED:
        raise MapError(
            Reason.STALE_HANDLE,
            "session: it went on in another stream, and this one is over",
            operation="session",
        )
    if end is _End.STALLED:
        raise MapError(
            Reason.QUOTA,
            f"session: no answer was taken for {limits.STREAM_PROGRESS_S:g} s; resume it and read",
            operation="session",
        )


class _Stream:
    """One stream, while it is attached to its session."""

    def __init__(self, handlers: SessionHandlers, call: Call, conversation: Conversation) -> None:
        self._handlers = handlers
        self._call = call
        self._conversation = conversation
        self._outbox: deque[bytes] = deque()
        self._queued_bytes = 0  # with the reply that is being written
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._read_all = False
        self._writes_since = 0.0  # 0: no write is under way
        self._over: asyncio.Future[_End] = asyncio.get_running_loop().create_future()

    def open(self, *, resumed: bool) -> None:
        """The first answer."""
        opened = pb.SessionOpened(
            session=self._conversation.id,
            epoch=self._handlers.sessions.epoch,
            slots=limits.SLOTS,
            resumed=resumed,
        )
        opened.resume_within.FromNanoseconds(int(limits.SESSION_RESUME_S * 1e9))
        self._say(pb.SessionResponse(opened=opened))

    def deliver(self, reply: bytes) -> None:
        """Queue an encoded SessionResponse."""
        self._outbox.append(reply)
        self._queued_bytes += len(reply)
        self._filled.set()
        self._set_room()

    def _set_room(self) -> None:
        """Let the reader take a message, or not: whenever what is queued or due has changed."""
        out = self._queued_bytes + self._conversation.due
        if len(self._outbox) < limits.SLOTS and out <= limits.SESSION_OUT_BYTES:
            self._room.set()
        else:
            self._room.clear()

    def supplant(self) -> None:
        """Another stream has the session now."""
        self._finish(_End.SUPPLANTED)

    def _say(self, response: pb.SessionResponse) -> None:
        self.deliver(response.SerializeToString())

    def _finish(self, end: _End) -> None:
        if not self._over.done():
            self._over.set_result(end)

    async def run(self) -> _End:
        """Serve until it is over; how. Cancelling leaves no task."""
        work = (
            ("reader", self._read()),
            ("writer", self._write()),
            ("watch", self._watch()),
            ("farewell", self._farewell()),
        )
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                for name, coroutine in work:
                    tasks.append(group.create_task(coroutine, name=f"session {self._conversation.id} {name}"))
                end = await self._over
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as failed:
            # One cause, which the guard knows what to do with: the others were cancelled for it.
            raise failed.exceptions[0] from None
        finally:
            tasks.clear()  # they hold this frame by their tracebacks, and it the call
        return end

    async def _read(self) -> None:
        context = self._call.context
        while True:
            await self._room.wait()
            message: Any = await context.read()
            if message is grpc.aio.EOF:
                break
            if isinstance(message, Unreadable):
                self._refuse_unreadable(message)
                break
            self._take(message)
        self._read_all = True
        self._filled.set()

    async def _write(self) -> None:
        context, outbox, loop = self._call.context, self._outbox, asyncio.get_running_loop()
        while True:
            while outbox:
                reply = outbox.popleft()
                self._set_room()
                self._writes_since = loop.time()
                await context.write(reply)
                self._writes_since = 0.0
                self._queued_bytes -= len(reply)
                self._set_room()
            if self._read_all and not self._conversation.slots.running:
                await asyncio.sleep(SETTLE_S)
                self._finish(_End.CLEAN)
                return
            self._filled.clear()
            await self._filled.wait()

    async def _watch(self) -> None:
        """End the stream when nobody reads it."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(limits.STREAM_PROGRESS_S / 4)
            if self._writes_since and loop.time() - self._writes_since >= limits.STREAM_PROGRESS_S:
                self._finish(_End.STALLED)
                return

    async def _farewell(self) -> None:
        """Say goodbye when the daemon is stopping; or when the stream is old, and end it some time later."""
        age, limit = self._handlers.age, self._limit()
        draining = self._handlers.guard.draining
        try:
            async with asyncio.timeout(limit or None):
                await (self._call.caller.leaving or draining).wait()
        except TimeoutError:
            pass
        if not draining.is_set():
            self._goodbye(REASON_EXPIRED, "this stream is old; resume the session in a new one")
            await asyncio.sleep(age.grace)
            self._finish(_End.AGED)
        else:
            self._goodbye(
                REASON_DRAINING, "the daemon is stopping; finish what is under way and connect again"
            )

    def _limit(self) -> float:
        """Seconds from now to the goodbye; 0: none. What is over already gives none: it would come again and again."""
        caller = self._call.caller
        limits = [self._handlers.age.limit * random.uniform(1 - JITTER, 1 + JITTER)]  # noqa: S311 - no secret
        if caller.aged is not None:
            limits.append(caller.aged - time.monotonic())
        if caller.expires is not None:
            limits.append(caller.expires - time.time() - BEFORE_EXPIRY_S)
        return min((each for each in limits if each > 0), default=0.0)

    def _goodbye(self, reason: Any, message: str) -> None:
        self._say(pb.SessionResponse(goodbye=pb.Goodbye(reason=reason, message=message)))

    # ---- messages; nothing below waits ---------------------------------------------------------

    def _take(self, message: pb.SessionRequest) -> None:
        """Do what a message asks for, or queue why not."""
        if not message.HasField("apply"):
            self._refuse(None, _no_apply(message))
            return
        request = message.apply
        stamp = request.stamp if request.HasField("stamp") else None
        try:
            if stamp is None:
                raise convert.bad_spec("a message without a stamp has nothing to be answered to", "session")
            self._arrive(stamp, request)
        except MapError as error:
            self._refuse(stamp, error)

    def _arrive(self, stamp: pb.Stamp, request: pb.ApplyRequest) -> None:
        """Raises MapError where the message as a whole is refused; nothing of it is executed then."""
        conversation = self._conversation
        self._check_names(stamp)
        slot, sequence, groups = stamp.slot, stamp.sequence, request.groups
        check_groups(len(groups))
        reads = only_reads(groups)
        arrival = conversation.slots.arrive(slot, sequence, stamp.acknowledged, reads=reads)
        if isinstance(arrival, bytes):
            self.deliver(arrival)
        elif arrival is Arrival.RUN:
            self._check_not_draining()
            messages, applier = self._handlers.guard.messages, self._handlers.applier
            counts, began = self._call.counts, time.monotonic()
            due = most_answered(groups, applier.host.handles, self._call.principal)

            def ended(results: list[pb.GroupResult]) -> None:
                response = pb.SessionResponse()
                response.apply.stamp.CopyFrom(stamp)
                response.apply.results.extend(results)
                conversation.due -= due
                conversation.answered(slot, response.SerializeToString(), reads=reads)
                messages.end()
                counts.messages.observe(time.monotonic() - began)

            conversation.slots.begin(slot, sequence)
            conversation.due += due
            messages.begin()
            Message(applier, self._call, conversation, groups, ended).advance()
            self._set_room()

    def _check_names(self, stamp: pb.Stamp) -> None:
        sessions = self._handlers.sessions
        if stamp.epoch != sessions.epoch:
            raise MapError(
                Reason.EPOCH_CHANGED,
                f"session: this message is for daemon start {stamp.epoch!r}, and this is {sessions.epoch!r}; nothing "
                "of it was executed",
                operation="session",
                epoch=sessions.epoch,
            )
        if stamp.session != self._conversation.id:
            raise convert.bad_spec(
                f"this stream is session {self._conversation.id}'s, and the message names {stamp.session!r}",
                "session",
            )

    def _check_not_draining(self) -> None:
        if self._handlers.guard.draining.is_set():
            raise MapError(
                Reason.DRAINING,
                "session: the daemon is stopping, nothing of this was executed; connect again in a moment",
                operation="session",
            )

    def _refuse(self, stamp: pb.Stamp | None, error: MapError) -> None:
        refusal = convert.error(error.refusal)
        if stamp is None or stamp.ByteSize() > STAMP_BYTES:
            self._say(pb.SessionResponse(error=refusal))
        else:
            self._say(pb.SessionResponse(apply=pb.ApplyResponse(stamp=stamp, error=refusal)))

    def _refuse_unreadable(self, message: Unreadable) -> None:
        try:
            readable(message)
        except MapError as error:
            self._refuse(None, error)


def _no_apply(message: pb.SessionRequest) -> MapError:
    if message.HasField("open"):
        return convert.bad_spec("it is open already; end the stream and begin another one", "session")
    return MapError(
        Reason.OPERATION_UNSUPPORTED,
        "session: an empty message, or one that this daemon does not know; see ServerInfo.features",
        operation="session",
    )
