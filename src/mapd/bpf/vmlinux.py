"""Functions of the running kernel by name, as its own type information numbers them.

Reads /sys/kernel/btf/vmlinux, which anybody may, and looks for one thing only: a program calls a
kernel function (kfunc) by the id of its type. Knows BTF's framing, and no type.

Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")

_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
_MAGIC: Final = 0xEB9F
_FUNC: Final = 12
_MOST_BYTES: Final = 64 << 20
"""Ten times what a large kernel has: what is longer is not read."""

# Bytes behind a type's three words: fixed, and for each of its members.
_TAIL: Final = {1: 4, 3: 12, 14: 4, 17: 4}  # INT ARRAY VAR DECL_TAG
_MEMBER: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}  # STRUCT UNION ENUM FUNC_PROTO DATASEC ENUM64
_KINDS: Final = 20


class NoSuchFunction(LookupError):
    """This kernel does not tell of a function of that name."""


@cache
def function_id(name: str) -> int:
    """The type id of a kernel function; asked once, it stays as long as the kernel runs.

    Takes up to 100 ms the first time: 126,000 types are stepped over.

    Raises:
        NoSuchFunction: no such function, or a kernel without type information (CONFIG_DEBUG_INFO_BTF).
    """
    try:
        with VMLINUX.open("rb") as file:
            blob = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise NoSuchFunction(f"{name}: {VMLINUX}: {error.strerror}") from None
    return find_function(blob, name)


def find_function(blob: bytes, name: str) -> int:
    """The id of the FUNC called ``name`` in a BTF blob, which may be anything.

    Raises:
        NoSuchFunction: it is not there; or this is no BTF, or one that is damaged or too long.
    """
    try:
        return _find(blob, name)
    except (struct.error, ValueError) as error:
        raise NoSuchFunction(f"{name}: no readable BTF: {error}") from None


def _find(blob: bytes, name: str) -> int:
    if len(blob) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    magic, _, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(blob)
    if magic != _MAGIC:
        raise ValueError(f"magic {magic:#x}")
    at, end, text = header + types, header + types + types_size, header + strings
    # A string's place in the blob, and so all names that could be this one: compilers merge tails.
    names = _offsets(blob[text : text + strings_size], name.encode() + b"\0")
    type_id = 0
    while at < end:
        name_at, info, _ = _TYPE.unpack_from(blob, at)
        kind = info >> 24 & 31
        if not 0 < kind < _KINDS:
            raise ValueError(f"kind {kind} of type {type_id + 1}")
        type_id += 1
        if kind == _FUNC and name_at in names:
            return type_id
        at += _TYPE.size + _TAIL.get(kind, 0) + _MEMBER.get(kind, 0) * (info & 0xFFFF)
    raise NoSuchFunction(f"this kernel has no function {name}")


def _offsets(strings: bytes, wanted: bytes) -> frozenset[int]:
    found: set[int] = set()
    at = strings.find(wanted)
    while at >= 0:
        found.add(at)
        at = strings.find(wanted, at + 1)
    return frozenset(found)
