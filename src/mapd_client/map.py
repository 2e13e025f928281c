"""One open map of keys and values, put together from what it does."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from mapd_api.ops import Op
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2
from mapd_client import methods, references, replies, requests
from mapd_client.atomics import Atomics
from mapd_client.batches import Batch
from mapd_client.bulk import Bulk
from mapd_client.dump import Dump
from mapd_client.elements import Elements
from mapd_client.errors import Unsupported
from mapd_client.failures import Asked
from mapd_client.info import Count, UpdateFlag
from mapd_client.lpm import Lpm
from mapd_client.references import ProgramRef
from mapd_client.refs import MapRef
from mapd_client.tables.facade import Tables

K = TypeVar("K")
V = TypeVar("V")


class Map(Elements[K, V], Bulk[K, V], Atomics[K, V], Tables[K, V], Generic[K, V]):
    """One open map; from ``Client.open_map`` or ``Client.create_map``.

    Where the values have a bpf_spin_lock (``info.has_lock``), every read and write holds it.
    """

    async def update_reference(
        self,
        key: K,
        *,
        inner: Map[Any, Any] | MapRef | str | None = None,
        program: ProgramRef | None = None,
        device: str | int | None = None,
        queue: int | None = None,
        flags: UpdateFlag = "any",
    ) -> None:
        """Create or replace an element that stands for a kernel object; ``lookup`` answers the object's id.

        Args:
            key: as the map's key codec takes it; the CPU for a CPUMAP.
            inner: the map to put into a map of maps: an open one, or a reference.
            program: its id or its pin ("pin:/sys/fs/bpf/x"), for a PROG_ARRAY; for a DEVMAP or CPUMAP with
                values of 8 bytes it goes with ``device`` or ``queue``.
            device: name or index of a network device of the daemon's host.
            queue: frames that a CPU's queue holds; 0 removes it.
            flags: "noexist" and "exist" where the map type heeds them (maps of maps, devmap_hash).

        Takes 8 to 16 ms for maps of maps. Cancelled: the update may still be applied.

        Raises:
            Misuse: no such object, not what this map takes, or not exactly one.
            Incompatible: an inner map that is not like the template; the message says in which field.
            KeyExists, KeyMissing, MapFull, IndexOutOfRange, MapFrozen: as ``update``.
            DaemonCapability: the daemon may not open programs by id.
            Unsupported: a map of bytes, or of objects that cannot be named (sockets).
        """
        asked = Asked("update_reference", self._name, mutates=True)
        if inner is None:
            named = None
        elif isinstance(inner, Map):
            named = requests.by_handle(inner._handle)  # noqa: SLF001 - of this very class
        else:
            named = references.inner_map(inner)
        request = references.update_reference(
            requests.by_handle(self._handle),
            self._encode_key(Op.UPDATE, key),
            flags,
            inner=named,
            program=program,
            device=device,
            queue=queue,
        )
        link = await self._link()
        await link.call(methods.UPDATE_REFERENCE, request, asked)

    async def count(self) -> Count:
        """How many elements there are now; without reading them where the kernel counts, else by a scan.

        Cancelled: nothing has changed.

        Raises:
            Unsupported: a type that can neither be counted nor walked.
        """
        asked = Asked("count", self._name)
        request = elements_pb2.CountEntriesRequest(map=requests.by_handle(self._handle))
        link = await self._link()
        return replies.count(await link.call(methods.COUNT_ENTRIES, request, asked))

    @property
    def lpm(self) -> Lpm[K, V]:
        """Exact, covering and covered prefixes of an LPM trie; raises Unsupported for other types."""
        if self.info.type != MapType.LPM_TRIE:
            raise Unsupported(f"lpm {self._name}: it is of type {self.info.type_name}, not lpm_trie")

        def covered(
            key: bytes, limit: int | None, resume: bytes | None, partial_ok: bool
        ) -> Dump[tuple[K, V]]:
            return self._dump("both", self._pairs, b"", limit, resume, partial_ok, covered_by=key)

        return Lpm(self._key, self._encode_key, self._exact, covered, self._byteorder)

    # Inside

    async def _exact(self, keys: bytes, count: int) -> list[V | None]:
        op = Op.LOOKUP_EXACT
        link = await self._link()
        requests.check_lpm(await link.server(), self._asked(op))
        batch = Batch(0, count, keys)
        outcome = await self._send(link, op, batch)
        for at in outcome.failed():
            raise self._batch_error(op, batch, outcome, at)
        return self._values(outcome)
