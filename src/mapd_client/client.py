"""The way in: ``connect`` and ``Client``."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import Any, TypeVar, overload

from mapd_api.uapi import MapFlag, MapType
from mapd_api.v1 import access_pb2, maps_pb2
from mapd_client import (
    hostinfo,
    hostinfo_asking,
    methods,
    references,
    replies,
    requests,
    rights,
    stats,
    waiting,
)
from mapd_client.classes_maps import planned
from mapd_client.codec import Bytes, Codec
from mapd_client.errors import Incompatible, Misuse
from mapd_client.failures import Asked
from mapd_client.handing import check_codecs, check_per_cpu, give_back, in_session
from mapd_client.handle import MapHandle
from mapd_client.held import Grip, Tenure
from mapd_client.hostinfo import HostInfo
from mapd_client.info import Btf, Lease, MapInfo, ServerInfo
from mapd_client.keyless import FILTERS, QUEUES, Bloom, Queue, check_type
from mapd_client.lease_calls import LeaseCalls
from mapd_client.link import Link, Links
from mapd_client.listing import Listing
from mapd_client.map import Map
from mapd_client.objectmaps import ObjectMaps
from mapd_client.opening import Opener, Opening
from mapd_client.refs import MapRef, Name, Pin, as_ref
from mapd_client.rights import Decision, Principal
from mapd_client.stats import StatsSample
from mapd_client.tls import Tls
from mapd_client.typed.hints import Hint, resolve

K = TypeVar("K")
V = TypeVar("V")
H = TypeVar("H", bound=MapHandle)
C = TypeVar("C", bound="Client")


def connect(
    target: str | None = None,
    *,
    tls: Tls | None = None,
    timeout: float = 30.0,
    wait_for_ready: bool = False,
) -> Opening[Client]:
    """Find a daemon and make sure that it answers.

    Args:
        target: "unix:/path" or "/path"; "host:port" with certificates. None: $MAPD_ADDRESS, then
            /run/mapd/mapd.sock, then the /run/mapd/*/mapd.sock that this user may open.
        tls: certificates for "host:port". None: those of $MAPD_TLS_CA, $MAPD_TLS_CERT and $MAPD_TLS_KEY.
        timeout: seconds for this and, where they have none of their own, for all calls.
        wait_for_ready: wait for a daemon that is not there yet, for the timeout, instead of saying so at once.

    Cancelled: nothing stays.

    Raises:
        Unavailable: no daemon there; the message lists where was looked and what was found.
        PermissionDenied: the daemon does not know this client's certificate.
        DeadlineExceeded: a daemon that does not answer.
        Misuse: not an address; TCP without certificates, or ones that cannot be used.
    """

    async def opened() -> Client:
        return await answering(Client(target, tls=tls, timeout=timeout, wait_for_ready=wait_for_ready))

    return Opener(opened, "connect()")


async def answering(client: C) -> C:
    """A client whose daemon has answered; closed where it does not."""
    try:
        await client.server_info()
    except BaseException:
        await client.aclose()
        raise
    return client


class Client(LeaseCalls):
    """One daemon, as one user of it.

    Making one does no I/O: it may be made at import time, outside of any event loop. Connections are
    made in the loop that first uses it, and one per loop where there are several.

    Args:
        target: as for ``connect``.
        tls: as for ``connect``.
        timeout: seconds for every call that has none of its own.
        wait_for_ready: as for ``connect``. A daemon that has answered once is waited for in any case.

    Raises:
        Misuse: not an address; TCP without certificates; or a timeout that is not positive and finite.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        tls: Tls | None = None,
        timeout: float = 30.0,
        wait_for_ready: bool = False,
    ) -> None:
        self._links = self._links_to(target, requests.seconds("timeout", timeout), tls, wait=wait_for_ready)

    def _links_to(self, target: str | None, timeout: float, tls: Tls | None, *, wait: bool) -> Links:
        """What carries the calls: another in ``mapd_client.blocking``."""
        return Links(target, timeout, tls, wait=wait)

    async def server_info(self) -> ServerInfo:
        """What the daemon is and can do, asked anew. Cancelling costs nothing."""
        link = await self._links.current()
        return await link.ask_server()

    async def whoami(self) -> Principal:
        """Who the daemon takes this client for, what fixed that, and its shares. Cancelling costs nothing."""
        link = await self._links.current()
        response = await link.call(methods.WHO_AM_I, access_pb2.WhoAmIRequest(), Asked("whoami"))
        return rights.principal(response)

    async def health(self) -> str:
        """What the daemon says of its own health, by grpc.health.v1: "SERVING", or "NOT_SERVING" while it drains.

        Everybody may ask. Cancelling costs nothing.

        Raises:
            Unavailable: nobody answers.
            Unsupported: grpcio-health-checking is not installed.
        """
        from mapd_client import health

        return await health.ask(await self._links.current())

    async def host_info(
        self,
        *,
        devices: bool = True,
        cgroups: bool = True,
        ifindexes: Iterable[int] = (),
        cgroup_ids: Iterable[int] = (),
    ) -> HostInfo:
        """Clocks, network devices and cgroups of the daemon's host, asked anew. Cancelling costs nothing.

        Maps that are opened or typed with Ktime, KtimeBoot, IfIndex or CgroupId ask by themselves.

        Args:
            devices: every device of the daemon's network namespace; at most 4,096.
            cgroups: every cgroup, those nearest to the mount first; at most 8,192 and 1 MiB of paths. The daemon walks
                its cgroups at most once a second.
            ifindexes: beside those, or alone, these devices; at most 1,024.
            cgroup_ids: beside those, or alone, these cgroups; at most 1,024.

        Raises:
            PermissionDenied: no rule about every map gives this client ``host``.
            Unsupported: an older daemon, without the feature "host-facts".
            Misuse: more ids than one call takes.
        """
        request = hostinfo.request(
            devices=devices, cgroups=cgroups, ifindexes=ifindexes, cgroup_ids=cgroup_ids
        )
        return await hostinfo_asking.ask(await self._links.current(), request)

    async def known_hints(self, hints: Mapping[str, Hint]) -> Mapping[str, Codec[Any]]:
        """Hints with what they need to know of the daemon's host, as ``Map.typed`` gives it to them.

        For what decodes columns by itself: ``Records``. Cancelling costs nothing.

        Raises:
            Misuse: the name of no codec.
        """
        found = {path: resolve(hint) for path, hint in hints.items()}
        return await hostinfo_asking.known_hints(await self._links.current(), found)

    async def explain(
        self,
        verb: str,
        ref: MapRef | str | None,
        *,
        key: bytes | None = None,
        as_principal: str | None = None,
    ) -> Decision:
        """Whether this client may do something with a map, and why. Nothing is done. Cancelling costs nothing.

        Args:
            verb: list, read, write, delete, create, pin, freeze, open_by_id, watch, consume, admin, host.
            ref: a map by name, pin or id; None: the daemon itself.
            key: of one element, as its bytes, where rights differ by key.
            as_principal: about somebody else, for those who may administer the daemon.

        Raises:
            MapNotFound: no such map, or none that this client may know of.
            PermissionDenied: ``as_principal``, without the right ``admin``.
            Misuse: no such right, no map reference.
        """
        request = rights.explain(verb, None if ref is None else as_ref(ref), key, as_principal)
        link = await self._links.current()
        response = await link.call(
            methods.EXPLAIN, request, Asked("explain", "" if ref is None else str(ref))
        )
        return rights.decision(response)

    def list_maps(
        self, glob: str = "*", *, pins: bool = False, ids: bool = False, holders: bool = False
    ) -> Listing:
        """The maps that the caller may see, one entry for each, whatever it is called.

        Args:
            glob: shell pattern over "namespace/name"; over pins and kernel name of a map without a name.
            pins: also maps that other programs have pinned below the daemon's pin roots.
            ids: also all others of the host, by kernel id (the daemon needs CAP_SYS_ADMIN).
            holders: tell of each which processes and programs hold it.
        """
        return Listing(self._links, requests.Wanted(glob, pins, ids, holders))

    async def map_stats(
        self, glob: str = "*", *, pins: bool = False, ids: bool = False, wait_for_ready: bool = True
    ) -> StatsSample:
        """The same maps with their entries, memory and what went through the daemon: for who asks again and again.

        No element is read: the daemon asks the kernel for its counters, about 0.5 ms for each map. Cancelling costs
        nothing.

        Args:
            glob: as for ``list_maps``.
            pins: as for ``list_maps``.
            ids: as for ``list_maps``.
            wait_for_ready: False: say at once that the daemon is away, for who asks again in any case.

        Raises:
            Unsupported: an older daemon, without the feature "map-stats".
        """
        wanted = requests.Wanted(glob, pins, ids)
        return await stats.ask(await self._links.current(), wanted, impatient=not wait_for_ready)

    @overload
    def open_map(self, ref: MapRef | str, *, read_only: bool = False) -> Opening[Map[bytes, bytes]]: ...
    @overload
    def open_map(
        self, ref: MapRef | str, *, key: Codec[K], read_only: bool = False
    ) -> Opening[Map[K, int]]: ...
    @overload
    def open_map(
        self, ref: MapRef | str, *, key: Codec[K], value: Codec[V], read_only: bool = False
    ) -> Opening[Map[K, V]]: ...
    def open_map(
        self,
        ref: MapRef | str,
        *,
        key: Codec[Any] | None = None,
        value: Codec[Any] | None = None,
        read_only: bool = False,
    ) -> Opening[Map[Any, Any]]:
        """Open a map that exists.

        Args:
            ref: "flows", "ns/flows", "pin:/sys/fs/bpf/x", "id:42", or a MapRef.
            key: codec of the keys. Without codecs keys and values are bytes.
            value: codec of the values; PerCpu(...) for per-CPU maps. With a ``key`` alone values are ids: for
                maps of maps, programs, devices and CPUs whose values have 4 bytes.
            read_only: the daemon refuses every write through this map.

        Cancelled: what the daemon opens nevertheless is closed again.

        Raises:
            MapNotFound: no such map, or none that the caller may know of.
            SizeMismatch: a codec of another size than the map's keys or values; has both numbers.
            DaemonCapability: the daemon itself may not open it.
        """
        if key is None and value is not None:
            raise Misuse("open_map: give key= with value=, or neither for bytes")
        parsed = as_ref(ref)

        async def opened() -> Map[Any, Any]:
            asked = Asked("open", str(parsed))

            async def made(link: Link, grip: Grip, info: MapInfo) -> Map[Any, Any]:
                return await self._opened(link, grip, info, key, value, asked)

            return await self._open(parsed, asked, made, read_only=read_only)

        return Opener(opened, f"open_map({str(parsed)!r})")

    def open_queue(self, ref: MapRef | str, *, value: Codec[V]) -> Opening[Queue[V]]:
        """Open a queue or stack that exists; arguments and errors as ``open_map``.

        Raises:
            Unsupported: the map is neither.
        """
        return self._keyless(as_ref(ref), value, QUEUES, Queue)

    def open_bloom(self, ref: MapRef | str, *, value: Codec[V]) -> Opening[Bloom[V]]:
        """Open a Bloom filter that exists; arguments and errors as ``open_map``.

        Raises:
            Unsupported: the map is none.
        """
        return self._keyless(as_ref(ref), value, FILTERS, Bloom)

    def _keyless(
        self,
        ref: MapRef,
        value: Codec[V],
        types: frozenset[MapType],
        make: Callable[[Links, Grip, MapInfo, Codec[V], str], H],
    ) -> Opening[H]:
        async def opened() -> H:
            asked = Asked("open", str(ref))

            async def made(link: Link, grip: Grip, info: MapInfo) -> H:
                try:
                    check_type(info, types, asked)
                    server = await link.server()
                    known = await hostinfo_asking.known(link, value)
                    values = known.bind(server.byteorder, server.possible_cpus)
                    check_codecs(info, Bytes(0), values, asked)
                    return make(self._links, grip, info, values, asked.map)
                except BaseException:
                    await give_back(link, grip.handle, asked)
                    raise

            return await self._open(ref, asked, made)

        return Opener(opened)

    async def _open(
        self,
        ref: MapRef,
        asked: Asked,
        made: Callable[[Link, Grip, MapInfo], Coroutine[Any, Any, H]],
        *,
        read_only: bool = False,
    ) -> H:
        link = await self._links.current()

        async def ask(tenure: Tenure) -> H:
            request = requests.open_map(ref, read_only=read_only, session=tenure.session)
            response = await link.call(methods.OPEN_MAP, request, asked)
            grip = Grip(response.handle, tenure, ref, read_only)
            return await made(link, grip, replies.map_info(response.info))

        return await in_session(link, ask)

    def create_map(
        self,
        name: str | None,
        type: MapType | str,
        *,
        key: Codec[K] | builtins.type[K],
        value: Codec[V] | builtins.type[V],
        max_entries: int,
        flags: int = 0,
        kernel_name: str | None = None,
        map_extra: int = 0,
        numa_node: int | None = None,
        inner: MapRef | str | None = None,
        btf: Btf | bool | None = None,
        exclusive_program_hash: bytes = b"",
        lease: float | Lease | None = None,
        exist_ok: bool = False,
    ) -> Opening[Map[K, V]]:
        """Create a map and open it; exactly one of ``name`` and ``lease``.

        Args:
            name: "flows" or "ns/flows". The map stays until it is unpinned or the host reboots.
            type: MapType.LRU_HASH or "lru_hash".
            key: codec of the keys; its size is the map's key_size. Bytes(0) where there are none: queues, stacks,
                Bloom filters, ring buffers, arenas. A class (a dataclass, a ctypes.Structure): as for ``Map.typed``.
            value: codec of the values; its size is the map's value_size (of one CPU's slot). Bytes(0) for ring
                buffers and arenas. A class likewise.
            max_entries: elements that fit; bytes of a ring buffer, pages of an arena, 0 for local storages.
            flags: BPF_F_* of BPF_MAP_CREATE.
            kernel_name: at most 15 characters; made from ``name`` if None.
            map_extra: hash functions of a Bloom filter, address of an arena.
            numa_node: where its memory is to be.
            inner: template of the maps in a map of maps: they will have its type, sizes and flags.
            btf: type information, by which bpftool shows fields. None: written from ``key`` and ``value`` where one of
                them has fields (a class, a codec of a layout; not U32, Bytes, Struct). True: for those too. False: none
                at all. A Btf, of an object file or of ``describe()``: that one. Where the map type takes none the map
                has none: ``info.btf_id`` is 0.
            exclusive_program_hash: SHA-256 of the only program that may use the map.
            lease: seconds that the map outlives this call's map: it has no name, is opened by ``info.pin_path``, and is
                kept alive while it is open here. A Lease with an id: several maps in one, told apart by
                ``kernel_name``.
            exist_ok: open the map of that name if every field agrees; types are compared by their fields, whatever
                the bytes of the BTF.

        Cancelled: the map may exist; repeating with ``exist_ok`` settles it. No handle stays open.

        Raises:
            MapExists: and not ``exist_ok``. If the daemon lost the session under the first try, a second
                one under a new session was made by itself, and the message says so.
            Incompatible: ``exist_ok``, and a field differs; the message says which.
            Misuse: a map that cannot be.
            TypeMismatch: a class that does not say how it lies in memory, types that BTF cannot say; names the field.
            Unsupported: a type or lifetime that the daemon does not offer.
        """
        kind = requests.map_type(type)
        template = None if inner is None else as_ref(inner)
        label = name if name is not None else kernel_name or "a leased map"

        asked = Asked("create", label, mutates=True, repeatable=exist_ok)
        plan = planned(kind, key, value, btf, asked)

        async def opened() -> Map[K, V]:
            link = await self._links.current()
            types = plan.btf((await link.server()).byteorder, asked)

            async def ask(tenure: Tenure) -> Map[K, V]:
                request = requests.create_map(
                    name,
                    kind,
                    key_size=plan.key.size,
                    value_size=plan.value.size,
                    max_entries=max_entries,
                    flags=flags,
                    kernel_name=kernel_name,
                    map_extra=map_extra,
                    numa_node=numa_node,
                    inner=template,
                    btf=types,
                    exclusive_program_hash=exclusive_program_hash,
                    lease=lease,
                    exist_ok=exist_ok,
                    session=tenure.session,
                )
                try:
                    response = await link.call(methods.CREATE_MAP, request, asked)
                except Incompatible as refusal:
                    if name is None or types is None:
                        raise
                    from mapd_client.agreeing import if_same_types

                    read_only = bool(flags & MapFlag.RDONLY)
                    response = await if_same_types(
                        refusal, link, name, types, asked, read_only=read_only, session=tenure.session
                    )
                info = replies.map_info(response.info)
                ref = Pin(info.pin_path) if name is None else Name(name)
                taken = None if info.lease is None else partial(link.leasing.keep, link.call, info.lease)
                grip = Grip(response.handle, tenure, ref, taken=taken)
                made = await self._opened(link, grip, info, plan.key, plan.value, asked)
                made.created = response.created
                return made

            check_per_cpu(kind, plan.value, asked)
            return await plan.viewed(await in_session(link, ask))

        return Opener(opened, f"create_map({label!r})")

    def create_from_object(
        self,
        path: str | PathLike[str],
        *,
        convention: str = "auto",
        exist_ok: bool = False,
        names: Mapping[str, str] | None = None,
        prefix: str = "",
        pin_root: str = "/sys/fs/bpf",
    ) -> Opening[ObjectMaps]:
        """Create the maps that an eBPF object file declares, as its loader would, and open them.

        The file is read here, the daemon sees maps alone. They are created in the order of the file: maps of maps
        after the others. Each has a name, for a name is what keeps a map and gives rights on it: its C identifier in
        small letters, "_" for ".". A pin that the object asks for is made beside the name; where a map is
        pinned there already, that one is used if type, sizes, max_entries, flags and map_extra agree, and its elements
        are left as they are. Data sections become maps with their contents, frozen where they only read.

        Args:
            path: of the object, on this host: relocatable ELF for eBPF.
            convention: "samples" (struct bpf_map_def), "tc" (struct bpf_elf_map), "libbpf" (section .maps), or "auto".
            exist_ok: take maps that have the names, if every field agrees; a call that was interrupted is repeated so.
            names: mapd's name for a map by its declared one, where the rule is not wanted.
            prefix: before the other names: "prog-", or "ns/".
            pin_root: what the object's pins lie below on the daemon's host.

        A map with contents is called NAME--xxxxxxxx (eight hex digits) until it is complete. If this call fails, what
        it has created is removed again, and the message names the map, what was removed and what was not. Cancelled:
        likewise, before this call ends, for at most the client's timeout; cancelled twice, it goes on without the
        caller. A process that is killed leaves the maps it has created so far, and at most two of unfinished name.
        What is inserted into a map of maps that was there before is not undone.

        Raises:
            MapExists: a name is taken, and not ``exist_ok``.
            Incompatible: a map, or a pin, is there with another shape; the message says in which fields.
            Misuse: no object file, one of another byte order than the daemon's host, a pin outside of the daemon's pin
                roots, names that clash.
            Unsupported: pyelftools is missing, or a type of map that this library does not know.
            OSError: the file cannot be read.
        """

        async def opened() -> ObjectMaps:
            from mapd_client.elf.create import create
            from mapd_client.elf.plan import Choices
            from mapd_client.elf.planning import plan_of, read

            found = await waiting.in_thread(read, path, convention)
            link = await self._links.current()
            choices = Choices(names=names or {}, prefix=prefix, pin_root=pin_root)
            plan = plan_of(str(path), found, await link.server(), choices)
            return await create(self, link, plan, exist_ok=exist_ok)

        return Opener(opened, f"create_from_object({str(path)!r})")

    async def rename_map(self, name: str, new_name: str) -> str:
        """Give a named map another name in one step; the path of its pin now.

        Programs and clients that hold the map notice nothing. Cancelled: it may have either name.

        Raises:
            MapNotFound: no such name.
            MapExists: the new name is taken, and stays.
        """
        request = maps_pb2.RenameMapRequest(name=Name(name).name, new_name=Name(new_name).name)
        link = await self._links.current()
        response = await link.call(methods.RENAME_MAP, request, Asked("rename", name, mutates=True))
        return response.pin_path

    async def unpin_map(self, ref: MapRef | str) -> None:
        """Remove a name or a pin; the map is gone when its last holder lets go.

        Cancelled: it may be removed.

        Raises:
            MapNotFound: no such name or pin.
            Misuse: an id names no pin.
        """
        parsed = as_ref(ref)
        link = await self._links.current()
        request = maps_pb2.UnpinMapRequest(map=requests.by_ref(parsed))
        await link.call(methods.UNPIN_MAP, request, Asked("unpin", str(parsed), mutates=True))

    async def aclose(self) -> None:
        """Close every map opened through this client, end what is running, and the connections.

        Those of other event loops too, as far as they run. Idempotent. A client that was closed cannot be used again.
        """
        await self._links.aclose()

    async def _opened(
        self,
        link: Link,
        grip: Grip,
        info: MapInfo,
        key: Codec[Any] | None,
        value: Codec[Any] | None,
        asked: Asked,
    ) -> Map[Any, Any]:
        try:
            server = await link.server()
            keys = await hostinfo_asking.known(link, key or Bytes(info.key_stride))
            keys = keys.bind(server.byteorder, server.possible_cpus)
            chosen = value or (Bytes(info.value_stride) if key is None else references.ids(info, asked))
            values = await hostinfo_asking.known(link, chosen)
            values = values.bind(server.byteorder, server.possible_cpus)
            if key is not None:
                check_codecs(info, keys, values, asked)
            return Map(self._links, grip, info, keys, values, asked.map, server.byteorder)
        except BaseException:
            await give_back(link, grip.handle, asked)
            raise
