"""Bit-fields: where their bits lie on hosts of either byte order. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mapd_client.codec import shown
from mapd_client.errors import SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Boolean, Enumeration, Integer, Member
from mapd_client.typed.scalars import Named, Reader


@dataclass(frozen=True, slots=True)
class Bits:
    """The place of a bit-field in a record.

    The bytes from the one with its first bit to the one with its last are read as one integer in the byte order of
    the host, which is how compilers number bits: from the lowest on little-endian hosts, from the highest on
    big-endian ones.

    Attributes:
        first: byte with its first bit, from the record's beginning.
        end: byte behind the one with its last bit.
        shift: bits of that integer below the field's own.
        width: bits.
        signed: whether the highest of them is a sign.
        boolean: whether it reads as True or False.
        names: of an enum's values, None for other types.
    """

    first: int
    end: int
    shift: int
    width: int
    signed: bool
    boolean: bool
    names: Named | None
    byteorder: ByteOrder

    @classmethod
    def of(cls, member: Member, width: int, byteorder: ByteOrder) -> Bits:
        """The place of ``member``, a bit-field of ``width`` bits.

        Raises:
            TypeMismatch: its type is none of which C has bit-fields.
        """
        layout = member.layout
        if not isinstance(layout, (Integer, Boolean, Enumeration)):
            raise TypeMismatch(f"{member.name}: no bit-field of {type(layout).__name__} can be read")
        first, below = divmod(member.bit_offset, 8)
        end = first + (below + width + 7) // 8
        shift = below if byteorder == "little" else 8 * (end - first) - below - width
        return cls(
            first=first,
            end=end,
            shift=shift,
            width=width,
            signed=not isinstance(layout, Boolean) and layout.signed,
            boolean=isinstance(layout, Boolean),
            names=Named(layout, byteorder) if isinstance(layout, Enumeration) else None,
            byteorder=byteorder,
        )

    def __repr__(self) -> str:
        return f"a bit-field of {self.width} bits"

    @property
    def _bounds(self) -> tuple[int, int]:
        if self.signed:
            return -(1 << self.width - 1), (1 << self.width - 1) - 1
        return 0, (1 << self.width) - 1

    def reader(self) -> Reader:
        """A function that reads it from the record's bytes."""
        first, end, shift, byteorder = self.first, self.end, self.shift, self.byteorder
        mask, sign = (1 << self.width) - 1, 1 << self.width - 1

        def number(data: bytes) -> int:
            return int.from_bytes(data[first:end], byteorder) >> shift & mask

        if self.boolean:
            return lambda data: bool(number(data))
        if self.names is not None:
            names = self.names.names

            def named(data: bytes) -> str | int:
                found = number(data)
                found = (found ^ sign) - sign if self.signed else found
                return names.get(found, found)

            return named
        return (lambda data: (number(data) ^ sign) - sign) if self.signed else number

    def put(self, record: bytearray, value: Any) -> None:
        """Write it into a record's bytes, and leave the other bits as they are.

        Raises:
            SizeMismatch, TypeMismatch: what it cannot hold.
        """
        number = self._number(value)
        low, high = self._bounds
        if not low <= number <= high:
            raise SizeMismatch(f"{shown(number)} is outside {self!r}, which hold {low} to {high}")
        mask = (1 << self.width) - 1
        there = int.from_bytes(record[self.first : self.end], self.byteorder)
        there = there & ~(mask << self.shift) | (number & mask) << self.shift
        record[self.first : self.end] = there.to_bytes(self.end - self.first, self.byteorder)

    def _number(self, value: Any) -> int:
        if self.names is not None:
            return self.names.number(value)
        if self.boolean and (not isinstance(value, int) or value not in (0, 1)):
            raise TypeMismatch("it takes True or False")
        if not hasattr(value, "__index__"):
            raise TypeMismatch(f"{self!r} takes an int, not {type(value).__name__}")
        return int(value)
