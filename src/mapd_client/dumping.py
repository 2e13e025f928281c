"""All elements of an open map, as dumps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from mapd_client import methods, requests
from mapd_client.chunk import Chunk
from mapd_client.coded import Coded
from mapd_client.dump import Dump, Source, Stream
from mapd_client.failures import Asked
from mapd_client.replies import DumpReader

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
        return self._dump("both", self._pairs, prefix, limit, resume, partial_ok)

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

    # Inside

    def _dump(
        self,
        columns: requests.DumpColumns,
        decode: Callable[[Chunk], list[T]],
        prefix: bytes,
        limit: int | None,
        resume: bytes | None,
        partial_ok: bool,
        covered_by: bytes = b"",
        *,
        whole: bool = False,
    ) -> Dump[T]:
        asked = Asked("dump", self._name)
        request = requests.dump(
            self._handle, columns=columns, prefix=prefix, limit=limit, resume=resume, covered_by=covered_by
        )
        reader = DumpReader(
            asked,
            columns=columns,
            key_stride=self.info.key_stride,
            value_stride=self.info.value_stride,
            key=self._key,
            value=self._value,
        )

        async def start() -> Stream:
            link = await self._link()
            if covered_by:
                requests.check_lpm(await link.server(), asked)
            return link.transport.download(methods.DUMP, request, asked, link.timeout)

        return Dump(Source(start, reader), decode, resume=resume, partial_ok=partial_ok, whole=whole)

    def _pairs(self, chunk: Chunk) -> list[tuple[K, V]]:
        keys = self._key.decode_many(chunk.keys)
        return list(zip(keys, self._value.decode_many(chunk.values), strict=True))
