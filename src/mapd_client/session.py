"""The session: what owns the handles opened under it, and carries the operations on them.

It outlives its streams. When one breaks, or the daemon says goodbye, another is opened and the session is resumed
within tens of milliseconds; a daemon that is not there is tried again for as long as somebody waits. When the
session ends, however it ends, the daemon closes its handles: no client leaves a map open behind.

A daemon without the feature "session-apply" carries no operations in it: the session ends with its stream then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mapd_api.v1 import elements_pb2, maps_pb2
from mapd_client import replies
from mapd_client.channel import Conversation, Transport
from mapd_client.errors import MapdError, QuotaExceeded, Unavailable, Unreachable, Unsupported
from mapd_client.failures import Asked
from mapd_client.held import Held, Tenure
from mapd_client.methods import GET_SERVER_INFO, SESSION
from mapd_client.pipeline import Pipeline
from mapd_client.reopening import opened_again

_LOG: Final = logging.getLogger("mapd_client")
_ASKED: Final = Asked("open a session")

_END_S: Final = 1.0
"""How long aclose() waits for the daemon to end a stream that this side has ended."""

_SETTLE_S: Final = 0.2
"""How long the end of an event loop may be held up by a daemon that does not answer."""

_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.05
"""Between two tries to connect. On this host each is made at once (``Transport._forsake``); elsewhere grpc itself tries
an address that refuses at most ten times a second."""

_QUOTA_PAUSE_S: Final = 1.0
"""At most, behind a refusal for a quota: as long as the daemon names for one (RETRY_AFTER_S)."""

_Stream = Conversation[elements_pb2.SessionRequest, elements_pb2.SessionResponse]


class Session:
    """One session, the task that keeps a stream open for it, and the operations that travel there.

    Attributes:
        tenure: what its handles live by; another one when the daemon has forgotten the last.
        pipeline: the operations; None where the daemon takes none in a session.
        lost: it ended, and nothing new may be opened under it.
    """

    tenure: Tenure
    pipeline: Pipeline | None
    lost: bool

    def __init__(
        self,
        opened: elements_pb2.SessionOpened,
        stream: _Stream,
        transport: Transport,
        timeout: float,
        renewed: Callable[[], None],
    ) -> None:
        self.tenure = Tenure(opened.session, opened.epoch)
        self.lost = False
        self._stream: _Stream | None = stream
        self._transport = transport
        self._timeout = timeout
        self._renewed = renewed
        self._closing = False
        self._connected = asyncio.Event()
        self._connected.set()
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reopening: set[asyncio.Task[None]] = set()
        self._pause = 0.0
        self._awaited = 0
        self._resume_s = opened.resume_within.ToNanoseconds() / 1e9
        self.pipeline = None
        if opened.slots:
            self.pipeline = Pipeline(self, self._loop, transport.target, timeout)
            self.pipeline.begun(self.tenure, opened.slots)
        transport.moved.add(self._moved)
        self._keeper = asyncio.create_task(self._keep(), name=f"mapd session {opened.session}")

    @classmethod
    async def open(
        cls,
        transport: Transport,
        *,
        epoch: str,
        timeout: float,
        answering: float | None = None,
        renewed: Callable[[], None],
        asked: Asked = _ASKED,
    ) -> Session:
        """Begin a session; ``renewed`` is told when another start of the daemon has taken over.

        ``answering``: seconds for operations in it that have no time of their own; as many as for opening it if None.

        ``asked`` is what the session is for, for messages.

        Cancelled: the stream is ended; nothing stays.

        Raises:
            Unsupported: the daemon knows no sessions.
            MapdError: as for any call.
        """
        stream, opened = await _begin(transport, Tenure("", epoch), timeout, asked)
        return cls(opened, stream, transport, answering or timeout, renewed)

    @property
    def ended(self) -> bool:
        """Whether the stream is gone and its task has ended."""
        return self._keeper.done()

    async def live(self, timeout: float) -> Tenure:
        """The tenure, once there is a stream, for ``timeout`` seconds at most.

        Raises:
            Unavailable: no connection in that time; says why.
        """
        if not self._connected.is_set() or self.tenure.ended:
            self._awaited += 1
            self.rouse()
            try:
                async with asyncio.timeout(timeout):
                    while not self.lost and (not self._connected.is_set() or self.tenure.ended):
                        await self._connected.wait()
            except TimeoutError:
                why = self.pipeline.trouble if self.pipeline is not None else "no stream"
                raise Unavailable(f"{_ASKED}: not within {timeout:g} s: {why}") from None
            finally:
                self._awaited -= 1
        if self.lost:
            raise Unavailable(f"{_ASKED}: it ended meanwhile")
        return self.tenure

    def forgotten(self, tenure: Tenure) -> None:
        """The daemon does not know the session any more: begin another."""
        if self.pipeline is None:
            self.lost = tenure.ended = True
        elif tenure is self.tenure and not tenure.ended:
            tenure.ended = True
            self._connected.clear()
            self._end_stream()

    # What the pipeline asks for

    def now(self) -> float:
        """As Port."""
        return self._loop.time()

    def rouse(self) -> None:
        """As Port."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def alarm(self, when: float) -> None:
        """As Port."""
        if self._timer is not None:
            self._timer.cancel()
        assert self.pipeline is not None
        self._timer = self._loop.call_at(when, self.pipeline.expire)

    def reopen(self, held: Held) -> None:
        """As Port."""
        task = asyncio.create_task(self._reopen(held), name=f"mapd open {held.name} again")
        self._reopening.add(task)
        task.add_done_callback(self._reopening.discard)

    async def _reopen(self, held: Held) -> None:
        assert self.pipeline is not None
        error: MapdError | None = None
        try:
            await opened_again(held, self, self._transport, self._timeout)
        except MapdError as refused:
            error = refused
        except Exception as fault:
            # Those who wait are told, whatever went wrong: nothing else would end their wait before their time.
            _LOG.exception("open %s again", held.name)
            error = Unavailable(f"open {held.name} again: {fault!r}; nothing was executed")
        self.pipeline.reopened(held, error)

    async def _asleep(self) -> None:
        self._wake = self._loop.create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    # Streams

    def _end_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()

    async def _keep(self) -> None:
        try:
            await self._converse()
            while self.pipeline is not None and not self._closing:
                opened = await self._connect(self.pipeline)
                if not self._went_on(self.pipeline, opened):
                    break
                await self._converse()
        except asyncio.CancelledError:
            self.lost = True
            self._end_stream()
            if not self._closing:
                await self._settle()
            raise
        finally:
            self._finish()

    def _moved(self) -> None:
        """Certificates have changed: go on in a stream over a new connection, when what is under way is answered."""
        why = "the client's certificates have changed"
        self._farewell(why)
        if self.pipeline is not None:
            self.pipeline.trouble = why

    def _farewell(self, why: str) -> None:
        if self.pipeline is None:
            self.lost = True
        else:
            self.pipeline.farewell(why)

    def _finish(self) -> None:
        self._transport.moved.discard(self._moved)
        self.lost = self.tenure.ended = True
        self._connected.set()  # who waits for it looks at `lost`
        self._end_stream()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._reopening:
            task.cancel()
        if self.pipeline is not None:
            self.pipeline.close()

    async def _converse(self) -> None:
        """Use the stream until it ends."""
        stream, why = self._stream, "the daemon ended the stream of the session"
        assert stream is not None
        writer: asyncio.Task[None] | None = None
        if self.pipeline is not None:
            writer = asyncio.create_task(self._write(self.pipeline, stream), name="mapd session writer")
        began = self.now()
        try:
            while (message := await stream.receive()) is not None:
                self._read(message)
        except MapdError as error:
            why = str(error)
            _LOG.info("session %s: %s", self.tenure.session, error)
        finally:
            self._connected.clear()
            if self.pipeline is not None:
                self.pipeline.cut(why)
            stream.cancel()
            if writer is not None:
                writer.cancel()
                await asyncio.wait({writer})
        if self.now() - began > _LONGEST_PAUSE_S:
            self._pause = 0.0

    def _read(self, message: elements_pb2.SessionResponse) -> None:
        which = message.WhichOneof("message")
        if which == "apply" and self.pipeline is not None:
            self.pipeline.answered(message.apply)
        elif which == "goodbye":
            _LOG.info("the daemon says goodbye: %s", message.goodbye.message)
            self._farewell(message.goodbye.message)
        elif which == "error":
            _LOG.warning("session %s: %s", self.tenure.session, replies.refusal(message.error, _ASKED))

    async def _write(self, pipeline: Pipeline, stream: _Stream) -> None:
        """Write what may leave, until the stream ends: whoever reads is told why."""
        tenure = self.tenure
        try:
            await self._written(pipeline, stream)
        except Exception:
            # Nobody else would end the stream, and all that was asked in it would wait for its time to pass. A message
            # that cannot be written is not tried in a resumed session, which has it in flight for as long as it lives.
            _LOG.exception("session %s: nothing can be written in it any more", tenure.session)
            self.forgotten(tenure)

    async def _written(self, pipeline: Pipeline, stream: _Stream) -> None:
        while True:
            request = pipeline.next()
            if request is None:
                if pipeline.drained:
                    if not self._closing:
                        stream.cancel()  # not half-closed, which would end the session
                    return
                await self._asleep()
                continue
            try:
                if not await stream.send(request):
                    pipeline.unwritten(request)
                    return
            except MapdError:
                return

    async def _connect(self, pipeline: Pipeline) -> elements_pb2.SessionOpened:
        """A stream for this session, or for a new one where the daemon has forgotten it."""
        until = self.now() + self._resume_s
        while True:
            if self.now() > until:
                pipeline.lost()
                if not pipeline.wanted and not self._awaited:
                    await self._asleep()
            wait = 0.0
            try:
                self._stream, opened = await _begin(self._transport, self.tenure, self._timeout, _ASKED)
            except MapdError as error:
                if self._closing or self._transport.closed:
                    # aclose() cancels once, and waits. A failure of the connection at that moment took its place.
                    raise asyncio.CancelledError from None
                pipeline.trouble = str(error)
                if isinstance(error, QuotaExceeded):
                    # It is there, and is not to be asked 20 times a second. The pause is none that ``rouse`` ends.
                    wait = min(error.retry_after or 0.0, _QUOTA_PAUSE_S)
                elif not isinstance(error, Unreachable):
                    pipeline.refuse(error)
                    until = self.now()
            else:
                return opened
            self._pause = min(max(self._pause * 1.5, _PAUSE_S), _LONGEST_PAUSE_S)
            await asyncio.sleep(max(self._pause, wait))

    def _went_on(self, pipeline: Pipeline, opened: elements_pb2.SessionOpened) -> bool:
        """Go on with the stream that was opened; False where it carries no operations."""
        if not opened.slots:
            pipeline.refuse(
                Unavailable(
                    "the daemon was replaced by an older one that takes no operations in a session; ask again"
                )
            )
            return False
        self._resume_s = opened.resume_within.ToNanoseconds() / 1e9
        if opened.resumed:
            pipeline.resumed()
        else:
            if self.tenure.epoch != opened.epoch:
                self._renewed()
            self.tenure = Tenure(opened.session, opened.epoch)
            pipeline.begun(self.tenure, opened.slots)
        self._connected.set()
        return True

    async def _settle(self) -> None:
        """Let grpc tell this loop of every call that was cancelled.

        asyncio.run ends by cancelling all tasks, this one too, and then closes the loop. What grpc has to say later
        it says to another loop, which logs a traceback: one that goes on logged 180 of them beside a hundred that came
        and went, and none with the time that one more call takes. For what is later still there is closed_loops.
        """
        asked = Asked("server info")
        with suppress(MapdError):
            await self._transport.unary(GET_SERVER_INFO, maps_pb2.GetServerInfoRequest(), asked, _SETTLE_S)

    async def aclose(self) -> None:
        """End the session, and with it every handle opened under it. Idempotent."""
        self.lost = self._closing = True
        if self.pipeline is not None:
            self.pipeline.close()
        try:
            async with asyncio.timeout(_END_S):
                if self._connected.is_set() and self._stream is not None:
                    await self._stream.end()
                    await asyncio.wait({self._keeper})
        except (TimeoutError, MapdError):
            _LOG.debug("session %s: the daemon did not end it", self.tenure.session)
        finally:
            self._end_stream()
            self._keeper.cancel()
            await asyncio.wait({self._keeper, *self._reopening})
            self._stream = None

    def leave(self) -> None:
        """End the task without a word to the daemon, which ends the session a few seconds later. Idempotent."""
        self.lost = self._closing = True
        if self.pipeline is not None:
            self.pipeline.close()
        self._keeper.cancel()

    def abandon(self) -> None:
        """Let go of the stream; for a loop that is closed."""
        self.lost = True
        if self.pipeline is not None:
            self.pipeline.abandon()
        if self._stream is not None:
            self._stream.release()


async def _begin(
    transport: Transport, tenure: Tenure, timeout: float, asked: Asked
) -> tuple[_Stream, elements_pb2.SessionOpened]:
    """A stream with a session in it; the one of ``tenure`` if the daemon still has it.

    Cancelled: the stream is ended.
    """
    # No deadline on the stream itself; only its beginning is waited for.
    await transport.look(now=True)
    stream: _Stream = transport.converse(SESSION, asked, None)
    try:
        async with asyncio.timeout(timeout):
            return stream, await greeted(stream, tenure, asked)
    except TimeoutError:
        stream.cancel()
        raise Unavailable(f"{asked}: no answer from {transport.target} within {timeout:g} s") from None
    except BaseException:
        stream.cancel()
        raise


async def greeted(stream: _Stream, tenure: Tenure, asked: Asked) -> elements_pb2.SessionOpened:
    """The daemon's answer to the first message of a stream, which asks for the session of ``tenure``.

    Raises:
        MapdError: the daemon opens none.
    """
    wanted = elements_pb2.SessionOpen(session="" if tenure.ended else tenure.session, epoch=tenure.epoch)
    await stream.send(elements_pb2.SessionRequest(open=wanted))
    message = await stream.receive()
    match None if message is None else message.WhichOneof("message"):
        case "opened":
            assert message is not None
            return message.opened
        case "error":
            assert message is not None
            raise replies.refusal(message.error, asked)
        case "goodbye":
            assert message is not None
            raise Unavailable(f"{asked}: the daemon is going: {message.goodbye.message}")
        case _:
            raise Unsupported(f"{asked}: the daemon did not answer with a session")
