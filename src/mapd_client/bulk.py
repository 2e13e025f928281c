"""Many elements of an open map, in messages or in one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import elements_pb2
from mapd_client import arrays, batches, methods, replies, requests
from mapd_client.arrays import Found
from mapd_client.batches import Batch
from mapd_client.codec import BadElement
from mapd_client.coded import Coded
from mapd_client.errors import MapdError
from mapd_client.failures import Asked
from mapd_client.handle import named
from mapd_client.healing import ready
from mapd_client.info import UpdateFlag
from mapd_client.replies import Outcome
from mapd_client.tables.needs import ArrowTable, is_table, packed
from mapd_client.windows import in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_LOOKUP_WINDOW: Final = 4
"""Messages of lookup_many in flight: enough to hide the way there and back."""


class Bulk(Coded[K, V], Generic[K, V]):
    """What ``Map`` does with many elements."""

    @overload
    async def lookup_many(self, keys: Sequence[K], *, touch: bool = False) -> list[V | None]: ...
    @overload
    async def lookup_many(self, keys: NDArray[Any], *, touch: bool = False) -> Found: ...
    async def lookup_many(
        self, keys: Sequence[K] | NDArray[Any], *, touch: bool = False
    ) -> list[V | None] | Found:
        """The values of many keys, in their order; None for each that is not there.

        For a numpy array of keys: an array of values, and one that says which keys were there. Integers
        of another type than the codec's are converted, records are of its layout.

        Cut into messages of at most 16,384 keys; not atomic beyond one element.

        Cancelled: nothing has changed.

        Raises:
            SizeMismatch, TypeMismatch, IndexOutOfRange: one of the keys; its place is in the message.
            Unsupported: an array, and a codec without a dtype.
        """
        if arrays.is_array(keys):
            return await self._lookup_array(keys, touch=touch)

        def decoded(_: Batch, outcome: Outcome) -> list[V | None]:
            return self._values(outcome)

        return await self._lookups(keys, decoded, touch=touch)

    async def update_many(
        self,
        items: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]],
        *,
        flags: UpdateFlag = "any",
    ) -> int:
        """Create or replace many elements, in order; how many were written.

        ``items`` is a mapping, pairs, or a tuple of two numpy arrays, ``(keys, values)``.

        Cut into messages, executed in order: of two values for one key the later one stays. Elements that
        the kernel refuses do not stop the rest. ``items`` is read as it is sent.

        Cancelled: any number of elements may have been written.

        Raises:
            BatchFailed: some elements were not written.
            SizeMismatch, TypeMismatch: an element of the first message; nothing was sent.
        """
        op = requests.update_op(flags, map=self._name)
        link, per_message = await self._sizing(op)
        source = batches.of_pairs(items, self._key, self._value, per_message)
        return await self._mutate(link, op, source)

    async def delete_many(self, keys: Iterable[K] | NDArray[Any]) -> int:
        """Remove many elements, also by a numpy array of keys; how many were there.

        Cancelled: any number of elements may have been removed.

        Raises:
            BatchFailed: some could not be removed (``applied`` counts those that were); as for
                ``update_many``.
            SizeMismatch, TypeMismatch: a key of the first message; nothing was sent.
        """
        link, per_message = await self._sizing(Op.DELETE)
        return await self._mutate(link, Op.DELETE, batches.of_keys(keys, self._key, per_message))

    async def load(
        self,
        source: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        *,
        flags: UpdateFlag = "any",
    ) -> int:
        """Create or replace many elements through one stream; how many were written.

        As ``update_many``, for more elements than one would hold in memory: ``source`` is read as the
        daemon takes it, in chunks of up to 1 MiB.

        ``source`` may be a table with Arrow's C stream interface: of pyarrow (a RecordBatchReader too), pandas, polars.
        Its columns are ``key`` and ``value`` as ``to_arrow`` has them, or a column for each field ("key.saddr"), in any
        order, of any type that says the same number. Missing, unknown and null ones are refused; of a
        union's members as many as say all its bytes are enough. Padding becomes zeros.

        Cancelled: any number of elements may have been written.

        Raises:
            BatchFailed: some elements were not written; ``errors`` has the first sixteen. ``cause`` is
                set where the daemon stopped in the middle: the map was frozen, the daemon drains ...
            SizeMismatch, TypeMismatch: an element; what came before it may have been written.
            OutcomeUnknown: the stream broke: any number of elements may have been written.
        """
        asked = Asked("load", self._name, mutates=True)
        requests.update_op(flags, "load", self._name)
        link = await self._link()
        server = await link.server()
        per_chunk = batches.chunk_elements(self.info, server.limits, asked)
        await ready(link, self._held, asked)

        def messages() -> Iterator[elements_pb2.LoadRequest]:
            batch = None
            for batch in self._sources(source, per_chunk):
                yield requests.load(
                    self._handle, flags, batch.count, batch.keys, batch.values, first=not batch.first
                )
            if batch is None:  # the daemon refuses a stream that names no map
                yield requests.load(self._handle, flags, 0, b"", b"", first=True)

        try:
            response = await link.transport.upload(methods.LOAD, messages(), asked, link.timeout)
        except BadElement as bad:
            raise named(bad, asked) from None
        except MapdError as error:
            stopped = replies.load_stopped(error, asked)
            if stopped is None:
                raise
            raise stopped from error
        return replies.load_result(response, asked, self.info)

    # Inside

    def _sources(
        self,
        source: Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]] | ArrowTable,
        per_chunk: int,
    ) -> Iterator[Batch]:
        if is_table(source):
            return packed(source, self._key, self._value, self._byteorder, per_chunk)
        rest = cast("Mapping[K, V] | Iterable[tuple[K, V]] | tuple[NDArray[Any], NDArray[Any]]", source)
        return batches.of_pairs(rest, self._key, self._value, per_chunk)

    async def _lookup_array(self, keys: NDArray[Any], *, touch: bool) -> Found:
        arrays.dtype_of(self._value)  # that it has one
        import numpy as np

        stride = self.info.value_stride
        count = len(keys) if keys.ndim else 0
        column = np.empty(count * stride, np.uint8)
        present = np.empty(count, np.bool_)

        def placed(batch: Batch, outcome: Outcome) -> list[None]:
            first, end = batch.first, batch.first + batch.count
            column[first * stride : end * stride] = np.frombuffer(outcome.values, np.uint8)
            present[first:end] = np.frombuffer(outcome.statuses, np.uint8) == int(Reason.DONE)
            return []

        await self._lookups(keys, placed, touch=touch)
        return Found(arrays.over(column.data, self._value, count), present)

    async def _lookups(
        self,
        keys: Sequence[K] | NDArray[Any],
        read: Callable[[Batch, Outcome], list[T]],
        *,
        touch: bool,
    ) -> list[T]:
        """What ``read`` makes of each message's answer, in the order of the keys."""
        link, per_message = await self._sizing(Op.LOOKUP)
        if touch:
            requests.check_touch(await link.server(), self._name)

        def begin(batch: Batch) -> asyncio.Future[Outcome]:
            return self._send(link, Op.LOOKUP, batch, touch=touch)

        found: list[T] = []
        source = batches.of_keys(keys, self._key, per_message)
        try:
            async for batch, outcome in in_order(source, begin, _LOOKUP_WINDOW):
                for at in outcome.failed():
                    raise self._batch_error(Op.LOOKUP, batch, outcome, at)
                found.extend(read(batch, outcome))
        except BadElement as bad:
            raise named(bad, self._asked(Op.LOOKUP)) from None
        return found
