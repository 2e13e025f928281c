"""What a client shares with its maps: per event loop the channels, the daemon's facts, the session."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from mapd_api.v1 import maps_pb2
from mapd_client import closed_loops, discovery, replies, waiting, watching
from mapd_client.channel import Transport
from mapd_client.errors import MapdError, Misuse, NotSent, Unavailable, Unreachable
from mapd_client.facts import HostFacts
from mapd_client.failures import Asked
from mapd_client.held import Tenure
from mapd_client.hostinfo_asking import renew_behind
from mapd_client.info import ServerInfo
from mapd_client.leasing import Leasing
from mapd_client.methods import GET_SERVER_INFO, Method, Request, Response
from mapd_client.patience import Patience
from mapd_client.pipeline import Pipeline
from mapd_client.session import Session
from mapd_client.tls import Material, Tls, read

T = TypeVar("T")

_LOG: Final = logging.getLogger("mapd_client")

_ASKED: Final = Asked("open a session")
_DISCOVER: Final = Asked("find a daemon")

_END_S: Final = 1.0
"""How long aclose() waits for what was cancelled and is given back, and for other loops' links."""


class Link:
    """One event loop's connection to the daemon.

    Attributes:
        facts: of the daemon's host, as codecs of this loop's maps know them.
        leasing: keeps the leases of this loop's maps alive.
        reached: a daemon has answered, or is to be waited for: while none does, calls are made again.
    """

    def __init__(
        self, target: str, timeout: float, material: Material | None = None, *, wait: bool = False
    ) -> None:
        """``wait``: for a daemon that has never been there yet."""
        self.transport = Transport(target, material)
        self.timeout = timeout
        self.reached = wait
        self.facts = HostFacts(self._renew_facts)
        self.leasing = Leasing()
        self._server: ServerInfo | None = None
        self._sessions: list[Session] = []
        self._opening = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._working: set[asyncio.Task[Any]] = set()
        self._undoing: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Lock()
        self._in_calls = False

    async def call(
        self,
        method: Method[Request, Response],
        request: Request,
        asked: Asked,
        timeout: float | None = None,
        *,
        impatient: bool = False,
    ) -> Response:
        """One call with the client's timeout unless it is given its own (seconds).

        While no daemon answers, what was not executed is asked again for that time; until one has answered for the
        first time only where the client was told to wait, and never if ``impatient``.
        """
        patience = self.patience(asked, timeout, impatient=impatient)
        while True:
            left = patience.left()
            try:
                answer = await self.transport.unary(method, request, asked, left)
            except MapdError as error:
                self.reached |= error.reason is not None
                pause = patience.pause(error)
            else:
                self.reached = True
                return answer
            await waiting.pause(pause)

    def patience(self, asked: Asked, timeout: float | None = None, *, impatient: bool = False) -> Patience:
        """How long a call is asked again, of ``timeout`` seconds or the client's, which begin now."""
        seconds = self.timeout if timeout is None else timeout
        return Patience(asked, seconds, impatient=impatient or not self.reached)

    async def ask_server(self, timeout: float | None = None) -> ServerInfo:
        """Ask the daemon what it is, and remember it."""
        response = await self.call(
            GET_SERVER_INFO, maps_pb2.GetServerInfoRequest(), Asked("server info"), timeout
        )
        self._server = replies.server_info(response.server)
        self.transport.version = self._server.version
        return self._server

    async def server(self, timeout: float | None = None) -> ServerInfo:
        """What the daemon is, asked at most once per session, within ``timeout`` seconds."""
        return self._server if self._server is not None else await self.ask_server(timeout)

    async def finished(
        self, work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, None]] | None = None
    ) -> T:
        """What ``work`` makes, for work on what the daemon holds: it is finished once begun.

        Cancelled: ``work`` goes on in a task of this link, and ``undo`` gives back what it made.
        """
        task = _owned(asyncio.create_task(work, name="mapd open or close"), self._working)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            _ = _owned(asyncio.create_task(_undone(task, undo), name="mapd give back"), self._undoing)
            raise

    async def session(self, asked: Asked = _ASKED, timeout: float | None = None) -> Session:
        """The open session; a new one if there is none, or the last is lost.

        Cancelled: a session that was about to open is not kept.
        """
        patience = self.patience(asked, timeout)
        try:
            async with asyncio.timeout(patience.left()):
                await self._opening.acquire()
        except TimeoutError:
            raise Unavailable(f"{asked}: another call has waited for a session for as long") from None
        try:
            self._sessions = [one for one in self._sessions if not one.ended]
            for one in self._sessions:
                if not one.lost:
                    return one
            session = await self._opened(patience, asked)
            self._sessions.append(session)
            if self._server is None or session.tenure.epoch != self._server.epoch:
                self._forget_server()
            self._in_calls = session.pipeline is None
            return session
        finally:
            self._opening.release()

    async def _opened(self, patience: Patience, asked: Asked) -> Session:
        while True:
            left = patience.left()
            try:
                session = await Session.open(
                    self.transport,
                    epoch="" if self._server is None else self._server.epoch,
                    timeout=left,
                    answering=self.timeout,
                    renewed=self._forget_server,
                    asked=asked,
                )
            except MapdError as error:
                pause = patience.pause(error)
            else:
                self.reached = True
                return session
            await waiting.pause(pause)

    async def pipeline(self, asked: Asked, timeout: float | None) -> Pipeline | None:
        """Where operations travel; None where the daemon takes none in a session, or somebody watches.

        Raises:
            NotSent: there is no session, and ``asked`` would change something.
            MapdError: there is no session.
        """
        if watching.current() is not None:
            return None
        for one in self._sessions:
            if not one.lost:
                return one.pipeline
        if self._in_calls:
            return None  # a new session would know as little of the handle as none
        try:
            return (await self.session(dataclasses.replace(asked, mutates=False), timeout)).pipeline
        except Unreachable as error:
            if not asked.mutates:
                raise
            raise NotSent(str(error), operation=asked.operation, map=asked.map) from None

    def _renew_facts(self) -> None:
        """Called by a codec that met what is not known, wherever it decodes: only in this loop somebody can ask."""
        with suppress(RuntimeError):  # no loop runs in this thread
            if asyncio.get_running_loop() is self._loop:
                _ = _owned(asyncio.create_task(renew_behind(self), name="mapd host facts"), self._working)

    def _forget_server(self) -> None:
        """Another start of the daemon: its facts may have changed."""
        self._server = None
        self._in_calls = False

    async def tenure(self, timeout: float | None = None) -> tuple[Session, Tenure]:
        """The session, with what handles that are opened under it now live by, within ``timeout`` seconds each."""
        session = await self.session(timeout=timeout)
        tenure = await session.live(self.timeout if timeout is None else timeout)
        return session, await self.dated(tenure, timeout)

    async def dated(self, tenure: Tenure, timeout: float | None) -> Tenure:
        """A tenure that knows the boot it belongs to."""
        if not tenure.boot:
            tenure.boot = (await self.server(timeout)).boot_id
        return tenure

    async def aclose(self) -> None:
        """End the sessions and close the channels. Idempotent: who calls it meanwhile waits for the same end.

        Waits at most a second for what was opened and cancelled to be given back.
        """
        async with self._closing:
            await self._close()

    async def _close(self) -> None:
        try:
            await self.leasing.aclose()
            await _ended(self._undoing)
            for session in self._sessions:
                await session.aclose()
        finally:
            for session in self._sessions:
                session.leave()  # of which this was cancelled
            self._sessions.clear()  # they know this link: its connections would stay until Python collects cycles
            await self.transport.aclose()
            await _ended(self._working | self._undoing)

    async def abandon(self) -> None:
        """Close the channels from another loop, for this one's is closed or does not run."""
        await self.transport.abandon()
        if self._loop.is_closed():
            for session in self._sessions:
                session.abandon()
            self._sessions.clear()


def _owned(task: asyncio.Task[T], owner: set[asyncio.Task[T]]) -> asyncio.Task[T]:
    owner.add(task)
    task.add_done_callback(owner.discard)
    return task


async def _undone(task: asyncio.Task[T], undo: Callable[[T], Coroutine[Any, Any, None]] | None) -> None:
    try:
        made = await task
        if undo is not None:
            await undo(made)
    except MapdError as error:
        _LOG.debug("nothing to give back after a cancelled call: %s", error)


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    if tasks:
        await asyncio.wait(set(tasks), timeout=_END_S)


class Links:
    """The links of one client, one per event loop, made when first needed in it.

    Attributes:
        timeout: seconds for every call that has none of its own.
    """

    timeout: float

    def __init__(
        self, target: str | None, timeout: float, tls: Tls | None = None, *, wait: bool = False
    ) -> None:
        """``wait``: for a daemon that is not there yet."""
        self._wait = wait
        self._target: str | None = None
        self._tls = tls
        if target is not None:
            self._target = discovery.parse_target(target)
            self._tls = discovery.tls_for(self._target, tls)
        self.timeout = timeout
        # Strong references: each link holds its loop, so that weak ones would never end.
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._closed = False

    async def current(self) -> Link:
        """The running loop's link.

        Raises:
            Misuse: the client is closed.
            Unavailable: no target was given and no socket was found; says where was looked.
            Misuse: certificates that cannot be used.
        """
        if self._target is None:
            found = await self._discovered()
            self._tls = discovery.tls_for(found, self._tls)
            self._target = found
        self._check_open()
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            await self._drop_closed()
            material = None if self._tls is None else await asyncio.to_thread(read, self._tls)
            self._check_open()
            if (link := self._links.get(loop)) is None:
                link = self._links[loop] = Link(self._target, self.timeout, material, wait=self._wait)
        return link

    async def _discovered(self) -> str:
        """Where a socket is; with ``wait`` one that comes within the timeout."""
        patience = Patience(_DISCOVER, self.timeout, impatient=not self._wait)
        while True:
            try:
                # A look into a folder or two: not on the event loop.
                return await waiting.in_thread(discovery.discover)
            except Unavailable as error:
                pause = patience.pause(error)
            await waiting.pause(pause)

    def _check_open(self) -> None:
        if self._closed:
            raise Misuse("the client is closed")

    async def _drop_closed(self) -> None:
        """Close the links of loops that are closed: their connections would stay open for ever."""
        closed_loops.quiet_closed()
        for loop in [one for one in tuple(self._links) if one.is_closed()]:
            link = self._links.pop(loop, None)
            if link is not None:
                await link.abandon()

    @property
    def closed(self) -> bool:
        """Whether aclose() was called."""
        return self._closed

    async def aclose(self) -> None:
        """Close the links of all loops; at most a second is given to those of other threads. Idempotent."""
        self._closed = True
        here = asyncio.get_running_loop()
        own = self._links.get(here)
        others: set[asyncio.Future[None]] = set()
        closed_loops.quiet_closed()
        try:
            for loop, link in tuple(self._links.items()):
                if loop.is_running() and link is not own:
                    others.add(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(link.aclose(), loop)))
                elif link is not own:
                    await link.abandon()
            if own is not None:
                await own.aclose()
        finally:
            if others:
                await asyncio.wait(others, timeout=_END_S)
            self._links.clear()  # not before: who closes meanwhile closes the same ones
