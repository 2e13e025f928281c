"""One operation of the model, done by a client of mapd: in a session, or by calls of their own.

What a call raised becomes one of three words: it is done, it was not and never will be, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import grpc
from google.rpc import status_pb2

from mapd_api import reasons
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, elements_pb2_grpc, types_pb2
from mapd_client import Map
from mapd_client.errors import BatchFailed, KeyExists, KeyMissing, MapdError, OutcomeUnknown
from tests.reliability.kit.history import OK, REFUSED, UNKNOWN, End
from tests.reliability.kit.model import READS

OPS: Final = {
    "update": Op.UPDATE,
    "update_noexist": Op.UPDATE_NOEXIST,
    "update_exist": Op.UPDATE_EXIST,
    "delete": Op.DELETE,
    "lookup": Op.LOOKUP,
    "lookup_and_delete": Op.LOOKUP_AND_DELETE,
}
"""What both kinds of client can do; atomics are a session's."""

UNSURE: Final = frozenset({Reason.OUTCOME_UNKNOWN, Reason.INTERNAL})
"""Refusals of which the daemon does not say that nothing was executed."""

ABSENT: Final = {
    "delete": Reason.KEY_ABSENT,
    "lookup": Reason.KEY_ABSENT,
    "lookup_and_delete": Reason.KEY_ABSENT,
    "update_exist": Reason.KEY_MISSING,
    "update_noexist": Reason.KEY_EXISTS,
}
"""Statuses that are answers: the key was there, or was not."""

Element = tuple[str, int, tuple[int, ...]]
"""An operation, its key and its other arguments."""


class Doer(Protocol):
    """A client."""

    batches: Sequence[str]
    """What ``many`` takes; one call has one of these names, or several where ``mixed`` says so."""
    mixed: bool

    async def one(self, element: Element) -> End:
        """One operation."""
        ...

    async def many(self, elements: Sequence[Element]) -> Sequence[End]:
        """Several in one call, on different keys."""
        ...


def failed(error: MapdError) -> End:
    """How an element ended whose call raised."""
    why = type(error).__name__ if error.reason is None else f"{type(error).__name__} {error.reason.name}"
    unsure = isinstance(error, OutcomeUnknown) or error.reason in UNSURE
    return End(UNKNOWN if unsure else REFUSED, why=why)


class InSession:
    """A map of the library's, whose operations travel in the client's session."""

    batches: Sequence[str] = ("update", "lookup")
    mixed = False

    def __init__(self, opened: Map[int, int]) -> None:
        self._map = opened

    async def one(self, element: Element) -> End:
        """See ``Doer``."""
        op, key, args = element
        try:
            return End(OK, await self._done(op, key, args))
        except MapdError as error:
            return failed(error)

    async def _done(self, op: str, key: int, args: tuple[int, ...]) -> int | None:
        opened = self._map
        if op == "update":
            await opened.update(key, *args)
            return None
        if op == "update_noexist":
            return await self._conditional(key, args[0], KeyExists)
        if op == "update_exist":
            return await self._conditional(key, args[0], KeyMissing)
        if op == "delete":
            return int(await opened.delete(key))
        if op == "lookup":
            return await opened.lookup(key)
        if op == "lookup_and_delete":
            return await opened.lookup_and_delete(key)
        if op == "fetch_add":
            return await opened.fetch_add(key, *args)
        found = await opened.compare_exchange(key, *args)
        return None if found is None else found.old

    async def _conditional(self, key: int, value: int, refused: type[KeyExists | KeyMissing]) -> int:
        try:
            await self._map.update(key, value, flags="noexist" if refused is KeyExists else "exist")
        except refused:
            return 0
        return 1

    async def many(self, elements: Sequence[Element]) -> Sequence[End]:
        """See ``Doer``."""
        keys = [key for _, key, _ in elements]
        try:
            if elements[0][0] == "lookup":
                return [End(OK, value) for value in await self._map.lookup_many(keys)]
            await self._map.update_many({key: args[0] for _, key, args in elements})
        except BatchFailed as error:
            unsent = End(REFUSED, why="not sent")
            return [
                failed(error.errors[at]) if at in error.errors else End(OK) if at < error.sent else unsent
                for at in range(len(elements))
            ]
        except MapdError as error:
            return [failed(error)] * len(elements)
        return [End(OK)] * len(elements)


class Unary:
    """Calls of their own, by the map's name, over one channel, which waits for a daemon that is not there."""

    batches: Sequence[str] = tuple(OPS)
    mixed = True

    def __init__(self, channel: grpc.aio.Channel, name: str, timeout: float) -> None:
        stub: Any = elements_pb2_grpc.ElementServiceStub
        self._stub = stub(channel)
        self._ref = types_pb2.MapRef(name=name)
        self._timeout = timeout

    async def one(self, element: Element) -> End:
        """See ``Doer``. An update, a delete and a lookup have methods of their own."""
        op, key, args = element
        word = key.to_bytes(8, "little")
        if op == "update":
            request: Any = elements_pb2.UpdateRequest(
                map=self._ref, key=word, value=args[0].to_bytes(8, "little")
            )
            call = self._stub.Update
        elif op == "delete":
            request, call = elements_pb2.DeleteRequest(map=self._ref, key=word), self._stub.Delete
        elif op == "lookup":
            request, call = elements_pb2.LookupRequest(map=self._ref, key=word), self._stub.Lookup
        else:
            return (await self.many([element]))[0]
        try:
            answer = await call(request, timeout=self._timeout, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return self._failed(error, op)
        if op == "delete":
            return End(OK, int(answer.existed))
        if op == "lookup" and answer.HasField("value"):
            return End(OK, int.from_bytes(answer.value, "little"))
        return End(OK)

    async def many(self, elements: Sequence[Element]) -> Sequence[End]:
        """See ``Doer``."""
        group = elements_pb2.OpGroup(
            map=self._ref,
            count=len(elements),
            ops=bytes(OPS[op] for op, _, _ in elements),
            keys=b"".join(key.to_bytes(8, "little") for _, key, _ in elements),
            values=b"".join(
                args[0].to_bytes(8, "little") for op, _, args in elements if OPS[op] in TAKES_VALUE
            ),
        )
        request = elements_pb2.ApplyRequest(groups=[group])
        try:
            answer = await self._stub.Apply(request, timeout=self._timeout, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return [self._failed(error, op) for op, _, _ in elements]
        (result,) = answer.results
        if result.HasField("error"):
            reason = Reason(int(result.error.reason))
            outcome = UNKNOWN if reason in UNSURE else REFUSED
            return [End(outcome, why=reason.name)] * len(elements)
        ends: list[End] = []
        offset = 0
        for (op, _, _), status in zip(elements, result.statuses, strict=True):
            value = 0
            if OPS[op] in ANSWERS_VALUE:
                value = int.from_bytes(result.values[offset : offset + 8], "little")
                offset += 8
            ends.append(_end(op, Reason(status) if status else None, value))
        return ends

    @staticmethod
    def _failed(error: grpc.aio.AioRpcError, op: str) -> End:
        """A refusal of the daemon's says whether it was executed; an end without one says nothing."""
        for name, value in error.trailing_metadata() or ():
            if name == "grpc-status-details-bin" and isinstance(value, bytes):
                refusal = reasons.decode(status_pb2.Status.FromString(value))
                if refusal is not None:
                    return End(UNKNOWN if refusal.reason in UNSURE else REFUSED, why=refusal.reason.name)
        return End(REFUSED if op in READS else UNKNOWN, why=f"{error.code().name}: {error.details()}")


def _end(op: str, status: Reason | None, value: int) -> End:
    """An element of an Apply."""
    if status is None:
        if op in {"lookup", "lookup_and_delete"}:
            return End(OK, value)
        return End(OK, None if op == "update" else 1)
    if status is ABSENT.get(op):
        return End(OK, None if op in {"lookup", "lookup_and_delete"} else 0)
    return End(UNKNOWN if status in UNSURE else REFUSED, why=status.name)
