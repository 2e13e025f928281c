"""What a client shares with its maps: per event loop the channels, the daemon's facts, the session."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from mapd_api.v1 import maps_pb2
from mapd_client import discovery, replies
from mapd_client.channel import Transport
from mapd_client.errors import Misuse
from mapd_client.failures import Asked
from mapd_client.info import ServerInfo
from mapd_client.methods import GET_SERVER_INFO, Method, Request, Response
from mapd_client.session import Session


class Link:
    """One event loop's connection to the daemon."""

    def __init__(self, target: str, timeout: float) -> None:
        self.transport = Transport(target)
        self.timeout = timeout
        self._server: ServerInfo | None = None
        self._sessions: list[Session] = []
        self._opening = asyncio.Lock()

    async def call(
        self,
        method: Method[Request, Response],
        request: Request,
        asked: Asked,
        timeout: float | None = None,
    ) -> Response:
        """One call with the client's timeout unless it is given its own (seconds)."""
        return await self.transport.unary(
            method, request, asked, self.timeout if timeout is None else timeout
        )

    async def ask_server(self, timeout: float | None = None) -> ServerInfo:
        """Ask the daemon what it is, and remember it."""
        response = await self.call(
            GET_SERVER_INFO, maps_pb2.GetServerInfoRequest(), Asked("server info"), timeout
        )
        self._server = replies.server_info(response.server)
        self.transport.version = self._server.version
        return self._server

    async def server(self) -> ServerInfo:
        """What the daemon is, asked at most once per session."""
        return self._server if self._server is not None else await self.ask_server()

    async def session(self) -> Session:
        """The open session; a new one if there is none, or the last is lost.

        Cancelled: a session that was about to open is not kept.
        """
        async with self._opening:
            self._sessions = [one for one in self._sessions if not one.ended]
            for one in self._sessions:
                if not one.lost:
                    return one
            epoch = "" if self._server is None else self._server.epoch
            session = await Session.open(self.transport, epoch=epoch, timeout=self.timeout)
            self._sessions.append(session)
            if session.epoch != epoch:
                self._server = None  # another start of the daemon: its facts may have changed
            return session

    async def aclose(self) -> None:
        """End the sessions and close the channels. Idempotent."""
        try:
            for session in self._sessions:
                await session.aclose()
        finally:
            await self.transport.aclose()


class Links:
    """The links of one client, one per event loop, made when first needed in it.

    Attributes:
        timeout: seconds for every call that has none of its own.
    """

    timeout: float

    def __init__(self, target: str | None, timeout: float) -> None:
        self._target = None if target is None else discovery.parse_target(target)
        self.timeout = timeout
        self._links: WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = WeakKeyDictionary()
        self._closed = False

    async def current(self) -> Link:
        """The running loop's link.

        Raises:
            Misuse: the client is closed.
            Unavailable: no target was given and no socket was found; says where was looked.
        """
        if self._target is None:
            # A look into a folder or two: not on the event loop.
            self._target = await asyncio.to_thread(discovery.discover)
        if self._closed:
            raise Misuse("the client is closed")
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            link = self._links[loop] = Link(self._target, self.timeout)
        return link

    @property
    def closed(self) -> bool:
        """Whether aclose() was called."""
        return self._closed

    async def aclose(self) -> None:
        """Close the running loop's link; those of loops that have ended went with them. Idempotent."""
        self._closed = True
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await link.aclose()
