"""A map of a snapshot, into a map of a daemon. All of the file was checked before the first write."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mapd_api.uapi import PER_CPU_TYPES
from mapd_client.codec import Bytes
from mapd_client.compare import differences, listed
from mapd_client.errors import (
    DaemonCapability,
    Incompatible,
    MapdError,
    MapFrozen,
    MapFull,
    MapNotFound,
    Misuse,
    PermissionDenied,
    TypeMismatch,
    Unsupported,
)
from mapd_client.info import MapInfo, ServerInfo
from mapd_client.percpu import PerCpu
from mapd_client.refs import MapRef, Name
from mapd_client.snapshots.reading import SnapshotMap
from mapd_client.syncing.plan import Plan, Planner, Wanted, Wishes
from mapd_client.syncing.shape import shape_of

if TYPE_CHECKING:
    from mapd_client.client import Client
    from mapd_client.map import Map

Policy = Literal["merge", "replace", "only-missing"]
"""``merge`` writes what the snapshot has and leaves the rest; ``replace`` also removes what it does not have;
``only-missing`` writes only keys that are not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore did, or would do.

    Attributes:
        name: of the map.
        created: the map was not there.
        added: elements that were not there.
        changed: elements that had another value, and have the snapshot's; 0 for ``only-missing``.
        removed: elements that the snapshot does not have; 0 but for ``replace``.
        kept: elements that stay as they are.
        dry_run: nothing was written.
    """

    name: str
    created: bool
    added: int
    changed: int
    removed: int
    kept: int
    dry_run: bool


async def restore(
    client: Client,
    source: SnapshotMap,
    name: str | None = None,
    *,
    policy: Policy = "merge",
    dry_run: bool = False,
) -> Restored:
    """Write one map of a snapshot into the map of that name, or create it.

    A map that is created has its name once it is whole: under another name until then. One that is there is changed
    element by element, only where it differs, written before removed; ended in the middle it has some of both, and the
    same call again does the rest. BPF programs see each step.

    Args:
        client: of the daemon.
        source: of ``read(path).maps``.
        name: a reference of the map, where it is not the name it had.
        policy: what becomes of elements that are there.
        dry_run: write nothing, and report what would be.

    Cancelled: as if ended in the middle; a map that was to be created is not there.

    Raises:
        Incompatible: the map there has another type, other sizes or fields, or its host other CPUs or another byte
            order; each is named.
        MapFrozen: nobody can write it any more.
        MapFull: the snapshot has more elements than the map takes.
        Misuse: the snapshot's map had no name, and none is given; ``only-missing`` of an array.
    """
    kept = source.kept
    wanted_name = name or kept.name
    if not wanted_name:
        raise Misuse(f"restore {kept.label}: mapd had no name for it: say which map it goes to")
    server = await client.server_info()
    _same_host_kind(source, server)
    try:
        async with client.open_map(wanted_name) as opened:
            return await _into(opened, source, wanted_name, server, policy, dry_run=dry_run)
    except MapNotFound:
        if dry_run:
            return _report(wanted_name, created=True, added=kept.entries, dry_run=True)
        if not isinstance(MapRef.parse(wanted_name), Name):
            raise
    return _report(wanted_name, created=True, added=await _created(client, source, wanted_name))


def _report(
    name: str,
    *,
    created: bool = False,
    added: int = 0,
    changed: int = 0,
    removed: int = 0,
    kept: int = 0,
    dry_run: bool = False,
) -> Restored:
    return Restored(
        name=name, created=created, added=added, changed=changed, removed=removed, kept=kept, dry_run=dry_run
    )


def _same_host_kind(source: SnapshotMap, server: ServerInfo) -> None:
    there = source.snapshot.host.get("byteorder")
    if there != server.byteorder:
        raise Incompatible(
            f"restore {source.kept.label}: its bytes are of a {there}-endian host, this one is "
            f"{server.byteorder}-endian"
        )
    cpus = server.possible_cpus
    if source.kept.kind in PER_CPU_TYPES and source.kept.slots != cpus:
        raise Incompatible(
            f"restore {source.kept.label}: its values are of {source.kept.slots} CPUs, this host has {cpus}: what one "
            "CPU more or less would mean nobody can say; dump the file's sums instead"
        )


async def _into(
    opened: Map[bytes, bytes],
    source: SnapshotMap,
    name: str,
    server: ServerInfo,
    policy: Policy,
    *,
    dry_run: bool,
) -> Restored:
    await _check(opened, source, name, server, policy)
    plan = await _planned(opened, _wanted(source, opened.info, server))
    written = [] if policy == "only-missing" else list(plan.changed)
    removed = list(plan.removed) if policy == "replace" else []
    room = plan.entries - len(removed) + len(plan.added)
    if room > opened.info.max_entries:
        raise MapFull(
            f"restore {name}: with the snapshot's {len(plan.added)} new elements it would have {room}, max_entries is "
            f"{opened.info.max_entries}: nothing was written; replace, or create a larger map"
        )
    if not dry_run:
        elements = plan.wanted.elements
        if not plan.fits(opened.info.max_entries):
            await opened.delete_many(removed)
            removed_now: list[bytes] = []
        else:
            removed_now = removed
        await opened.update_many((key, elements[key]) for key in (*written, *plan.added))
        await opened.delete_many(removed_now)
    return _report(
        name,
        added=len(plan.added),
        changed=len(written),
        removed=len(removed),
        kept=plan.entries - len(written) - len(removed),
        dry_run=dry_run,
    )


async def _check(
    opened: Map[bytes, bytes], source: SnapshotMap, name: str, server: ServerInfo, policy: Policy
) -> None:
    """Refuse a map of another shape before anything is written."""
    kept, info = source.kept, opened.info
    here = {
        "type": info.type_name,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "slots": info.slots(),
    }
    other = [
        f"{field}: the snapshot has {getattr(kept, field)}, the map {value}"
        for field, value in here.items()
        if getattr(kept, field) != value
    ]
    if other:
        raise Incompatible(f"restore {name}: nothing was written\n  " + "\n  ".join(other))
    if info.frozen:
        raise MapFrozen(f"restore {name}: it is frozen: nobody can write it from user space any more")
    if "delete" not in info.supported_operations and policy == "only-missing":
        raise Misuse(
            f"restore {name}: a map of type {info.type_name} has every key: only-missing would write nothing"
        )
    if source.btf is None or not info.btf_id:
        return
    with suppress(
        Unsupported, DaemonCapability, PermissionDenied, TypeMismatch
    ):  # types that nobody can read
        from mapd_client.agreeing import layouts

        ours, theirs = source.layout(), layouts(await opened.btf(), "the map's BTF")
        if ours is not None and (found := differences(ours, theirs, byteorder=server.byteorder)):
            raise Incompatible(
                f"restore {name}: the snapshot has other fields; nothing was written\n{listed(found)}"
            )


def _wanted(source: SnapshotMap, info: MapInfo, server: ServerInfo) -> Wanted:
    wishes = Wishes(shape_of(info, server.byteorder))
    for keys, values, _ in source.chunks():
        wishes.show(bytes(keys), bytes(values))
    return wishes.wanted()


async def _planned(opened: Map[bytes, bytes], wanted: Wanted) -> Plan:
    planner = Planner(wanted)
    async with opened.chunks() as chunks:
        async for chunk in chunks:
            planner.feed(chunk.keys, chunk.values, chunk.count)
    return planner.plan()


async def _created(client: Client, source: SnapshotMap, name: str) -> int:
    """Create the map under another name, fill it, freeze it if it was, and give it its name; elements it then has.

    A dump may have repeated keys, and LRU lists may evict: the rows are not counted where the map can be.
    """
    kept = source.kept
    namespace, slash, last = name.rpartition("/")
    beside = f"{namespace}{slash}{last[:50]}--{secrets.token_hex(4)}"
    slot = Bytes(kept.value_size)
    value: Any = PerCpu(slot) if kept.kind in PER_CPU_TYPES else slot
    async with client.create_map(
        beside,
        kept.kind,
        key=Bytes(kept.key_size),
        value=value,
        max_entries=kept.max_entries,
        flags=kept.flags,
        kernel_name=kept.kernel_name or None,
        map_extra=kept.map_extra,
        btf=source.btf if source.btf is not None else False,
    ):
        pass
    try:
        async with client.open_map(beside) as made:
            await made.load(source.items())
            count = await made.count()
            if kept.frozen:
                await made.freeze()
        await client.rename_map(beside, name)
        return count.entries if count.exact else kept.entries
    except BaseException:
        with suppress(MapdError):
            await client.unpin_map(beside)
        raise
