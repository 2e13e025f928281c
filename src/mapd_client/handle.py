"""What every open map has, whatever its type: facts, pins, freezing, closing; and how its operations travel."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from mapd_api.ops import MUTATES, Op
from mapd_api.v1 import maps_pb2
from mapd_client import batches, methods, replies, requests
from mapd_client.asking import Asking, How
from mapd_client.batches import Batch
from mapd_client.codec import BadElement, Bytes, Codec, as_bytes
from mapd_client.errors import MapdError, Misuse, PermissionDenied, SizeMismatch, Unreachable
from mapd_client.failures import Asked
from mapd_client.healing import by_handle
from mapd_client.held import Grip, Held
from mapd_client.info import MapInfo
from mapd_client.link import Link, Links
from mapd_client.refs import Pin
from mapd_client.replies import Outcome
from mapd_client.tally import Tally
from mapd_client.writing import WINDOW, write_all

_CLOSE_S: Final = 1.0
"""How long aclose() waits for a daemon that does not answer; it closes the handle with the session."""


class MapHandle(Asking):
    """One open map: ``Map``, ``Queue`` and ``Bloom`` are such.

    The handle ends with ``aclose`` or with the client; the map itself does not. Operations on elements
    that are called in one turn of the event loop leave as one message, and those of one map are executed
    in the order they were called; only the first call of a kind on a map, and the first after a restart, may be
    overtaken by calls of the same moment, for the daemon's facts are asked for first. Await one before the next
    where that matters. While the connection is broken or the daemon restarts they wait, for their timeout at
    most; reads are repeated, dumps go on where they were, and after a restart the map is opened again by its name,
    pin or id.

    Cancelled before its message is written, an operation is never sent; after that it goes on.

    Every call may raise Unavailable (nothing was executed; with reason STALE_HANDLE: open the map
    again), PermissionDenied and Unsupported; a call that changes the map may raise NotSent and
    OutcomeUnknown, one that only reads DeadlineExceeded; Incompatible where another map has the name now.
    """

    info: MapInfo
    """The map as it was when it was opened."""

    created: bool
    """Whether the call that opened it has created it; False where it was there, as with ``exist_ok``.

    Also where a first try of that call has created it, and the daemon ended before it could say so: do not take an
    empty map for one that somebody else fills.
    """

    def __init__(
        self,
        links: Links,
        grip: Grip,
        info: MapInfo,
        name: str,
        shown_as: Codec[Any] | None = None,
        answers: Codec[Any] | None = None,
    ) -> None:
        """``shown_as``: the codec that messages show keys by; ``answers``: of the values that are read."""
        super().__init__(links, Held(grip, info, name, shown_as or Bytes(info.key_stride)), answers)
        self.info = info
        self.created = False
        self._name = name

    @property
    def _handle(self) -> int:
        return self._held.handle

    async def pin(self, path: str) -> None:
        """Pin the map at one more absolute path on the daemon's host.

        Cancelled: the pin may be there.

        Raises:
            MapExists: something is at the path; the kernel never overwrites a pin.
            Misuse: not a path below the daemon's pin roots.
        """
        pin = Pin(path)

        def request() -> maps_pb2.PinMapRequest:
            return maps_pb2.PinMapRequest(map=requests.by_handle(self._handle), path=pin.path)

        asked = Asked("pin", self._name, mutates=True)
        await by_handle(await self._link(), methods.PIN_MAP, request, asked, self._held)

    async def unpin(self, path: str) -> None:
        """Remove the pin at ``path``; the map stays while anybody holds it.

        Cancelled: the pin may be gone.

        Raises:
            MapNotFound: nothing is pinned there.
        """
        request = maps_pb2.UnpinMapRequest(map=requests.by_ref(Pin(path)))
        link = await self._link()
        await link.call(methods.UNPIN_MAP, request, Asked("unpin", self._name, mutates=True))

    async def freeze(self) -> None:
        """End all writes from user space, for ever; BPF programs can still write.

        Freezing what is frozen is no error. Cancelled: the map may be frozen.

        Raises:
            Unavailable: somebody writes the map at this moment, or has a writable mmap of it.
        """

        def request() -> maps_pb2.FreezeMapRequest:
            return maps_pb2.FreezeMapRequest(map=requests.by_handle(self._handle))

        asked = Asked("freeze", self._name, mutates=True, repeatable=True)
        await by_handle(await self._link(), methods.FREEZE_MAP, request, asked, self._held)
        self.info = dataclasses.replace(self.info, frozen=True)

    async def aclose(self) -> None:
        """Give the handle back. Idempotent; a daemon that is gone has closed it already.

        Waits a second at most. Cancelled: it is given back nevertheless.
        """
        if self._held.closed or self._links.closed:
            return
        self._held.closed = True
        self._held.pipe = None
        link = await self._links.current()
        await link.finished(self._give_back(link))

    async def _give_back(self, link: Link) -> None:
        request = maps_pb2.CloseMapRequest(handle=self._handle)
        # Where nobody answers, or the daemon knows this client no more, the session's end closes it.
        with suppress(Unreachable, PermissionDenied):
            timeout = min(link.timeout, _CLOSE_S)
            await link.call(methods.CLOSE_MAP, request, Asked("close", self._name), timeout, impatient=True)

    # Inside

    async def _sizing(self, op: Op) -> tuple[Link, int]:
        """The link, and how many elements of an operation one message carries."""
        link = await self._link()
        server = await link.server()
        return link, batches.message_elements(op, self.info, server.limits, self._asked(op))

    async def _one(
        self,
        op: Op,
        key: bytes = b"",
        value: bytes = b"",
        *,
        lock: bool | None = None,
        touch: bool = False,
        cpu: int | None = None,
        field: tuple[int, int] | None = None,
        create: bool = False,
        timeout: float | None = None,
    ) -> tuple[int, bytes]:
        """One element: its status, and the value that was answered."""
        how = How(op, lock, touch, cpu, field, create)
        status, answered = await self._ask_as(how, key, value, timeout)
        return status, answered

    async def _mutate(
        self,
        link: Link,
        op: Op,
        source: Iterator[Batch],
        *,
        field: tuple[int, int] | None = None,
        create: bool = False,
        read: Callable[[Batch, Outcome], None] | None = None,
    ) -> int:
        """Many elements, a message at a time; how many were written. ``read`` is shown each answer."""
        tally = Tally(self._asked(op), self.info, self._shown_as)
        asked = self._asked(op)

        def send(batch: Batch) -> asyncio.Future[Outcome]:
            return self._send(link, op, batch, field=field, create=create)

        window = 1 if await link.pipeline(asked, None) is None else WINDOW
        try:
            await write_all(source, send, tally, window, read)
        except BadElement as bad:
            cause = named(bad, asked)
            raise tally.ended_before(cause, bad.index) from (cause if tally.answered else None)
        except Exception as error:
            if error is tally.cause:
                raise tally.ended() from (error if tally.answered else None)
            # The caller's own: passed on as it is.
            error.add_note(f"{asked}: {tally.applied} elements had been written before")
            raise
        failure = tally.failure()
        if failure is not None:
            raise failure
        return tally.applied

    def _send(
        self,
        link: Link,
        op: Op,
        batch: Batch,
        *,
        lock: bool | None = None,
        touch: bool = False,
        cpu: int | None = None,
        field: tuple[int, int] | None = None,
        create: bool = False,
        timeout: float | None = None,
    ) -> asyncio.Future[Outcome]:
        """A message of many elements; it has its place behind what was asked before when this returns."""
        return self._ask_many(link, How(op, lock, touch, cpu, field, create), batch, timeout)

    def _asked(self, op: Op) -> Asked:
        return Asked(replies.asked_op(op), self._name, mutates=op in MUTATES)

    def _encode(self, op: Op, codec: Codec[Any], value: object, stride: int, what: str) -> bytes:
        try:
            data = codec.encode(value)
            if type(data) is not bytes:
                data = as_bytes(codec, data)
        except Misuse as error:
            raise self._misused(op, what, error) from None
        if len(data) != stride:
            raise self._missized(op, what, len(data), stride)
        return data

    def _misused(self, op: Op, what: str, error: Misuse) -> Misuse:
        asked = self._asked(op)
        # What a record's field was given begins with the way to it: "key.saddr".
        text = (
            str(error) if str(error).startswith((f"{what}.", f"{what}[", f"{what}: ")) else f"{what}: {error}"
        )
        return type(error)(f"{asked}: {text}", operation=asked.operation, map=asked.map)

    def _missized(self, op: Op, what: str, size: int, stride: int) -> SizeMismatch:
        return SizeMismatch(f"{self._asked(op)}: {what} of {size} bytes, the map's have {stride}")

    def _element_error(self, op: Op, status: int, errno: int, key: bytes, what: str = "key") -> MapdError:
        shown = what if what != "key" else ""
        if key:
            shown = f"{what}: {replies.key_text(key, self._shown_as)}"
        return replies.element_error(
            status, errno=errno, key=key, shown=shown, asked=self._asked(op), info=self.info
        )

    def _batch_error(self, op: Op, batch: Batch, outcome: Outcome, at: int) -> MapdError:
        stride = self.info.key_stride
        key = batch.keys[at * stride : (at + 1) * stride]
        what = f"key of element {batch.first + at}" if key else f"element {batch.first + at}"
        return self._element_error(op, outcome.statuses[at], outcome.errnos.get(at, 0), key, what)


def named(bad: BadElement, asked: Asked) -> MapdError:
    """The error of an element with the call that it was passed to."""
    kind = type(bad.error)
    return kind(f"{asked}: {bad.error}", operation=asked.operation, map=asked.map)
