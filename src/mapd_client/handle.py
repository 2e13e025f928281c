"""What every open map has, whatever its type: facts, pins, freezing, closing; and how its operations travel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mapd_api.ops import ANSWERS_VALUE, MUTATES, Op
from mapd_api.reasons import Reason
from mapd_api.v1 import maps_pb2
from mapd_client import batches, methods, replies, requests
from mapd_client.batches import BadElement, Batch
from mapd_client.codec import Codec
from mapd_client.errors import MapdError, Misuse, SizeMismatch, Unreachable, Unsupported
from mapd_client.failures import Asked
from mapd_client.info import MapInfo
from mapd_client.link import Link, Links
from mapd_client.refs import Pin
from mapd_client.replies import Outcome


class MapHandle:
    """One open map: ``Map``, ``Queue`` and ``Bloom`` are such.

    The handle ends with ``aclose``, with the client, or with the daemon; the map itself does not.
    Every call may raise Unavailable (nothing was executed; with reason STALE_HANDLE: open the map
    again), PermissionDenied and Unsupported; a call that changes the map may raise NotSent and
    OutcomeUnknown, one that only reads DeadlineExceeded.
    """

    info: MapInfo
    """The map as it was when it was opened."""

    def __init__(self, links: Links, handle: int, info: MapInfo, name: str) -> None:
        self.info = info
        self._links = links
        self._handle = handle
        self._name = name
        self._closed = False

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

        Cancelled: the handle stays until the client is closed.
        """
        if self._closed or self._links.closed:
            return
        self._closed = True
        request = maps_pb2.CloseMapRequest(handle=self._handle)
        link = await self._links.current()
        with suppress(Unreachable):  # the session's end closes it then
            await link.call(methods.CLOSE_MAP, request, Asked("close", self._name))

    # Inside

    async def _link(self) -> Link:
        if self._closed:
            raise Misuse(f"{self._name}: this map is closed")
        return await self._links.current()

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
        timeout: float | None = None,
    ) -> tuple[int, bytes]:
        """One element: its status, and the value that was answered."""
        link = await self._link()
        server = await link.server()
        if touch:
            requests.check_touch(server, self._name)
        if cpu is not None:
            requests.check_cpu(server, cpu, self._asked(op))
        batches.message_elements(op, self.info, server.limits, self._asked(op))
        batch = Batch(0, 1, key, value)
        outcome = await self._send(link, op, batch, lock=lock, touch=touch, cpu=cpu, timeout=timeout)
        for at in outcome.failed():
            raise self._element_error(op, outcome.statuses[at], outcome.errnos.get(at, 0), key)
        return outcome.statuses[0], outcome.values

    async def _mutate(self, link: Link, op: Op, source: Iterator[Batch]) -> int:
        """Many elements, a message at a time; how many were written."""
        applied = 0
        errors: dict[int, MapdError] = {}
        batch: Batch | None = None
        try:
            for batch in source:
                outcome = await self._send(link, op, batch)
                applied += outcome.statuses.count(Reason.DONE)
                for at in outcome.failed():
                    errors[batch.first + at] = self._batch_error(op, batch, outcome, at)
        except BadElement as bad:
            error = named(bad, self._asked(op))
            if not applied and not errors:
                raise error from None
            errors[bad.index] = error
        except MapdError as error:
            if batch is None or (not applied and not errors):
                raise
            errors.update(dict.fromkeys(range(batch.first, batch.first + batch.count), error))
        if errors:
            raise replies.batch_failed(applied, errors, self._asked(op))
        return applied

    async def _send(
        self,
        link: Link,
        op: Op,
        batch: Batch,
        *,
        lock: bool | None = None,
        touch: bool = False,
        cpu: int | None = None,
        timeout: float | None = None,
    ) -> Outcome:
        timeout = link.timeout if timeout is None else timeout
        asked = self._asked(op)
        request = requests.apply(
            self._handle,
            op,
            batch.count,
            batch.keys,
            batch.values,
            lock=self._locks(op, lock),
            touch=touch,
            cpu=cpu,
            timeout=timeout,
        )
        response = await link.call(methods.APPLY, request, asked, timeout)
        value_bytes = self._value_bytes(cpu) if op in ANSWERS_VALUE else 0
        return replies.outcome(response, count=batch.count, value_bytes=value_bytes, asked=asked)

    def _value_bytes(self, cpu: int | None) -> int:
        """Bytes of one value on the wire: all of it, or one CPU's slot."""
        return self.info.value_stride if cpu is None else self.info.value_size

    def _locks(self, op: Op, lock: bool | None) -> bool:
        """Whether an operation holds the bpf_spin_lock: where there is one, unless told otherwise."""
        if lock and not self.info.has_lock:
            asked = self._asked(op)
            raise Unsupported(
                f"{asked}: lock=True, and the map has no lock: it was not created with BTF of a value with a "
                "bpf_spin_lock",
                operation=asked.operation,
                map=asked.map,
            )
        return self.info.has_lock and op is not Op.DELETE if lock is None else lock

    def _asked(self, op: Op) -> Asked:
        return Asked(replies.asked_op(op), self._name, mutates=op in MUTATES)

    def _encode(self, op: Op, codec: Codec[Any], value: object, stride: int, what: str) -> bytes:
        try:
            data = codec.encode(value)
        except Misuse as error:
            asked = self._asked(op)
            raise type(error)(f"{asked}: {what}: {error}", operation=asked.operation, map=asked.map) from None
        if len(data) != stride:
            raise SizeMismatch(f"{self._asked(op)}: {what} of {len(data)} bytes, the map's have {stride}")
        return data

    def _element_error(self, op: Op, status: int, errno: int, key: bytes) -> MapdError:
        return replies.element_error(status, errno=errno, key=key, asked=self._asked(op), info=self.info)

    def _batch_error(self, op: Op, batch: Batch, outcome: Outcome, at: int) -> MapdError:
        stride = self.info.key_stride
        key = batch.keys[at * stride : (at + 1) * stride]
        return self._element_error(op, outcome.statuses[at], outcome.errnos.get(at, 0), key)


def named(bad: BadElement, asked: Asked) -> MapdError:
    """The error of an element with the call that it was passed to."""
    kind = type(bad.error)
    return kind(f"{asked}: {bad.error}", operation=asked.operation, map=asked.map)
