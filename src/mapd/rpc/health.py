"""Standard health (grpc.health.v1), told for each service: SERVING means that all of its methods can do their work.

The daemon as a whole, which is asked for as "", serves when all of its services do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

import structlog
from grpc_health.v1 import health, health_pb2

from mapd.rpc.caller import Context
from mapd_api import contract

_log = structlog.stdlib.get_logger("mapd.rpc")

LOOK_S: Final = 0.25
"""Between two looks at what services depend on. A look asks no kernel and no disk."""

_Answer: Final[Any] = health_pb2.HealthCheckResponse

SERVICES: Final = tuple(service.full_name for service in contract.SERVICES)


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that services cannot do all of their work without.

    Attributes:
        why_not: why it is not there now; "" while it is. Called in the event loop, and does not block.
        of: full names of the services.
    """

    why_not: Callable[[], str]
    of: frozenset[str]


class Services:
    """Which services of one daemon lack something, for all of its servers. For one event loop."""

    def __init__(self) -> None:
        self._lost: dict[str, tuple[str, frozenset[str]]] = {}
        self._followers: WeakSet[Health] = WeakSet()

    def serving(self, service: str) -> bool:
        """Whether a service, or with "" each of them, lacks nothing."""
        lacking = [of for _, of in self._lost.values()]
        return not any(service in of if service else of for of in lacking)

    @property
    def lost(self) -> Mapping[str, str]:
        """What is not there, and why."""
        return {name: why for name, (why, _) in self._lost.items()}

    def follow(self, follower: Health) -> None:
        """Have one server's health told of every change."""
        self._followers.add(follower)

    async def look(self, dependencies: Mapping[str, Dependency]) -> None:
        """Look at each, and tell all servers where one was lost or is back."""
        changed = False
        for name, dependency in dependencies.items():
            why, was = dependency.why_not(), name in self._lost
            if why:
                self._lost[name] = why, dependency.of
            elif was:
                del self._lost[name]
            if bool(why) != was:
                changed = True
                tell = _log.error if why else _log.info
                tell(
                    "services lack what they need" if why else "services have what they need",
                    what=name,
                    why=why or "it is back",
                    services=sorted(dependency.of),
                )
        if changed:
            await asyncio.gather(*(each.tell() for each in list(self._followers)))


class Health:
    """The health of one server.

    Attributes:
        servicer: of the standard service: Check, List and Watch.

    Args:
        services: of the daemon; None: nothing is ever lost.
    """

    def __init__(self, services: Services | None = None) -> None:
        self.servicer = _Servicer()
        self._services = services or Services()
        self._ready = False
        self._services.follow(self)

    async def set_serving(self) -> None:
        """Ready for work, as far as nothing is lacking."""
        self._ready = True
        await self.tell()

    async def set_draining(self) -> None:
        """NOT_SERVING, for good."""
        await self.servicer.drain()

    async def tell(self) -> None:
        """Say of each service whether it serves now. What drains stays as it is."""
        if self._ready:
            await self.servicer.set({name: self._services.serving(name) for name in ("", *SERVICES)})


class _Servicer:
    """Check is grpc's own, List and Watch are ours.

    With grpc's (grpcio-health-checking 1.81) whoever stops watching a service takes the news from all others who watch
    it, and one that takes none, with a window of 0, holds up who sets a status, so a daemon that drains. Here nobody
    who sets one waits for a watcher.
    """

    def __init__(self) -> None:
        self._known = health.aio.HealthServicer()
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._draining = False

    async def Check(self, request: Any, context: Context) -> Any:  # noqa: N802 - as the contract calls it
        """The status now; NOT_FOUND for a service that is none of ours."""
        return await self._known.Check(request, context)

    async def Watch(self, request: Any, _context: Context) -> AsyncGenerator[Any]:  # noqa: N802 - as above
        """The status now, and each other one after that, though not each of several that follow at once."""
        last = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Answer.SERVICE_UNKNOWN)
            if status != last:
                yield _Answer(status=status)
                last = status
            if changed is self._changed:
                await changed.wait()

    async def List(self, _request: Any, _context: Context) -> Any:  # noqa: N802 - as above
        """All statuses now. Of the standard service since grpcio-health-checking 1.82."""
        found: Any = vars(health_pb2)["HealthListResponse"]()
        for name, status in self._statuses.items():
            found.statuses[name].status = status
        return found

    async def set(self, serving: Mapping[str, bool]) -> None:
        """Say of services whether they serve; nothing once they drain."""
        if self._draining:
            return
        for name, serves in serving.items():
            self._statuses[name] = _Answer.SERVING if serves else _Answer.NOT_SERVING
            await self._known.set(name, self._statuses[name])
        self._tell()

    async def drain(self) -> None:
        """NOT_SERVING for all, for good."""
        self._draining = True
        for name in self._statuses:
            self._statuses[name] = _Answer.NOT_SERVING
        await self._known.enter_graceful_shutdown()
        self._tell()

    def _tell(self) -> None:
        """Wake those who watch; who comes from now on waits for the next change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@asynccontextmanager
async def watching(
    services: Services, dependencies: Mapping[str, Dependency], every: float = LOOK_S
) -> AsyncGenerator[None]:
    """Look at what services depend on, ``every`` so many seconds, inside the block; at once for the first time."""
    await services.look(dependencies)

    async def look() -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await services.look(dependencies)
            except Exception:
                # A fault of ours; without this task services would be told as they are now for ever.
                _log.exception("what services depend on was not looked at")

    # No TaskGroup: it would wrap what is raised in the block.
    task = asyncio.create_task(look(), name="health") if dependencies else None
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
