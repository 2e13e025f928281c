"""Around every handler: identity and rights, one place where exceptions become statuses, and a count.

grpc.aio tells a client the text of an uncaught exception, and nothing at all when a handler's own
CancelledError escapes; neither may happen here.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar, cast

import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from mapd.access.authorize import Authorizer
from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.metrics.counts import CANCELLED, OK, Calls
from mapd.rpc import resetting
from mapd.rpc.auditing import OFF, Auditor, decision_of
from mapd.rpc.caller import Caller, Context, Identify
from mapd.rpc.expiry import while_attested
from mapd.rpc.health import Services
from mapd.rpc.requestid import RequestIds
from mapd.rpc.unsent import Unsent
from mapd.runtime.rates import Rates
from mapd_api import contract, limits
from mapd_api.contract import MethodAccess
from mapd_api.ops import Verb
from mapd_api.reasons import Reason, Refusal, encode, to_grpc

T = TypeVar("T")

_log = structlog.stdlib.get_logger("mapd.rpc")

_BY_ELEMENT = frozenset(
    contract.full_name(contract.ELEMENT_SERVICE.methods_by_name[name])
    for name in ("Lookup", "Update", "Delete", "Apply")
)
"""What costs its elements of a principal's operations per second; any other unary call costs one."""

_FREE = frozenset({contract.full_name(contract.LEASE_SERVICE.methods_by_name["LeaseKeepAlive"])})
"""What costs no operation: a client that uses up its own must not lose its maps by that."""

_SESSION = contract.full_name(contract.ELEMENT_SERVICE.methods_by_name["Session"])

_ANSWERING = frozenset(
    contract.full_name(method)
    for service in contract.SERVICES
    for method in service.methods
    if method.server_streaming
)
"""What has more than one answer."""

_CHANGE_NOTHING = frozenset({Verb.LIST, Verb.READ, Verb.OPEN_BY_ID, Verb.WATCH, Verb.HOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One running call: who asks, under which method's rights.

    Attributes:
        method: its full name.
        context: grpc's, for streams.
        expires: time.monotonic() of its deadline.
        fault: logs an exception that is nobody's but ours; what to tell the caller instead.
        audit: where what is changed and refused is told.
        counts: where what becomes of it is counted.
        unsent: where room is taken for its answer; None for streams.
    """

    caller: Caller
    method: str
    access: MethodAccess
    authorizer: Authorizer
    context: Context
    expires: float
    fault: Callable[[Exception], Refusal]
    audit: Auditor = OFF
    counts: Calls = field(default_factory=Calls)
    unsent: Unsent | None = None

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal

    async def room(self, size: int, operation: str) -> None:
        """Wait for room for ``size`` bytes of its answer, before anything is executed.

        Raises:
            MapError: BUSY, as ``Unsent.take``.
        """
        if self.unsent is not None:
            await self.unsent.take(self.principal, self.context, size, operation)


Handler = Callable[[Call, Any], Awaitable[Any]]

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are no message of the type that the method takes."""

    wanted: str
    size: int


@dataclass(frozen=True, slots=True)
class Reader(Generic[M]):
    """Decodes requests, and leaves refusing those that are none to the guard.

    grpc.aio itself would answer UNKNOWN, with the exception's text.
    """

    kind: type[M]

    def __call__(self, data: bytes) -> M | Unreadable:
        """A message, or what stands in for one."""
        try:
            return self.kind.FromString(data)
        except DecodeError:
            return Unreadable(self.kind.DESCRIPTOR.name, len(data))


def readable(message: Any) -> Any:
    """A message as ``Reader`` gave it.

    Raises:
        MapError: BAD_SPEC, it is none.
    """
    if isinstance(message, Unreadable):
        raise MapError(
            Reason.BAD_SPEC,
            f"{message.size} bytes that are no {message.wanted}; is this client made from mapd's proto files?",
        )
    return message


class Messages:
    """Counts the messages of sessions that are under way: they have no task each."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def begin(self) -> None:
        """One more."""
        self.count += 1
        if self.count == 1:
            self._idle.clear()

    def end(self) -> None:
        """One less."""
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until there is none."""
        await self._idle.wait()


async def _abort(method: str, context: Context, refusal: Refusal) -> NoReturn:
    """End a call with its refusal; a stream of answers with a reset where that is not taken within limits.REFUSAL_S.

    A status goes behind the messages of its stream: for a reader that stands still it would wait as long as the
    connection lasts, and with it what is not written yet.
    """
    resetting.forget(sys.exception())
    try:
        async with asyncio.timeout(limits.REFUSAL_S if method in _ANSWERING else None):
            await context.abort_with_status(to_grpc(encode(refusal)))
    except TimeoutError as late:
        resetting.forget(late)
        task = asyncio.current_task()
        if task is None or not resetting.let_go(task):
            _log.warning("a stream that nobody reads cannot be reset", reason=refusal.reason.name)
    raise asyncio.CancelledError


def _may_change(name: str, access: MethodAccess) -> bool:
    """Whether a call that is given up may have been executed. What a session carried is answered by itself."""
    return name != _SESSION and (access.per_op or not access.verbs <= _CHANGE_NOTHING)


def _unsure(ended: Refusal) -> Refusal:
    """A refusal says that nothing was executed, which nobody knows of a call that had begun."""
    return Refusal(
        Reason.OUTCOME_UNKNOWN, f"{ended.message}; what this call had begun is finished, and may be executed"
    )


@dataclass(slots=True, kw_only=True, eq=False)
class _Running:
    """One call that a task serves.

    Attributes:
        id: of the request, for the log.
        began: time.monotonic().
        caller: None until it is known, and where it is nobody.
        ended: what its caller is told because it is somebody no more.
        outcome: OK, CANCELLED, or the reason it was refused for.
    """

    method: str
    id: str
    began: float
    caller: Caller | None = None
    ended: Refusal | None = None
    outcome: str = CANCELLED

    @property
    def who(self) -> str:
        return "nobody" if self.caller is None else self.caller.principal.name


class Guard:
    """Wraps the handlers of one daemon, whatever server they are on; knows which calls and messages run.

    Attributes:
        draining: set when the daemon stops: nothing new is begun.
        counts: what became of calls.
        services: which of them can do their work, for the health of every server.
    """

    def __init__(self, authorizer: Authorizer, rates: Rates | None = None, audit: Auditor = OFF) -> None:
        self._authorizer = authorizer
        self._audit = audit
        self._rates = rates
        self._running: dict[asyncio.Task[Any], _Running] = {}
        self._ids = RequestIds()
        self.counts = Calls()
        self.services = Services()
        self.draining = asyncio.Event()
        self.messages = Messages()
        self.unsent = Unsent()

    @property
    def running(self) -> int:
        """Calls and messages of sessions that are being served; sessions themselves are none."""
        return len(self._calls()) + self.messages.count

    def _calls(self) -> list[asyncio.Task[Any]]:
        return [task for task, call in self._running.items() if call.method != _SESSION]

    def wrap(
        self, name: str, access: MethodAccess, identify: Identify, handler: Handler, *, unary: bool
    ) -> Handler:
        """``handler`` as grpc wants it, for callers whom ``identify`` tells.

        A ``unary`` one is given up after limits.UNARY_S, whatever deadline the caller chose or forgot.
        """

        async def guarded(request: Any, context: Context) -> Any:
            with self._counted(name, context) as running:
                remaining = cast("float | None", context.time_remaining())  # None without a deadline
                expires = running.began + (limits.UNARY_S if remaining is None else remaining)
                limit = asyncio.timeout(limits.UNARY_S if unary else None)
                try:
                    caller = running.caller = identify(context)
                    if self.draining.is_set():
                        raise MapError(Reason.DRAINING, "the daemon is stopping; connect again in a moment")
                    call = Call(
                        caller=caller,
                        method=name,
                        access=access,
                        authorizer=self._authorizer,
                        context=context,
                        expires=expires,
                        fault=lambda error: self._fault(running, error),
                        audit=self._audit,
                        counts=self.counts,
                        unsent=self.unsent if unary else None,
                    )
                    if self._rates is not None and unary and name not in _BY_ELEMENT | _FREE:
                        self._rates.take(caller.principal, 1, lambda: name.rpartition("/")[2])
                    # A unary call is short, and its answer says more than that its caller's time is over.
                    with nullcontext() if unary else while_attested(caller, self.end):
                        async with limit:
                            with self._audit.call(call, request) as told:
                                answer = told["answer"] = await handler(call, readable(request))
                                running.outcome = OK
                                return answer
                except asyncio.CancelledError:
                    if (ended := running.ended) is None:
                        await self._cancelled(running, context)
                    cast("asyncio.Task[Any]", asyncio.current_task()).uncancel()
                    self._told(running, context, ended, None)
                    await self._refuse(
                        running, _unsure(ended) if _may_change(name, access) else ended, context
                    )
                except TimeoutError as error:
                    late = f"not done after {limits.UNARY_S:g} s, given up; it may still be executed"
                    unknown = Refusal(Reason.OUTCOME_UNKNOWN, late)
                    refusal = unknown if limit.expired() else self._fault(running, error)
                    await self._refuse(running, refusal, context)
                except MapError as error:
                    ours = error.reason is Reason.INTERNAL
                    refusal = self._fault(running, error) if ours else error.refusal
                    self._told(running, context, refusal, error)
                    await self._refuse(running, refusal, context)
                except grpc.aio.AbortError:
                    raise
                except grpc.aio.InternalError:
                    # A stream's message could not be handed over: its client has gone. No fault of ours.
                    _log.debug("the client went", method=name, principal=running.who, request_id=running.id)
                    raise asyncio.CancelledError from None
                except Exception as error:
                    await self._refuse(running, self._fault(running, error), context)

        return guarded

    @property
    def callers(self) -> Sequence[Caller]:
        """Of what runs, one for each call."""
        return [call.caller for call in self._running.values() if call.caller is not None]

    def end(self, who: Caller, refusal: Refusal) -> None:
        """Give up whatever runs for a caller who is nobody any more; what runs in a thread is finished there.

        The other end of each call is told ``refusal``; OUTCOME_UNKNOWN with the same words where it may have changed
        something.
        """
        for task, call in self._running.items():
            if call.caller is who and call.ended is None:
                call.ended = refusal
                task.cancel()

    async def wait_idle(self, timeout: float) -> bool:
        """Wait until no call and no message of a session runs; False if some still do after ``timeout`` seconds.

        Sessions are not waited for: an idle client keeps one open for as long as it lives.
        """
        give_up = time.monotonic() + timeout
        async with asyncio.TaskGroup() as group:
            idle = group.create_task(self.messages.wait_idle(), name="messages under way")
            while self.running and (left := give_up - time.monotonic()) > 0:
                await asyncio.wait({*self._calls(), idle}, timeout=left)
            idle.cancel()
        return not self.running

    async def wait_ended(self, timeout: float) -> None:
        """Wait for every handler to end, after the server has cancelled them.

        grpc's own stop() does not wait for handlers that have aborted already (grpc/grpc#37239).
        """
        if self._running:
            await asyncio.wait(list(self._running), timeout=timeout)

    @contextmanager
    def _counted(self, name: str, context: Context) -> Generator[_Running]:
        task = asyncio.current_task()
        assert task is not None
        running = _Running(method=name, id=self._ids.of(context), began=time.monotonic())
        # For whatever is logged on behalf of this call, here and in the tasks that it makes.
        structlog.contextvars.bind_contextvars(request_id=running.id)
        self._running[task] = running
        try:
            yield running
        finally:
            del self._running[task]
            seconds = time.monotonic() - running.began
            self.counts.ended(name, running.outcome, seconds)
            if running.outcome in {OK, CANCELLED}:
                _log.debug(
                    "served" if running.outcome is OK else "cancelled",
                    method=name,
                    principal=running.who,
                    request_id=running.id,
                    seconds=round(seconds, 6),
                )

    async def _cancelled(self, running: _Running, context: Context) -> NoReturn:
        """The client went, or its deadline passed: nobody listens. Anything else is our own doing."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        _log.error("a handler cancelled itself", method=running.method, request_id=running.id)
        refusal = Refusal(Reason.OUTCOME_UNKNOWN, "the daemon gave this call up; it may have been executed")
        running.outcome = refusal.reason.name
        await _abort(running.method, context, refusal)

    def _told(self, running: _Running, context: Context, refusal: Refusal, error: MapError | None) -> None:
        """Tell the audit trail of a refused call; its caller may be nobody."""
        caller = running.caller
        self._audit.refusal(
            refusal,
            None if error is None else decision_of(error),
            principal=caller.principal.name if caller else "",
            attested_by=caller.attested_by if caller else str(context.peer()),
            method=running.method,
            policy=self._authorizer.policy.policy.version,
        )

    async def _refuse(self, running: _Running, refusal: Refusal, context: Context) -> NoReturn:
        """The caller's fault, or the host's: quiet. A fault of ours has been logged already."""
        reason, method = refusal.reason.name, running.method
        running.outcome = reason
        self.counts.refused(reason, refusal.metadata, method)
        if refusal.reason is not Reason.INTERNAL:
            _log.debug(
                "refused",
                method=method,
                principal=running.who,
                request_id=running.id,
                reason=reason,
                message=refusal.message,
                seconds=round(time.monotonic() - running.began, 6),
            )
        await _abort(running.method, context, refusal)

    @staticmethod
    def _fault(running: _Running, error: Exception) -> Refusal:
        """Our fault: loud here, a number there."""
        incident = secrets.token_hex(4)
        _log.error(
            "fault",
            method=running.method,
            principal=running.who,
            request_id=running.id,
            incident=incident,
            exc_info=error,
        )
        return Refusal(
            Reason.INTERNAL,
            f"a fault of the daemon; its log has it as incident {incident}",
            {"incident": incident, "request_id": running.id},
        )
