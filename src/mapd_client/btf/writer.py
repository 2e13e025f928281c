"""A BTF blob in the making: types are asked for by what they are, and written once. Sans-I/O.

Source: Documentation/bpf/btf.rst; include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from mapd_client.codec import ORDER
from mapd_client.info import ByteOrder

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _FLOAT, _ENUM64 = 1, 2, 3, 4, 5, 6, 8, 16, 19
_MAGIC: Final = 0xEB9F
_HEADER: Final = "HBBIIIII"
_HEADER_BYTES: Final = 24
_KFLAG: Final = 1 << 31

Encoding: TypeAlias = Literal["", "signed", "bool"]
_ENCODINGS: Final[dict[Encoding, int]] = {"": 0, "signed": 1, "bool": 4}

WrittenMember: TypeAlias = tuple[str, int, int, int | None]
"""Name, type id, bits from the beginning, width of a bit-field or None."""


class Writer:
    """The types and names of one blob, in the byte order of the host that will read it.

    Every method answers the type's id: the one it has already, if the same was asked for before.
    """

    def __init__(self, byteorder: ByteOrder) -> None:
        self._order = ORDER[byteorder]
        self._ids: dict[bytes, int] = {}
        self._names: dict[str, int] = {"": 0}
        self._strings = bytearray(1)

    def blob(self) -> bytes:
        """Header, types, names: what BPF_BTF_LOAD takes."""
        types = b"".join(self._ids)
        sizes = (0, len(types), len(types), len(self._strings))
        header = struct.pack(self._order + _HEADER, _MAGIC, 1, 0, _HEADER_BYTES, *sizes)
        return header + types + self._strings

    def integer(self, name: str, size: int, encoding: Encoding) -> int:
        """BTF_KIND_INT, of all bits of its bytes."""
        return self._type(name, _INT, size, _ENCODINGS[encoding] << 24 | 8 * size)

    def float(self, name: str, size: int) -> int:
        """BTF_KIND_FLOAT."""
        return self._type(name, _FLOAT, size)

    def pointer(self) -> int:
        """BTF_KIND_PTR, to void."""
        return self._type("", _PTR, 0)

    def typedef(self, name: str, to: int) -> int:
        """BTF_KIND_TYPEDEF."""
        return self._type(name, _TYPEDEF, to)

    def array(self, element: int, index: int, count: int) -> int:
        """BTF_KIND_ARRAY."""
        return self._type("", _ARRAY, 0, element, index, count)

    def enum(self, name: str, size: int, members: Sequence[tuple[str, int]], *, signed: bool) -> int:
        """BTF_KIND_ENUM64 where it has 8 bytes, as clang does, else BTF_KIND_ENUM."""
        words: list[int] = []
        for member, number in members:
            words += (self._name(member), number & 0xFFFFFFFF)
            if size == 8:
                words.append(number >> 32 & 0xFFFFFFFF)
        kind = _ENUM64 if size == 8 else _ENUM
        return self._type(name, kind, size, *words, vlen=len(members), kflag=signed)

    def record(self, name: str, size: int, members: Sequence[WrittenMember], *, union: bool) -> int:
        """BTF_KIND_STRUCT or BTF_KIND_UNION, with bit-fields if one of the members is one."""
        kflag = any(bits is not None for *_, bits in members)
        words: list[int] = []
        for member, of, bit_offset, bits in members:
            words += (self._name(member), of, bit_offset | (bits or 0) << 24)
        return self._type(name, _UNION if union else _STRUCT, size, *words, vlen=len(members), kflag=kflag)

    def _type(self, name: str, kind: int, size: int, *words: int, vlen: int = 0, kflag: bool = False) -> int:
        info = (_KFLAG if kflag else 0) | kind << 24 | vlen
        data = struct.pack(f"{self._order}{3 + len(words)}I", self._name(name), info, size, *words)
        return self._ids.setdefault(data, len(self._ids) + 1)

    def _name(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = len(self._strings)
            self._strings += name.encode() + b"\0"
        return self._names[name]
