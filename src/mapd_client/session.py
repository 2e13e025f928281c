"""The session: a stream that owns the handles opened under it.

When the stream ends, however it ends, the daemon closes them: no client leaves a map open behind.
Operations do not travel in it yet; they are calls of their own.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from mapd_api.v1 import elements_pb2, maps_pb2
from mapd_client import replies
from mapd_client.channel import Conversation, Transport
from mapd_client.errors import MapdError, Unavailable, Unsupported
from mapd_client.failures import Asked
from mapd_client.methods import GET_SERVER_INFO, SESSION

_LOG: Final = logging.getLogger("mapd_client")
_ASKED: Final = Asked("open a session")

_END_S: Final = 1.0
"""How long aclose() waits for the daemon to end a stream that this side has ended."""

_SETTLE_S: Final = 0.2
"""How long the end of an event loop may be held up by a daemon that does not answer."""

_Stream = Conversation[elements_pb2.SessionRequest, elements_pb2.SessionResponse]


class Session:
    """One session stream and the task that reads it.

    Attributes:
        id: what OpenMap and CreateMap are given.
        epoch: the daemon start it belongs to.
        lost: its handles are closed or soon will be; nothing new may be opened under it.
    """

    id: str
    epoch: str
    lost: bool

    def __init__(self, opened: elements_pb2.SessionOpened, stream: _Stream, transport: Transport) -> None:
        self.id = opened.session
        self.epoch = opened.epoch
        self.lost = False
        self._stream = stream
        self._transport = transport
        self._closing = False
        self._reader = asyncio.create_task(self._read(), name=f"mapd session {opened.session}")

    @classmethod
    async def open(cls, transport: Transport, *, epoch: str, timeout: float) -> Session:
        """Begin a session.

        Cancelled: the stream is ended; nothing stays.

        Raises:
            Unsupported: the daemon knows no sessions.
            MapdError: as for any call.
        """
        # No deadline on the stream itself; only its beginning is waited for.
        stream: _Stream = transport.converse(SESSION, _ASKED, None)
        try:
            async with asyncio.timeout(timeout):
                await stream.send(elements_pb2.SessionRequest(open=elements_pb2.SessionOpen(epoch=epoch)))
                opened = await _opened(stream)
        except TimeoutError:
            stream.cancel()
            raise Unavailable(f"{_ASKED}: no answer from {transport.target} within {timeout:g} s") from None
        except BaseException:
            stream.cancel()
            raise
        return cls(opened, stream, transport)

    @property
    def ended(self) -> bool:
        """Whether the stream is gone and its task has ended."""
        return self._reader.done()

    async def _read(self) -> None:
        try:
            async for message in self._stream:
                if message.WhichOneof("message") == "goodbye":
                    self.lost = True
                    _LOG.info("the daemon says goodbye: %s", message.goodbye.message)
        except MapdError as error:
            _LOG.info("session %s is lost: %s", self.id, error)
        except asyncio.CancelledError:
            self.lost = True
            self._stream.cancel()
            if not self._closing:
                await self._settle()
            raise
        finally:
            self.lost = True
            self._stream.cancel()

    async def _settle(self) -> None:
        """Let grpc tell this loop of every call that was cancelled.

        asyncio.run ends by cancelling all tasks, this one too, and then closes the loop. What grpc has
        to say later it says to whichever loop runs next, as a traceback that ends in "Event loop is
        closed". What it says comes in order: behind the answer of one more call there is nothing left.
        """
        asked = Asked("server info")
        with suppress(MapdError):
            await self._transport.unary(GET_SERVER_INFO, maps_pb2.GetServerInfoRequest(), asked, _SETTLE_S)

    async def aclose(self) -> None:
        """End the stream, and with it every handle opened under it. Idempotent."""
        self.lost = self._closing = True
        try:
            async with asyncio.timeout(_END_S):
                await self._stream.end()
                await asyncio.wait({self._reader})
        except (TimeoutError, MapdError):
            _LOG.debug("session %s: the daemon did not end it", self.id)
        finally:
            self._stream.cancel()
            self._reader.cancel()
            await asyncio.wait({self._reader})

    def abandon(self) -> None:
        """Let go of the stream; for a loop that is closed."""
        self.lost = True
        self._stream.release()


async def _opened(stream: _Stream) -> elements_pb2.SessionOpened:
    async for message in stream:
        match message.WhichOneof("message"):
            case "opened":
                return message.opened
            case "error":
                raise replies.refusal(message.error, _ASKED)
            case "goodbye":
                raise Unavailable(f"{_ASKED}: the daemon is going: {message.goodbye.message}")
            case _:
                break
    raise Unsupported(f"{_ASKED}: the daemon did not answer with a session")
