"""What a snapshot says of itself: the member ``manifest.json`` of its zip archive. Sans-I/O.

Version 1 only grows by keys that may be missing. What older readers would misread makes version 2, which this one
refuses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mapd_api.layout import round_up8
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType
from mapd_client.errors import Misuse
from mapd_client.info import MapInfo

FORMAT: Final = "mapd-snapshot"
VERSION: Final = 1
MEMBER: Final = "manifest.json"

MOST: Final = 8 << 20
"""Bytes of a manifest: 40,000 parts of 1 MiB. Read by ``json`` it may take 20 times as much memory."""

_OF_THE_KERNEL: Final = MapFlag.RDONLY | MapFlag.WRONLY | MapFlag.NUMA_NODE
"""Flags of a descriptor or a host, not of what a map is."""


class BadSnapshot(Misuse):
    """A file that is no snapshot, is not whole, or is not what was written; the message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A member of the archive with rows: ``rows`` keys, one behind the other, then as many values.

    Attributes:
        member: its name.
        rows: elements.
        sha256: of its bytes, hex digits.
    """

    member: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Types:
    """The map's BTF: the member with the blob, and which types in it are the key and the value."""

    member: str
    sha256: str
    key_type_id: int
    value_type_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One map of a snapshot.

    Attributes:
        name: "ns/flows"; "" for a map that mapd has no name for.
        label: how it was asked for.
        type: as bpftool writes it.
        value_size: bytes, of one CPU's slot for per-CPU types.
        flags: BPF_F_*, without those of a descriptor.
        slots: possible CPUs of the host, for per-CPU types; else 1.
        entries: elements.
        trailer: how the dump went.
    """

    name: str
    label: str
    type: str
    key_size: int
    value_size: int
    key_stride: int
    value_stride: int
    max_entries: int
    flags: int
    map_extra: int
    kernel_name: str
    pin_path: str
    frozen: bool
    slots: int
    entries: int
    types: Types | None
    parts: Sequence[Part]
    trailer: Mapping[str, Any]

    @property
    def kind(self) -> MapType:
        """The type as a number."""
        return MapType[self.type.upper()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A snapshot.

    Attributes:
        taken_at: by the clock of who wrote it, ISO 8601, UTC.
        host: node, kernel, boot_id, byteorder and possible_cpus of the daemon's host.
        maps: in the order they were asked for.
    """

    taken_at: str
    host: Mapping[str, Any]
    maps: Sequence[Kept]

    def encoded(self) -> bytes:
        """The member's bytes."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1).encode()


def spec_of(info: MapInfo, label: str) -> dict[str, Any]:
    """The fields of ``Kept`` that a map's info has."""
    return {
        "name": info.name,
        "label": label,
        "type": info.type_name,
        "key_size": info.key_size,
        "value_size": info.value_size,
        "key_stride": info.key_stride,
        "value_stride": info.value_stride,
        "max_entries": info.max_entries,
        "flags": int(info.flags & ~_OF_THE_KERNEL),
        "map_extra": info.map_extra,
        "kernel_name": info.kernel_name,
        "pin_path": info.pin_path,
        "frozen": info.frozen,
        "slots": info.slots(),
    }


def decoded(data: bytes) -> Manifest:
    """What the member says.

    Raises:
        BadSnapshot: it is none, is of a newer version, or lacks something; says what.
    """
    try:
        found: Any = json.loads(data)
        if found["format"] != FORMAT:
            raise BadSnapshot(f"{MEMBER} says format {found['format']!r}, not {FORMAT!r}")
        if found["version"] != VERSION:
            raise BadSnapshot(
                f"it is of version {found['version']}, this mapctl reads version {VERSION}: use the one that wrote it"
            )
        return Manifest(
            taken_at=str(found["taken_at"]),
            host=dict(found["host"]),
            maps=[_kept(one) for one in found["maps"]],
        )
    except BadSnapshot:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadSnapshot(f"{MEMBER} cannot be read: {type(error).__name__}: {error}") from None


def _kept(found: Mapping[str, Any]) -> Kept:
    types = found["types"]
    kept = Kept(
        **_checked(Kept, found, but=("types", "parts")),
        types=None if types is None else Types(**_checked(Types, types)),
        parts=[Part(**_checked(Part, one)) for one in found["parts"]],
    )
    if kept.type.upper() not in MapType.__members__:
        raise BadSnapshot(f"{kept.label}: type {kept.type!r} is not known to this mapctl")
    if kept.entries != sum(part.rows for part in kept.parts):
        raise BadSnapshot(f"{kept.label}: {kept.entries} elements are said, its parts have others")
    _check_strides(kept)
    return kept


def _checked(
    made: type[Kept | Types | Part], found: Mapping[str, Any], but: Sequence[str] = ()
) -> dict[str, Any]:
    """The fields of a record, numbers as numbers and none below 0; raises BadSnapshot."""
    fields = made.__dataclass_fields__
    given = {name: found[name] for name in fields if name not in but}
    for name, value in given.items():
        wanted = fields[name].type
        if wanted in ("int", "str", "bool") and type(value).__name__ != wanted:
            raise BadSnapshot(f"{MEMBER}: {name} is {value!r}, no {wanted}")
        if wanted == "int" and value < 0:
            raise BadSnapshot(f"{MEMBER}: {name} is {value}, less than nothing")
    return given


def _check_strides(kept: Kept) -> None:
    """Sizes and strides say the same, else keys would be cut out of values."""
    per_cpu = kept.kind in PER_CPU_TYPES
    if not per_cpu and kept.slots != 1:
        raise BadSnapshot(f"{kept.label}: a map of type {kept.type} has no values of {kept.slots} CPUs")
    value = round_up8(kept.value_size) * kept.slots if per_cpu else kept.value_size
    for what, size, due, said in (
        ("key", kept.key_size, kept.key_size, kept.key_stride),
        ("value", kept.value_size, value, kept.value_stride),
    ):
        if said != due:
            raise BadSnapshot(f"{kept.label}: a {what} of {size} bytes has {due} in a column, not {said}")
