"""The sides of a ``diff``: open maps, files, and maps of a snapshot."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from mapd_api.uapi import MapFlag, MapType
from mapd_client.cli.differences import for_networks
from mapd_client.cli.feeds import File, Reading, file_format, read_feed
from mapd_client.cli.sources import Source
from mapd_client.cli.types import Shown, hints_for, shown_by, shown_of
from mapd_client.client import Client
from mapd_client.errors import Incompatible, Misuse
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.map import Map
from mapd_client.syncing.networks import KEY_SIZES
from mapd_client.syncing.plan import Contradiction, Plan, Planner, wanted
from mapd_client.syncing.shape import Shape, shape_of

if TYPE_CHECKING:
    from mapd_client.snapshots import Snapshot, SnapshotMap

_NO_TYPES = "the map was created without type information (BTF)"

Columns = AsyncGenerator[tuple[bytes | memoryview, bytes | memoryview, int]]


class Side(Protocol):
    """One side that says what its elements are."""

    @property
    def info(self) -> MapInfo:
        """Of the map."""
        ...

    @property
    def byteorder(self) -> ByteOrder:
        """Of its host."""
        ...

    async def shown(self, source: Source) -> Shown:
        """How its elements are shown."""
        ...

    def parts(self) -> Columns:
        """Packed keys, packed values, and of how many elements."""
        ...


@dataclass(frozen=True, slots=True)
class OfMap:
    """An open map, read once."""

    opened: Map[bytes, bytes]
    client: Client
    byteorder: ByteOrder

    @property
    def info(self) -> MapInfo:
        """As it was opened."""
        return self.opened.info

    async def shown(self, source: Source) -> Shown:
        """By the daemon, or what the user says."""
        return await shown_by(self.opened, self.client, for_networks(source, self.info))

    async def parts(self) -> Columns:
        """A dump; raises DumpIncomplete."""
        async with self.opened.chunks() as chunks:
            async for chunk in chunks:
                yield chunk.keys, chunk.values, chunk.count


@dataclass(frozen=True, slots=True)
class OfSnapshot:
    """A map of a snapshot."""

    kept: SnapshotMap
    info: MapInfo
    byteorder: ByteOrder

    async def shown(self, source: Source) -> Shown:
        """By the snapshot, or what the user says."""
        source = for_networks(source, self.info)
        return shown_of(
            self.info, self.kept.btf, _NO_TYPES, self.byteorder, source, hints_for(source, self.info)
        )

    async def parts(self) -> Columns:
        """Its rows; raises BadSnapshot."""
        for part in self.kept.chunks():
            yield part


def of_snapshot(snapshot: Snapshot, kept: SnapshotMap) -> OfSnapshot:
    """One map of a snapshot as a side."""
    spec = kept.kept
    info = _info(
        spec.key_size,
        name=spec.name or spec.label,
        type=spec.kind,
        value_size=spec.value_size,
        strides=(spec.key_stride, spec.value_stride),
        max_entries=spec.max_entries,
        flags=spec.flags,
        kernel_name=spec.kernel_name,
        pin_path=spec.pin_path,
    )
    return OfSnapshot(kept, info, "big" if snapshot.host["byteorder"] == "big" else "little")


def _info(
    key_size: int,
    *,
    name: str,
    type: MapType = MapType.LPM_TRIE,
    value_size: int = 0,
    strides: tuple[int, int] | None = None,
    max_entries: int = 0,
    flags: int = 0,
    kernel_name: str = "",
    pin_path: str = "",
) -> MapInfo:
    """A map that no daemon has, for what shows elements."""
    key_stride, value_stride = strides or (key_size, value_size)
    return MapInfo(
        id=0,
        type=type,
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        flags=MapFlag(flags),
        frozen=False,
        name=name,
        kernel_name=kernel_name,
        pin_path=pin_path,
        key_stride=key_stride,
        value_stride=value_stride,
        map_extra=0,
        btf_id=0,
        btf_key_type_id=0,
        btf_value_type_id=0,
        memlock_bytes=0,
        supported_operations=frozenset(),
        iteration="",
    )


async def compared(was: Side | File, now: Side | File, reading: Reading, types: Source) -> tuple[Plan, Shown]:
    """What ``now`` has beside ``was``.

    Raises:
        Misuse: two files; a file that is wrong.
        Incompatible: elements of other sizes.
    """
    maps = [one for one in (was, now) if not isinstance(one, File)]
    if not maps:
        return await _lists(was, now, reading, types)
    shape = shape_of(maps[0].info, maps[0].byteorder)
    for other in maps[1:]:
        shape = _common(shape, maps[0], other)
    shown = await maps[0].shown(types)
    keys, values = bytearray(), bytearray()
    async for part in _parts(now, reading, shown):
        keys += part[0]
        values += part[1]
    planner = Planner(wanted(shape, bytes(keys), bytes(values)))
    async for part in _parts(was, reading, shown):
        planner.feed(*part)
    return planner.plan(), shown


async def _lists(was: Side | File, now: Side | File, reading: Reading, types: Source) -> tuple[Plan, Shown]:
    """Two lists of networks, which need no map to say what they are; raises Misuse for other files."""
    assert isinstance(was, File)
    assert isinstance(now, File)
    if {file_format(was, reading), file_format(now, reading)} != {"list"}:
        raise Misuse(
            "of two files nothing says what their elements are, unless both are lists of networks; one side has to be "
            "a map or a snapshot"
        )
    is_ipv6 = b":" in b"".join(re.findall(rb"^\s*[^#;\s]+", was.data + b"\n" + now.data, re.MULTILINE)[:1])
    family = reading.family or ("ipv6" if is_ipv6 else "ipv4")
    size = next(size for size, one in KEY_SIZES.items() if one == family)
    info = _info(size, name=f"a list of {family} networks")
    types = for_networks(types, info)
    shown = shown_of(info, None, "", sys.byteorder, types, hints_for(types, info))
    reading = replace(reading, value="hex:")  # of no bytes
    planner: Planner | None = None
    async for keys, values, _ in _of_file(now, reading, shown):
        planner = Planner(wanted(shape_of(info, sys.byteorder), bytes(keys), bytes(values)))
    assert planner is not None
    async for part in _of_file(was, reading, shown):
        planner.feed(*part)
    return planner.plan(), shown


def _common(shape: Shape, one: Side, other: Side) -> Shape:
    there = shape_of(other.info, other.byteorder)
    if replace(there, networks=shape.networks) != shape:
        raise Incompatible(
            f"diff: {_told(one, shape)}; {_told(other, there)}: elements of other sizes cannot be compared",
            operation="diff",
            map=other.info.label,
        )
    return replace(shape, networks=shape.networks or there.networks)


def _told(side: Side, shape: Shape) -> str:
    return (
        f"{side.info.label} ({side.info.type_name}, {shape.byteorder}-endian) has keys of {shape.key_stride} bytes and "
        f"values of {shape.value_stride}"
    )


def _parts(side: Side | File, reading: Reading, shown: Shown) -> Columns:
    return _of_file(side, reading, shown) if isinstance(side, File) else side.parts()


async def _of_file(file: File, reading: Reading, shown: Shown) -> Columns:
    feed = read_feed(file, reading, shown)
    keys = b"".join([key for key, _ in feed.elements])
    values = b"".join([value for _, value in feed.elements])
    try:
        wanted(shape_of(shown.info, shown.byteorder), keys, values)
    except Contradiction as error:
        raise Misuse(
            f"{feed.name}: {feed.where(error.first)} and {feed.where(error.second)} are of one key, and their values "
            "differ"
        ) from None
    yield keys, values, len(feed.elements)
