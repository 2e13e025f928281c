"""Apply: the groups of one message, one after the other, in a call of its own or as a message of a session.

A message of a session has no task: its groups go to the pool as callbacks, the first of them in the turn of the
loop that read the message, so that messages reach a map's queue in the order in which they came.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.maps.groups import Group, Plan, answer_bytes, distinct_ops, plan
from mapd.maps.job import Outcome
from mapd.maps.opened import MapFacts
from mapd.rpc import admit, convert
from mapd.rpc.admit import admitted
from mapd.rpc.auditing import Line
from mapd.rpc.guard import Call
from mapd.runtime.handles import Handle, HandleTable
from mapd.runtime.host import MapHost
from mapd.runtime.sessions import Conversation
from mapd_api import contract, limits
from mapd_api.ops import ANSWERS_VALUE, MUTATES, Op, Verb
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2 as pb

_OP_VERBS = contract.op_verbs()


@dataclass(frozen=True, slots=True)
class Kind:
    """What the operations of a column ask for; whether none can change anything, whether any answers a value."""

    verbs: frozenset[Verb]
    reads: bool
    answers: bool


@lru_cache(maxsize=1_024)
def _kind(ops: frozenset[Op]) -> Kind:
    verbs = frozenset(verb for op in ops for verb in _OP_VERBS[op])
    return Kind(verbs, ops.isdisjoint(MUTATES), not ops.isdisjoint(ANSWERS_VALUE))


def kind_of(column: bytes) -> Kind:
    """The kind of an op column.

    Raises:
        MapError: as ``distinct_ops``; BAD_COLUMNS, it is longer than a group may be, and is not looked through.
    """
    if len(column) > limits.BATCH_ELEMENTS:
        raise MapError(
            Reason.BAD_COLUMNS,
            f"apply: the op column has {len(column)} bytes; a group has at most {limits.BATCH_ELEMENTS} elements",
            operation="apply",
        )
    return _kind(distinct_ops(column))


def only_reads(groups: Sequence[pb.OpGroup]) -> bool:
    """Whether a message with these groups can change nothing."""
    try:
        for group in groups:
            if not kind_of(group.ops).reads:
                return False
    except MapError:
        return False  # no operation, or too many: the group is refused
    return True


def check_groups(count: int) -> None:
    """Refuse a message of too many groups."""
    if count > limits.GROUPS:
        raise MapError(
            Reason.BAD_COLUMNS,
            f"apply: {count} groups; a message has at most {limits.GROUPS}",
            operation="apply",
        )


def most_answered(groups: Sequence[pb.OpGroup], handles: HandleTable, principal: Principal) -> int:
    """Bytes that the answer to a message may take at most, before anything of it is checked.

    All that a message holds where a map whose values are asked for is named otherwise than by handle.
    """
    due = limits.REFUSAL_BYTES
    for group in groups:
        # A status each; the errors of some of them take less than a refusal.
        due += limits.REFUSAL_BYTES + group.count
        try:
            answers = kind_of(group.ops).answers
        except MapError:
            continue  # it is refused
        if not answers:
            continue
        if group.map.WhichOneof("ref") != "handle":
            return limits.MESSAGE_BYTES
        handle = handles.find(group.map.handle, principal)
        if handle is not None:
            due += group.count * handle.opened.facts.value_stride
    return min(due, limits.MESSAGE_BYTES)


def room_for(groups: int) -> int:
    """Bytes that the results of a message may take, beside a refusal of every group.

    Those are kept free: what was executed must not be lost for want of room.
    """
    return limits.MESSAGE_BYTES - (groups + 1) * limits.REFUSAL_BYTES


def expiry(message: pb.OpGroup, arrived: float, otherwise: float | None) -> float | None:
    """The time.monotonic() after which a group is not begun any more."""
    if not message.remaining_ms:
        return otherwise
    own = arrived + message.remaining_ms / 1_000
    return own if otherwise is None else min(own, otherwise)


def refused(call: Call, error: BaseException) -> pb.GroupResult:
    """The result of a group that was refused as a whole."""
    if isinstance(error, MapError) and error.reason is not Reason.INTERNAL:
        refusal = error.refusal
    else:
        refusal = call.fault(error if isinstance(error, Exception) else RuntimeError(repr(error)))
    call.audit.refused(call, error)
    call.counts.group_refused(refusal.reason.name, refusal.metadata)
    return pb.GroupResult(error=convert.error(refusal))


async def run_group(
    host: MapHost, call: Call, message: pb.OpGroup, expires: float | None, room: int
) -> pb.GroupResult:
    """One group, however it names its map; what it is refused for is in the result.

    Cancelling: as ``MapHost.apply``.
    """
    try:
        group = convert.group(message)
        verbs = kind_of(group.ops).verbs  # before group.operation, which looks through the column too
        async with admitted(host, call, message.map, group.operation, verbs, by_key=True) as opened:
            facts = opened.target.facts
            due = answer_bytes(group, facts)
            check_room(facts, group, due, room)
            await call.room(due, group.operation)
            with call.audit.group(call, opened, group.operation, group.ops, group.count) as line:
                outcome = await host.apply(opened, group, expires=expires)
                if line is not None:
                    line.told(outcome.statuses)
        return convert.outcome(outcome)
    except Exception as error:
        # The groups before it were executed, and their results must reach the caller.
        return refused(call, error)


def check_room(facts: MapFacts, group: Group, answers: int, room: int) -> None:
    """Refuse a group whose answer might not fit into what is left of the message."""
    due = group.count + answers
    if due > room:
        raise MapError(
            Reason.BAD_COLUMNS,
            f"{group.operation} {facts.label}: up to {due} bytes would be answered; {room} of the message's "
            f"{limits.COLUMN_BYTES} are left: ask for fewer values at once",
            **facts.about(group.operation),
        )


class Applier:
    """Runs the messages of sessions.

    Owns the tasks of groups that name their map otherwise than by handle, which have to open it: ``aclose``
    ends them.
    """

    def __init__(self, host: MapHost) -> None:
        self.host = host
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Let a group open its map."""
        task = asyncio.get_running_loop().create_task(work, name="group by name")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel what still waits for a map."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class Message:
    """The groups of one message of a session, from when it is begun until all have ended.

    Args:
        ended: is told the results, once.
    """

    __slots__ = (
        "_applier",
        "_arrived",
        "_call",
        "_conversation",
        "_ended",
        "_groups",
        "_handle",
        "_line",
        "_next",
        "_results",
        "_room",
    )

    def __init__(
        self,
        applier: Applier,
        call: Call,
        conversation: Conversation,
        groups: Sequence[pb.OpGroup],
        ended: Callable[[list[pb.GroupResult]], None],
    ) -> None:
        self._applier = applier
        self._call = call
        self._conversation = conversation
        self._groups = groups
        self._ended = ended
        self._arrived = time.monotonic()
        self._room = room_for(len(groups))
        self._next = 0
        self._results: list[pb.GroupResult] = []
        self._handle: Handle | None = None
        self._line: Line | None = None

    def advance(self) -> None:
        """Run groups until one is under way, or all have ended. In a session that was closed none is begun."""
        while self._next < len(self._groups) and not self._conversation.closed:
            group = self._groups[self._next]
            self._next += 1
            try:
                result = self._begin(group)
            except Exception as error:
                result = refused(self._call, error)
            if result is None:
                return
            self._add(result)
        self._ended(self._results)

    def _begin(self, message: pb.OpGroup) -> pb.GroupResult | None:
        """The result of a group that was run at once; None if it is under way now."""
        expires = expiry(message, self._arrived, None)
        ref = message.map
        if ref.WhichOneof("ref") != "handle":
            self._applier.spawn(self._opened(message, expires))
            return None
        group = convert.group(message)
        verbs = kind_of(group.ops).verbs
        handles = self._applier.host.handles
        handle = handles.take(ref.handle, self._call.principal)
        outcome = None
        try:
            # The version first: a reload from here on makes the next group ask again.
            rights = handle.rights_under(self._call.authorizer.policy.policy.version)
            opened = rights.get(verbs)
            if opened is None:
                opened = rights[verbs] = admit.rights(
                    self._applier.host, self._call, handle, verbs, group.operation, by_key=True
                )
            elif handle.replaced:
                admit.check_current(handle, verbs, group.operation)
            checked = plan(group, handle.opened)
            self._check_room(checked, handle)
            self._line = self._call.audit.begin(self._call, opened, group.operation, group.ops, group.count)
            try:
                outcome = self._applier.host.submit(
                    opened, checked, self._done, self._conversation.order, expires=expires
                )
            except BaseException as error:
                self._close_line(None, error)
                raise
            if outcome is None:
                self._handle = handle
                return None
            self._close_line(outcome, None)
            return convert.outcome(outcome)
        finally:
            if self._handle is not handle:
                handles.give_back(handle)

    def _check_room(self, checked: Plan, handle: Handle) -> None:
        room = min(self._room, limits.COLUMN_BYTES)
        check_room(handle.opened.facts, checked.group, checked.answer_bytes, room)

    async def _opened(self, message: pb.OpGroup, expires: float | None) -> None:
        room = min(self._room, limits.COLUMN_BYTES)
        try:
            result = await run_group(self._applier.host, self._call, message, expires, room)
        except asyncio.CancelledError:
            self._next = len(self._groups)  # the daemon ends
            self._ended(self._results)
            raise
        self._add(result)
        self.advance()

    def _close_line(self, outcome: Outcome | None, error: BaseException | None) -> None:
        """Tell the audit trail how the group under way has ended."""
        line, self._line = self._line, None
        if line is not None:
            if outcome is not None:
                line.told(outcome.statuses)
            line.close(error)

    def _done(self, outcome: Outcome | None, error: BaseException | None) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._applier.host.handles.give_back(handle)
        self._close_line(outcome, error)
        try:
            if error is not None:
                raise error
            result = convert.outcome(cast("Outcome", outcome))
        except BaseException as raised:
            result = refused(self._call, raised)
        self._add(result)
        self.advance()

    def _add(self, result: pb.GroupResult) -> None:
        self._results.append(result)
        if self._next < len(self._groups):
            self._room -= max(0, result.ByteSize() - limits.REFUSAL_BYTES)
