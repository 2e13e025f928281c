"""One small map of each type: its spec, and the type information that it takes."""

from __future__ import annotations

import mmap
import struct
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from mapd.maps.spec import BtfSpec, MapSpec
from mapd.maps.traits import Btf, Value
from mapd.maps.types import TYPES
from mapd_api.uapi import MapType as T
from tests.kernel import btf as reader

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
STRUCT_OPS: Final = "bpf_struct_ops_tcp_congestion_ops"
ENTRIES: Final = 4

EVERY_TYPE: Final = tuple(sorted(T(number) for number in TYPES))

_STRINGS: Final = b"\0u32\0u64\0sample\0prefix\0octets\0"
_U32, _U64, _EMPTY, _PREFIX = 1, 2, 3, 4
_IDS: Final = {0: _EMPTY, 4: _U32, 8: _U64}


def _name(text: bytes) -> int:
    return _STRINGS.index(b"\0" + text + b"\0") + 1


def _int(name: bytes, size: int) -> bytes:
    return struct.pack("<IIII", _name(name), reader.INT << 24, size, size * 8)


def _struct(name: bytes, size: int, *members: bytes) -> bytes:
    return struct.pack("<III", _name(name), reader.STRUCT << 24 | len(members), size) + b"".join(members)


_TYPES: Final = (
    _int(b"u32", 4)
    + _int(b"u64", 8)
    + _struct(b"sample", 0)
    + _struct(
        b"sample",
        8,
        struct.pack("<III", _name(b"prefix"), _U32, 0),
        struct.pack("<III", _name(b"octets"), _U32, 32),
    )
)
BLOB: Final = (
    struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_STRINGS)) + _TYPES + _STRINGS
)
"""Integers of 4 and 8 bytes, a structure of nothing, and the key of an LPM trie."""


@cache
def struct_ops() -> tuple[int, int]:
    """Type id and size of a structure that this kernel makes struct_ops maps of."""
    vmlinux = reader.Btf(VMLINUX.read_bytes())
    found = vmlinux.find(STRUCT_OPS, reader.STRUCT)
    return found, vmlinux.size(found)


def described(spec: MapSpec) -> BtfSpec:
    """The type information that the spec's type takes."""
    key = _PREFIX if spec.map_type == T.LPM_TRIE else _IDS[spec.key_size]
    if spec.map_type in (T.BLOOM_FILTER, T.STRUCT_OPS):
        key = 0  # a Bloom filter has no keys even in BTF
    value = 0 if spec.map_type == T.STRUCT_OPS else _IDS[spec.value_size]
    return BtfSpec(blob=BLOB, key_type_id=key, value_type_id=value)


def sample(map_type: T) -> MapSpec:
    """The smallest attributes that make a map of the type; ``inner`` asks for a template beside them."""
    traits = TYPES[map_type]
    fields: dict[str, Any] = {
        "key_size": 4 if 4 in traits.key_sizes else traits.key_sizes.start,
        "value_size": 8 if 8 in traits.value_sizes else traits.value_sizes.start,
        "max_entries": ENTRIES,
        "flags": int(traits.required_flags),
        "inner": traits.template,
    }
    match map_type:
        case T.LPM_TRIE:
            fields |= {"key_size": 8}
        case T.RINGBUF | T.USER_RINGBUF:
            fields |= {"max_entries": mmap.PAGESIZE}
        case T.STRUCT_OPS:
            vmlinux, size = struct_ops()
            fields |= {"max_entries": 1, "value_size": size, "btf_vmlinux_value_type_id": vmlinux}
        case _ if traits.value is Value.OBJECT:
            fields |= {"max_entries": 0}
        case _:
            pass
    spec = MapSpec(map_type=map_type, **fields)
    return replace(spec, btf=described(spec)) if traits.btf is Btf.REQUIRED else spec


TEMPLATE: Final = sample(T.ARRAY)
"""What the maps in the samples of maps of maps are like."""
