"""One open map."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from mapd_api.ops import ANSWERS_VALUE, MUTATES, Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2, maps_pb2
from mapd_client import batches, methods, replies, requests
from mapd_client.batches import BadElement, Batch
from mapd_client.codec import Codec
from mapd_client.dump import Dump, Source, Stream
from mapd_client.errors import MapdError, Misuse, SizeMismatch, TypeMismatch, Unreachable
from mapd_client.failures import Asked
from mapd_client.info import Chunk, MapInfo, UpdateFlag
from mapd_client.link import Link, Links
from mapd_client.refs import Pin
from mapd_client.replies import DumpReader, Outcome
from mapd_client.tally import Tally
from mapd_client.windows import in_order

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_LOOKUP_WINDOW = 4
"""Messages of lookup_many in flight: enough to hide the way there and back."""

_LEAST_S: Final = 0.001
"""What is left of a call's time when it is over: grpc is to say so, with the address."""

_CLOSE_S: Final = 1.0
"""How long aclose() waits for a daemon that does not answer; it closes the handle with the session."""


class Map(Generic[K, V]):
    """One open map; from ``Client.open_map`` or ``Client.create_map``.

    Its handle ends with ``aclose``, with the client, or with the daemon; the map itself does not.
    Every call may raise Unavailable (nothing was executed; with reason STALE_HANDLE: open the map
    again), PermissionDenied and Unsupported; a call that changes the map may raise NotSent and
    OutcomeUnknown, one that only reads DeadlineExceeded.
    """

    info: MapInfo
    """The map as it was when it was opened."""

    def __init__(
        self, links: Links, handle: int, info: MapInfo, key: Codec[K], value: Codec[V], name: str
    ) -> None:
        self.info = info
        self._links = links
        self._handle = handle
        self._key = key
        self._value = value
        self._name = name
        self._closed = False

    def __repr__(self) -> str:
        return f"<Map {self._name} {self.info.type_name} {self._key!r} -> {self._value!r}>"

    # One element

    async def lookup(self, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None:
        """The value of ``key``, None if it is not there.

        Args:
            key: as the map's key codec takes it.
            touch: let an LRU map count this as a use of the key; the kernel does not by itself.
            timeout: seconds; the client's if None.

        Cancelled: nothing has changed.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key.
            Misuse: a timeout that is not positive and finite.
            IndexOutOfRange: an array has fewer elements.
            Unsupported: ``touch``, and the daemon has not the feature "touch".
        """
        return await self._fetch(Op.LOOKUP, key, touch=touch, timeout=timeout)

    def __getitem__(self, key: K) -> Awaitable[V]:
        """``await m[key]``: as ``lookup``, but raises KeyMissing if ``key`` is not there."""
        return self._present(key)

    async def _present(self, key: K) -> V:
        found = await self.lookup(key)
        if found is None:
            raise self._element_error(Op.LOOKUP, Reason.KEY_ABSENT, 0, self._encode_key(Op.LOOKUP, key))
        return found

    async def update(self, key: K, value: V, *, flags: UpdateFlag = "any", lock: bool | None = None) -> None:
        """Create or replace one element.

        Args:
            key: as the map's key codec takes it.
            value: as the map's value codec takes it; for per-CPU maps one element per possible CPU.
            flags: "noexist" only creates, "exist" only replaces.
            lock: hold the bpf_spin_lock in the value while writing (BPF_F_LOCK).

        Cancelled: the update may still be applied.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key or value; nothing was sent.
            KeyExists, KeyMissing: as ``flags`` asks.
            MapFull, MapFrozen, IndexOutOfRange: as the kernel says.
        """
        op = requests.update_op(flags)
        keys = self._encode_key(op, key)
        values = self._encode(op, self._value, value, self.info.value_stride, "value")
        await self._one(op, keys, values, lock=bool(lock))

    async def delete(self, key: K) -> bool:
        """Remove one element; False if it was not there. Arrays refuse it with Unsupported.

        Cancelled: it may still be removed.

        Raises:
            MapFrozen: no writes from user space any more.
        """
        status, _ = await self._one(Op.DELETE, self._encode_key(Op.DELETE, key))
        return status != Reason.KEY_ABSENT

    async def lookup_and_delete(self, key: K) -> V | None:
        """Take one element out: its value, None if it was not there. Atomic in the kernel.

        Cancelled: it may still be removed, and its value is lost then.

        Raises:
            Unsupported: not with this type of map.
        """
        return await self._fetch(Op.LOOKUP_AND_DELETE, key)

    async def _fetch(self, op: Op, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None:
        status, values = await self._one(op, self._encode_key(op, key), touch=touch, timeout=timeout)
        return None if status == Reason.KEY_ABSENT else self._value.decode(values)

    async def _one(
        self,
        op: Op,
        key: bytes,
        value: bytes = b"",
        *,
        lock: bool = False,
        touch: bool = False,
        timeout: float | None = None,
    ) -> tuple[int, bytes]:
        if timeout is not None:
            requests.seconds(f"{self._asked(op)}: timeout", timeout)
        began = asyncio.get_running_loop().time()
        link = await self._link()
        server = await link.server(timeout)
        if timeout is not None:
            timeout = max(timeout - (asyncio.get_running_loop().time() - began), _LEAST_S)
        if touch:
            requests.check_touch(server, self._name)
        batches.message_elements(op, self.info, server.limits, self._asked(op))
        batch = Batch(0, 1, key, value)
        outcome = await self._send(link, op, batch, lock=lock, touch=touch, timeout=timeout)
        for at in outcome.failed():
            raise self._element_error(op, outcome.statuses[at], outcome.errnos.get(at, 0), key)
        return outcome.statuses[0], outcome.values

    # Many elements

    async def lookup_many(self, keys: Sequence[K], *, touch: bool = False) -> list[V | None]:
        """The values of many keys, in their order; None for each that is not there.

        Cut into messages of at most 16,384 keys; not atomic beyond one element.

        Cancelled: nothing has changed.

        Raises:
            SizeMismatch, TypeMismatch, IndexOutOfRange: one of the keys; its place is in the message.
        """
        link, per_message = await self._sizing(Op.LOOKUP)
        if touch:
            requests.check_touch(await link.server(), self._name)

        async def one(batch: Batch) -> list[V | None]:
            outcome = await self._send(link, Op.LOOKUP, batch, touch=touch)
            for at in outcome.failed():
                key = batch.keys[at * self.info.key_stride : (at + 1) * self.info.key_stride]
                what = f"key of element {batch.first + at}"
                raise self._element_error(
                    Op.LOOKUP, outcome.statuses[at], outcome.errnos.get(at, 0), key, what
                )
            return self._values(outcome)

        found: list[V | None] = []
        source = batches.of_keys(keys, self._key, per_message)
        try:
            async for part in in_order(source, one, _LOOKUP_WINDOW):
                found.extend(part)
        except BadElement as bad:
            raise _named(bad, self._asked(Op.LOOKUP)) from None
        return found

    async def update_many(
        self, items: Mapping[K, V] | Iterable[tuple[K, V]], *, flags: UpdateFlag = "any"
    ) -> int:
        """Create or replace many elements, in order; how many were written.

        Cut into messages, one in flight: of two values for one key the later one stays. Elements that
        the kernel refuses do not stop the rest. ``items`` is read as it is sent.

        Cancelled: any number of elements may have been written.

        Raises:
            BatchFailed: some elements were not written.
            SizeMismatch, TypeMismatch: an element of the first message; nothing was sent.
        """
        op = requests.update_op(flags)
        link, per_message = await self._sizing(op)
        source = batches.of_pairs(items, self._key, self._value, per_message)
        return await self._mutate(link, op, source)

    async def delete_many(self, keys: Iterable[K]) -> int:
        """Remove many elements; how many were there.

        Cancelled: any number of elements may have been removed.

        Raises:
            BatchFailed: some could not be removed (``applied`` counts those that were); as for
                ``update_many``.
            SizeMismatch, TypeMismatch: a key of the first message; nothing was sent.
        """
        link, per_message = await self._sizing(Op.DELETE)
        return await self._mutate(link, Op.DELETE, batches.of_keys(keys, self._key, per_message))

    async def _mutate(self, link: Link, op: Op, source: Iterator[Batch]) -> int:
        tally = Tally(self._asked(op), self.info, self._key)
        while True:
            try:
                batch = next(source, None)
            except BadElement as bad:
                cause = _named(bad, self._asked(op))
                raise tally.ended_before(cause, bad.index) from (cause if tally.sent else None)
            except Exception as error:
                # The caller's own: passed on as it is.
                error.add_note(f"{self._asked(op)}: {tally.applied} elements had been written before")
                raise
            if batch is None:
                break
            try:
                outcome = await self._send(link, op, batch)
            except MapdError as cause:
                if not tally.sent:
                    raise
                raise tally.ended_by(cause, batch) from cause
            tally.add(batch, outcome)
        failure = tally.failure()
        if failure is not None:
            raise failure
        return tally.applied

    # All elements

    def items(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[tuple[K, V]]:
        """Every (key, value).

        Args:
            prefix: only keys whose bytes begin so.
            limit: at most so many elements.
            resume: the ``token`` of an earlier dump of this map.
            partial_ok: do not raise DumpIncomplete where the daemon calls the dump incomplete.
        """

        def decode(chunk: Chunk) -> list[tuple[K, V]]:
            keys = self._key.decode_many(chunk.keys)
            return list(zip(keys, self._value.decode_many(chunk.values), strict=True))

        return self._dump("both", decode, prefix, limit, resume, partial_ok)

    def keys(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[K]:
        """Every key; arguments as ``items``."""

        def decode(chunk: Chunk) -> list[K]:
            return self._key.decode_many(chunk.keys)

        return self._dump("keys", decode, prefix, limit, resume, partial_ok)

    def values(
        self, *, limit: int | None = None, resume: bytes | None = None, partial_ok: bool = False
    ) -> Dump[V]:
        """Every value; arguments as ``items``."""

        def decode(chunk: Chunk) -> list[V]:
            return self._value.decode_many(chunk.values)

        return self._dump("values", decode, b"", limit, resume, partial_ok)

    def chunks(
        self,
        *,
        prefix: bytes = b"",
        keys_only: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[Chunk]:
        """The same as packed columns, up to 1 MiB each, not decoded; arguments as ``items``."""

        def decode(chunk: Chunk) -> list[Chunk]:
            return [chunk]

        columns: requests.DumpColumns = "keys" if keys_only else "both"
        return self._dump(columns, decode, prefix, None, resume, partial_ok, whole=True)

    def _dump(
        self,
        columns: requests.DumpColumns,
        decode: Callable[[Chunk], list[T]],
        prefix: bytes,
        limit: int | None,
        resume: bytes | None,
        partial_ok: bool,
        *,
        whole: bool = False,
    ) -> Dump[T]:
        asked = Asked("dump", self._name)
        request = requests.dump(self._handle, columns=columns, prefix=prefix, limit=limit, resume=resume)
        reader = DumpReader(
            asked,
            columns=columns,
            key_stride=self.info.key_stride,
            value_stride=self.info.value_stride,
        )

        async def start() -> Stream:
            link = await self._link()
            return link.transport.download(methods.DUMP, request, asked, link.timeout)

        return Dump(Source(start, reader), decode, resume=resume, partial_ok=partial_ok, whole=whole)

    async def load(self, source: Mapping[K, V] | Iterable[tuple[K, V]], *, flags: UpdateFlag = "any") -> int:
        """Create or replace many elements through one stream; how many were written.

        As ``update_many``, for more elements than one would hold in memory: ``source`` is read as the
        daemon takes it, in chunks of up to 1 MiB.

        Cancelled: any number of elements may have been written.

        Raises:
            BatchFailed: some elements were not written; ``errors`` has the first sixteen. ``cause`` is
                set where the daemon stopped in the middle: the map was frozen, the daemon drains ...
            SizeMismatch, TypeMismatch: an element; what came before it may have been written.
            OutcomeUnknown: the stream broke: any number of elements may have been written.
        """
        if type(source).__module__.partition(".")[0] == "pyarrow":
            raise TypeMismatch("load: a pyarrow.Table cannot be loaded yet: pass pairs, or a mapping")
        asked = Asked("load", self._name, mutates=True)
        requests.update_op(flags)
        link = await self._link()
        server = await link.server()
        per_chunk = batches.chunk_elements(self.info, server.limits, asked)

        def messages() -> Iterator[elements_pb2.LoadRequest]:
            for batch in batches.of_pairs(source, self._key, self._value, per_chunk):
                yield requests.load(
                    self._handle, flags, batch.count, batch.keys, batch.values, first=not batch.first
                )

        try:
            response = await link.transport.upload(methods.LOAD, messages(), asked, link.timeout)
        except BadElement as bad:
            raise _named(bad, asked) from None
        except MapdError as error:
            stopped = replies.load_stopped(error, asked)
            if stopped is None:
                raise
            raise stopped from error
        return replies.load_result(response, asked, self.info)

    # The map itself

    async def pin(self, path: str) -> None:
        """Pin the map at one more absolute path on the daemon's host.

        Cancelled: the pin may be there.

        Raises:
            MapExists: something is at the path; the kernel never overwrites a pin.
            Misuse: not a path below the daemon's pin roots.
        """
        request = maps_pb2.PinMapRequest(map=requests.by_handle(self._handle), path=Pin(path).path)
        link = await self._link()
        await link.call(methods.PIN_MAP, request, Asked("pin", self._name, mutates=True))

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
            Unavailable: a writable mmap of the map exists.
        """
        request = maps_pb2.FreezeMapRequest(map=requests.by_handle(self._handle))
        link = await self._link()
        await link.call(methods.FREEZE_MAP, request, Asked("freeze", self._name, mutates=True))
        self.info = dataclasses.replace(self.info, frozen=True)

    async def aclose(self) -> None:
        """Give the handle back. Idempotent; a daemon that is gone has closed it already.

        Waits a second at most. Cancelled: it is given back nevertheless.
        """
        if self._closed or self._links.closed:
            return
        self._closed = True
        link = await self._links.current()
        await link.finished(self._give_back(link))

    async def _give_back(self, link: Link) -> None:
        request = maps_pb2.CloseMapRequest(handle=self._handle)
        with suppress(Unreachable):  # the session's end closes it then
            timeout = min(link.timeout, _CLOSE_S)
            await link.call(methods.CLOSE_MAP, request, Asked("close", self._name), timeout)

    # Inside

    async def _link(self) -> Link:
        if self._closed:
            raise Misuse(f"{self._name}: this map is closed")
        return await self._links.current()

    async def _sizing(self, op: Op) -> tuple[Link, int]:
        link = await self._link()
        server = await link.server()
        return link, batches.message_elements(op, self.info, server.limits, self._asked(op))

    async def _send(
        self,
        link: Link,
        op: Op,
        batch: Batch,
        *,
        lock: bool = False,
        touch: bool = False,
        timeout: float | None = None,
    ) -> Outcome:
        timeout = link.timeout if timeout is None else timeout
        request = requests.apply(
            self._handle, op, batch.count, batch.keys, batch.values, lock=lock, touch=touch, timeout=timeout
        )
        asked = self._asked(op)
        response = await link.call(methods.APPLY, request, asked, timeout)
        value_bytes = self.info.value_stride if op in ANSWERS_VALUE else 0
        return replies.outcome(response, count=batch.count, value_bytes=value_bytes, asked=asked)

    def _values(self, outcome: Outcome) -> list[V | None]:
        if not outcome.absent:
            return list(self._value.decode_many(outcome.values))
        stride = self.info.value_stride
        column = memoryview(outcome.values)
        present = b"".join(
            column[at * stride : (at + 1) * stride]
            for at, status in enumerate(outcome.statuses)
            if not status
        )
        decoded = iter(self._value.decode_many(present))
        return [None if status else next(decoded) for status in outcome.statuses]

    def _asked(self, op: Op) -> Asked:
        return Asked(replies.asked_op(op), self._name, mutates=op in MUTATES)

    def _encode_key(self, op: Op, key: K) -> bytes:
        return self._encode(op, self._key, key, self.info.key_stride, "key")

    def _encode(self, op: Op, codec: Codec[Any], value: object, stride: int, what: str) -> bytes:
        try:
            data = codec.encode(value)
        except Misuse as error:
            asked = self._asked(op)
            raise type(error)(f"{asked}: {what}: {error}", operation=asked.operation, map=asked.map) from None
        if len(data) != stride:
            raise SizeMismatch(f"{self._asked(op)}: {what} of {len(data)} bytes, the map's have {stride}")
        return data

    def _element_error(self, op: Op, status: int, errno: int, key: bytes, what: str = "key") -> MapdError:
        shown = f"{what}: {replies.key_text(key, self._key)}"
        return replies.element_error(
            status, errno=errno, key=key, shown=shown, asked=self._asked(op), info=self.info
        )


def _named(bad: BadElement, asked: Asked) -> MapdError:
    """The error of an element with the call that it was passed to."""
    kind = type(bad.error)
    return kind(f"{asked}: {bad.error}", operation=asked.operation, map=asked.map)
