"""TCP: one grpc server for all principals, whose callers are told by their certificates.

TLS 1.3 alone, by what ``mapd`` tells gRPC before that is loaded; older versions fail in the handshake. Each call is
asked for the version of its connection too, where gRPC tells it (1.85 does, 1.78 does not).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from mapd.access.policy.model import Policy
from mapd.access.principal import Principal
from mapd.maps.errors import MapError
from mapd.rpc import crashes
from mapd.rpc.caller import Caller, Context
from mapd.rpc.connections import Connections
from mapd.rpc.guard import Guard, Handler
from mapd.rpc.health import Health
from mapd.rpc.server import build
from mapd.rpc.tls import Identities, Identity, Unidentified, identity
from mapd.rpc.tls_files import Material, TlsError, TlsFiles
from mapd_api.reasons import Reason, Refusal

_log = structlog.stdlib.get_logger("mapd.tls")

LOOK_S: Final = 1.0
"""Between two looks whether files or policy have changed; every handshake looks at the files too."""

AGAIN_S: Final = 0.05
"""Between two tries to listen again, after gRPC has ended the server: it closes the old sockets in its own time."""

LATE_S: Final = 1.0
"""gRPC has closed them long before."""

RETIRE_S: Final = 1.0
"""Calls under way on a server that is replaced get so long."""

SHARE_OF_JITTER: Final = 0.2
"""gRPC's connection ages are a tenth more or less than asked for (max_age_filter, kMaxConnectionAgeJitter)."""

_TLS_1_3: Final = b"TLSv1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpSettings:
    """As the table [tcp] of mapd.config, whose documentation this shares."""

    listen: Sequence[str]
    certificate: str
    key: str
    client_ca: str
    max_connections: int
    handshake_timeout_s: float
    max_connection_idle_s: float
    max_connection_age_s: float
    max_connection_age_grace_s: float

    @property
    def longest_s(self) -> float:
        """No connection is older."""
        return self.max_connection_age_s * (1 + SHARE_OF_JITTER) + self.max_connection_age_grace_s

    def options(self) -> Sequence[tuple[str, Any]]:
        """Of the grpc server, beside those of all."""
        age_ms = self.max_connection_age_s * 1_000
        grace_ms = age_ms * SHARE_OF_JITTER + self.max_connection_age_grace_s * 1_000
        return (
            ("grpc.server_handshake_timeout_ms", int(self.handshake_timeout_s * 1_000)),
            ("grpc.max_connection_idle_ms", int(self.max_connection_idle_s * 1_000)),
            # With gRPC's tenth more or less: after at most max_connection_age_s no call is taken. That is when
            # sessions are told goodbye, and they must have the grace from then.
            ("grpc.max_connection_age_ms", int(age_ms / 1.1)),
            ("grpc.max_connection_age_grace_ms", int(grace_ms)),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            # Clients ping once a minute, also without calls; whoever does so much more often is cut off.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsCaller(Caller):
    """Attributes: identity: of its certificate."""

    identity: Identity


class Callers:
    """Who calls, by the certificate of its connection. Its ``identify`` is asked at each call.

    Args:
        only_1_3: handshakes of older TLS versions are known to fail.
    """

    def __init__(
        self,
        files: TlsFiles,
        policy: Callable[[], Policy],
        settings: TcpSettings,
        *,
        only_1_3: bool,
    ) -> None:
        self._files = files
        self._only_1_3 = only_1_3
        self._policy = policy
        self._settings = settings
        self._identities = Identities()
        self.connections = Connections(settings.longest_s)
        self._admits = lru_cache(maxsize=1_024)(self._admitted)

    def identify(self, context: Context) -> Caller:
        """As mapd.rpc.caller.Identify.

        Raises:
            MapError: UNAUTHENTICATED; QUOTA for a connection too many.
        """
        attested: Mapping[str, Iterable[bytes]] = context.auth_context()
        self._check_version(attested)
        shown = tuple(attested.get("x509_pem_cert", ()))
        policy = self._policy()  # once: another may be put in force by a thread
        try:
            if len(shown) != 1:
                raise Unidentified("the client showed no certificate; connect with one (tls=)")
            found = identity(shown[0])
            principal = self._principal(found, policy)
        except Unidentified as refused:
            raise _unauthenticated(str(refused)) from None
        most = policy.members[principal.name].quotas.connections
        since = self.connections.seen(context.peer(), principal, most)
        return TlsCaller(
            principal=principal,
            attested_by=f"tls:{found.name}",
            expires=found.expires,
            aged=since + self._settings.max_connection_age_s,
            identity=found,
        )

    def why_not(self, caller: TlsCaller) -> str:
        """Why somebody who was let in would not be now; "" if he would."""
        try:
            now = self._principal(caller.identity, self._policy())
        except Unidentified as refused:
            return str(refused)
        if now != caller.principal:
            return f"{caller.identity.name} is {now.name} now, in namespace {now.namespace}; connect again"
        return ""

    def _principal(self, found: Identity, policy: Policy) -> Principal:
        if found.expires <= time.time():
            raise Unidentified(
                f"the certificate of {found.name} ended on {_date(found.expires)}; give the client a new one"
            )
        if not self._admits(found, self._files.material.generation):
            raise Unidentified(
                f"the authority that signed the certificate of {found.name} is not among those of "
                f"{self._settings.client_ca} any more; give the client a certificate of one that is"
            )
        return self._identities.principal(found.name, policy)

    def _admitted(self, found: Identity, _generation: int) -> bool:
        return self._files.admits(found.certificate)

    def _check_version(self, attested: Mapping[str, Iterable[bytes]]) -> None:
        version = next(iter(attested.get("ssl_tls_version", ())), b"")
        if version == _TLS_1_3 or (not version and self._only_1_3):
            return
        said = version.decode("ascii", "replace") or "a TLS version that this daemon's gRPC does not tell"
        raise _unauthenticated(f"the connection speaks {said}; mapd takes TLS 1.3 only")


def _unauthenticated(text: str) -> MapError:
    return MapError(Reason.UNAUTHENTICATED, text)


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(when))


class TcpServer:
    """Owns the server, and what it knows of its callers. For one event loop.

    Args:
        only_1_3: as ``Callers``.

    Attributes:
        addresses: where it listens, with the ports that the kernel chose for 0.

    Raises:
        TlsError: certificates or key cannot be used.
    """

    def __init__(
        self,
        settings: TcpSettings,
        policy: Callable[[], Policy],
        guard: Guard,
        handlers: Mapping[str, Handler],
        *,
        only_1_3: bool,
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._guard = guard
        self._handlers = handlers
        self.files = TlsFiles(Path(settings.certificate), Path(settings.key), Path(settings.client_ca))
        self.callers = Callers(self.files, policy, settings, only_1_3=only_1_3)
        self.addresses: tuple[str, ...] = ()
        self._health = Health(guard.services)
        self._server = self._built()
        self._crash: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    def _built(self) -> grpc.aio.Server:
        return build(
            self.callers.identify,
            self._guard,
            self._handlers,
            self._health,
            connections=self._settings.max_connections,
            options=self._settings.options(),
        )

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            TlsError: an address cannot be listened on.
        """
        material = self.files.material
        left = material.ends.timestamp() - time.time()
        if left <= 0:
            _log.warning(
                "the daemon's certificate has ended: no client accepts it", ends=material.ends.isoformat()
            )
        self.addresses = tuple(self._listen(address) for address in self._settings.listen)
        await crashes.start(self._server, self._crashed)
        await self._health.set_serving()
        _log.info("listening", tcp=self.addresses, certificate_ends=material.ends.isoformat())

    def _crashed(self, why: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_result(why)

    async def revive(self) -> None:
        """Put another server in the place of one that gRPC has ended, at the same addresses. Until cancelled."""
        while True:
            why = await self._crash
            _log.error(
                "gRPC has ended the server; another one takes its place", tcp=self.addresses, why=repr(why)
            )
            ended, self._server = self._server, self._built()
            self._crash = asyncio.get_running_loop().create_future()
            await asyncio.gather(self._listen_again(), ended.stop(RETIRE_S))

    async def _listen_again(self) -> None:
        """Try until it is so; that an address is kept from the daemon is said once."""
        listening, late = 0, time.monotonic() + LATE_S
        while listening < len(self.addresses):
            try:
                self._listen(self.addresses[listening])
                listening += 1
            except TlsError as error:
                if time.monotonic() > late:
                    _log.error("not listening again yet: nobody can connect there", message=str(error))
                    late = math.inf
                await asyncio.sleep(AGAIN_S)
        await crashes.start(self._server, self._crashed)

    def _listen(self, address: str) -> str:
        # Credentials of its own for each: gRPC asks each port's once for the first content, and then for changes.
        served = _Served(self.files)
        # types-grpcio has forgotten that the answer may be None (grpc/__init__.py, dynamic_ssl_server_credentials).
        changed: Any = served.changed
        credentials = grpc.dynamic_ssl_server_credentials(
            served.first, changed, require_client_authentication=True
        )
        try:
            port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise TlsError(f"listen: {address}: cannot listen there ({error})") from None
        return f"{address.rpartition(':')[0]}:{port}"

    async def drain(self) -> None:
        """Tell health checks that the daemon stops."""
        await self._health.set_draining()

    async def stop(self) -> None:
        """Close every connection, and whatever runs in them. Idempotent."""
        await self._server.stop(0)

    async def watch(self) -> None:
        """End what runs for callers who are nobody any more, when policy or authorities change. Until cancelled."""
        policy, generation = self._policy(), self.files.material.generation
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                now = self._policy(), self.files.current().generation
                if now[0] is not policy or now[1] != generation:
                    self._end_strangers()
                    policy, generation = now
            except Exception:
                # A fault of ours; without this task a caller who is nobody any more would keep the streams there are.
                _log.exception("callers were not looked at")

    def _end_strangers(self) -> None:
        for caller in self._guard.callers:
            if isinstance(caller, TlsCaller) and (why := self.callers.why_not(caller)):
                self._guard.end(caller, Refusal(Reason.UNAUTHENTICATED, why))


class _Served:
    """What one listening port's TLS uses; asked on gRPC's threads at each handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        material = files.material
        self._generation = material.generation
        self.first = _configuration(material)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The content, where it is another than the last; None where it is not. gRPC asks one handshake at a time."""
        material = self._files.current()
        if material.generation == self._generation:
            return None
        self._generation = material.generation
        return _configuration(material)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_ca
    )


@asynccontextmanager
async def listening(
    settings: TcpSettings,
    policy: Callable[[], Policy],
    guard: Guard,
    handlers: Mapping[str, Handler],
    *,
    only_1_3: bool,
) -> AsyncGenerator[TcpServer]:
    """A server inside the block, stopped after it. ``only_1_3``: as ``Callers``.

    To be entered before, and left after, the block in which the daemon drains: calls are waited for there.

    Raises:
        TlsError: certificates or key cannot be used, or an address cannot be listened on.
    """
    server = TcpServer(settings, policy, guard, handlers, only_1_3=only_1_3)

    async def drain() -> None:
        await guard.draining.wait()
        await server.drain()

    tasks: list[asyncio.Task[None]] = []
    try:
        await server.start()
        # No TaskGroup: it would wrap what is raised in the block.
        tasks.append(asyncio.create_task(server.watch(), name="tls files"))
        tasks.append(asyncio.create_task(drain(), name="tcp drain"))
        tasks.append(asyncio.create_task(server.revive(), name="tcp revival"))
        yield server
    finally:
        for task in tasks:
            task.cancel()
        await server.stop()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                _log.error("a task of the TCP server failed", exc_info=outcome)
