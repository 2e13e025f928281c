"""Type information of a value with a bpf_spin_lock, as a compiler would make it: {lock, pad, u64}."""

from __future__ import annotations

import struct
from typing import Final

KEY_TYPE: Final = 1
VALUE_TYPE: Final = 4

PLACED_VALUE_TYPE: Final = 6

_INT, _ARRAY, _STRUCT = 1, 3, 4
_NAMES: Final = b"\0u32\0u64\0u8\0bpf_spin_lock\0val\0value\0lock\0number\0before\0behind\0"


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
    return _blob(types)


def placed_btf(size: int, lock: int) -> bytes:
    """The same for a value of ``size`` bytes with its lock at ``lock``: bytes before and behind it, value type 6."""
    before, behind = _array(lock), _array(size - lock - 4)
    return _blob(
        _type("u32", _INT, 4, 32)
        + _type("bpf_spin_lock", _STRUCT, 4, _name("val"), 1, 0, members=1)
        + _type("u8", _INT, 1, 8)
        + before
        + behind
        + _type(
            "value",
            _STRUCT,
            size,
            *(_name("before"), 4, 0, _name("lock"), 2, lock * 8, _name("behind"), 5, (lock + 4) * 8),
            members=3,
        )
    )


def _array(count: int) -> bytes:
    """Of bytes (type 3), with u32 (type 1) as the index."""
    return struct.pack("=6I", 0, _ARRAY << 24, 0, 3, 1, count)


def _blob(types: bytes) -> bytes:
    head = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(_NAMES))
    return head + types + _NAMES
