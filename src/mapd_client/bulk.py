"""Many elements of an open map, in messages or in one stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Generic, TypeVar

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2
from mapd_client import batches, methods, replies, requests
from mapd_client.batches import BadElement, Batch
from mapd_client.coded import Coded
from mapd_client.errors import MapdError, TypeMismatch
from mapd_client.failures import Asked
from mapd_client.handle import named
from mapd_client.info import UpdateFlag
from mapd_client.windows import in_order

K = TypeVar("K")
V = TypeVar("V")

_LOOKUP_WINDOW: Final = 4
"""Messages of lookup_many in flight: enough to hide the way there and back."""


class Bulk(Coded[K, V], Generic[K, V]):
    """What ``Map`` does with many elements."""

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
                raise self._batch_error(Op.LOOKUP, batch, outcome, at)
            return self._values(outcome)

        found: list[V | None] = []
        source = batches.of_keys(keys, self._key, per_message)
        try:
            async for part in in_order(source, one, _LOOKUP_WINDOW):
                found.extend(part)
        except BadElement as bad:
            raise named(bad, self._asked(Op.LOOKUP)) from None
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
            raise named(bad, asked) from None
        except MapdError as error:
            stopped = replies.load_stopped(error, asked)
            if stopped is None:
                raise
            raise stopped from error
        return replies.load_result(response, asked, self.info)
