"""Type information of a value with a bpf_spin_lock, as a compiler would make it: {lock, pad, u64}."""

from __future__ import annotations

import struct
from typing import Final

KEY_TYPE: Final = 1
VALUE_TYPE: Final = 4

_INT, _STRUCT = 1, 4
_NAMES: Final = b"\0u32\0u64\0bpf_spin_lock\0val\0value\0lock\0number\0"


def _name(text: str) -> int:
    return _NAMES.index(b"\0" + text.encode() + b"\0") + 1


def _type(name: str, kind: int, size: int, *words: int, members: int = 0) -> bytes:
    return struct.pack(f"={3 + len(words)}I", _name(name), kind << 24 | members, size, *words)


def btf() -> bytes:
    """The blob; the key is type 1 (u32), the value type 4 (16 bytes)."""
    types = (
        _type("u32", _INT, 4, 32)
        + _type("bpf_spin_lock", _STRUCT, 4, _name("val"), 1, 0, members=1)
        + _type("u64", _INT, 8, 64)
        + _type("value", _STRUCT, 16, _name("lock"), 2, 0, _name("number"), 3, 64, members=2)
    )
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(_NAMES))
    return head + types + _NAMES
