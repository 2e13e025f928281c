"""A daemon of the tests' own: the real proto on a real socket, dicts for maps, faults on request.

It shares no code with mapd; what it answers follows the comments of the proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from mapd_api import reasons
from mapd_api.layout import value_stride
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason, Refusal
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, host_pb2, maps_pb2, types_pb2

POSSIBLE_CPUS = 3
EPOCH = "epoch-1"

Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass
class FakeMap:
    """One map; elements in insertion order."""

    info: types_pb2.MapInfo
    data: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])


def map_info(
    name: str, type: MapType = MapType.HASH, key_size: int = 4, value_size: int = 8, max_entries: int = 100
) -> types_pb2.MapInfo:
    return types_pb2.MapInfo(
        id=41,
        type=types_pb2.MapType.Name(int(type)),
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        key_stride=key_size,
        value_stride=value_stride(type, value_size, POSSIBLE_CPUS),
        name=name,
        kernel_name=name.rpartition("/")[2],
        supported_operations=["lookup", "update", "dump"],
        iteration=types_pb2.ITERATION_EXACT,
    )


@dataclass
class Daemon:
    """State and faults of the server."""

    maps: dict[str, FakeMap] = field(default_factory=dict[str, FakeMap])
    handles: dict[int, tuple[str, FakeMap]] = field(default_factory=dict[int, tuple[str, FakeMap]])
    sessions: set[str] = field(default_factory=set[str])
    sessions_opened: int = 0
    features: tuple[str, ...] = ()
    byteorder: str = "little"
    # Full names of methods that this daemon does not have.
    missing: set[str] = field(default_factory=set[str])
    # What the daemon does instead of answering a method, by the method's last name.
    hooks: dict[str, Handler] = field(default_factory=dict[str, Handler])
    applied: list[elements_pb2.ApplyRequest] = field(default_factory=list[elements_pb2.ApplyRequest])
    loaded: list[elements_pb2.LoadRequest] = field(default_factory=list[elements_pb2.LoadRequest])
    chunk_elements: int = 2
    dump_trailer: bool = True
    dump_complete: bool = True
    # Set when a dump's handler has ended, however it ended.
    dump_ended: asyncio.Event = field(default_factory=asyncio.Event)
    goodbye: asyncio.Event = field(default_factory=asyncio.Event)
    next_handle: int = 1
    target: str = ""
    server: aio.Server | None = None

    def add(self, info: types_pb2.MapInfo) -> FakeMap:
        self.maps[info.name] = FakeMap(info)
        return self.maps[info.name]

    def _handle(self, session: str, found: FakeMap) -> int:
        self.next_handle += 1
        self.handles[self.next_handle] = (session, found)
        return self.next_handle

    # MapService

    async def GetServerInfo(self, request: Any, context: Any) -> maps_pb2.GetServerInfoResponse:  # noqa: ARG002, N802
        return maps_pb2.GetServerInfoResponse(
            server=maps_pb2.ServerInfo(
                version="0.0.9",
                epoch=EPOCH,
                boot_id="boot",
                node="host",
                byteorder=self.byteorder,
                possible_cpus=POSSIBLE_CPUS,
                features=self.features,
                namespace="ns",
            )
        )

    async def OpenMap(self, request: maps_pb2.OpenMapRequest, context: Any) -> maps_pb2.OpenMapResponse:  # noqa: N802
        name = request.map.name if "/" in request.map.name else f"ns/{request.map.name}"
        if request.session not in self.sessions:
            await refuse(context, Refusal(Reason.STALE_HANDLE, "no such session"))
        if name not in self.maps:
            await refuse(context, Refusal(Reason.MAP_NOT_FOUND, f"open {name}: no such map", {"map": name}))
        found = self.maps[name]
        return maps_pb2.OpenMapResponse(handle=self._handle(request.session, found), info=found.info)

    async def CreateMap(self, request: maps_pb2.CreateMapRequest, context: Any) -> maps_pb2.CreateMapResponse:  # noqa: N802
        name = f"ns/{request.named.name}"
        if name in self.maps and not request.exist_ok:
            await refuse(context, Refusal(Reason.MAP_EXISTS, f"create {name}: it exists"))
        created = name not in self.maps
        if created:
            self.add(
                map_info(
                    name,
                    MapType(int(request.type)),
                    request.key_size,
                    request.value_size,
                    request.max_entries,
                )
            )
        found = self.maps[name]
        return maps_pb2.CreateMapResponse(
            handle=self._handle(request.session, found), info=found.info, created=created
        )

    async def CloseMap(self, request: maps_pb2.CloseMapRequest, context: Any) -> maps_pb2.CloseMapResponse:  # noqa: ARG002, N802
        self.handles.pop(request.handle, None)
        return maps_pb2.CloseMapResponse()

    async def ListMaps(self, request: maps_pb2.ListMapsRequest, context: Any) -> maps_pb2.ListMapsResponse:  # noqa: ARG002, N802
        names = sorted(self.maps)
        at = int(request.page_token or 0)
        return maps_pb2.ListMapsResponse(
            maps=[self.maps[name].info for name in names[at : at + 1]],
            next_page_token=str(at + 1) if at + 1 < len(names) else "",
            sources=["names"],
            not_looked_at=[f"page {at}"],
        )

    async def FreezeMap(self, request: Any, context: Any) -> maps_pb2.FreezeMapResponse:  # noqa: ARG002, N802
        return maps_pb2.FreezeMapResponse()

    async def UnpinMap(self, request: maps_pb2.UnpinMapRequest, context: Any) -> maps_pb2.UnpinMapResponse:  # noqa: ARG002, N802
        self.maps.pop(f"ns/{request.map.name}", None)
        return maps_pb2.UnpinMapResponse()

    # ElementService

    async def Apply(self, request: elements_pb2.ApplyRequest, context: Any) -> elements_pb2.ApplyResponse:  # noqa: ARG002, N802
        self.applied.append(request)
        return elements_pb2.ApplyResponse(results=[self._group(group) for group in request.groups])

    def _group(self, group: elements_pb2.OpGroup) -> elements_pb2.GroupResult:
        if group.map.handle not in self.handles:
            result = elements_pb2.GroupResult()
            result.error.reason = int(Reason.STALE_HANDLE)  # type: ignore[assignment]  # enum numbers are ints
            result.error.message = "no such handle"
            return result
        found = self.handles[group.map.handle][1]
        op = Op(group.ops[0])
        statuses, values = bytearray(), bytearray()
        # Once: protobuf makes new bytes of a field each time that it is looked at.
        given_keys, given_values = group.keys, group.values
        key_bytes, value_bytes = found.info.key_stride, found.info.value_stride
        for at in range(group.count):
            key = given_keys[at * key_bytes : (at + 1) * key_bytes]
            value = given_values[at * value_bytes : (at + 1) * value_bytes]
            status, answer = self._element(found, op, key, value)
            statuses.append(status)
            if op in ANSWERS_VALUE:
                values += answer or bytes(value_bytes)
        return elements_pb2.GroupResult(statuses=bytes(statuses), values=bytes(values))

    @staticmethod
    def _element(found: FakeMap, op: Op, key: bytes, value: bytes) -> tuple[Reason, bytes]:
        present = key in found.data
        if op in TAKES_VALUE:
            if op is Op.UPDATE_NOEXIST and present:
                return Reason.KEY_EXISTS, b""
            if op is Op.UPDATE_EXIST and not present:
                return Reason.KEY_MISSING, b""
            if not present and len(found.data) >= found.info.max_entries:
                return Reason.MAP_FULL, b""
            found.data[key] = value
            return Reason.DONE, b""
        if not present:
            return Reason.KEY_ABSENT, b""
        return Reason.DONE, found.data[key] if op is Op.LOOKUP else found.data.pop(key)

    async def Dump(self, request: elements_pb2.DumpRequest, context: Any) -> None:  # noqa: N802
        try:
            found = self.handles[request.map.handle][1]
            await context.write(elements_pb2.DumpResponse(header=elements_pb2.DumpHeader(info=found.info)))
            await self._chunks(request, found, context)
            if self.dump_trailer:
                trailer = elements_pb2.DumpTrailer(
                    entries=len(found.data), complete=self.dump_complete, incomplete_reason="it was cut"
                )
                await context.write(elements_pb2.DumpResponse(trailer=trailer))
        finally:
            self.dump_ended.set()

    async def _chunks(self, request: elements_pb2.DumpRequest, found: FakeMap, context: Any) -> None:
        keys = [key for key in found.data if key.startswith(request.prefix)]
        first = int(request.resume_token or 0)
        last = min(len(keys), first + request.limit) if request.limit else len(keys)
        for at in range(first, last, self.chunk_elements):
            part = keys[at : min(at + self.chunk_elements, last)]
            columns = types_pb2.Columns(count=len(part))
            if request.columns != elements_pb2.DUMP_COLUMNS_VALUES:
                columns.keys = b"".join(part)
            if request.columns != elements_pb2.DUMP_COLUMNS_KEYS:
                columns.values = b"".join(found.data[key] for key in part)
            chunk = elements_pb2.DumpChunk(columns=columns, token=str(at + len(part)).encode())
            await context.write(elements_pb2.DumpResponse(chunk=chunk))

    async def Load(self, requests: AsyncIterator[elements_pb2.LoadRequest], context: Any) -> Any:  # noqa: ARG002, N802
        applied = 0
        found: FakeMap | None = None
        async for request in requests:
            self.loaded.append(request)
            if found is None:
                found = self.handles[request.map.handle][1]
            count, keys, values = request.columns.count, request.columns.keys, request.columns.values
            key_bytes, value_bytes = found.info.key_stride, found.info.value_stride
            for at in range(count):
                key = keys[at * key_bytes : (at + 1) * key_bytes]
                found.data[key] = values[at * value_bytes : (at + 1) * value_bytes]
            applied += count
        return elements_pb2.LoadResponse(applied=applied)

    async def Session(self, requests: AsyncIterator[elements_pb2.SessionRequest], context: Any) -> None:  # noqa: N802
        self.sessions_opened += 1
        session = f"session-{self.sessions_opened}"
        self.sessions.add(session)
        try:
            await anext(requests)
            opened = elements_pb2.SessionOpened(session=session, epoch=EPOCH)
            await context.write(elements_pb2.SessionResponse(opened=opened))
            ended = asyncio.ensure_future(_exhaust(requests))
            asked_to_go = asyncio.ensure_future(self.goodbye.wait())
            try:
                await asyncio.wait({ended, asked_to_go}, return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    farewell = elements_pb2.Goodbye(message="draining")
                    await context.write(elements_pb2.SessionResponse(goodbye=farewell))
                    await ended
            finally:
                ended.cancel()
                asked_to_go.cancel()
        finally:
            self.sessions.discard(session)
            for handle in [h for h, (owner, _) in self.handles.items() if owner == session]:
                del self.handles[handle]


async def _exhaust(requests: AsyncIterator[Any]) -> None:
    async for _ in requests:
        pass


async def refuse(context: Any, refusal: Refusal) -> None:
    """End a call as the daemon does."""
    status = reasons.encode(refusal)
    await context.abort(
        reasons.STATUS[refusal.reason],
        refusal.message,
        (("grpc-status-details-bin", status.SerializeToString()),),
    )


class _Router(grpc.GenericRpcHandler):
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        service, name = handler_call_details.method.rsplit("/", 1)
        modules: dict[str, Any] = {"MapService": maps_pb2, "HostService": host_pb2}
        module = modules.get(service.rpartition(".")[2], elements_pb2)
        behaviour = self._daemon.hooks.get(name) or getattr(self._daemon, name, None)
        if behaviour is None or name in self._daemon.missing:
            return None
        request: Any = getattr(module, f"{name}Request")
        response: Any = getattr(module, f"{name}Response")
        shapes: dict[str, Any] = {
            "Dump": grpc.unary_stream_rpc_method_handler,
            "Load": grpc.stream_unary_rpc_method_handler,
            "Session": grpc.stream_stream_rpc_method_handler,
        }
        shape = shapes.get(name, grpc.unary_unary_rpc_method_handler)
        handler: grpc.RpcMethodHandler[Any, Any] = shape(
            behaviour,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )
        return handler


@asynccontextmanager
async def serving(folder: Path) -> AsyncGenerator[Daemon]:
    """A running daemon on a socket in ``folder``."""
    daemon = Daemon()
    daemon.target = f"unix:{folder / 'mapd.sock'}"
    server = aio.server()
    server.add_generic_rpc_handlers([_Router(daemon)])
    server.add_insecure_port(daemon.target)
    await server.start()
    daemon.server = server
    try:
        yield daemon
    finally:
        await server.stop(None)
