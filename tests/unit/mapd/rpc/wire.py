"""A server over a dict kernel on a real socket, and a client that speaks the contract's methods by name.

The kernel proves our logic, never Linux; the gRPC between is the real one.
"""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

from mapd.access.authorize import Authorizer
from mapd.access.policy.holder import PolicyHolder
from mapd.access.policy.model import Policy
from mapd.access.principal import Principal
from mapd.bpf import FaultyKernel
from mapd.maps.store import MapStore
from mapd.rpc.access import AccessHandlers
from mapd.rpc.apply import Applier
from mapd.rpc.caller import Caller, always
from mapd.rpc.elements import ElementHandlers
from mapd.rpc.guard import Guard, Handler
from mapd.rpc.health import Health
from mapd.rpc.host import HostHandlers
from mapd.rpc.leases import LeaseHandlers
from mapd.rpc.maps import MapHandlers
from mapd.rpc.server import build
from mapd.rpc.server_info import Facts
from mapd.rpc.session import Age, SessionHandlers
from mapd.runtime.budget import ByteBudget
from mapd.runtime.handles import HandleTable
from mapd.runtime.host import MapHost
from mapd.runtime.leases import Leases
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.sessions import Sessions
from mapd_api import contract
from mapd_api.reasons import Refusal, decode
from tests.unit.mapd.dictkernel import CPUS, ROOT, DictKernel

EPOCH = "00ff"
ADMIN = Principal(name="admin", namespace="admin")
STRANGER = Principal(name="web", namespace="web")
METHODS = {method.name: method for service in contract.SERVICES for method in service.methods}
WAIT_S = 10.0


@dataclass
class Wire:
    """One server and one client of it."""

    kernel: DictKernel
    faulty: FaultyKernel
    pool: SyscallPool
    host: MapHost
    guard: Guard
    sessions: Sessions
    health: Health
    server: grpc.aio.Server
    channel: grpc.aio.Channel
    address: str

    def another_channel(self) -> grpc.aio.Channel:
        """A connection of its own; whoever asks for it closes it."""
        return grpc.aio.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])

    @property
    def hops(self) -> int:
        """Hops to threads so far, of short work."""
        return self.pool.counts(Lane.POINT).hops

    def callable(self, name: str) -> Any:
        """Grpc's callable of a method, by the method's own name."""
        method = METHODS[name]
        make: Any = {
            (False, False): self.channel.unary_unary,
            (False, True): self.channel.unary_stream,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }[method.client_streaming, method.server_streaming]
        return make(
            contract.full_name(method),
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

    def raw(self, path: str) -> Any:
        """A unary method that takes and gives bytes."""
        channel: Any = self.channel
        return channel.unary_unary(path)

    async def call(self, request: Message, timeout: float = WAIT_S) -> Any:
        """The answer to a request of a unary method, which its type names."""
        name = request.DESCRIPTOR.name.removesuffix("Request")
        return await self.callable(name)(request, timeout=timeout)

    async def refusal(self, request: Message, timeout: float = WAIT_S) -> Refusal:
        """Why a request is refused."""
        try:
            answer = await self.call(request, timeout)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"it was answered: {answer}")


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The google.rpc.Status of a failed call."""
    packed = dict(error.trailing_metadata()).get("grpc-status-details-bin")
    assert isinstance(packed, bytes), f"{error.code()} {error.details()}"
    return status_pb2.Status.FromString(packed)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """The refusal in a failed call; it is a fault of the daemon if there is none."""
    found = decode(status_of(error))
    assert found is not None, f"{error.code()} {error.details()}"
    return found


@asynccontextmanager
async def serving(
    handlers: Mapping[str, Handler] | None = None,
    principal: Principal = ADMIN,
    *,
    age: Age | None = None,
    inline_elements: int = 0,
    policy: Policy | None = None,
) -> AsyncGenerator[Wire]:
    """The real handlers, those in ``handlers`` (by method name) replaced; ended, all of it, afterwards."""
    kernel = DictKernel()
    faulty = FaultyKernel(kernel)
    pool = SyscallPool({lane: LaneSize(threads=2, queue=100) for lane in Lane})
    store = MapStore(
        kernel=faulty,
        possible_cpus=CPUS,
        boot_id=uuid.UUID(int=7),
        names_root=ROOT,
        pin_roots=("/bpf",),
    )
    host = MapHost(store, pool, HandleTable(), ByteBudget(), inline_elements=inline_elements)
    holder = None if policy is None else PolicyHolder(policy)
    guard = Guard(Authorizer(holder))
    health = Health(guard.services)
    sessions = Sessions(host.handles, EPOCH)
    conversations = SessionHandlers(Applier(host), sessions, guard, age)
    facts = Facts(
        epoch=EPOCH,
        boot_id=store.boot_id,
        node="host",
        kernel_release="6.18",
        possible_cpus=CPUS,
        profile="minimal",
        backend="dict",
        pin_root=ROOT,
        features=("apply",),
    )
    leases = Leases(store, host.reach, pool)
    maps = MapHandlers(host, facts, leases)
    table: dict[str, Handler] = {
        **maps.methods(),
        **LeaseHandlers(leases, maps).methods(),
        **ElementHandlers(host, EPOCH, guard.draining).methods(),
        **conversations.methods(),
        **AccessHandlers(host).methods(),
        **HostHandlers(host).methods(),
        **(handlers or {}),
    }
    server = build(
        always(Caller(principal=principal, attested_by="test")),
        guard,
        {contract.full_name(method): table[name] for name, method in METHODS.items()},
        health,
    )
    with tempfile.TemporaryDirectory(prefix="mapd-") as folder:
        address = f"unix:{Path(folder) / 's'}"
        server.add_insecure_port(address)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                yield Wire(kernel, faulty, pool, host, guard, sessions, health, server, channel, address)
        finally:
            await server.stop(0)
            await guard.wait_ended(WAIT_S)
            await conversations.aclose()
            host.handles.close_all()
            assert await pool.close(WAIT_S)
    assert kernel.open_fds == 0
    assert guard.running == 0
    assert (len(sessions), host.handles.sessions, sessions.kept_replies) == (0, 0, 0)


async def turns(count: int = 20) -> None:
    """Let the loop run what is ready."""
    for _ in range(count):
        await asyncio.sleep(0)
