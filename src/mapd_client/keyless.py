"""Open maps without keys: queues, stacks and Bloom filters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_client import batches
from mapd_client.batches import Batch
from mapd_client.codec import BadElement, Codec
from mapd_client.errors import Unsupported
from mapd_client.failures import Asked
from mapd_client.handle import MapHandle, named
from mapd_client.held import Grip
from mapd_client.info import MapInfo
from mapd_client.link import Links
from mapd_client.replies import Outcome
from mapd_client.windows import in_order

V = TypeVar("V")

_QUESTION_WINDOW: Final = 4
"""Messages of contains_many in flight."""

QUEUES: Final = frozenset({MapType.QUEUE, MapType.STACK})
FILTERS: Final = frozenset({MapType.BLOOM_FILTER})


class Queue(MapHandle, Generic[V]):
    """One open queue (first in, first out) or stack (last in, first out); from ``Client.open_queue``.

    The kernel offers no way to read one without taking values out, but for ``peek``.
    """

    def __init__(self, links: Links, grip: Grip, info: MapInfo, value: Codec[V], name: str) -> None:
        super().__init__(links, grip, info, name)
        self._value = value

    def __repr__(self) -> str:
        return f"<Queue {self._name} {self.info.type_name} of {self._value!r}>"

    async def push(self, value: V, *, exist: bool = False) -> None:
        """Put one value in.

        Args:
            value: as the queue's codec takes it.
            exist: where there is no room, drop the oldest value (BPF_EXIST).

        Cancelled: it may still be put in.

        Raises:
            MapFull: there is no room, and not ``exist``.
            MapFrozen: no writes from user space any more.
        """
        op = Op.PUSH_EXIST if exist else Op.PUSH
        await self._one(op, value=self._encode(op, self._value, value, self.info.value_stride, "value"))

    async def push_many(self, values: Iterable[V], *, exist: bool = False) -> int:
        """Put many values in, in order; how many there was room for.

        Cancelled: any number of values may have been put in.

        Raises:
            BatchFailed: some were not; those before the first of them were.
        """
        op = Op.PUSH_EXIST if exist else Op.PUSH
        link, per_message = await self._sizing(op)
        return await self._mutate(link, op, batches.of_values(values, self._value, per_message))

    async def pop(self) -> V | None:
        """Take the next value out; None where there is none.

        Cancelled: it may still be taken out, and is lost then.
        """
        return await self._next(Op.POP)

    async def peek(self) -> V | None:
        """The next value, which stays; None where there is none. Cancelled: nothing has changed."""
        return await self._next(Op.PEEK)

    async def _next(self, op: Op) -> V | None:
        status, value = await self._one(op)
        return None if status == Reason.KEY_ABSENT else self._value.decode(value)


class Bloom(MapHandle, Generic[V]):
    """One open Bloom filter: a set that knows for sure what is not in it; from ``Client.open_bloom``."""

    def __init__(self, links: Links, grip: Grip, info: MapInfo, value: Codec[V], name: str) -> None:
        super().__init__(links, grip, info, name)
        self._value = value

    def __repr__(self) -> str:
        return f"<Bloom {self._name} of {self._value!r}>"

    async def add(self, value: V) -> None:
        """Make a value a member; nothing can be taken out again.

        Cancelled: it may still be added.

        Raises:
            MapFrozen: no writes from user space any more.
        """
        op = Op.ADD
        await self._one(op, value=self._encode(op, self._value, value, self.info.value_stride, "value"))

    async def add_many(self, values: Iterable[V]) -> int:
        """Make many values members; how many were added. Cancelled: any number may have been."""
        link, per_message = await self._sizing(Op.ADD)
        return await self._mutate(link, Op.ADD, batches.of_values(values, self._value, per_message))

    async def contains(self, value: V) -> bool:
        """False: it was never added. True: it was, or the filter takes it for one that was.

        Cancelled: nothing has changed.
        """
        op = Op.CONTAINS
        data = self._encode(op, self._value, value, self.info.value_stride, "value")
        status, _ = await self._one(op, value=data)
        return status == Reason.DONE

    async def contains_many(self, values: Iterable[V]) -> list[bool]:
        """``contains`` of many values, in their order. Cancelled: nothing has changed."""
        link, per_message = await self._sizing(Op.CONTAINS)

        def begin(batch: Batch) -> asyncio.Future[Outcome]:
            return self._send(link, Op.CONTAINS, batch)

        found: list[bool] = []
        source = batches.of_values(values, self._value, per_message)
        try:
            async for batch, outcome in in_order(source, begin, _QUESTION_WINDOW):
                for at in outcome.failed():
                    raise self._batch_error(Op.CONTAINS, batch, outcome, at)
                found.extend(status == Reason.DONE for status in outcome.statuses)
        except BadElement as bad:
            raise named(bad, self._asked(Op.CONTAINS)) from None
        return found


def check_type(info: MapInfo, types: frozenset[MapType], asked: Asked) -> None:
    """Raises Unsupported for a map that is of none of these types."""
    if info.type in types:
        return
    wanted = " or ".join(sorted(kind.name.lower() for kind in types))
    raise Unsupported(
        f"{asked}: it is of type {info.type_name}, not {wanted}: use "
        + ("open_queue" if info.type in QUEUES else "open_bloom" if info.type in FILTERS else "open_map"),
        operation=asked.operation,
        map=asked.map,
    )
