"""ElementService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack

from mapd.access.authorize import Authorized
from mapd.access.quotas import Dimension
from mapd.maps.answers import element_error
from mapd.maps.errors import MapError
from mapd.maps.groups import Group
from mapd.maps.job import Outcome
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd.maps.scan import Page
from mapd.maps.targets import Target
from mapd.rpc import convert, dumps, reading, targets
from mapd.rpc.admit import Use, Withheld, admitted, check_named, check_same, key_refused, used
from mapd.rpc.apply import check_groups, expiry, room_for, run_group
from mapd.rpc.guard import Call, Handler
from mapd.runtime.host import MapHost
from mapd_api import limits
from mapd_api.ops import Op, Verb
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.types_pb2 import MapRef


class ElementHandlers:
    """One coroutine for each method of the service."""

    def __init__(self, host: MapHost, epoch: str, draining: asyncio.Event) -> None:
        self._host = host
        self._epoch = epoch
        self._draining = draining

    def methods(self) -> Mapping[str, Handler]:
        """Handlers by method name."""
        return {
            "Lookup": self.lookup,
            "Update": self.update,
            "Delete": self.delete,
            "UpdateReference": self.update_reference,
            "CountEntries": self.count_entries,
            "GetNextKey": self.get_next_key,
            "Apply": self.apply,
            "Dump": self.dump,
            "Load": self.load,
        }

    async def lookup(self, call: Call, request: pb.LookupRequest) -> pb.LookupResponse:
        """One value, or none."""
        ops = bytes([Op.LOOKUP])
        group = Group(count=1, ops=ops, keys=request.key, flags=request.flags, touch=request.touch)
        outcome = await self._single(call, request.map, group)
        if outcome.statuses[0] == Reason.KEY_ABSENT:
            return pb.LookupResponse()
        return pb.LookupResponse(value=bytes(outcome.values.view))

    async def update(self, call: Call, request: pb.UpdateRequest) -> pb.UpdateResponse:
        """One element written."""
        group = Group(
            count=1,
            ops=bytes([convert.update_op(request.flag, "update")]),
            keys=request.key,
            values=request.value,
            flags=ElementFlag.LOCK if request.lock else 0,
        )
        await self._single(call, request.map, group)
        return pb.UpdateResponse()

    async def delete(self, call: Call, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """One element removed, if it was there."""
        group = Group(count=1, ops=bytes([Op.DELETE]), keys=request.key)
        outcome = await self._single(call, request.map, group)
        return pb.DeleteResponse(existed=outcome.statuses[0] != Reason.KEY_ABSENT)

    async def update_reference(
        self, call: Call, request: pb.UpdateReferenceRequest
    ) -> pb.UpdateReferenceResponse:
        """One element that stands for a kernel object."""
        op = convert.update_op(request.flag, targets.OPERATION)
        async with AsyncExitStack() as stack:
            opened = await stack.enter_async_context(
                admitted(self._host, call, request.map, targets.OPERATION)
            )
            # The map to be written first: who may not write it learns nothing of the other.
            target = targets.target(request)
            named: Target | Authorized[OpenMap]
            if target is None:
                inner = admitted(self._host, call, request.inner, targets.OPERATION, frozenset({Verb.READ}))
                named = await stack.enter_async_context(inner)
            else:
                check_named(self._host, call, opened, target)
                named = target
            await self._host.update_reference(opened, request.key, op, named, expires=call.expires)
        return pb.UpdateReferenceResponse()

    async def _single(self, call: Call, message: MapRef, group: Group) -> Outcome:
        """Run one element; its refusal is the call's."""
        op = Op(group.ops[0])
        async with used(self._host, call, message, operation_of(op), by_key=True) as use:
            await call.room(use.authorized.target.facts.value_stride if op is Op.LOOKUP else 0, use.operation)
            with call.audit.group(call, use.authorized, use.operation, group.ops, 1) as line:
                outcome = await self._host.apply(use.authorized, group, expires=call.expires)
                if Reason.POLICY in outcome.statuses:
                    raise key_refused(use)
                if line is not None:
                    line.told(outcome.statuses)
            for failure in outcome.errors:
                raise element_error(use.authorized.target.facts, op, failure)
        return outcome

    async def count_entries(self, call: Call, request: pb.CountEntriesRequest) -> pb.CountEntriesResponse:
        """How many elements there are."""
        async with admitted(self._host, call, request.map, "count") as opened:
            found = await self._host.count(opened)
        return pb.CountEntriesResponse(entries=found.entries, exact=found.exact, method=found.method)

    async def get_next_key(self, call: Call, request: pb.GetNextKeyRequest) -> pb.GetNextKeyResponse:
        """The key after a key."""
        async with admitted(self._host, call, request.map, "get_next_key") as opened:
            key = request.key if request.HasField("key") else None
            next_key = await self._host.next_key(opened, key)
        return pb.GetNextKeyResponse(next_key=next_key)

    async def apply(self, call: Call, request: pb.ApplyRequest) -> pb.ApplyResponse:
        """Groups in order; one that is refused does not stop the next."""
        if request.HasField("stamp"):
            raise convert.bad_spec(
                "a stamp is for the messages of a Session, where they are recognised when they come again; send this "
                "without a stamp",
                "apply",
            )
        check_groups(len(request.groups))
        if not request.groups:
            self._host.rates.take(call.principal, 1, lambda: "apply")
        arrived = time.monotonic()
        results: list[pb.GroupResult] = []
        room = room_for(len(request.groups))
        for message in request.groups:
            expires = expiry(message, arrived, call.expires)
            result = await run_group(self._host, call, message, expires, min(room, limits.COLUMN_BYTES))
            room -= max(0, result.ByteSize() - limits.REFUSAL_BYTES)
            results.append(result)
        return pb.ApplyResponse(results=results)

    async def dump(self, call: Call, request: pb.DumpRequest) -> None:
        """Header, chunks, trailer."""
        with self._host.shares.hold(call.principal, Dimension.STREAMS, "dump"):
            await self._dump(call, request)

    async def _dump(self, call: Call, request: pb.DumpRequest) -> None:
        async with used(self._host, call, request.map, "dump", by_key=True) as use:
            opened = use.authorized
            facts = opened.target.facts
            dump = self._host.dump(opened, dumps.options(request))

            async def begin() -> None:
                described = await self._host.describe(opened, Verb.READ)
                await call.context.write(dumps.header(described, dump.value_bytes))

            def emit(page: Page) -> Awaitable[None]:
                return write(dumps.chunks(page, facts, dump.value_bytes))

            async def write(messages: list[bytes]) -> None:
                for message in messages:
                    check_same(use, opened)
                    await call.context.write(message)

            trailer = await dump.run(begin, emit)
            await call.context.write(dumps.trailer(trailer, self._epoch))

    async def load(self, call: Call, _requests: object) -> pb.LoadResponse:
        """Columns written as they arrive."""
        with self._host.shares.hold(call.principal, Dimension.STREAMS, "load"):
            return await self._load(call)

    async def _load(self, call: Call) -> pb.LoadResponse:
        first = await reading.read_on(call.context, "load", self._draining)
        if first is None:
            raise convert.bad_spec("the stream ended before it named a map", "load")
        response = pb.LoadResponse()
        async with used(self._host, call, first.map, "load", by_key=True) as use:
            op = convert.update_op(first.flag, "load")
            message: pb.LoadRequest | None = first
            try:
                while message is not None:
                    await self._load_message(call, use, op, message, response)
                    message = await reading.read_on(call.context, "load", self._draining)
                    if message is not None and (message.HasField("map") or message.flag):
                        raise convert.bad_spec("map and flag stand in the first message only", "load")
            except MapError as error:
                raise _stopped(error, response) from None
        return response

    async def _load_message(
        self, call: Call, use: Use, op: Op, message: pb.LoadRequest, response: pb.LoadResponse
    ) -> None:
        count = message.columns.count
        with call.audit.group(call, use.again(), "load", bytes([op]), count) as line:
            for group in _slices(message, op, use.handle.opened.facts):
                outcome = await self._host.apply(use.again(), group, expires=call.expires)
                if line is not None:
                    line.told(outcome.statuses)
                done = outcome.statuses.count(0)
                room = limits.ERROR_DETAILS - len(response.errors)
                offset = response.applied + response.failed
                response.errors.extend(convert.element_errors(outcome.errors[:room], offset))
                response.applied += done
                response.failed += group.count - done


def _stopped(error: MapError, response: pb.LoadResponse) -> MapError:
    """A load that is refused in the middle says how far it came."""
    if not response.applied + response.failed:
        return error
    text = f"{error}; {response.applied} elements of this load had been written before, {response.failed} refused"
    metadata = {**error.refusal.metadata, "applied": response.applied, "failed": response.failed}
    if isinstance(error, Withheld):
        return Withheld(error.reason, text, error.decision, **metadata)
    return MapError(error.reason, text, **metadata)


def _slices(message: pb.LoadRequest, op: Op, facts: MapFacts) -> list[Group]:
    """One message as groups that a syscall may take."""
    columns = message.columns
    for what, got, stride in (
        ("key", len(columns.keys), facts.key_stride),
        ("value", len(columns.values), facts.value_stride),
    ):
        if got != columns.count * stride:
            raise MapError(
                Reason.BAD_COLUMNS,
                f"load {facts.label}: the {what} column has {got} bytes; {columns.count} {what}s of {stride} bytes "
                "each are due",
                **facts.about("load"),
                given=got,
                expected=columns.count * stride,
            )
    size = limits.BATCH_ELEMENTS
    return [
        Group(
            count=min(size, columns.count - start),
            ops=bytes([op]),
            asked="load",
            flags=ElementFlag.LOCK if facts.has_lock else 0,
            keys=columns.keys[start * facts.key_stride : (start + size) * facts.key_stride],
            values=columns.values[start * facts.value_stride : (start + size) * facts.value_stride],
        )
        for start in range(0, columns.count, size)
    ]
