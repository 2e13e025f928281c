"""As much of BTF as creating a map looks at: sizes, kinds, and where a value has its bpf_spin_lock.

The kernel verifies every type of a blob; here the header, and that types and strings can be walked.
Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("=HBBIIIII")
_TYPE: Final = struct.Struct("=III")
_MAGIC: Final = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC_PROTO, _VAR, _DATASEC = 1, 2, 3, 4, 5, 6, 13, 14, 15
_FLOAT, _DECL_TAG, _ENUM64, _LAST = 16, 17, 19, 19
_MODIFIERS: Final = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag
_SIZED: Final = (_INT, _STRUCT, _UNION, _ENUM, _FLOAT, _ENUM64)
_TAIL: Final = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_PER_MEMBER: Final = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_DEPTH: Final = 32
"""Types nested deeper than this are refused (BTF's own bound on resolving is 32)."""


class BadBtf(ValueError):
    """The blob cannot be read."""


class BtfBlob:
    """The types of a blob by id, from 1.

    Raises:
        BadBtf: it cannot be walked.
    """

    def __init__(self, blob: bytes) -> None:
        self.blob: Final = blob
        try:
            self._types, self._strings = _sections(blob)
            self._offsets = self._walk()
        except (struct.error, IndexError, ValueError) as error:
            raise BadBtf(str(error)) from error

    def _walk(self) -> list[int]:
        offsets, offset = [0], 0
        while offset < len(self._types):
            offsets.append(offset)
            _, info, _ = _TYPE.unpack_from(self._types, offset)
            kind, members = info >> 24 & 31, info & 0xFFFF
            if not _INT <= kind <= _LAST:
                raise ValueError(f"kind {kind}")
            offset += _TYPE.size + _TAIL.get(kind, 0) + _PER_MEMBER.get(kind, 0) * members
        if offset != len(self._types):
            raise ValueError("the last type is cut off")
        return offsets

    def _type(self, type_id: int) -> tuple[int, int, int]:
        """Kind, size or type, offset of what follows; of a name for another type, of that type."""
        for _ in range(_DEPTH):
            if not 0 < type_id < len(self._offsets):
                break
            offset = self._offsets[type_id]
            _, info, size = _TYPE.unpack_from(self._types, offset)
            kind = info >> 24 & 31
            if kind not in _MODIFIERS:
                return kind, size, offset
            type_id = size
        return 0, 0, 0

    def size(self, type_id: int, depth: int = _DEPTH) -> int | None:
        """Of a value of the type, in bytes; None where it has none."""
        kind, size, offset = self._type(type_id)
        if kind in _SIZED:
            return size
        if kind == _PTR:
            return 8
        if kind != _ARRAY or depth == 0:
            return None
        element, _, count = _TYPE.unpack_from(self._types, offset + _TYPE.size)
        one = self.size(element, depth - 1)
        return None if one is None else one * int(count)

    def is_int(self, type_id: int) -> bool:
        """Whether it is a whole number of 32 bits."""
        kind, size, offset = self._type(type_id)
        if kind != _INT:
            return False
        (encoding,) = struct.unpack_from("=I", self._types, offset + _TYPE.size)
        return size == 4 and encoding & 0x00FF_FFFF == 32

    def is_struct(self, type_id: int) -> bool:
        """Whether it is a structure."""
        return self._type(type_id)[0] == _STRUCT

    def spin_lock(self, type_id: int) -> int | None:
        """Where a structure has its ``struct bpf_spin_lock``, in bytes; None if it has none."""
        kind, _, offset = self._type(type_id)
        if kind != _STRUCT:
            return None
        _, info, _ = _TYPE.unpack_from(self._types, offset)
        for index in range(info & 0xFFFF):
            _, member, bits = _TYPE.unpack_from(self._types, offset + _TYPE.size * (index + 1))
            member_kind, _, member_offset = self._type(member)
            if member_kind == _STRUCT and self._name(member_offset) == b"bpf_spin_lock":
                return int(bits & 0xFF_FFFF if info >> 31 else bits) // 8
        return None

    def _name(self, offset: int) -> bytes:
        (name,) = struct.unpack_from("=I", self._types, offset)
        return self._strings[name : self._strings.index(b"\0", name)]


def _sections(blob: bytes) -> tuple[bytes, bytes]:
    magic, version, _, header, types, types_size, strings, strings_size = _HEADER.unpack_from(blob)
    if magic != _MAGIC or version != 1 or header < _HEADER.size:
        raise ValueError("no header of BTF version 1")
    if header + max(types + types_size, strings + strings_size) > len(blob):
        raise ValueError("a section ends behind the blob")
    found = blob[header + strings : header + strings + strings_size]
    if not found.startswith(b"\0") or not found.endswith(b"\0"):
        raise ValueError("the strings begin and end with NUL")
    return blob[header + types : header + types + types_size], found


@dataclass(frozen=True, slots=True, eq=False)
class MemoryBtf:
    """Type information as the kernel holds it: by id."""

    id: int
    types: BtfBlob
