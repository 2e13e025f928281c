"""grpc's own blocking stubs, with the interface of ``mapd_client.channel``. What is awaited here blocks the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import grpc

from mapd_api import limits
from mapd_client import discovery, failures, tls
from mapd_client.blocking.feed import Alarm, Feed
from mapd_client.channel import LOOK_S, Conversation, Download, Transport
from mapd_client.channel_pair import LOCAL_OPTIONS, secured
from mapd_client.errors import DeadlineExceeded, Misuse, NotSent, OutcomeUnknown, SizeMismatch, Unavailable
from mapd_client.failures import Asked, Failure
from mapd_client.methods import Method, Request, Response
from mapd_client.tls import Material

_Sent = TypeVar("_Sent")
_Got = TypeVar("_Got")

_END: Final = object()


class BlockingPair:
    """A channel for calls and one for bulk streams; a pair that nobody knows any more ends with its last call."""

    def __init__(self, target: str, material: Material | None) -> None:
        self.material = material
        self.calls = _channel(target, material)
        self.bulk = _channel(target, material)
        self._stubs: dict[str, Any] = {}

    def stub(self, method: Method[Request, Response]) -> Any:
        """Of a call with one request and one answer."""
        found = self._stubs.get(method.path)
        if found is None:
            found = self._stubs[method.path] = self.calls.unary_unary(
                method.path, request_serializer=method.encode, response_deserializer=method.decode
            )
        return found

    def close(self) -> None:
        """Cancel what is running and close both connections. Idempotent."""
        self.calls.close()
        self.bulk.close()


def _channel(target: str, material: Material | None) -> grpc.Channel:
    if material is None:
        return grpc.insecure_channel(discovery.uri(target), options=LOCAL_OPTIONS)
    credentials, options = secured(material)
    return grpc.secure_channel(discovery.uri(target), credentials, options=options)


class BlockingTransport(Transport):
    """Both channels to one daemon, for all threads of a process."""

    def __init__(self, target: str, material: Material | None = None) -> None:
        self.target = target
        self.version = ""
        self.moved: set[Callable[[], None]] = set()
        self._both = BlockingPair(target, material)
        self._looking_at = threading.Lock()
        self._looked = float("-inf")
        self._closed = False
        self._slots = threading.BoundedSemaphore(limits.IN_FLIGHT)

    async def unary(
        self, method: Method[Request, Response], request: Request, asked: Asked, timeout: float | None
    ) -> Response:
        """As Transport. Interrupted (KeyboardInterrupt): the daemon may still execute the call."""
        self._check_open()
        size = request.ByteSize()
        if size > limits.MESSAGE_BYTES:
            raise SizeMismatch(
                f"{asked}: a message of {size} bytes, at most {limits.MESSAGE_BYTES} are carried",
                operation=asked.operation,
                map=asked.map,
            )
        began = time.monotonic()
        if not self._slots.acquire(timeout=timeout):
            kind = NotSent if asked.mutates else DeadlineExceeded
            raise kind(
                f"{asked}: not sent within {round(timeout or 0, 3):g} s: {limits.IN_FLIGHT} calls of this client "
                "are under way; give it more time, or send many elements in one call (update_many, lookup_many)",
                operation=asked.operation,
                map=asked.map,
            )
        try:
            await self.look()
            left = None if timeout is None else began + timeout - time.monotonic()
            pair = self._both
            with self.mapped(asked, timeout, pair):
                response: Response = pair.stub(method)(request, timeout=left)
            return response
        finally:
            self._slots.release()

    async def look(self, *, now: bool = False) -> None:
        """As Transport: new files of certificates mean new connections, at most a second later."""
        material = self._both.material
        if material is None or (not now and time.monotonic() - self._looked < LOOK_S):
            return
        with self._looking_at:
            self._looked = time.monotonic()
            try:
                new = tls.changed(material)
            except Misuse:
                return  # half-written files: the old ones stay, as long as the daemon takes them
            if new is not None and not self._closed:
                self._both = BlockingPair(self.target, new)

    def download(
        self, method: Method[Request, Response], request: Request, asked: Asked, timeout: float | None
    ) -> Download[Response]:
        """As Transport."""
        self._check_open()
        pair = self._both
        factory = pair.bulk.unary_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        return BlockingDownload(factory(request), self, asked, timeout, pair)

    async def upload(
        self,
        method: Method[Request, Response],
        requests: Iterator[Request],
        asked: Asked,
        timeout: float | None,
    ) -> Response:
        """As Transport; ``requests`` is read by the caller's thread."""
        self._check_open()
        await self.look()
        factory = self._both.bulk.stream_unary(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        feed = Feed[Request]()
        call: Any = factory.future(feed, wait_for_ready=True)
        call.add_done_callback(feed.close)
        try:
            for request in requests:  # the caller's own code: what it raises is passed on as it is
                with self.mapped(asked, timeout):
                    if not feed.put(request, timeout):
                        break
            feed.end()
            with self.mapped(asked, timeout):
                answer: Response = call.result(timeout)
            return answer
        finally:
            feed.close()
            call.cancel()

    def converse(
        self, method: Method[Request, Response], asked: Asked, timeout: float | None
    ) -> Conversation[Request, Response]:
        """As Transport."""
        self._check_open()
        pair = self._both
        factory = pair.calls.stream_stream(
            method.path, request_serializer=method.encode, response_deserializer=method.decode
        )
        return BlockingConversation(factory, self, asked, timeout, pair)

    async def aclose(self) -> None:
        """Cancel what is running, in other threads too, and close both connections. Idempotent."""
        self._closed = True
        self._both.close()

    @contextmanager
    def mapped(
        self, asked: Asked, timeout: float | None, pair: BlockingPair | None = None
    ) -> Generator[None]:
        """What grpc raises as a MapdError."""
        try:
            yield
        except grpc.RpcError as error:
            raise self.of_grpc(error, asked, timeout, pair) from None
        except (grpc.FutureTimeoutError, TimeoutError):
            raise failures.of_failure(
                Failure("DEADLINE_EXCEEDED", "", None, self.target, timeout), asked
            ) from None
        except (grpc.FutureCancelledError, ValueError):
            if not self._closed:
                raise
            raise self._closed_meanwhile(asked) from None

    def of_grpc(
        self, error: Any, asked: Asked, timeout: float | None, pair: BlockingPair | None = None
    ) -> Exception:
        """The exception for a call that grpc says has failed."""
        if self._closed:
            return self._closed_meanwhile(asked)
        # As Transport: a new channel tries at once, one that was refused does not.
        refused = failures.never_connected(error.details() or "")
        if pair is not None and refused and pair is self._both and pair.material is None:
            self._both = BlockingPair(self.target, None)
        return self.failed(error, asked, timeout)

    def _closed_meanwhile(self, asked: Asked) -> Exception:
        kind = OutcomeUnknown if asked.mutates else Unavailable
        what = "; it may have been executed" if asked.mutates else ""
        return kind(
            f"{asked}: the client was closed meanwhile{what}", operation=asked.operation, map=asked.map
        )

    def _own_certificate(self) -> str:
        material = self._both.material
        return "" if material is None else tls.own_certificate(material.tls)


class BlockingDownload(Download[_Got], Generic[_Got]):
    """Answers as they come, to one thread at a time."""

    def __init__(
        self, call: Any, transport: BlockingTransport, asked: Asked, timeout: float | None, pair: BlockingPair
    ) -> None:
        self._stream = call
        self._both = pair
        self._transport: BlockingTransport = transport
        self._asked = asked
        self._timeout = timeout
        self._cancelled = False

    async def __anext__(self) -> _Got:
        """As Download. Interrupted: the stream is ended."""
        alarm = Alarm(self._stream, self._timeout)
        try:
            with alarm:
                message: Any = next(self._stream, _END)
        except grpc.RpcError as error:
            if alarm.rang:
                late = Failure("DEADLINE_EXCEEDED", "", None, self._transport.target, self._timeout)
                raise failures.of_failure(late, self._asked) from None
            if self._cancelled:
                raise StopAsyncIteration from None
            raise self._transport.of_grpc(error, self._asked, self._timeout, self._both) from None
        except BaseException:
            self.cancel()
            raise
        if message is _END:
            raise StopAsyncIteration
        found: _Got = message
        return found

    def __del__(self) -> None:
        if hasattr(self, "_stream"):
            self.cancel()

    def cancel(self) -> None:
        """End the stream now. Idempotent."""
        self._cancelled = True
        self._stream.cancel()

    def within(self, timeout: float) -> None:
        """Wait so long for each further message."""
        self._timeout = timeout

    @property
    def going(self) -> bool:
        """Whether the stream has not ended."""
        active: bool = self._stream.is_active()
        return active


class BlockingConversation(Conversation[_Sent, _Got], BlockingDownload[_Got], Generic[_Sent, _Got]):
    """A stream both ways; grpc has a thread that waits for what is to be sent."""

    def __init__(
        self,
        begin: Any,
        transport: BlockingTransport,
        asked: Asked,
        timeout: float | None,
        pair: BlockingPair,
    ) -> None:
        self._feed = Feed[_Sent]()
        super().__init__(begin(self._feed), transport, asked, timeout, pair)
        if not self._stream.add_callback(self._feed.close):
            self._feed.close()  # it has ended already

    async def send(self, message: _Sent) -> bool:
        """As Conversation."""
        with self._transport.mapped(self._asked, self._timeout):
            return self._feed.put(message, self._timeout)

    async def receive(self) -> _Got | None:
        """As Conversation, within the stream's timeout."""
        try:
            return await super().__anext__()
        except StopAsyncIteration:
            return None

    async def end(self) -> None:
        """As Conversation."""
        self._feed.end()

    def cancel(self) -> None:
        """End the stream now. Idempotent."""
        super().cancel()
        self._feed.close()
