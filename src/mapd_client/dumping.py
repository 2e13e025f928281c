"""All elements of an open map, as dumps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from mapd_api.v1 import elements_pb2
from mapd_client import methods, requests
from mapd_client.chunk import Chunk
from mapd_client.codec import Bytes, Codec, decoded
from mapd_client.coded import Coded
from mapd_client.dump import Dump, Lazily
from mapd_client.errors import MapdError
from mapd_client.failures import Asked
from mapd_client.healing import heals, renew
from mapd_client.held import Held
from mapd_client.link import Link
from mapd_client.patience import Patience
from mapd_client.percpu import PerCpuReduced, of_one_cpu
from mapd_client.replies import DumpReader
from mapd_client.resuming import Source, Stream
from mapd_client.selecting import EVERYTHING, Reduce, Selected, reductions
from mapd_client.typed.records import Structure

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")


class Dumps(Coded[K, V], Generic[K, V]):
    """What ``Map`` does with all elements."""

    def items(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[tuple[K, V]]:
        """Every (key, value).

        Args:
            prefix: only keys whose bytes begin so.
            limit: at most so many elements.
            nonzero: only elements whose value (of any CPU) has a byte other than zero. Needs the daemon's feature
                "dump-select".
            resume: the ``token`` of an earlier dump of this map.
            partial_ok: do not raise DumpIncomplete where the daemon calls the dump incomplete.
        """
        return self._dump(
            "both", self._pairs, prefix, limit, resume, partial_ok, wanted=Selected(nonzero=nonzero)
        )

    def keys(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[K]:
        """Every key; arguments as ``items``."""

        def decode(chunk: Chunk) -> Lazily[K]:
            return _elements(self._key, chunk.keys, chunk.count)

        return self._dump("keys", decode, prefix, limit, resume, partial_ok, wanted=Selected(nonzero=nonzero))

    def values(
        self,
        *,
        limit: int | None = None,
        nonzero: bool = False,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[V]:
        """Every value; arguments as ``items``."""

        def decode(chunk: Chunk) -> Lazily[V]:
            return _elements(chunk.value_codec, chunk.values, chunk.count)

        return self._dump("values", decode, b"", limit, resume, partial_ok, wanted=Selected(nonzero=nonzero))

    def chunks(
        self,
        *,
        prefix: bytes = b"",
        limit: int | None = None,
        keys_only: bool = False,
        nonzero: bool = False,
        reduce: Sequence[Reduce] = (),
        value_range: tuple[int, int] | None = None,
        resume: bytes | None = None,
        partial_ok: bool = False,
    ) -> Dump[Chunk]:
        """The same as packed columns, up to 1 MiB each, not decoded; arguments as ``items``.

        Args:
            prefix: only keys whose bytes begin so.
            limit: as for ``items``.
            keys_only: no values.
            nonzero: as for ``items``.
            reduce: per-CPU maps: values come as one slot of value_size bytes, in which each of these integers is what
                became of it over all CPUs and all else is zero. Unsupported for other types; the daemon refuses
                integers that overlap or leave the value (Misuse).
            value_range: (offset, size): only these bytes of each value, of the reduced one with ``reduce``.
            resume: as for ``items``.
            partial_ok: as for ``items``.
        """

        def decode(chunk: Chunk) -> list[Chunk]:
            return [chunk]

        columns: requests.DumpColumns = "keys" if keys_only else "both"
        with requests.naming(Asked("dump", self._name)):
            reduced = reductions(reduce)
        wanted = Selected(nonzero=nonzero, reduce=reduced, value_range=value_range)
        return self._dump(columns, decode, prefix, limit, resume, partial_ok, wanted=wanted, whole=True)

    # Inside

    def _dump(
        self,
        columns: requests.DumpColumns,
        decode: Callable[[Chunk], list[T] | Lazily[T]],
        prefix: bytes,
        limit: int | None,
        resume: bytes | None,
        partial_ok: bool,
        covered_by: bytes = b"",
        *,
        wanted: Selected = EVERYTHING,
        whole: bool = False,
    ) -> Dump[T]:
        asked = Asked("dump", self._name)
        with requests.naming(asked):
            request = requests.dump(
                self._handle,
                columns=columns,
                prefix=prefix,
                limit=limit,
                resume=resume,
                covered_by=covered_by,
                wanted=wanted,
            )
            most = request.limit or None
        reader = DumpReader(
            asked,
            columns=columns,
            key_stride=self.info.key_stride,
            value_stride=self.info.value_stride,
            key=self._key,
            value=self._value,
        )

        selected = wanted

        async def check(link: Link) -> None:
            if covered_by:
                requests.check_lpm(await link.server(), asked)
            if not selected.plain:
                requests.check_select(await link.server(), asked)

        async def prepare(link: Link) -> None:
            nonlocal selected
            reduction = None if whole or columns == "keys" else self._reduction()
            # What the codec makes of all CPUs' values the daemon can make as well, if it is new enough.
            if reduction and "dump-select" in (await link.server()).features:
                selected = replace(wanted, reduce=(reduction,))
                selected.write(request)
            if selected.reduce or selected.value_range:
                reader.expect(*self._narrowed(selected))

        streams = _Streams(self._link, self._held, request, asked, prepare, check)
        source = Source(streams, reader, token=request.resume_token, limit=most)
        return Dump(source, decode, resume=resume, partial_ok=partial_ok, whole=whole)

    def _reduction(self) -> Reduce | None:
        """What a codec for one int of all CPUs' asks the daemon for."""
        codec: Codec[Any] = self._value
        return codec.reduction if isinstance(codec, PerCpuReduced) and self.info.per_cpu else None

    def _narrowed(self, wanted: Selected) -> tuple[int, Codec[Any]]:
        """Bytes and codec of values of which a part comes."""
        if wanted.value_range:
            return wanted.value_range[1], Bytes(wanted.value_range[1])
        size = self.info.value_size
        codec = of_one_cpu(self._value)
        return size, codec if codec is not None and codec.size == size else Bytes(size)

    def _pairs(self, chunk: Chunk) -> Lazily[tuple[K, V]]:
        keys: Lazily[K] = _elements(self._key, chunk.keys, chunk.count)
        values: Lazily[V] = _elements(chunk.value_codec, chunk.values, chunk.count)
        return Lazily(zip(keys.entries, values.entries, strict=True), values.left)


class _Streams:
    """Begins the streams of one dump, by the handle that there is then."""

    def __init__(
        self,
        link: Callable[[], Awaitable[Link]],
        held: Held,
        request: elements_pb2.DumpRequest,
        asked: Asked,
        prepare: Callable[[Link], Awaitable[None]],
        check: Callable[[Link], Awaitable[None]],
    ) -> None:
        """``prepare`` is awaited before the first, and may write to ``request``; ``check`` before each.

        A dump may go on at another daemon, and an older one would take no notice of what it does not know.
        """
        self._to = link
        self._link: Link | None = None
        self._held = held
        self._request = request
        self._asked = asked
        self._prepare = prepare
        self._check = check

    async def begin(self, token: bytes, limit: int | None) -> Stream:
        """As Streams."""
        link = await self._to()
        await self._check(link)
        if self._link is None:
            await self._prepare(link)
        self._link = link
        self._request.map.handle = self._held.handle
        self._request.resume_token = token
        self._request.limit = limit or 0
        await link.transport.look()
        return link.transport.download(methods.DUMP, self._request, self._asked, link.timeout)

    async def mend(self, error: MapdError, timeout: float) -> bool:
        """As Streams."""
        if self._link is None or not heals(error, self._held):
            return False
        await renew(self._link, self._held, self._request.map.handle, self._asked, timeout)
        return True

    def patience(self) -> Patience:
        """As Streams."""
        if self._link is None:
            return Patience(self._asked, 0, impatient=True)  # what begins it has waited
        return self._link.patience(self._asked)


def _elements(codec: Codec[Any], column: memoryview, count: int) -> Lazily[Any]:
    """A column's elements; records are made when they are handed out, all else now."""
    if isinstance(codec, Structure):
        return Lazily(*codec.lazily(column))
    elements = iter(decoded(codec, column, count))
    return Lazily(elements, elements)
