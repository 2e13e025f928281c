"""A dump as an async iterator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from operator import length_hint
from types import TracebackType
from typing import Final, Generic, TypeVar

from mapd_client.chunk import Chunk
from mapd_client.info import Trailer
from mapd_client.resuming import Source

T = TypeVar("T")

SLICE_ELEMENTS: Final = 4_096
"""Elements decoded at once. A whole chunk may be 131,072 networks: 0.4 s in which the event loop did
nothing else. Decoding so many integers takes 0.02 ms, networks 4 to 13 ms."""


class Lazily(Generic[T]):
    """Elements that are made when they are handed out.

    A million objects that the garbage collector looks at (``Fields``) cost several times their making when thousands of
    them wait to be handed out.

    Attributes:
        entries: them.
        left: an iterator that goes on with them and says how many are left (``operator.length_hint``).
    """

    __slots__ = ("entries", "left")

    def __init__(self, entries: Iterator[T], left: Iterator[object]) -> None:
        self.entries = entries
        self.left = left


class Dump(AsyncIterator[T], AbstractAsyncContextManager["Dump[T]"], Generic[T]):
    """What a map holds, a chunk of up to 1 MiB at a time.

    Iterate it once. Nothing is asked before the first element is, and gRPC holds a few MiB ahead of
    the reader. A chunk is decoded 4,096 elements at a time, and between two such parts other tasks have
    their turn. Leaving early: ``async with m.items() as dump``, or ``aclose``, ends it at once; a dump
    that is merely forgotten ends when Python collects it.

    Where the connection breaks, or the daemon is replaced by another start of it, the dump goes on behind what it has
    handed out, as often as needed (``Trailer.resumed``): no key comes twice, prefix and limit hold for the whole. It
    tries to for the client's timeout each time; DumpIncomplete says where it cannot.

    The daemon says at the end whether the dump is complete; ``MapInfo.iteration`` says what that means
    for the map's type. Iteration stops quietly there, and after ``aclose``; a dump that ended in any
    other way raises DumpIncomplete, however often it is asked for more.
    """

    trailer: Trailer | None
    """What the daemon said at the end; None before."""

    def __init__(
        self,
        source: Source,
        decode: Callable[[Chunk], list[T] | Lazily[T]],
        *,
        resume: bytes | None,
        partial_ok: bool,
        whole: bool = False,
    ) -> None:
        self._source = source
        self._decode = decode
        self._whole = whole  # decode chunks as they come
        self._partial_ok = partial_ok
        self._entries: Iterator[T] = iter(())
        self._left: Iterator[object] = self._entries  # says how many
        self._rest: Chunk | None = None  # what of the current chunk is not decoded yet
        self._given = resume or b""  # resumes after the last chunk handed out in full
        self._current = b""  # the token of the chunk that is being handed out
        self._over = False
        self._closed = False
        self._failure = ""  # why it ended before its end; words, for an exception would keep the dump alive
        self.trailer = None

    @property
    def token(self) -> bytes:
        """Pass it as ``resume`` to go on after the last chunk handed out in full; b"" for none yet.

        Elements of a chunk that was not handed out to its end come again. A chunk without elements
        counts too: a dump that finds little for long makes progress nevertheless.
        """
        if self._current and self._rest is None and not length_hint(self._left):
            return self._current
        return self._given

    async def __anext__(self) -> T:
        """The next element.

        Cancelled: the dump is over, and every further step says so; go on with ``token``.

        Raises:
            DumpIncomplete: after the last element, if the daemon does not call the dump complete
                (``partial_ok`` accepts that); the stream broke, or an earlier step failed or was
                cancelled (nothing accepts that).
            MapdError: the dump was refused.
        """
        while True:
            for entry in self._entries:
                return entry
            if self._over:
                raise self._last_word()
            try:
                await self._advance()
            except BaseException as error:
                why = f"{type(error).__name__}: {error}".removesuffix(": ")
                self._failure = f"an earlier step ended it ({why})"
                self._end()
                raise

    async def _advance(self) -> None:
        if self._rest is not None:
            await asyncio.sleep(0)  # the other tasks' turn
            self._decode_more(self._rest)
            return
        self._given, self._current = self.token, b""
        chunk = await self._source.next_chunk(self._given)
        if chunk is None:
            self._over = True
            self.trailer = self._source.reader.trailer
            return
        self._current = chunk.token
        self._decode_more(chunk)

    def _decode_more(self, chunk: Chunk) -> None:
        part = chunk if self._whole else _part(chunk, 0, SLICE_ELEMENTS)
        self._rest = chunk  # so that the token does not move if this part cannot be decoded
        self._begin(self._decode(part) if part.count else [])
        self._rest = _part(chunk, part.count, chunk.count) if part.count < chunk.count else None

    def _begin(self, decoded: list[T] | Lazily[T]) -> None:
        if isinstance(decoded, Lazily):
            self._entries, self._left = decoded.entries, decoded.left
        else:
            self._entries = iter(decoded)
            self._left = self._entries

    def _last_word(self) -> Exception:
        reader = self._source.reader
        if self._failure:
            return reader.broken(self._failure, self.token)
        if self._closed:
            return StopAsyncIteration()
        incomplete = reader.incomplete(self.token)
        if incomplete is None or (self._partial_ok and self.trailer is not None):
            return StopAsyncIteration()
        return incomplete

    def _end(self) -> None:
        self._over = True
        self._given, self._current = self.token, b""
        self._begin([])
        self._rest = None
        self._source.cancel()

    async def aclose(self) -> None:
        """End the dump now; the daemon stops reading the map. Idempotent.

        Iterating on stops quietly, unless the dump had failed before.
        """
        self._closed = self._closed or not self._over
        self._end()

    async def __aenter__(self) -> Dump[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()


def _part(chunk: Chunk, first: int, end: int) -> Chunk:
    """Its elements from ``first`` until before ``end``; nothing is copied."""
    end = min(end, chunk.count)
    return replace(
        chunk,
        count=end - first,
        keys=chunk.keys[first * chunk.key_stride : end * chunk.key_stride],
        values=chunk.values[first * chunk.value_stride : end * chunk.value_stride],
    )
