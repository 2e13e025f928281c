"""Every principal's server on its own socket: made, published, replaced, drained and stopped.

The handlers are the same for all; what differs is who a call comes from, and that is fixed when a server is made.
Who is connected stays so, whatever the socket's ACL says later; so a principal that shall admit fewer than before gets
another server, and its old one ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import grpc.aio
import structlog

from mapd.access.policy.hosts import Admissions
from mapd.access.policy.model import Policy
from mapd.access.principal import Principal
from mapd.rpc import crashes
from mapd.rpc.acl import Admitted
from mapd.rpc.caller import Caller, always
from mapd.rpc.guard import Guard, Handler
from mapd.rpc.health import Health
from mapd.rpc.server import build
from mapd.rpc.socket_checks import SocketError
from mapd.rpc.socket_trials import Others, Trial
from mapd.rpc.sockets import PrincipalSocket, clean_dead
from mapd.runtime.pool import Lane, SyscallPool
from mapd_api.reasons import Reason, Refusal

_log = structlog.stdlib.get_logger("mapd.rpc")

RETIRE_S: Final = 1.0
"""Calls under way on a server that is replaced get so long; sessions go on at the new one at once."""

AGAIN_S: Final = 1.0
"""Between two tries to put another server in the place of one that ended by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a principal's server shall be like."""

    principal: Principal
    admitted: Admitted
    connections: int | None

    def needs_only_acl(self, now: _Wanted) -> bool:
        """Whether the server that is ``now`` can become this one while its clients stay connected."""
        same = (self.principal, self.connections) == (now.principal, now.connections)
        return same and now.admitted.within(self.admitted)


@dataclass(slots=True, kw_only=True)
class _Server:
    """One principal's; ``end`` or ``retire`` is the last that is done with it."""

    wanted: _Wanted
    caller: Caller
    leaving: asyncio.Event
    socket: PrincipalSocket
    server: grpc.aio.Server
    health: Health

    @classmethod
    async def start(
        cls,
        runtime_dir: Path,
        wanted: _Wanted,
        guard: Guard,
        handlers: Mapping[str, Handler],
        crashed: Callable[[Caller, BaseException], None],
    ) -> Self:
        """A server that answers on its staged socket, which nobody can reach yet.

        Args:
            crashed: is told whose server has ended by itself, and why.

        Raises:
            SocketError: the socket cannot be made.
        """
        socket = PrincipalSocket.prepare(runtime_dir, wanted.principal.name, wanted.admitted)
        leaving, health = asyncio.Event(), Health(guard.services)
        caller = Caller(principal=wanted.principal, attested_by=f"socket:{socket.path}", leaving=leaving)
        server = build(always(caller), guard, handlers, health, connections=wanted.connections)
        try:
            server.add_insecure_port(socket.address)
            await crashes.start(server, partial(crashed, caller))
            await health.set_serving()
        except BaseException:
            socket.withdraw()
            await server.stop(0)
            raise
        return cls(wanted=wanted, caller=caller, leaving=leaving, socket=socket, server=server, health=health)

    async def end(self, grace: float = 0.0) -> None:
        """Remove the socket, if it is not another's by now; calls that do not end in ``grace`` s are cut off."""
        self.socket.withdraw()
        await self.server.stop(grace)

    async def retire(self) -> None:
        """Tell sessions to go on elsewhere, and end."""
        self.leaving.set()
        await self.health.set_draining()
        await self.end(RETIRE_S)


class Servers:
    """Owns the server of each principal, and those that have been replaced until they have ended. For one event loop.

    Args:
        handlers: every method's by full name.
        forget: called with a principal that is there no more: its sessions and handles are to be closed.
        others: a process for one trial who may connect, by connecting; None where there can be none.
    """

    def __init__(
        self,
        runtime_dir: Path,
        guard: Guard,
        handlers: Mapping[str, Handler],
        pool: SyscallPool,
        forget: Callable[[Principal], None],
        *,
        others: Callable[[], Others | None] = lambda: None,
    ) -> None:
        self.runtime_dir: Final = runtime_dir
        self._guard = guard
        self._handlers = handlers
        self._pool = pool
        self._forget = forget
        self._others = others
        self._servers: dict[str, _Server] = {}
        self._retiring: dict[asyncio.Task[None], _Server] = {}
        self._reviving: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> Mapping[str, Path]:
        """Where each principal connects."""
        return MappingProxyType({name: each.socket.path for name, each in self._servers.items()})

    async def start(self, policy: Policy, admissions: Admissions) -> None:
        """A server for every principal. Nobody can connect to any before all of them are there.

        Raises:
            SocketError: a socket cannot be made, or admits others than it shall; ``stop`` removes the others.
        """
        for name, wanted in _wanted(policy, admissions).items():
            self._servers[name] = await self._make(wanted)
        clean_dead(self.runtime_dir, set(self.sockets.values()))
        for each in self._servers.values():
            each.socket.publish()
        await self._try(list(self._servers.values()))

    async def apply(self, policy: Policy, admissions: Admissions) -> None:
        """Make the servers those of another policy.

        Clients of principals that are the same, or admit more than before, notice nothing. A principal that is gone has
        its calls refused and its sessions and handles closed. Where anything else has changed, those still admitted
        connect again and resume their sessions. A server that cannot be made as it shall be is none: its principal
        cannot connect, and the log says why.
        """
        wanted = _wanted(policy, admissions)
        for name in [name for name in self._servers if name not in wanted]:
            self._remove(name, f"{name} is no principal of this daemon any more")
        changed: list[str] = []
        for name, each in wanted.items():
            now = self._servers.get(name)
            if now is not None and now.wanted == each:
                continue
            try:
                await self._become(now, each)
                changed.append(name)
            except SocketError as error:
                self._fail(name, error)
        for name in changed:
            try:
                await self._try([self._servers[name]])
            except SocketError as error:
                self._fail(name, error)

    async def drain(self) -> None:
        """Tell health checks and sessions of every server that the daemon stops. Waits for nobody."""
        await asyncio.gather(*(each.health.set_draining() for each in self._servers.values()))
        self._guard.draining.set()
        for each in self._servers.values():
            each.leaving.set()

    async def stop(self) -> None:
        """End all servers and whatever still runs in them. Idempotent."""
        for task in self._reviving:
            task.cancel()
        await asyncio.gather(*self._reviving, return_exceptions=True)
        servers, retiring = [*self._servers.values(), *self._retiring.values()], list(self._retiring)
        self._servers.clear()
        # Their time is over too. Cancelled alone, they would leave their servers open, with the calls in them.
        for task in retiring:
            task.cancel()
        await asyncio.gather(*(each.end() for each in servers))
        await asyncio.gather(*retiring, return_exceptions=True)

    # ---- one server ----------------------------------------------------------------------------

    async def _make(self, wanted: _Wanted) -> _Server:
        return await _Server.start(self.runtime_dir, wanted, self._guard, self._handlers, self._crashed)

    def _crashed(self, whose: Caller, why: BaseException) -> None:
        """A server has ended by itself: nobody can connect to it any more."""
        for ended in self._servers.values():
            if ended.caller is whose and not self._guard.draining.is_set():
                task = asyncio.create_task(self._revive(ended, why), name=f"reviving {ended.socket.path}")
                self._reviving.add(task)
                task.add_done_callback(self._reviving.discard)

    async def _revive(self, ended: _Server, why: BaseException) -> None:
        """Put another server in the place of one that has ended, as long as it is wanted."""
        name = ended.wanted.principal.name
        _log.error("gRPC has ended a server; another one takes its place", principal=name, why=repr(why))
        while self._servers.get(name) is ended:
            wanted = ended.wanted
            try:
                made = await self._make(wanted)
            except (SocketError, OSError, RuntimeError) as error:
                await self._not_yet(name, error)
                continue
            if self._servers.get(name) is not ended or ended.wanted is not wanted:  # a reload was quicker
                await made.end()
                continue
            try:
                made.socket.publish()
            except (SocketError, OSError) as error:
                await made.end()
                await self._not_yet(name, error)
                continue
            self._servers[name] = made
            self._retire(ended, wanted.principal)

    async def _not_yet(self, name: str, error: Exception) -> None:
        """Whatever it was, it is tried again: nobody can connect as this principal."""
        _log.error("a server cannot be replaced yet", principal=name, message=str(error))
        await asyncio.sleep(AGAIN_S)

    async def _become(self, now: _Server | None, wanted: _Wanted) -> None:
        """Raises SocketError; the server that was there is as it was, or fails what is tried next."""
        if now is not None and wanted.needs_only_acl(now.wanted):
            now.socket.admit(wanted.admitted)
            now.wanted = wanted
            return
        made = await self._make(wanted)
        try:
            made.socket.publish()
        except BaseException:
            await made.end()
            raise
        self._servers[wanted.principal.name] = made
        if now is not None:
            self._retire(now, wanted.principal)

    def _retire(self, old: _Server, now: Principal) -> None:
        same = old.wanted.principal == now
        self._end_later(old, old.retire, forget=not same)

    def _remove(self, name: str, why: str) -> None:
        """Refuse what runs there, and end it; nobody can connect any more when this returns."""
        gone = self._servers.pop(name)
        gone.socket.withdraw()
        self._guard.end(gone.caller, Refusal(Reason.UNAUTHENTICATED, why))
        # The refusals are on their way to the clients when their connections end.
        self._end_later(gone, partial(gone.end, RETIRE_S), forget=True)

    def _end_later(
        self, old: _Server, ending: Callable[[], Coroutine[Any, Any, None]], *, forget: bool
    ) -> None:
        principal = old.wanted.principal
        if forget:
            self._forget(principal)

        async def end() -> None:
            try:
                await ending()
            finally:
                # Once more: a call that was under way may have opened something.
                if forget and all(each.wanted.principal != principal for each in self._servers.values()):
                    self._forget(principal)

        task = asyncio.create_task(end(), name=f"ending {old.socket.path}")
        self._retiring[task] = old
        task.add_done_callback(self._retiring.pop)

    def _fail(self, name: str, error: SocketError) -> None:
        _log.error("a principal is not served", principal=name, message=str(error))
        if name in self._servers:
            self._remove(name, f"{name} cannot be told from others on this host; its socket is withdrawn")

    async def _try(self, servers: list[_Server]) -> None:
        """The last test: by connecting. Raises SocketError."""
        others = self._others()
        if others is None:
            _log.info(
                "who may connect was read back, and not tried: this process cannot be others",
                sockets=len(servers),
            )
            return
        trials = [Trial(path=each.socket.path, admitted=each.wanted.admitted) for each in servers]
        tried = await self._pool.run(Lane.SLOW, "sockets", partial(others.try_sockets, trials))
        _log.info("who may connect was tried", sockets=len(servers), connections=tried)


def _wanted(policy: Policy, admissions: Admissions) -> Mapping[str, _Wanted]:
    found: dict[str, _Wanted] = {}
    for name, member in policy.members.items():
        admission = admissions.by_principal[name]
        found[name] = _Wanted(
            principal=Principal(name=name, namespace=member.namespace),
            admitted=Admitted(uids=admission.uids, gids=admission.gids, mount=member.mount),
            connections=member.quotas.connections,
        )
    return found
