"""The streams behind one dump: the first, and another behind what was received wherever one breaks."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Final, Protocol

from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2
from mapd_client import waiting
from mapd_client.channel import Download
from mapd_client.chunk import Chunk
from mapd_client.errors import DumpIncomplete, MapdError
from mapd_client.patience import Patience
from mapd_client.replies import DumpReader

Stream = Download[elements_pb2.DumpResponse]

_INSIDE: Final = (
    "the last chunk was a part of what the daemon reads in one go, inside of which nothing goes on"
)


class Streams(Protocol):
    """What begins the streams of a dump."""

    async def begin(self, token: bytes, limit: int | None) -> Stream:
        """A stream of what is behind ``token``; at most ``limit`` elements."""
        ...

    async def mend(self, error: MapdError, timeout: float) -> bool:
        """Whether the handle, which ``error`` calls stale, was replaced, within so many seconds.

        Raises:
            MapdError: it cannot be.
        """
        ...

    def patience(self) -> Patience:
        """How long a stream is tried to be had."""
        ...


class Source:
    """The chunks of one dump, whatever streams they come in. Begun when the first is asked for.

    A chunk was received whole or not at all, and the next is asked for when it was handed out: so what is left is
    behind the token of the last one. Not where that has none.

    Args:
        token: what the dump was told to resume behind; b"": nothing.
        limit: elements in all; None: all that there are.
    """

    def __init__(self, streams: Streams, reader: DumpReader, *, token: bytes, limit: int | None) -> None:
        self.reader = reader
        self._streams = streams
        self._stream: Stream | None = None
        self._behind: bytes | None = token  # None: behind the last chunk nothing can go on
        self._known = token
        self._limit = limit
        self._received = 0
        self._resumed = 0
        self._patience: Patience | None = None  # while no stream gives anything
        self._taken = False  # a chunk of the stream that there is
        self._began = 0.0

    async def next_chunk(self, token: bytes) -> Chunk | None:
        """The next chunk; None at the dump's end.

        Raises:
            DumpIncomplete: the stream broke, and no other could be had; go on with ``token``.
            MapdError: the dump was refused.
        """
        while True:
            try:
                message = await self._message()
            except MapdError as error:
                if self.reader.trailer is not None:
                    return None  # all was said
                await self._go_on(error, token)
                continue
            chunk = None if message is None else self.reader.feed(message)
            if message is None:
                return None
            if self.reader.trailer is not None:
                self._sum_up()
            elif chunk is not None and self._noted(chunk):
                return chunk

    async def _message(self) -> elements_pb2.DumpResponse | None:
        if self._stream is None:
            self._began = self._began or time.monotonic()
            left = None if self._limit is None else max(1, self._limit - self._received)
            self._taken = False
            self._stream = await self._streams.begin(self._known, left)
        return await anext(self._stream, None)

    def _noted(self, chunk: Chunk) -> bool:
        """Keep in mind where the dump is; False for what was asked for the trailer's sake alone."""
        if self._limit is not None and self._received >= self._limit:
            return False
        self._patience, self._taken = None, True
        self._received += chunk.count
        self._behind = chunk.token or None
        self._known = chunk.token or self._known
        return True

    async def _go_on(self, error: MapdError, token: bytes) -> None:
        """See to it that another stream may be begun; raises where none may."""
        began = self.reader.started
        self._patience = self._patience or self._streams.patience()
        self.cancel()
        self._stream = None
        try:
            if self._behind is None and (self._limit is None or self._received < self._limit):
                raise self.reader.broken(f"the stream broke: {error}; {_INSIDE}", token) from error
            if not await self._streams.mend(error, self._patience.left()):
                # A reader that was cut off for its slowness goes on as soon as it asks for more.
                slow = error.reason is Reason.QUOTA and self._taken
                pause = 0.0 if slow else self._patience.pause(error)
                await waiting.pause(pause)
        except DumpIncomplete:
            raise
        except MapdError as last:
            if not began:
                raise
            raise self.reader.broken(f"the stream broke: {last}", token) from last
        self._resumed += self._taken

    def _sum_up(self) -> None:
        """Make the trailer of the last stream that of the whole dump."""
        trailer = self.reader.trailer
        if trailer is None or not self._resumed:
            return
        took = timedelta(seconds=time.monotonic() - self._began)
        self.reader.trailer = replace(
            trailer, entries=self._received, started_at=trailer.ended_at - took, resumed=self._resumed
        )

    def cancel(self) -> None:
        """End the stream now. Idempotent."""
        if self._stream is not None:
            self._stream.cancel()
