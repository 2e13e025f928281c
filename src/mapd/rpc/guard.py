"""Around every handler: identity and rights, one place where exceptions become statuses, and a count.

grpc.aio tells a client the text of an uncaught exception, and nothing at all when a handler's own
CancelledError escapes; neither may happen here.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar, cast

import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message

from mapd.access.authorize import Authorizer
from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc.auditing import OFF, Auditor, decision_of
from mapd.rpc.caller import Caller, Context, Identify
from mapd.rpc.expiry import while_attested
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

_SESSION = contract.full_name(contract.ELEMENT_SERVICE.methods_by_name["Session"])

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
    """

    caller: Caller
    method: str
    access: MethodAccess
    authorizer: Authorizer
    context: Context
    expires: float
    fault: Callable[[Exception], Refusal]
    audit: Auditor = OFF

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal


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


def _may_change(name: str, access: MethodAccess) -> bool:
    """Whether a call that is given up may have been executed. What a session carried is answered by itself."""
    return name != _SESSION and (access.per_op or not access.verbs <= _CHANGE_NOTHING)


def _unsure(ended: Refusal) -> Refusal:
    """A refusal says that nothing was executed, which nobody knows of a call that had begun."""
    return Refusal(
        Reason.OUTCOME_UNKNOWN, f"{ended.message}; what this call had begun is finished, and may be executed"
    )


class Guard:
    """Wraps the handlers of one daemon, whatever server they are on; knows which calls and messages run."""

    def __init__(self, authorizer: Authorizer, rates: Rates | None = None, audit: Auditor = OFF) -> None:
        self._authorizer = authorizer
        self._audit = audit
        self._rates = rates
        self._running: dict[asyncio.Task[Any], str] = {}
        self._callers: dict[asyncio.Task[Any], Caller] = {}
        self._ended: dict[asyncio.Task[Any], Refusal] = {}
        self.draining = asyncio.Event()
        self.messages = Messages()

    @property
    def running(self) -> int:
        """Calls and messages of sessions that are being served; sessions themselves are none."""
        return len(self._calls()) + self.messages.count

    def _calls(self) -> list[asyncio.Task[Any]]:
        return [task for task, name in self._running.items() if name != _SESSION]

    def wrap(
        self, name: str, access: MethodAccess, identify: Identify, handler: Handler, *, unary: bool
    ) -> Handler:
        """``handler`` as grpc wants it, for callers whom ``identify`` tells.

        A ``unary`` one is given up after limits.UNARY_S, whatever deadline the caller chose or forgot.
        """

        async def guarded(request: Any, context: Context) -> Any:
            began = time.monotonic()
            remaining = cast("float | None", context.time_remaining())  # None without a deadline
            expires = began + (limits.UNARY_S if remaining is None else remaining)
            who = "nobody"
            limit = asyncio.timeout(limits.UNARY_S if unary else None)
            with self._counted(name) as task:
                try:
                    caller = self._callers[task] = identify(context)
                    who = caller.principal.name
                    if self.draining.is_set():
                        raise MapError(Reason.DRAINING, "the daemon is stopping; connect again in a moment")
                    call = Call(
                        caller=caller,
                        method=name,
                        access=access,
                        authorizer=self._authorizer,
                        context=context,
                        expires=expires,
                        fault=lambda error: self._fault(name, who, error),
                        audit=self._audit,
                    )
                    if self._rates is not None and unary and name not in _BY_ELEMENT:
                        self._rates.take(caller.principal, 1, lambda: name.rpartition("/")[2])
                    # A unary call is short, and its answer says more than that its caller's time is over.
                    with nullcontext() if unary else while_attested(caller, self.end):
                        async with limit:
                            with self._audit.call(call, request) as told:
                                answer = told["answer"] = await handler(call, readable(request))
                                return answer
                except asyncio.CancelledError:
                    if (ended := self._ended.get(task)) is None:
                        await self._cancelled(name, context)
                    task.uncancel()
                    self._told(name, task, context, ended, None)
                    told_why = _unsure(ended) if _may_change(name, access) else ended
                    await self._refuse(name, who, told_why, context, began)
                except TimeoutError as error:
                    late = f"not done after {limits.UNARY_S:g} s, given up; it may still be executed"
                    unknown = Refusal(Reason.OUTCOME_UNKNOWN, late)
                    refusal = unknown if limit.expired() else self._fault(name, who, error)
                    await self._refuse(name, who, refusal, context, began)
                except MapError as error:
                    ours = error.reason is Reason.INTERNAL
                    refusal = self._fault(name, who, error) if ours else error.refusal
                    self._told(name, task, context, refusal, error)
                    await self._refuse(name, who, refusal, context, began)
                except grpc.aio.AbortError:
                    raise
                except grpc.aio.InternalError:
                    # A stream's message could not be handed over: its client has gone. No fault of ours.
                    _log.debug("the client went", method=name, principal=who)
                    raise asyncio.CancelledError from None
                except Exception as error:
                    await self._refuse(name, who, self._fault(name, who, error), context, began)

        return guarded

    @property
    def callers(self) -> Sequence[Caller]:
        """Of what runs, one for each call."""
        return list(self._callers.values())

    def end(self, who: Caller, refusal: Refusal) -> None:
        """Give up whatever runs for a caller who is nobody any more; what runs in a thread is finished there.

        The other end of each call is told ``refusal``; OUTCOME_UNKNOWN with the same words where it may have changed
        something.
        """
        for task, caller in self._callers.items():
            if caller is who and task not in self._ended:
                self._ended[task] = refusal
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
    def _counted(self, name: str) -> Generator[asyncio.Task[Any]]:
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = name
        try:
            yield task
        finally:
            del self._running[task]
            self._callers.pop(task, None)
            self._ended.pop(task, None)

    async def _cancelled(self, name: str, context: Context) -> NoReturn:
        """The client went, or its deadline passed: nobody listens. Anything else is our own doing."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        _log.error("a handler cancelled itself", method=name)
        refusal = Refusal(Reason.OUTCOME_UNKNOWN, "the daemon gave this call up; it may have been executed")
        await context.abort_with_status(to_grpc(encode(refusal)))

    def _told(
        self,
        name: str,
        task: asyncio.Task[Any],
        context: Context,
        refusal: Refusal,
        error: MapError | None,
    ) -> None:
        """Tell the audit trail of a refused call; its caller may be nobody."""
        caller = self._callers.get(task)
        self._audit.refusal(
            refusal,
            None if error is None else decision_of(error),
            principal=caller.principal.name if caller else "",
            attested_by=caller.attested_by if caller else str(context.peer()),
            method=name,
            policy=self._authorizer.policy.policy.version,
        )

    async def _refuse(
        self, name: str, principal: str, refusal: Refusal, context: Context, began: float
    ) -> NoReturn:
        """The caller's fault, or the host's: quiet. A fault of ours has been logged already."""
        if refusal.reason is not Reason.INTERNAL:
            _log.debug(
                "refused",
                method=name,
                principal=principal,
                reason=refusal.reason.name,
                message=refusal.message,
                seconds=round(time.monotonic() - began, 6),
            )
        await context.abort_with_status(to_grpc(encode(refusal)))

    @staticmethod
    def _fault(name: str, principal: str, error: Exception) -> Refusal:
        """Our fault: loud here, a number there."""
        incident = secrets.token_hex(4)
        _log.error("fault", method=name, principal=principal, incident=incident, exc_info=error)
        return Refusal(
            Reason.INTERNAL,
            f"a fault of the daemon; its log has it as incident {incident}",
            {"incident": incident},
        )
