"""What a blocking client shares with its maps: two channels, the daemon's facts, the session."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar, cast

from mapd_api.v1 import elements_pb2
from mapd_client import discovery, waiting
from mapd_client.blocking.channel import BlockingConversation, BlockingTransport
from mapd_client.client import Client
from mapd_client.errors import MapdError, Misuse, NotSent, Unavailable, Unreachable
from mapd_client.facts import HostFacts
from mapd_client.failures import Asked
from mapd_client.held import Tenure
from mapd_client.hostinfo_asking import renew_behind
from mapd_client.info import ServerInfo
from mapd_client.leasing import ThreadLeasing
from mapd_client.link import Link, Links
from mapd_client.methods import SESSION
from mapd_client.pipeline import Pipeline
from mapd_client.session import Session, greeted
from mapd_client.tls import Material, Tls, read

T = TypeVar("T")

_ASKED: Final = Asked("open a session")

_END_S: Final = 1.0
"""How long closing waits for the daemon to end the session."""

_Stream = BlockingConversation[elements_pb2.SessionRequest, elements_pb2.SessionResponse]


class _Forgetting:
    """What is needed of a session where handles are opened."""

    def __init__(self, forget: Callable[[Tenure], None]) -> None:
        self.forgotten = forget


class BlockingLink(Link):
    """One connection to the daemon, for all threads. Operations are calls; the session keeps the handles alone."""

    def __init__(
        self, target: str, timeout: float, material: Material | None = None, *, wait: bool = False
    ) -> None:
        self.transport = BlockingTransport(target, material)
        self.timeout = timeout
        self.reached = wait
        self.facts = HostFacts(self._facts_wanted)
        self.leasing = ThreadLeasing()
        self._server: ServerInfo | None = None
        self._lock = threading.RLock()
        self._tenure = Tenure("", "")
        self._stream: _Stream | None = None
        self._wanted = False

    async def finished(
        self, work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, None]] | None = None
    ) -> T:
        """As Link. Interrupted: what the daemon has opened stays open until the client is closed."""
        del undo  # nothing is cancelled here but by an exception, which ends the work as well
        return await work

    async def session(self, asked: Asked = _ASKED, timeout: float | None = None) -> Session:
        """As Link: there is a stream after this; of the session itself nothing is to be had but its forgetting."""
        patience = self.patience(asked, timeout)
        while True:
            left = patience.left()
            try:
                # Held for one try: who waits for a daemon keeps no other thread from its own end.
                with self._held_within(asked, left):
                    if self._stream is None or not self._stream.going or self._tenure.ended:
                        await self._begin(asked, patience.left())
                    self.reached = True
                    return cast("Session", _Forgetting(self._forget))
            except MapdError as error:
                pause = patience.pause(error)
            await waiting.pause(pause)

    @contextmanager
    def _held_within(self, asked: Asked, timeout: float) -> Generator[None]:
        if not self._lock.acquire(timeout=timeout):
            raise Unavailable(f"{asked}: another thread has tried to have a session for as long")
        try:
            yield
        finally:
            self._lock.release()

    async def _begin(self, asked: Asked, timeout: float) -> None:
        """A stream for the session that there was, or for a new one."""
        if self._stream is not None:
            self._stream.cancel()
        await self.transport.look(now=True)
        stream = cast("_Stream", self.transport.converse(SESSION, asked, timeout))
        try:
            opened = await greeted(stream, self._tenure, asked)
        except BaseException:
            stream.cancel()
            raise
        self._stream = stream
        if not opened.resumed:
            if self._server is not None and opened.epoch != self._server.epoch:
                self._server = None
            self._tenure.ended = True
            self._tenure = Tenure(opened.session, opened.epoch)

    def _forget(self, tenure: Tenure) -> None:
        with self._lock:
            tenure.ended = True

    async def tenure(self, timeout: float | None = None) -> tuple[Session, Tenure]:
        """As Link."""
        session = await self.session(timeout=timeout)
        return session, await self.dated(self._tenure, timeout)

    async def pipeline(self, asked: Asked, timeout: float | None) -> Pipeline | None:
        """None: operations are calls. Sees to it that the session goes on, which their handles live by."""
        if self._wanted:
            self._wanted = False
            await renew_behind(self)
        if self._stream is None or not self._stream.going:
            try:
                await self.session(asked, timeout)
            except Unreachable as error:
                if not asked.mutates:
                    raise
                raise NotSent(str(error), operation=asked.operation, map=asked.map) from None
        return None

    def _facts_wanted(self) -> None:
        """Called by a codec that met what is not known: the next operation asks."""
        self._wanted = True

    async def aclose(self) -> None:
        """End the session and close the channels, also under calls of other threads. Idempotent."""
        try:
            await self.leasing.aclose()
        finally:
            await self._close()

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and stream.going:
            stream.within(_END_S)
            with suppress(MapdError):
                await stream.end()
                while await stream.receive() is not None:
                    pass
        await self.transport.aclose()


class BlockingLinks(Links):
    """The one link of a blocking client, made when it is first needed, in the process that made the client."""

    def __init__(
        self, target: str | None, timeout: float, tls: Tls | None = None, *, wait: bool = False
    ) -> None:
        super().__init__(target, timeout, tls, wait=wait)
        self._one: BlockingLink | None = None
        self._pid = os.getpid()
        self._making = threading.Lock()

    async def current(self) -> Link:
        """As Links.

        Raises:
            Misuse: the client is closed; or was made before a fork, whose child has no use of grpc's threads.
        """
        if (link := self._one) is not None and self._pid == os.getpid():
            return link
        if self._pid != os.getpid():
            raise Misuse(
                f"this client was made in process {self._pid}, of which this one was forked: its connections do not "
                "go along; make a client after fork (multiprocessing: start method 'spawn' or 'forkserver')"
            )
        with self._making:
            self._check_open()
            if self._target is None:
                found = await self._discovered()
                self._tls = discovery.tls_for(found, self._tls)
                self._target = found
            if self._one is None:
                material = None if self._tls is None else read(self._tls)
                self._one = BlockingLink(self._target, self.timeout, material, wait=self._wait)
            return self._one

    async def aclose(self) -> None:
        """Close the link. Idempotent; in a forked child nothing is closed but this."""
        with self._making:
            self._closed = True
            link, self._one = self._one, None
        if link is not None and self._pid == os.getpid():
            await link.aclose()


class DrivenClient(Client):
    """The client whose coroutines ``mapd_client.blocking`` drives."""

    def _links_to(self, target: str | None, timeout: float, tls: Tls | None, *, wait: bool) -> Links:
        return BlockingLinks(target, timeout, tls, wait=wait)
