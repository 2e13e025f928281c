"""grpc.aio servers: one per principal, built from the contract's descriptors."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mapd.maps.errors import MapError
from mapd.rpc.caller import Context, Identify
from mapd.rpc.guard import Guard, Handler, Reader
from mapd.rpc.health import Health
from mapd_api import contract, limits
from mapd_api.reasons import encode, to_grpc

OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", limits.CONCURRENT_CALLS),
    ("grpc.max_metadata_size", 8 << 10),
    # A second daemon must fail to bind, not share a TCP port silently.
    ("grpc.so_reuseport", 0),
    # Who connects and says nothing: HTTP/2's first frames have so long to come.
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE_S * 1_000)),
    # Who says no more than that.
    ("grpc.max_connection_idle_ms", int(limits.CONNECTION_IDLE_S * 1_000)),
    # Who began a call and answers no ping: its messages are not waited for without end.
    ("grpc.keepalive_time_ms", int(limits.PING_AFTER_S * 1_000)),
    ("grpc.keepalive_timeout_ms", int(limits.PING_S * 1_000)),
    # It is this one that ends the connection: with the one above alone it stayed (grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", int(limits.PING_S * 1_000)),
)

HEALTH: Final[Any] = health_pb2.DESCRIPTOR.services_by_name["Health"]
REFLECTION: Final[Any] = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]


def build(
    identify: Identify,
    guard: Guard,
    handlers: Mapping[str, Handler],
    health_service: Health,
    *,
    connections: int | None = None,
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Server:
    """A server whose callers ``identify`` tells; not bound to an address yet.

    ``handlers`` by full method name ("/mapd_api.v1.MapService/ListMaps").

    Args:
        connections: at a time, of each address; one more is closed as soon as it is made. None: no limit.
        options: of the channel, where they are others than of a socket.

    Raises:
        ContractError: a method states no rights.
        KeyError: a method has no handler.
    """
    rights = contract.check()
    limit = () if connections is None else (("grpc.max_allowed_incoming_connections", connections),)
    server = grpc.aio.server(options=tuple({**dict(OPTIONS), **dict(limit), **dict(options)}.items()))
    # Generic handlers only: grpcio's accept loop waits on a future for each *registered* method on
    # every call, 140 us against 165 us a call at 40 methods (grpc/grpc#43461).
    for service in contract.SERVICES:
        table = {
            method.name: _method_handler(
                method,
                guard.wrap(name, rights[name], identify, handlers[name], unary=_is_unary(method)),
            )
            for method in service.methods
            for name in [contract.full_name(method)]
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, table),))
    names = [service.full_name for service in (*contract.SERVICES, HEALTH, REFLECTION)]
    for service, servicer in (
        (HEALTH, health_service.servicer),
        (REFLECTION, reflection.aio.ReflectionServicer(names)),
    ):
        table = {
            method.name: _method_handler(method, _for_callers(identify, getattr(servicer, method.name)))
            for method in service.methods
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, table),))
    return server


def _is_unary(method: MethodDescriptor) -> bool:
    return not (method.client_streaming or method.server_streaming)


def _for_callers(identify: Identify, handler: Any) -> Any:
    """A handler of a standard service: it needs no rights, but a caller who is somebody."""

    async def known(context: Context) -> None:
        try:
            identify(context)
        except MapError as error:
            await context.abort_with_status(to_grpc(encode(error.refusal)))

    if inspect.isasyncgenfunction(handler):

        async def streamed(request: Any, context: Context) -> AsyncGenerator[Any]:
            await known(context)
            async for response in handler(request, context):
                yield response

        return streamed

    async def answered(request: Any, context: Context) -> Any:
        await known(context)
        return await handler(request, context)

    return answered


def _encoded(message: Message | bytes) -> bytes:
    """A response; a session keeps its replies as bytes."""
    return message if isinstance(message, bytes) else message.SerializeToString()


def _method_handler(method: MethodDescriptor, handler: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Grpc's description of one method, by its streaming kind."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    found: grpc.RpcMethodHandler[Any, Any] = make(
        handler,
        request_deserializer=Reader(GetMessageClass(method.input_type)),
        response_serializer=_encoded,
    )
    return found
