"""BTF word by word, right or wrong: what no compiler writes, too."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from mapd_client.info import ByteOrder

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)

SIGNED, CHAR, BOOL = 1, 2, 4
HEADER: Final = "HBBIIIII"


@dataclass
class Raw:
    """A blob in the making; each method answers the id of what it wrote.

    Attributes:
        first: the id of the first type; of a split blob the base's number of ids.
        first_string: where its strings begin; of a split blob the end of the base's.
    """

    order: ByteOrder = "little"
    first: int = 1
    first_string: int = 0
    types: list[bytes] = field(default_factory=list[bytes])
    strings: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        if self.first_string == 0:
            self.strings += b"\0"

    def blob(self, **header: int) -> bytes:
        """All of it; ``header`` puts other numbers there."""
        types = b"".join(self.types)
        fields = {
            "magic": 0xEB9F,
            "version": 1,
            "flags": 0,
            "hdr_len": 24,
            "type_off": 0,
            "type_len": len(types),
            "str_off": len(types),
            "str_len": len(self.strings),
        }
        assert header.keys() <= fields.keys()
        return self.pack(HEADER, *(fields | header).values()) + types + self.strings

    def pack(self, form: str, *numbers: int) -> bytes:
        """Numbers in this blob's byte order."""
        return struct.pack({"little": "<", "big": ">"}[self.order] + form, *numbers)

    def string(self, text: str | bytes) -> int:
        """The offset of a string."""
        if text in ("", b""):
            return 0
        at = self.first_string + len(self.strings)
        self.strings += (text.encode() if isinstance(text, str) else text) + b"\0"
        return at

    def add(
        self, kind: int, name: str | int, size: int, *words: int, vlen: int = 0, kflag: bool = False
    ) -> int:
        """A record of any kind; a name that is a number is an offset in the strings."""
        at = name if isinstance(name, int) else self.string(name)
        info = kflag << 31 | kind << 24 | vlen
        numbers = (at, info, size, *(word & 0xFFFF_FFFF for word in words))
        self.types.append(self.pack(f"{len(numbers)}I", *numbers))
        return self.first + len(self.types) - 1

    def integer(
        self, name: str, size: int, encoding: int = 0, bits: int | None = None, offset: int = 0
    ) -> int:
        """An INT, of all its bits if not said otherwise."""
        return self.add(INT, name, size, encoding << 24 | offset << 16 | (8 * size if bits is None else bits))

    def array(self, element: int, nelems: int, index: int = 0) -> int:
        """An ARRAY."""
        return self.add(ARRAY, "", 0, element, index, nelems)

    def record(self, kind: int, name: str, size: int, *members: tuple[str, int, int]) -> int:
        """A STRUCT or UNION of members (name, type, bits from its beginning)."""
        words = [word for one, kind_id, at in members for word in (self.string(one), kind_id, at)]
        return self.add(kind, name, size, *words, vlen=len(members))

    def struct(self, name: str, size: int, *members: tuple[str, int, int]) -> int:
        """A STRUCT without bit-fields."""
        return self.record(STRUCT, name, size, *members)

    def bit_struct(self, name: str, size: int, *members: tuple[str, int, int, int]) -> int:
        """A STRUCT with kind_flag: members (name, type, bit, width)."""
        words = [
            word
            for one, kind_id, at, bits in members
            for word in (self.string(one), kind_id, bits << 24 | at)
        ]
        return self.add(STRUCT, name, size, *words, vlen=len(members), kflag=True)

    def enum(self, name: str, size: int, *values: tuple[str, int], signed: bool = False) -> int:
        """An ENUM."""
        words = [word for one, value in values for word in (self.string(one), value)]
        return self.add(ENUM, name, size, *words, vlen=len(values), kflag=signed)

    def enum64(self, name: str, size: int, *values: tuple[str, int], signed: bool = False) -> int:
        """An ENUM64."""
        words = [word for one, value in values for word in (self.string(one), value, value >> 32)]
        return self.add(ENUM64, name, size, *words, vlen=len(values), kflag=signed)

    def datasec(self, name: str, size: int, *vars: tuple[int, int, int]) -> int:
        """A DATASEC of variables (type, offset, size)."""
        words = [word for one in vars for word in one]
        return self.add(DATASEC, name, size, *words, vlen=len(vars))
