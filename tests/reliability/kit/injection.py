"""What ``entry`` puts into a front: the points of its steps, and syscalls that fail."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, Final

from mapd import daemon
from mapd.access.authorize import Authorizer
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Target
from mapd.config import Config
from mapd.isolation import Isolation
from mapd.launch import inside
from mapd.rpc.elements import ElementHandlers
from mapd.rpc.guard import Call, Handler
from mapd.rpc.maps import MapHandlers
from mapd.rpc.session import SessionHandlers
from mapd.runtime.audit_log import AuditLog
from tests.reliability.kit.points import Points, Rules

PASSING: Final = (errno.ENOMEM, errno.EBUSY, errno.EAGAIN, errno.EINTR)
"""What the kernel may answer any call on a map with, without having done anything."""

FAILING: Final = frozenset(
    {
        Command.MAP_LOOKUP_ELEM,
        Command.MAP_UPDATE_ELEM,
        Command.MAP_DELETE_ELEM,
        Command.MAP_LOOKUP_AND_DELETE_ELEM,
        Command.MAP_LOOKUP_BATCH,
        Command.MAP_UPDATE_BATCH,
        Command.MAP_DELETE_BATCH,
        Command.PROG_TEST_RUN,
    }
)

STREAMS: Final = frozenset({"Session", "Dump", "Load", "ListMaps"})
"""Methods with a reply that is not what their handler returns."""


class Pointed:
    """A kernel whose calls are steps."""

    def __init__(self, inner: Any, points: Points) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def control(self, request: Any, fds: Sequence[int] = ()) -> Any:
        """See ``Kernel.control``."""
        return self._points.around("opener", lambda: self._inner.control(request, fds))

    def each(self, *args: Any) -> Any:
        """See ``Elements.each``."""
        return self._points.around("syscall", lambda: self._inner.each(*args))

    def batch(self, *args: Any) -> Any:
        """See ``Elements.batch``."""
        return self._points.around("syscall", lambda: self._inner.batch(*args))

    def run(self, *args: Any) -> Any:
        """See ``Elements.run``."""
        return self._points.around("syscall", lambda: self._inner.run(*args))

    def runner(self, ctx: Any, *, packet: bool = False) -> Callable[[int], int]:
        """See ``Elements.runner``."""
        inner, points = self._inner.runner(ctx, packet=packet), self._points
        return lambda prog_fd: points.around("syscall", lambda: inner(prog_fd))


class Failing(FaultyKernel):
    """A kernel of which a part of the calls fail, elements one by one; each is drawn, with a seed."""

    def __init__(self, inner: Any, rules: Rules, serving: threading.Event) -> None:
        super().__init__(inner)
        self._rules = rules
        self._serving = serving
        self._chance = random.Random(rules.seed)  # noqa: S311 - of faults, not of secrets

    def _record(self, target: Target, map_fd: int | None, count: int) -> int | None:
        del target, map_fd, count  # nobody looks at it, and hours of it would not fit
        return None

    def _claim(self, target: Target, map_id: int | None, count: int) -> tuple[int, Fault | None]:
        del map_id
        if target not in FAILING or not self._serving.is_set():
            return count, None
        with self._lock:
            for passing in range(count):
                if self._chance.random() < self._rules.errnos:
                    return passing, Fault(target=target, errno=self._chance.choice(PASSING))
        return count, None


class _Told:
    """grpc's context of a stream whose every message is a reply."""

    def __init__(self, inner: Any, points: Points) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def write(self, message: bytes) -> None:
        self._points.reach("before reply")
        await self._inner.write(message)
        self._points.reach("after reply")


def install(rules: Rules, gate: socket.socket | None) -> None:
    """Wrap the daemon's parts in this process."""
    points, serving = Points(rules, gate), threading.Event()
    _wrap_decide(points, serving)
    if rules.point:
        points.wrap(AuditLog, "write", "audit")
        _wrap_replies(points)
        _wrap_sessions(points)

    def wrapped(kernel: Any) -> Any:
        if rules.errnos:
            kernel = Failing(kernel, rules, serving)
        return Pointed(kernel, points) if rules.point else kernel

    served = daemon.serve

    async def serve(config: Config, *, until_stdin_ends: bool, isolation: Isolation | None) -> None:
        if isolation is not None and isolation.kernel is not None:
            isolation = replace(isolation, kernel=wrapped(isolation.kernel))
        await served(config, until_stdin_ends=until_stdin_ends, isolation=isolation)

    _put(inside, "serve", serve)
    _put(daemon, "LinuxKernel", lambda: wrapped(LinuxKernel()))


def _put(module: ModuleType, name: str, value: object) -> None:
    """Put something in the place of what a module imports; fails where it imports nothing of that name."""
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    setattr(module, name, value)


def _wrap_decide(points: Points, serving: threading.Event) -> None:
    inner = Authorizer.authorize_map

    def method(*args: Any, **kwargs: Any) -> Any:
        serving.set()
        return points.around("decide", lambda: inner(*args, **kwargs))

    setattr(Authorizer, "authorize_map", method)  # noqa: B010 - a method, as a function


def _wrap_replies(points: Points) -> None:
    for owner in (ElementHandlers, MapHandlers):
        inner: Callable[[Any], Any] = owner.methods

        def methods(self: Any, inner: Callable[[Any], Any] = inner) -> Any:
            return {
                name: handler if name in STREAMS else _replying(handler, points)
                for name, handler in inner(self).items()
            }

        setattr(owner, "methods", methods)  # noqa: B010


def _replying(handler: Handler, points: Points) -> Handler:
    async def replying(call: Call, request: Any) -> Any:
        answer = await handler(call, request)
        points.reach("before reply")
        # grpc sends it once this has returned.
        asyncio.get_running_loop().call_later(0.001, points.reach, "after reply")
        return answer

    return replying


def _wrap_sessions(points: Points) -> None:
    inner = SessionHandlers.session

    async def session(self: SessionHandlers, call: Call, requests: object) -> None:
        context: Any = _Told(call.context, points)
        await inner(self, replace(call, context=context), requests)

    setattr(SessionHandlers, "session", session)  # noqa: B010
