"""Every principal's server on its own socket: made, published, drained and stopped together.

The handlers are the same for all; what differs is who a call comes from, and that is fixed when a server is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import grpc.aio

from mapd.access.policy.hosts import Admission, Admissions
from mapd.access.policy.model import Member, Policy
from mapd.access.principal import Principal
from mapd.rpc.caller import Caller, always
from mapd.rpc.guard import Guard, Handler
from mapd.rpc.server import Health, build
from mapd.rpc.sockets import PrincipalSocket


@dataclass(frozen=True, slots=True, kw_only=True)
class _Server:
    """One principal's: what clients see of it ends with ``withdraw`` and ``stop``."""

    caller: Caller
    socket: PrincipalSocket
    health: Health
    server: grpc.aio.Server

    @classmethod
    async def start(
        cls,
        runtime_dir: Path,
        member: Member,
        admission: Admission,
        guard: Guard,
        handlers: Mapping[str, Handler],
    ) -> _Server:
        """A server that answers on its staged socket, which nobody can reach yet.

        Raises:
            SocketError: the socket cannot be made.
        """
        principal = Principal(name=member.name, namespace=member.namespace)
        socket = PrincipalSocket.prepare(runtime_dir, member.name, admission.uids, admission.gids)
        caller = Caller(principal=principal, attested_by=f"socket:{socket.path}")
        health = Health()
        server = build(always(caller), guard, handlers, health)
        server.add_insecure_port(socket.address)
        await server.start()
        await health.set_serving()
        return cls(caller=caller, socket=socket, health=health, server=server)

    async def end(self) -> None:
        """Cut off whoever is connected; removes the socket."""
        self.socket.withdraw()
        await self.server.stop(0)


class Servers:
    """Owns the server of each principal. For one event loop.

    Args:
        handlers: every method's by full name.
    """

    def __init__(self, runtime_dir: Path, guard: Guard, handlers: Mapping[str, Handler]) -> None:
        self.runtime_dir: Final = runtime_dir
        self._guard = guard
        self._handlers = handlers
        self._servers: dict[str, _Server] = {}

    @property
    def sockets(self) -> Mapping[str, Path]:
        """Where each principal connects."""
        return MappingProxyType({name: each.socket.path for name, each in self._servers.items()})

    async def start(self, policy: Policy, admitted: Admissions) -> None:
        """A server for every principal. Nobody can connect to any before all of them are there.

        Raises:
            SocketError: a socket cannot be made; ``stop`` removes the others.
        """
        for name, member in policy.members.items():
            self._servers[name] = await _Server.start(
                self.runtime_dir, member, admitted.by_principal[name], self._guard, self._handlers
            )
        for each in self._servers.values():
            each.socket.publish()

    async def drain(self) -> None:
        """Tell health checks and sessions of every server that the daemon stops. Waits for nobody."""
        await asyncio.gather(*(each.health.set_draining() for each in self._servers.values()))
        self._guard.draining.set()

    async def stop(self) -> None:
        """End all servers and whatever still runs in them. Idempotent."""
        servers = list(self._servers.values())
        self._servers.clear()
        await asyncio.gather(*(each.end() for each in servers))
