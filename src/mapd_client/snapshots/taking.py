"""Maps into a file. What travels is what a dump hands out, columns as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mapd_api.uapi import MapType
from mapd_client.errors import DaemonCapability, Misuse, PermissionDenied, Unsupported
from mapd_client.info import MapInfo, ServerInfo
from mapd_client.snapshots.manifest import Kept, Manifest, Types, spec_of
from mapd_client.snapshots.writing import Writer
from mapd_client.tables.metadata import of_trailer
from mapd_client.tables.streaming import in_thread

if TYPE_CHECKING:
    from mapd_client.client import Client
    from mapd_client.map import Map

_KERNEL_OBJECTS: Final = {
    MapType.PROG_ARRAY: "programs",
    MapType.PERF_EVENT_ARRAY: "perf events",
    MapType.CGROUP_ARRAY: "cgroups",
    MapType.ARRAY_OF_MAPS: "maps",
    MapType.HASH_OF_MAPS: "maps",
    MapType.DEVMAP: "network devices",
    MapType.DEVMAP_HASH: "network devices",
    MapType.CPUMAP: "CPUs with their queues",
    MapType.XSKMAP: "sockets",
    MapType.SOCKMAP: "sockets",
    MapType.SOCKHASH: "sockets",
    MapType.REUSEPORT_SOCKARRAY: "sockets",
    MapType.SK_STORAGE: "storage of sockets",
    MapType.INODE_STORAGE: "storage of inodes",
    MapType.TASK_STORAGE: "storage of tasks",
    MapType.CGRP_STORAGE: "storage of cgroups",
    MapType.CGROUP_STORAGE: "storage of cgroups",
    MapType.PERCPU_CGROUP_STORAGE: "storage of cgroups",
    MapType.STRUCT_OPS: "tables of programs",
}
"""What is in maps whose contents are objects of the kernel: their numbers mean nothing after a reboot."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A map that is not in the snapshot, and why not."""

    label: str
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What was written.

    Attributes:
        path: of the file.
        bytes: of the file.
        maps: what it has.
        left_out: what was asked for and cannot be kept; only where that was allowed.
    """

    path: Path
    bytes: int
    maps: Sequence[Kept]
    left_out: Sequence[LeftOut]


def unfit(info: MapInfo) -> str:
    """Why a map cannot be kept in a file; "" for one that can."""
    what = _KERNEL_OBJECTS.get(info.type) if isinstance(info.type, MapType) else None
    if what is not None:
        return f"a map of type {info.type_name} has {what}: objects of the kernel, which no file can keep"
    missing = [one for one in ("dump", "load") if one not in info.supported_operations]
    if missing:
        return f"a map of type {info.type_name} has no {' and no '.join(missing)} here"
    return ""


async def take(client: Client, maps: Sequence[str], path: str | Path, *, skip_unfit: bool = False) -> Taken:
    """Write a snapshot of maps, one after the other; each is as exact as its dump, no two are of one moment.

    The file is written beside its place and moved there when all of it is on disk: what is at ``path`` is the old file
    or the whole new one. An LRU map's order of eviction does not change by it. Values of per-CPU maps are kept for each
    CPU. Only its owner may read the file.

    Args:
        client: of the daemon.
        maps: references, as ``open_map`` takes them.
        path: of the file.
        skip_unfit: leave out maps whose contents no file can keep; ``left_out`` names them.

    Cancelled: nothing is left, and what was at ``path`` stays; in the last step it may be the new file, whole.

    Raises:
        Unsupported: a map whose contents no file can keep, and not ``skip_unfit``.
        Misuse: no map; a folder that is not there or not writable.
        DumpIncomplete: a map changed too fast to be read to its end.
        PermissionDenied, MapNotFound: of one of the maps.
    """
    path = Path(path)
    server = await client.server_info()
    writer = _writer(path)
    try:
        kept: list[Kept] = []
        left_out: list[LeftOut] = []
        for at, ref in enumerate(maps):
            async with client.open_map(ref, read_only=True) as opened:
                why = unfit(opened.info)
                if why and not skip_unfit:
                    raise Unsupported(f"snapshot {ref}: {why}", operation="snapshot", map=ref)
                if why:
                    left_out.append(LeftOut(ref, why))
                    continue
                kept.append(await _kept(opened, ref, at, writer))
        if not kept:
            whys = "".join(f"; {one.label}: {one.why}" for one in left_out)
            raise Misuse(f"snapshot {path}: there is no map to be kept{whys}")
        size = await in_thread(writer.finish, _manifest(kept, server))
    except BaseException:
        await in_thread(writer.abandon)
        raise
    return Taken(path, size, kept, left_out)


def _writer(path: Path) -> Writer:
    try:
        return Writer(path)
    except OSError as error:
        raise Misuse(f"snapshot: {path} cannot be written: {error.strerror}") from None


async def _kept(opened: Map[bytes, bytes], ref: str, at: int, writer: Writer) -> Kept:
    types = await _types(opened, at, writer)
    parts: list[Any] = []
    async with opened.chunks() as chunks:
        async for chunk in chunks:
            member = f"{at:04}/{len(parts):06}.rows"
            parts.append(await in_thread(writer.rows, member, chunk.keys, chunk.values, chunk.count))
    assert chunks.trailer is not None  # else it had raised
    return Kept(
        **spec_of(opened.info, ref),
        entries=sum(part.rows for part in parts),
        types=types,
        parts=parts,
        trailer=of_trailer(chunks.trailer),
    )


async def _types(opened: Map[bytes, bytes], at: int, writer: Writer) -> Types | None:
    """The map's BTF in a member; None where there is none, or the daemon may not give it."""
    if not opened.info.btf_id:
        return None
    try:
        btf = await opened.btf()
    except (Unsupported, DaemonCapability, PermissionDenied):
        return None
    member = f"{at:04}/btf"
    digest = await in_thread(writer.add, member, btf.blob)
    return Types(member=member, sha256=digest, key_type_id=btf.key_type_id, value_type_id=btf.value_type_id)


def _manifest(kept: Sequence[Kept], server: ServerInfo) -> Manifest:
    return Manifest(
        taken_at=datetime.now(UTC).isoformat(),
        host={
            "node": server.node,
            "kernel_release": server.kernel_release,
            "boot_id": server.boot_id,
            "byteorder": server.byteorder,
            "possible_cpus": server.possible_cpus,
        },
        maps=kept,
    )
