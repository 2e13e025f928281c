"""A small reader of BTF: structures as tables of fields, enums as tables of numbers.

Source: Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST, FUNC_PROTO, VAR, DATASEC = (
    1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 14, 15,
)  # fmt: skip
FLOAT, DECL_TAG, ENUM64 = 16, 17, 19
FIXED_TAIL: Final = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
TAIL_PER_MEMBER: Final = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}
SIZED: Final = (INT, STRUCT, UNION, ENUM, FLOAT, ENUM64, DATASEC)


@dataclass(frozen=True)
class Field:
    """Where a field lies, in bytes from the start of its structure."""

    offset: int
    size: int


class Btf:
    """A parsed blob. Types are decoded when they are asked for."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, header, types, types_size, strings, strings_size = struct.unpack_from("<HBBIIIII", blob)
        assert magic == 0xEB9F
        self._types = blob[header + types : header + types + types_size]
        self._strings = blob[header + strings : header + strings + strings_size]
        self._offsets = [0]
        offset = 0
        while offset < len(self._types):
            self._offsets.append(offset)
            _, info, _ = struct.unpack_from("<III", self._types, offset)
            kind, count = info >> 24 & 31, info & 0xFFFF
            offset += 12 + FIXED_TAIL.get(kind, 0) + TAIL_PER_MEMBER.get(kind, 0) * count

    def fields(self, name: str, kind: int = STRUCT) -> dict[str, Field]:
        """All fields of a named structure or union, those of its anonymous members included."""
        return self.members(self.find(name, kind))

    def find(self, name: str, kind: int) -> int:
        """The id of the type."""
        for type_id in range(1, len(self._offsets)):
            if self._kind(type_id) == kind and self._name(type_id) == name:
                return type_id
        raise LookupError(name)

    def members(self, type_id: int, base: int = 0) -> dict[str, Field]:
        """The fields of one structure, as ``fields``."""
        found: dict[str, Field] = {}
        for name, inner, offset in self.direct(type_id):
            if name:
                found[name] = Field(base + offset, self.size(inner))
            elif self._kind(inner) in (STRUCT, UNION):  # else a nameless bit-field: padding
                found |= self.members(inner, base + offset)
        return found

    def direct(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        """Name (may be empty), type and byte offset of each member."""
        start = self._offsets[type_id]
        _, info, _ = struct.unpack_from("<III", self._types, start)
        for index in range(info & 0xFFFF):
            name, inner, bits = struct.unpack_from("<III", self._types, start + 12 + 12 * index)
            yield self._text(name), inner, (bits & 0xFFFFFF if info >> 31 else bits) // 8

    def size(self, type_id: int) -> int:
        """Of a value, in bytes."""
        kind = self._kind(type_id)
        _, _, size = struct.unpack_from("<III", self._types, self._offsets[type_id])
        if kind in SIZED:
            return int(size)
        if kind == PTR:
            return 8
        if kind == ARRAY:
            element, _, count = struct.unpack_from("<III", self._types, self._offsets[type_id] + 12)
            return self.size(element) * int(count)
        return self.size(size)  # typedef, const, volatile, restrict, type tag

    def enumerators(self) -> dict[str, int]:
        """Every enumerator of every enum by name."""
        found: dict[str, int] = {}
        for type_id in range(1, len(self._offsets)):
            if self._kind(type_id) == ENUM:
                start = self._offsets[type_id]
                _, info, _ = struct.unpack_from("<III", self._types, start)
                for index in range(info & 0xFFFF):
                    name, value = struct.unpack_from("<II", self._types, start + 12 + 8 * index)
                    found[self._text(name)] = value
        return found

    def _kind(self, type_id: int) -> int:
        _, info, _ = struct.unpack_from("<III", self._types, self._offsets[type_id])
        return int(info >> 24 & 31)

    def _name(self, type_id: int) -> str:
        (name,) = struct.unpack_from("<I", self._types, self._offsets[type_id])
        return self._text(name)

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()
