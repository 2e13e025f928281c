"""Whether a map that is there is the one that an object declares: what loaders look at before they share one. Sans-I/O.

libbpf compares type, sizes, max_entries, flags and map_extra (``map_is_reuse_compat()``, tools/lib/bpf/libbpf.c), tc
all fields before ``id``. Neither looks at types, names or contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mapd_api.uapi import MapFlag, MapType
from mapd_client.info import MapInfo

_ADDED: Final = {
    MapType.DEVMAP: MapFlag.RDONLY_PROG,
    MapType.DEVMAP_HASH: MapFlag.RDONLY_PROG,
}
"""Flags that the kernel sets by itself (dev_map_init_map(), kernel/bpf/devmap.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one map has to agree with another in.

    Attributes:
        type: of the map.
        key_size: bytes.
        value_size: bytes, of one CPU's slot.
        max_entries: elements.
        flags: BPF_F_*.
        map_extra: BPF_MAP_CREATE's.
    """

    type: MapType
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    map_extra: int

    def differences(self, info: MapInfo) -> Iterator[str]:
        """Each field that is another one in the map that is there, with both values."""
        if self.type != info.type:
            yield f"type: wanted {self.type.name.lower()}, is {info.type_name}"
        for field in ("key_size", "value_size", "max_entries", "map_extra"):
            wanted, there = getattr(self, field), getattr(info, field)
            if wanted != there:
                yield f"{field}: wanted {wanted}, is {there}"
        added = _ADDED.get(self.type, 0)
        if (self.flags | added) != (info.flags | added):
            yield f"flags: wanted {self.flags:#x}, is {info.flags:#x}"
