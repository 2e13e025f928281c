"""The daemon between the wire and the kernel, without either: decode, check, authorise, plan, on maps in memory.

A call is what grpc.aio would make of it: its method's guarded handler, the request as the reader has it, and a context
that keeps what is answered. Nothing of it waits for a network.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc.aio
import structlog
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status

from mapd.access.authorize import Authorizer
from mapd.access.policy.file import parse
from mapd.access.policy.holder import PolicyHolder
from mapd.access.principal import Principal
from mapd.access.quotas import in_force, owners_in_force
from mapd.maps.store import MapStore
from mapd.memory import MemoryKernel
from mapd.rpc.access import AccessHandlers
from mapd.rpc.apply import Applier
from mapd.rpc.caller import Caller, always
from mapd.rpc.elements import ElementHandlers
from mapd.rpc.guard import Guard, Handler, Reader
from mapd.rpc.host import HostHandlers
from mapd.rpc.leases import LeaseHandlers
from mapd.rpc.maps import MapHandlers
from mapd.rpc.server_info import Facts
from mapd.rpc.session import SessionHandlers
from mapd.runtime.budget import ByteBudget
from mapd.runtime.handles import HandleTable
from mapd.runtime.host import MapHost
from mapd.runtime.leases import Leases
from mapd.runtime.pool import Lane, LaneSize, SyscallPool
from mapd.runtime.sessions import Sessions
from mapd.runtime.shares import Shares
from mapd_api import contract
from mapd_api.reasons import Reason, decode

ROOT: Final = "/bpf/mapd"
CPUS: Final = 2
METHODS: Final = [method for service in contract.SERVICES for method in service.methods]
WAIT_S: Final = 10.0

POLICY: Final = """
[principals.web]
users = []
[principals.web.quotas]
maps = 16
map_bytes = "8MiB"
handles = 32
streams = 4
dumps = 2
[principals.admin]
users = []
[[rules]]
who = ["web"]
role = "owner"
owners = ["self"]
[[rules]]
who = ["web"]
verbs = ["list", "read", "write"]
names = ["admin/*"]
key_prefixes = ["0a"]
[[rules]]
who = ["web"]
verbs = ["delete"]
names = ["web/kept*"]
effect = "deny"
"""
"""One who may some of everything: rules by owner, by name and key, and one that denies."""

PRINCIPALS: Final = (
    Principal(name="admin", namespace="admin"),
    Principal(name="web", namespace="web"),
    Principal(name="stranger", namespace="stranger"),
)


class Ended(grpc.aio.AbortError):
    """A call was ended with a status."""


class FakeContext:
    """What handlers need of grpc's."""

    def __init__(self, messages: Sequence[object]) -> None:
        self._messages = list(messages)
        self.status: Status | None = None
        self.answers = 0

    def time_remaining(self) -> float:
        """Until the deadline."""
        return WAIT_S

    def invocation_metadata(self) -> tuple[()]:
        """Nobody sends any."""
        return ()

    def peer(self) -> str:
        """As of a Unix socket."""
        return "unix:"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """No TLS."""
        return {}

    async def read(self) -> object:
        """The next message, or the end."""
        return self._messages.pop(0) if self._messages else grpc.aio.EOF

    async def write(self, _: object) -> None:
        """Taken."""
        self.answers += 1

    async def abort_with_status(self, status: Any) -> None:
        """Ends the call."""
        packed = dict(status.trailing_metadata).get("grpc-status-details-bin", b"")
        self.status = Status.FromString(packed)
        raise Ended


class Fault(AssertionError):
    """The daemon broke its word."""


class Stage:
    """One daemon, for inputs one after the other."""

    def __init__(self) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # nobody reads it
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._begin())

    async def _begin(self) -> None:
        kernel = MemoryKernel(CPUS, ["/bpf", ROOT, "/bpf/others"])
        pool = SyscallPool({lane: LaneSize(threads=1, queue=100) for lane in Lane})
        store = MapStore(
            kernel=kernel,
            possible_cpus=CPUS,
            boot_id=uuid.UUID(int=7),
            names_root=ROOT,
            pin_roots=("/bpf/others",),
        )
        holder = PolicyHolder(parse(POLICY, "policy.toml"))
        handles = HandleTable(shares=Shares(in_force(holder)))
        host = MapHost(store, pool, handles, ByteBudget(), owners=owners_in_force(holder))
        guard = Guard(Authorizer(holder), host.rates)
        facts = Facts(
            epoch="00ff",
            boot_id=store.boot_id,
            node="host",
            kernel_release="6.18",
            possible_cpus=CPUS,
            profile="inspector",
            backend="memory",
            pin_root=ROOT,
            features=(),
        )
        leases = Leases(store, host.reach, pool)
        maps = MapHandlers(host, facts, leases)
        conversations = SessionHandlers(Applier(host), Sessions(handles, facts.epoch), guard, None)
        self._table: Mapping[str, Handler] = {
            **maps.methods(),
            **LeaseHandlers(leases, maps).methods(),
            **ElementHandlers(host, facts.epoch, guard.draining).methods(),
            **conversations.methods(),
            **AccessHandlers(host).methods(),
            **HostHandlers(host).methods(),
        }
        self._guard = guard
        self._rights = contract.check()
        self._handles = handles

    def call(self, number: int, who: int, messages: Sequence[bytes]) -> str:
        """One call to its end: "ok", or the reason that its caller was told.

        Raises:
            Fault: it was a fault of the daemon, or it never ended.
        """
        method = METHODS[number % len(METHODS)]
        principal = PRINCIPALS[who % len(PRINCIPALS)]
        return self._loop.run_until_complete(self._call(method, principal, messages))

    async def _call(self, method: Any, principal: Principal, messages: Sequence[bytes]) -> str:
        name = contract.full_name(method)
        unary = not (method.client_streaming or method.server_streaming)
        handler: Any = self._guard.wrap(
            name,
            self._rights[name],
            always(Caller(principal=principal, attested_by="fuzz")),
            self._table[method.name],
            unary=unary,
        )
        kind: type[Message] = GetMessageClass(method.input_type)
        read = [Reader(kind)(one) for one in messages] or [kind()]
        context = FakeContext(read)
        given = _streamed(read) if method.client_streaming and not method.server_streaming else read[0]
        if method.client_streaming and method.server_streaming:
            given = _streamed(read)
        try:
            async with asyncio.timeout(WAIT_S):
                answer = await handler(given, context)
        except Ended:
            return self._told(name, context)
        except TimeoutError:
            raise Fault(f"{name} did not end within {WAIT_S} s") from None
        if isinstance(answer, Message):
            answer.SerializeToString()
        return "ok"

    @staticmethod
    def _told(name: str, context: FakeContext) -> str:
        assert context.status is not None
        refusal = decode(context.status)
        if refusal is None:
            raise Fault(f"{name} ended without a reason: {context.status.message}")
        if refusal.reason is Reason.INTERNAL:
            raise Fault(f"{name}: a fault of the daemon: {refusal.message}")
        return refusal.reason.name

    def close_handles(self) -> None:
        """Those that nobody's session owns."""
        self._handles.close_all()


async def _streamed(messages: Sequence[object]) -> Any:
    for one in messages:
        yield one
