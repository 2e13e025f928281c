"""grpc: with ``channel_pair`` the only modules of this library that import it.

Two channels to one daemon: one for calls, one for bulk streams, each with a connection of its own,
so that a dump does not delay a lookup. Everything that grpc raises leaves here as a MapdError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from grpc import StatusCode, aio

from mapd_api import limits
from mapd_client import failures, fates, logins, tls, watching
from mapd_client.channel_pair import Pair
from mapd_client.errors import (
    DeadlineExceeded,
    MapdError,
    Misuse,
    NotSent,
    OutcomeUnknown,
    SizeMismatch,
    Unavailable,
)
from mapd_client.failures import Asked, Failure
from mapd_client.methods import Method, Request, Response
from mapd_client.tls import Material

_LOG: Final = logging.getLogger("mapd_client")

_DETAILS_KEY: Final = "grpc-status-details-bin"

_NO_TIME: Final = "nothing was left of it once a connection with the client's certificate could be made"

_FAILED_WRITE: Final = "Internal error from Core"
"""grpc.aio's details for a write that failed; not a word of the daemon's."""

LOOK_S: Final = 1.0
"""Calls look at most so often whether the files of certificates have changed."""

_Sent = TypeVar("_Sent")
_Got = TypeVar("_Got")
_Sent_contra = TypeVar("_Sent_contra", contravariant=True)


class _Call(Protocol[_Sent_contra]):
    """What is used of grpc.aio's streaming calls."""

    def cancel(self) -> bool: ...
    def done(self) -> bool: ...
    async def read(self) -> Any: ...
    async def write(self, request: _Sent_contra) -> None: ...
    async def done_writing(self) -> None: ...
    def add_done_callback(self, callback: Callable[[Any], object]) -> None: ...


class Transport:
    """Both channels of one event loop to one daemon. Made inside the loop; does no I/O until used.

    Attributes:
        target: "unix:/run/mapd/mapd.sock".
        version: of the daemon, for messages; "" until known.
        moved: called when certificates have changed, and new connections are to be used.
    """

    target: str
    version: str
    moved: set[Callable[[], None]]

    def __init__(self, target: str, material: Material | None = None) -> None:
        self.target = target
        self.version = ""
        self.moved: set[Callable[[], None]] = set()
        self._pair = Pair(target, material)
        self._retired: list[Pair] = []
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._trouble = ""
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._turns = asyncio.Semaphore(limits.IN_FLIGHT)

    async def unary(
        self, method: Method[Request, Response], request: Request, asked: Asked, timeout: float | None
    ) -> Response:
        """One answer for one request.

        Cancelled: the daemon may still execute the call.

        Raises:
            MapdError: as the daemon answered; NotSent or OutcomeUnknown where it did not and the call
                may change something, else Unavailable or DeadlineExceeded.
        """
        self._check_open()
        size = request.ByteSize()
        if size > limits.MESSAGE_BYTES:
            raise SizeMismatch(
                f"{asked}: a message of {size} bytes, at most {limits.MESSAGE_BYTES} are carried",
                operation=asked.operation,
                map=asked.map,
            )
        if (watcher := watching.current()) is not None:
            watcher.asks(self.target, method, [request])
        began = self._loop.time()
        await self._wait_turn(asked, timeout)
        try:
            await self.look()
            while True:
                pair = self._pair
                call = pair.calls.unary_unary(
                    method.path, request_serializer=method.encode, response_deserializer=method.decode
                )
                left = None if timeout is None else began + timeout - self._loop.time()
                if left is not None and left <= 0:
                    raise fates.late(self.target, timeout or 0, written=False, why=_NO_TIME)(asked)
                with self._translated(asked, timeout, pair):
                    made = call(request, timeout=left)
                    try:
                        with pair:
                            response = await made
                        if watcher is not None:
                            watcher.answered(request, response)
                        return response
                    except aio.AioRpcError as error:
                        _let_go(made)
                        # Without one nothing was refused for it, and who may ask again has that from Patience.
                        if pair.material is None or not _for_its_certificate(error):
                            raise
                        if not await self._has_moved(pair):
                            raise
        finally:
            self._turns.release()

    async def look(self, *, now: bool = False) -> None:
        """See whether the files of certificates have changed, once a second or ``now``; new connections then.

        Calls under way end where they are. Files that cannot be used are left alone, and logged once.
        """
        material = self._pair.material
        if material is None or (not now and self._loop.time() - self._looked < LOOK_S):
            return
        async with self._looking:
            material = self._pair.material
            self._looked = self._loop.time()
            try:
                new = None if material is None else await asyncio.to_thread(tls.changed, material)
            except Misuse as error:
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    _LOG.warning("certificates changed and cannot be used, the old ones stay: %s", error)
                return
            if new is not None and not self._closed:
                self._trouble = ""
                self._move(new)

    def _move(self, material: Material) -> None:
        old, self._pair = self._pair, Pair(self.target, material)
        for moved in tuple(self.moved):
            moved()
        self._retire(old)
        _LOG.info("certificates have changed: new connections to %s", self.target)

    def _retire(self, old: Pair) -> None:
        self._retired = [pair for pair in self._retired if not pair.is_closed]
        self._retired.append(old)
        old.retire()

    async def _has_moved(self, pair: Pair) -> bool:
        """Whether there are other connections by now than those that were refused."""
        await self.look(now=True)
        return self._pair is not pair and not self._closed

    async def _wait_turn(self, asked: Asked, timeout: float | None) -> None:
        """Be one of limits.IN_FLIGHT calls; grpc would have the daemon reset what exceeds its own limit."""
        try:
            async with asyncio.timeout(timeout):
                await self._turns.acquire()
        except TimeoutError:
            kind = NotSent if asked.mutates else DeadlineExceeded
            raise kind(
                f"{asked}: not sent within {round(timeout or 0, 3):g} s: {limits.IN_FLIGHT} calls of this client "
                "are under way; give it more time, or send many elements in one call (update_many, lookup_many)",
                operation=asked.operation,
                map=asked.map,
            ) from None

    def download(
        self, method: Method[Request, Response], request: Request, asked: Asked, timeout: float | None
    ) -> Download[Response]:
        """A stream of answers on the bulk channel; ``timeout`` bounds the wait for each of them."""
        self._check_open()
        if (watcher := watching.current()) is not None:
            watcher.asks(self.target, method, [request])
        pair = self._pair
        factory = pair.bulk.unary_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        call = factory(request)
        pair.used_by(call)
        return Download(cast("_Call[Any]", call), self, asked, timeout, pair)

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Iterator[Request],
        asked: Asked,
        timeout: float | None,
    ) -> Response:
        """One answer for a stream of requests on the bulk channel; ``timeout`` bounds each step.

        Cancelled: what was sent may be executed.

        Raises:
            MapdError: as ``unary``.
            Exception: whatever ``requests`` raises.
        """
        self._check_open()
        if (watcher := watching.current()) is not None:
            watcher.asks(self.target, method, requests)
        await self.look()
        self._check_open()
        factory = self._pair.bulk.stream_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        # Its messages are made once: none is to be lost on a channel that will connect in a moment.
        call = factory(wait_for_ready=True)
        self._pair.used_by(call)
        writer = cast("_Call[Request]", call)
        ending = _Ending(call)
        try:
            for request in requests:  # the caller's own code: what it raises is passed on as it is
                if not await self._written(writer, request, asked, timeout):
                    break
            else:
                with (
                    self._translated(asked, timeout),
                    suppress(aio.InternalError),
                ):  # its answer says how it ended
                    async with asyncio.timeout(timeout):
                        await writer.done_writing()
            with self._translated(asked, timeout):
                async with asyncio.timeout(timeout):
                    return await ending.answer()
        finally:
            if not writer.done():
                writer.cancel()

    async def _written(
        self, call: _Call[Request], request: Request, asked: Asked, timeout: float | None
    ) -> bool:
        """False if the daemon ended the call early; its answer then says why."""
        if call.done():
            return False
        with self._translated(asked, timeout):
            async with asyncio.timeout(timeout):
                try:
                    await call.write(request)
                except (aio.AioRpcError, asyncio.InvalidStateError):
                    return False
        return True

    def converse(
        self, method: Method[Request, Response], asked: Asked, timeout: float | None
    ) -> Conversation[Request, Response]:
        """A stream both ways beside the calls."""
        self._check_open()
        pair = self._pair
        factory = pair.calls.stream_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        call = factory()
        pair.used_by(call)
        return Conversation(cast("_Call[Request]", call), self, asked, timeout, pair)

    async def aclose(self) -> None:
        """Cancel what is running and close both connections. Idempotent."""
        self._closed = True
        for pair in (self._pair, *self._retired):
            await pair.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is just being closed."""
        return self._closed

    async def abandon(self) -> None:
        """Close both connections from another loop, when this one's is closed.

        Calls that were running cannot be cancelled without their loop; where there are some, the
        connection ends when Python collects them.
        """
        self._closed = True
        for pair in (self._pair, *self._retired):
            await pair.abandon()

    def _check_open(self) -> None:
        if self._closed:
            raise Misuse("the client is closed")

    @contextmanager
    def _translated(self, asked: Asked, timeout: float | None, pair: Pair | None = None) -> Generator[None]:
        try:
            yield
        except aio.AioRpcError as error:
            raise self.failed(error, asked, timeout, pair) from None
        except TimeoutError:
            late = Failure("DEADLINE_EXCEEDED", "", None, self.target, timeout)
            raise failures.of_failure(late, asked) from None
        except asyncio.CancelledError:
            if not self.closed_under_task():
                raise
            kind = OutcomeUnknown if asked.mutates else Unavailable
            what = "; it may have been executed" if asked.mutates else ""
            raise kind(
                f"{asked}: the client was closed meanwhile{what}", operation=asked.operation, map=asked.map
            ) from None
        except aio.UsageError:
            raise Misuse(f"{asked}: the client is closed") from None

    def closed_under_task(self) -> bool:
        """Whether grpc.aio raised CancelledError in a task that nobody cancels: ``aclose`` has cancelled its call."""
        task = asyncio.current_task()
        return self._closed and task is not None and not task.cancelling()

    def translated(self, asked: Asked, timeout: float | None, pair: Pair) -> Callable[[], Any]:
        """For the streams of this module."""
        return lambda: self._translated(asked, timeout, pair)

    def failed(
        self, error: aio.AioRpcError, asked: Asked, timeout: float | None, pair: Pair | None = None
    ) -> MapdError:
        """The exception for a call that grpc says has failed."""
        if pair is not None and failures.never_connected(error.details() or ""):
            self._forsake(pair)
        return failures.of_failure(self._failure(error, timeout), asked)

    def _forsake(self, pair: Pair) -> None:
        """Have the next call try a new connection, where this one found no socket or nobody behind it.

        grpc tries an address that has refused it a tenth of a second later at the earliest, and behind that ever less
        often; a new channel tries at once. Only on this host, where that costs neither packets nor a handshake.
        """
        if pair is self._pair and pair.material is None and not self._closed:
            self._pair = Pair(self.target, None)
            self._retire(pair)

    def _own_certificate(self) -> str:
        return self._pair.own_certificate()

    def _failure(self, error: aio.AioRpcError, timeout: float | None) -> Failure:
        status: bytes | None = None
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY and isinstance(value, bytes):
                status = value
        unsent = failures.never_connected(error.details() or "")
        return Failure(
            error.code().name,
            error.details() or "",
            status,
            self.target,
            timeout,
            self.version,
            self._own_certificate() if unsent else "",
            logins.refused_by(self.target) if unsent else "",
        )


def _for_its_certificate(error: aio.AioRpcError) -> bool:
    """Whether a call was not executed for want of a connection, or of somebody whom the daemon knows."""
    if error.code() is StatusCode.UNAUTHENTICATED:
        return True
    return error.code() is StatusCode.UNAVAILABLE and failures.never_connected(error.details() or "")


def _let_go(call: Any) -> None:
    """Have a call that is over, or can go on no more, hold its connection no longer.

    grpc closes a connection when the last of its calls is freed. One that failed is held by the frames of its error's
    traceback, for as long as a caller keeps the error.
    """
    with suppress(TypeError):  # should it have no __dict__ one day
        cast("dict[str, object]", vars(call)).clear()


class _Ending(Generic[_Sent, _Got]):
    """How the daemon ended an upload, noted when it is told.

    grpc.aio forgets it if a write fails afterwards, and says INTERNAL instead (grpc/grpc#36066, open in
    1.85): of 300 loads that were refused midway 24 lost the reason that way.
    """

    def __init__(self, call: aio.StreamUnaryCall[_Sent, _Got]) -> None:
        self._call = call
        self._told: aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    def _note(self, _call: Any) -> None:
        # Called for the status and for the failed write, in either order.
        code, details = _at_once(self._call.code()), _at_once(self._call.details())
        if self._told is None and code is not StatusCode.OK and details != _FAILED_WRITE:
            trailing = _at_once(self._call.trailing_metadata())
            self._told = aio.AioRpcError(code, aio.Metadata(), trailing, details=details)

    async def answer(self) -> _Got:
        """The answer, or the daemon's own error."""
        try:
            return await self._call
        except aio.AioRpcError as error:
            raise (self._told or error) from None


def _at_once(known: Coroutine[Any, Any, _Got]) -> _Got:
    """What a call that is done says of itself: its coroutines end without waiting."""
    try:
        known.send(None)
    except StopIteration as end:
        return cast("_Got", end.value)
    known.close()
    raise RuntimeError("a call that is done has a status")


class Download(AsyncIterator[_Got], Generic[_Got]):
    """Answers as they come. Ends by itself, by ``cancel`` or when it is forgotten."""

    def __init__(
        self, call: _Call[Any], transport: Transport, asked: Asked, timeout: float | None, pair: Pair
    ) -> None:
        self._call = call
        self._transport = transport
        self._asked = asked
        self._timeout = timeout
        self._pair = pair
        self._translated = transport.translated(asked, timeout, pair)
        self._cancelled = False
        self._loop = asyncio.get_running_loop()

    async def __anext__(self) -> _Got:
        """The next answer.

        Cancelled: the stream is ended too, for grpc ends it with a cancelled read.

        Raises:
            MapdError: as the daemon ended the stream; DeadlineExceeded if nothing came in time.
        """
        if self._cancelled:
            raise StopAsyncIteration
        try:
            with self._translated():
                async with asyncio.timeout(self._timeout):
                    message = await self._call.read()
        except MapdError:
            self.cancel()
            _let_go(self._call)
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._cancelled and (task is None or not task.cancelling()):
                raise StopAsyncIteration from None  # ended by cancel(), not this task
            raise
        if message is aio.EOF:
            raise StopAsyncIteration
        return cast("_Got", message)

    def __del__(self) -> None:
        # grpc's own call is part of a cycle, so that leaving a loop early would not end the stream.
        if hasattr(self, "_loop") and not self._loop.is_closed():
            self.cancel()

    def cancel(self) -> None:
        """End the stream now. Idempotent."""
        if not self._cancelled and not self._call.done():
            self._call.cancel()
        self._cancelled = True

    def release(self) -> None:
        """Let go of the connection now, when the loop is closed and nobody can use this any more.

        grpc's call and the connection that it holds are part of a cycle: without this the connection
        stays open until Python collects it.
        """
        _let_go(self._call)


class Conversation(Download[_Got], Generic[_Sent, _Got]):
    """A stream both ways."""

    _begun = False

    async def send(self, message: _Sent) -> bool:
        """Hand one message to the connection; False where the stream had ended before, so that nothing left.

        Raises:
            MapdError: the stream ended meanwhile; whether the message left is not known.
        """
        # No timeout and no context manager: this is done for each message of a session.
        try:
            if self._begun:
                await self._call.write(message)
            else:
                await self._begin(message)
        except asyncio.InvalidStateError:
            return False
        except aio.AioRpcError as error:
            raise self._broken(error) from None
        except asyncio.CancelledError:
            if self._transport.closed_under_task():
                raise self._closed() from None
            raise
        return True

    async def _begin(self, message: _Sent) -> None:
        """Write the first message.

        grpc.aio would write for ever to a call that was cancelled before its metadata had left (``_metadata_sent``).
        """
        over = asyncio.Event()
        self._call.add_done_callback(lambda _: over.set())
        ended = asyncio.create_task(over.wait(), name="mapd stream's end")
        writing = asyncio.create_task(self._call.write(message), name="mapd begin stream")
        try:
            await asyncio.wait({writing, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                raise asyncio.InvalidStateError
            self._begun = True
            await writing
        finally:
            writing.cancel()
            ended.cancel()

    async def receive(self) -> _Got | None:
        """The next message, None at the end of the stream. Cancelled: the stream is ended too.

        Raises:
            MapdError: as the daemon ended the stream, or the connection broke.
        """
        try:
            message = await self._call.read()
        except aio.AioRpcError as error:
            raise self._broken(error) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._cancelled and (task is None or not task.cancelling()):
                return None  # ended by cancel(), not this task
            if self._transport.closed_under_task():
                raise self._closed() from None
            raise
        return None if message is aio.EOF else cast("_Got", message)

    def _closed(self) -> MapdError:
        return Unavailable(f"{self._asked}: the client was closed meanwhile")

    def _broken(self, error: aio.AioRpcError) -> MapdError:
        if error.details() == _FAILED_WRITE:
            # grpc.aio's word for a connection that ended under a write, which it takes for the call's own end.
            return Unavailable(
                f"{self._asked}: the connection to {self._transport.target} broke under a write"
            )
        return self._transport.failed(error, self._asked, None, self._pair)

    async def end(self) -> None:
        """Say that nothing more will be sent. Nothing happens on a stream that has ended, or ends meanwhile."""
        if not self._call.done():
            with self._translated(), suppress(aio.InternalError):  # how it ended says its status
                await self._call.done_writing()
