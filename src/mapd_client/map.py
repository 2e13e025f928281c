"""One open map of keys and values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2
from mapd_client import batches, methods, references, replies, requests
from mapd_client.batches import BadElement, Batch
from mapd_client.codec import Bytes, Codec, of_one_cpu
from mapd_client.dump import Dump, Source, Stream
from mapd_client.errors import MapdError, TypeMismatch, Unsupported
from mapd_client.failures import Asked
from mapd_client.handle import MapHandle, named
from mapd_client.info import ByteOrder, Chunk, Count, MapInfo, UpdateFlag
from mapd_client.link import Links
from mapd_client.lpm import Lpm
from mapd_client.references import ProgramRef
from mapd_client.refs import MapRef
from mapd_client.replies import DumpReader, Outcome
from mapd_client.windows import in_order

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_LOOKUP_WINDOW = 4
"""Messages of lookup_many in flight: enough to hide the way there and back."""


class Map(MapHandle, Generic[K, V]):
    """One open map; from ``Client.open_map`` or ``Client.create_map``.

    Where the values have a bpf_spin_lock (``info.has_lock``), every read and write holds it.
    """

    def __init__(
        self,
        links: Links,
        handle: int,
        info: MapInfo,
        key: Codec[K],
        value: Codec[V],
        name: str,
        byteorder: ByteOrder,
    ) -> None:
        super().__init__(links, handle, info, name, key)
        self._key = key
        self._value = value
        self._byteorder: ByteOrder = byteorder

    def __repr__(self) -> str:
        return f"<Map {self._name} {self.info.type_name} {self._key!r} -> {self._value!r}>"

    # One element

    @overload
    async def lookup(self, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None: ...
    @overload
    async def lookup(
        self: Map[K, list[T]], key: K, *, cpu: int, touch: bool = False, timeout: float | None = None
    ) -> T | None: ...
    async def lookup(
        self, key: K, *, cpu: int | None = None, touch: bool = False, timeout: float | None = None
    ) -> Any:
        """The value of ``key``, None if it is not there.

        Args:
            key: as the map's key codec takes it.
            cpu: of a per-CPU map, this CPU's slot alone.
            touch: let an LRU map count this as a use of the key; the kernel does not by itself.
            timeout: seconds; the client's if None.

        Cancelled: nothing has changed.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key.
            Misuse: a timeout that is not positive and finite.
            IndexOutOfRange: an array has fewer elements.
            Unsupported: ``touch``, and the daemon has not the feature "touch"; ``cpu`` of a map without slots, or
                the feature "one-cpu" is missing.
            Misuse: the daemon's host has no such CPU.
        """
        if cpu is None:
            return await self._fetch(Op.LOOKUP, key, touch=touch, timeout=timeout)
        slot = self._slot(Op.LOOKUP)
        found, value = await self._one(
            Op.LOOKUP, self._encode_key(Op.LOOKUP, key), touch=touch, cpu=cpu, timeout=timeout
        )
        return None if found == Reason.KEY_ABSENT else slot.decode(value)

    def __getitem__(self, key: K) -> Awaitable[V]:
        """``await m[key]``: as ``lookup``, but raises KeyMissing if ``key`` is not there."""
        return self._present(key)

    async def _present(self, key: K) -> V:
        found = await self.lookup(key)
        if found is None:
            raise self._element_error(Op.LOOKUP, Reason.KEY_ABSENT, 0, self._encode_key(Op.LOOKUP, key))
        return found

    @overload
    async def update(
        self, key: K, value: V, *, flags: UpdateFlag = "any", lock: bool | None = None
    ) -> None: ...
    @overload
    async def update(
        self: Map[K, list[T]], key: K, value: T, *, cpu: int, flags: UpdateFlag = "any"
    ) -> None: ...
    async def update(
        self,
        key: K,
        value: Any,
        *,
        cpu: int | None = None,
        flags: UpdateFlag = "any",
        lock: bool | None = None,
    ) -> None:
        """Create or replace one element.

        Args:
            key: as the map's key codec takes it.
            value: as the map's value codec takes it; for per-CPU maps one element per possible CPU, or with
                ``cpu`` that CPU's.
            cpu: write this CPU's slot of a per-CPU map, and no other. Where the element is not there yet it is
                created with zeros for the other CPUs.
            flags: "noexist" only creates, "exist" only replaces.
            lock: hold the bpf_spin_lock in the value while writing (BPF_F_LOCK); None: if it has one.

        Cancelled: the update may still be applied.

        Raises:
            SizeMismatch, TypeMismatch: not this map's key or value; nothing was sent.
            KeyExists, KeyMissing: as ``flags`` asks.
            MapFull, MapFrozen, IndexOutOfRange: as the kernel says.
            Unsupported: ``lock=True`` and the values have none; ``cpu`` as for ``lookup``, or the daemon may load
                no BPF programs.
        """
        op = requests.update_op(flags)
        keys = self._encode_key(op, key)
        codec = self._value if cpu is None else self._slot(op)
        values = self._encode(op, codec, value, self._value_bytes(cpu), "value")
        await self._one(op, keys, values, lock=lock, cpu=cpu)

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

    async def _fetch(self, op: Op, key: K, *, touch: bool = False, timeout: float | None = None) -> V | None:
        status, values = await self._one(op, self._encode_key(op, key), touch=touch, timeout=timeout)
        return None if status == Reason.KEY_ABSENT else self._value.decode(values)

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
        return self._dump("both", self._pairs, prefix, limit, resume, partial_ok)

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

    async def _exact(self, keys: bytes, count: int) -> list[V | None]:
        op = Op.LOOKUP_EXACT
        link = await self._link()
        requests.check_lpm(await link.server(), self._asked(op))
        batch = Batch(0, count, keys)
        outcome = await self._send(link, op, batch)
        for at in outcome.failed():
            raise self._batch_error(op, batch, outcome, at)
        return self._values(outcome)

    def _pairs(self, chunk: Chunk) -> list[tuple[K, V]]:
        keys = self._key.decode_many(chunk.keys)
        return list(zip(keys, self._value.decode_many(chunk.values), strict=True))

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
        )

        async def start() -> Stream:
            link = await self._link()
            if covered_by:
                requests.check_lpm(await link.server(), asked)
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
            raise named(bad, asked) from None
        except MapdError as error:
            stopped = replies.load_stopped(error, asked)
            if stopped is None:
                raise
            raise stopped from error
        return replies.load_result(response, asked, self.info)

    # Inside

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

    def _slot(self, op: Op) -> Codec[Any]:
        """The codec of one CPU's slot."""
        if not self.info.per_cpu:
            asked = self._asked(op)
            raise Unsupported(
                f"{asked}: cpu= is for per-CPU maps; a map of type {self.info.type_name} has one value per key",
                operation=asked.operation,
                map=asked.map,
            )
        # A map that was opened without codecs is one of bytes.
        return of_one_cpu(self._value) or Bytes(self.info.value_size)

    def _encode_key(self, op: Op, key: K) -> bytes:
        return self._encode(op, self._key, key, self.info.key_stride, "key")
