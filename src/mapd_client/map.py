"""One open map of keys and values, put together from what it does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from os import PathLike
from typing import Any, Generic, TypeVar, overload

from mapd_api.ops import Op
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2, maps_pb2
from mapd_client import hostinfo_asking, methods, references, replies, requests, waiting
from mapd_client.atomics import Atomics
from mapd_client.batches import Batch
from mapd_client.codec import Codec
from mapd_client.dump import Dump
from mapd_client.elements import Elements
from mapd_client.errors import (
    DaemonCapability,
    Incompatible,
    MapdError,
    NoTypeInfo,
    PermissionDenied,
    Unsupported,
)
from mapd_client.failures import Asked
from mapd_client.handing import check_codecs
from mapd_client.healing import by_handle
from mapd_client.held import Held
from mapd_client.info import Btf, Count, UpdateFlag
from mapd_client.layouts import MapLayout
from mapd_client.lpm import Lpm
from mapd_client.references import ProgramRef
from mapd_client.refs import MapRef
from mapd_client.syncing.facade import Syncing
from mapd_client.tables.facade import Tables
from mapd_client.typed.hints import Hint

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")


class Map(Elements[K, V], Syncing[K, V], Atomics[K, V], Tables[K, V], Generic[K, V]):
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
        held: tuple[Held, ...] = (self._held,)
        if inner is None:
            named = None
        elif isinstance(inner, Map):
            named = requests.by_handle(inner._handle)  # noqa: SLF001 - of this very class
            held = (*held, inner._held)  # noqa: SLF001
        else:
            named = references.inner_map(inner)
        encoded = self._encode_key(Op.UPDATE, key)

        def request() -> elements_pb2.UpdateReferenceRequest:
            return references.update_reference(
                requests.by_handle(self._handle),
                encoded,
                flags,
                inner=requests.by_handle(held[1].handle) if len(held) > 1 else named,
                program=program,
                device=device,
                queue=queue,
            )

        _ = request()  # raises for what is wrong with it, before anything is asked
        await by_handle(await self._link(), methods.UPDATE_REFERENCE, request, asked, *held)

    async def count(self) -> Count:
        """How many elements there are now; without reading them where the kernel counts, else by a scan.

        Cancelled: nothing has changed.

        Raises:
            Unsupported: a type that can neither be counted nor walked.
        """
        asked = Asked("count", self._name)

        def request() -> elements_pb2.CountEntriesRequest:
            return elements_pb2.CountEntriesRequest(map=requests.by_handle(self._handle))

        link = await self._link()
        return replies.count(await by_handle(link, methods.COUNT_ENTRIES, request, asked, self._held))

    async def btf(self) -> Btf:
        """The map's type information, as the kernel holds it. Cancelled: nothing has changed.

        Raises:
            Unsupported: it was created without.
            DaemonCapability: somebody else created the map, and the daemon may not ask for their BTF (CAP_SYS_ADMIN).
        """
        asked = Asked("btf", self._name)

        def request() -> maps_pb2.GetBtfRequest:
            return maps_pb2.GetBtfRequest(map=requests.by_handle(self._handle))

        link = await self._link()
        found = (await by_handle(link, methods.GET_BTF, request, asked, self._held)).btf
        return Btf(found.blob, found.key_type_id, found.value_type_id)

    @overload
    async def typed(
        self, *, elf: str | PathLike[str] | None = None, hints: Mapping[str, Hint] | None = None
    ) -> Map[Any, Any]: ...
    @overload
    async def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
    ) -> Map[K2, V2]: ...
    @overload
    async def typed(
        self,
        *,
        key: type[K2] | Codec[K2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[K2, Any]: ...
    @overload
    async def typed(
        self,
        *,
        value: type[V2] | Codec[V2],
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[Any, V2]: ...
    async def typed(
        self,
        *,
        key: type[Any] | Codec[Any] | None = None,
        value: type[Any] | Codec[Any] | None = None,
        elf: str | PathLike[str] | None = None,
        hints: Mapping[str, Hint] | None = None,
    ) -> Map[Any, Any]:
        """This map with keys and values by field name, or as instances of classes.

        What is returned is a view of the same open map by the same handle: ``aclose`` of either closes both, and what
        is called through one keeps its order with what is called through the other.

        By field name a struct is read as ``Fields``, a mapping that nobody can change, and written from them or from
        any mapping with every field; arrays are tuples, char arrays str (bytes where that would not be all of them),
        enums names. For per-CPU maps values are lists, one for each possible CPU. A field of 4 or 8 bytes can be
        changed by its path: ``fetch_add(key, 1, field="stats.packets")``.

        An ``update`` of an element that is there cancels its bpf_timer and drops its kptrs, whatever is written: fields
        of the kernel's own cannot be written back (kernel/bpf/hashtab.c, ``check_and_free_fields()``). Change such
        values by atomics on their fields.

        Args:
            key: a dataclass, a ctypes.Structure or an address class that keys are to be instances of; a codec.
            value: likewise, for values.
            elf: an object file, on this host, that declares the map by the kernel's name for it; for maps whose BTF the
                daemon cannot give. What it says is checked against the BTF where that is to be had.
            hints: codecs for fields, or their names, by path: ``{"key.saddr": Ipv4, "value.seen": "ktime"}``. They are
                for what is read by name; a class says them itself (``Annotated[IPv4Address, Ipv4]``).

        Cancelled: nothing has changed.

        Raises:
            NoTypeInfo: the map has no BTF, or the daemon cannot give it, and the message names the three ways out; the
                object file does not say what the map is made of.
            Incompatible: a class, or the object file, is not what the map's BTF says; the message has a line for each
                field that differs.
            SizeMismatch: a class, a codec or a hint of another size.
            Misuse: a hint for a field that is not there.
            TypeMismatch: a class that does not say how it lies in memory; BTF (BadBtf) that cannot be read.
        """
        from mapd_client.typed import view

        asked = Asked("typed", self._name)
        with requests.naming(asked):
            given = view.hints_of(hints or {}, key, value)
            wanted = view.wanted(key, value)
        declared = None if elf is None else await self._types_declared(elf, asked)
        there = await self._types_there(asked, needed=key is None and value is None and declared is None)
        link = await self._link()
        known = await hostinfo_asking.known_hints(link, given)
        server = await link.server()
        if declared is not None and there is not None:
            view.check(declared, there, server.byteorder, asked)
        there = declared or there
        if there is not None:
            view.check(wanted, there, server.byteorder, asked)
        with requests.naming(asked):
            layouts = [view.layout_now(side, wish, there) for side, wish in (("key", key), ("value", value))]
            keys = view.chosen("key", key, layouts[0], known, self._key)
            values = view.chosen("value", value, layouts[1], known, self._value)
            if self.info.per_cpu:
                values = view.per_cpu(values, self._value)
            keys = await hostinfo_asking.known(link, keys)
            keys = keys.bind(server.byteorder, server.possible_cpus)
            values = await hostinfo_asking.known(link, values)
            values = values.bind(server.byteorder, server.possible_cpus)
        check_codecs(self.info, keys, values, asked)
        source = "the caller's classes" if there is None else there.source
        recoded = self._recoded(keys, values, MapLayout(key=layouts[0], value=layouts[1], source=source))
        assert isinstance(recoded, Map)
        return recoded

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

    async def _types_declared(self, elf: str | PathLike[str], asked: Asked) -> MapLayout:
        """What an object file says of the map."""
        from mapd_client.elf.types import types_from_object

        pinned_as = (self.info.pin_path or self.info.name).rpartition("/")[2]
        server = await (await self._link()).server()
        read = partial(types_from_object, pinned_as=pinned_as, byteorder=server.byteorder)
        try:
            return await waiting.in_thread(read, elf, self.info.kernel_name)
        except (NoTypeInfo, Incompatible) as error:
            raise type(error)(f"{asked}: {error}", operation=asked.operation, map=asked.map) from None

    async def _types_there(self, asked: Asked, *, needed: bool) -> MapLayout | None:
        """What the map's BTF says; None, where that is not needed, if it is not to be had."""
        from mapd_client.typed import view

        why: MapdError | None = None
        if self.info.btf_id:
            try:
                return view.of_btf(await self.btf(), self.info)
            except (Unsupported, DaemonCapability, PermissionDenied) as error:
                why = error
        if needed:
            raise view.no_types(asked, why) from why
        return None

    async def _exact(self, keys: bytes, count: int) -> list[V | None]:
        op = Op.LOOKUP_EXACT
        link = await self._link()
        requests.check_lpm(await link.server(), self._asked(op))
        batch = Batch(0, count, keys)
        outcome = await self._send(link, op, batch)
        for at in outcome.failed():
            raise self._batch_error(op, batch, outcome, at)
        return self._values(outcome)
