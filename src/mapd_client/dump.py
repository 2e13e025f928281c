"""A dump as an async iterator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from operator import length_hint
from types import TracebackType
from typing import Generic, TypeVar

from mapd_api.v1 import elements_pb2
from mapd_client.channel import Download
from mapd_client.errors import MapdError
from mapd_client.info import Chunk, Trailer
from mapd_client.replies import DumpReader

T = TypeVar("T")

Stream = Download[elements_pb2.DumpResponse]


class Dump(AsyncIterator[T], AbstractAsyncContextManager["Dump[T]"], Generic[T]):
    """What a map holds, a chunk of up to 1 MiB at a time.

    Iterate it once. Nothing is asked before the first element is, and gRPC holds a few MiB ahead of
    the reader. Leaving early: ``async with m.items() as dump``, or ``aclose``, ends it at once; a dump
    that is merely forgotten ends when Python collects it.

    The daemon says at the end whether the dump is complete; ``MapInfo.iteration`` says what that means
    for the map's type.
    """

    trailer: Trailer | None
    """What the daemon said at the end; None before."""

    def __init__(
        self,
        start: Callable[[], Awaitable[Stream]],
        reader: DumpReader,
        decode: Callable[[Chunk], list[T]],
        *,
        resume: bytes | None,
        partial_ok: bool,
    ) -> None:
        self._start = start
        self._reader = reader
        self._decode = decode
        self._partial_ok = partial_ok
        self._stream: Stream | None = None
        self._entries: Iterator[T] = iter(())
        self._given = resume or b""  # resumes after the last chunk handed out in full
        self._current = b""  # the token of the chunk that is being handed out
        self._over = False
        self.trailer = None

    @property
    def token(self) -> bytes:
        """Pass it as ``resume`` to go on after the last chunk handed out in full; b"" for none yet.

        Elements of a chunk that was not handed out to its end come again.
        """
        if self._current and not length_hint(self._entries):
            return self._current
        return self._given

    async def __anext__(self) -> T:
        """The next element.

        Cancelled: the dump is over; go on with ``token``.

        Raises:
            DumpIncomplete: after the last element, if the daemon does not call the dump complete
                (``partial_ok`` accepts that) or the stream broke (nothing accepts that).
            MapdError: the dump was refused.
        """
        while True:
            for entry in self._entries:
                return entry
            self._given, self._current = self.token, b""
            if self._over:
                raise StopAsyncIteration
            try:
                await self._next_chunk()
            except BaseException:
                await self.aclose()
                raise

    async def _next_chunk(self) -> None:
        if self._stream is None:
            self._stream = await self._start()
        while True:
            try:
                message = await anext(self._stream, None)
            except MapdError as error:
                if not self._reader.started:
                    raise
                raise self._reader.broken(f"the stream broke: {error}", self.token) from error
            chunk = None if message is None else self._reader.feed(message)
            if chunk is not None:
                self._entries = iter(self._decode(chunk))
                self._current = chunk.token
                return
            if message is None:
                self._over = True
                self._end()
                return

    def _end(self) -> None:
        self.trailer = self._reader.trailer
        incomplete = self._reader.incomplete(self.token)
        if incomplete is not None and not (self._partial_ok and self.trailer is not None):
            raise incomplete

    async def aclose(self) -> None:
        """End the dump now; the daemon stops reading the map. Idempotent."""
        self._over = True
        self._given, self._current = self.token, b""
        self._entries = iter(())
        if self._stream is not None:
            self._stream.cancel()

    async def __aenter__(self) -> Dump[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()
