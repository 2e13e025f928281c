"""Columns of several fields: records, unions, bit-fields. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mapd_client.errors import SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.tables.columns import BadRow, Column, without_nulls, wrong_type
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow
from mapd_client.typed.naming import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mapd_client.tables.columns import Rows


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record: its name, its first byte, and its column."""

    name: str
    offset: int
    column: Column


class Struct(Column):
    """A record: Arrow's struct. Members of a union are all there, each by its own reading of the bytes they share.

    To write one, as many of a union's members as it takes to say all its bytes are enough; those that are given have
    to agree.
    """

    def __init__(self, size: int, fields: Sequence[Field]) -> None:
        self.size = size
        self.fields = {field.name: field for field in fields}
        self.exact = all(field.column.exact for field in fields)
        self._shared = self._overlap()
        by_weight = sorted(fields, key=lambda field: field.column.weight())
        self._order = by_weight if self._shared else list(fields)

    def _overlap(self) -> bool:
        taken = 0
        for field in self.fields.values():
            mask = int.from_bytes(field.column.mask().tobytes(), "little") << 8 * field.offset
            if taken & mask:
                return True
            taken |= mask
        return False

    def mask(self) -> Rows:
        """As Column."""
        import numpy as np

        row = np.zeros((1, self.size), np.uint8)
        for field in self.fields.values():
            _part(row, field)[...] |= field.column.mask()
        return row

    def weight(self) -> int:
        """As Column."""
        return min(self.size, sum(field.column.weight() for field in self.fields.values()))

    def parts(self) -> Iterator[Column]:
        """As Column."""
        yield self
        for field in self.fields.values():
            yield from field.column.parts()

    def type(self) -> ArrowType:
        """struct<...>, its fields without nulls."""
        pa = arrow()
        return pa.struct(
            [pa.field(field.name, field.column.type(), nullable=False) for field in self.fields.values()]
        )

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        columns = [field.column.read(_part(rows, field)) for field in self.fields.values()]
        return pa.StructArray.from_arrays(columns, fields=list(self.type()))

    def missing(self, given: Sequence[str]) -> list[str]:
        """Fields of which bytes are in none of those that are given."""
        import numpy as np

        def extent(field: Field) -> Rows:
            mask = np.zeros((1, self.size), np.uint8)
            column = field.column
            _part(mask, field)[...] = column.mask() if isinstance(column, Bits) else 255
            return mask

        said = np.zeros((1, self.size), np.uint8)
        for name in given:
            if name in self.fields:
                said |= extent(self.fields[name])
        return [
            name for name, field in self.fields.items() if name not in given and (extent(field) & ~said).any()
        ]

    def check_names(self, given: Sequence[str], path: str) -> None:
        """Raises TypeMismatch for a field that is not there, for one that is missing, or one given twice."""
        for name in given:
            if name not in self.fields:
                raise TypeMismatch(f"{path}.{name}: there is no such field: {nearest(name, self.fields)}")
        if len(set(given)) < len(given):
            twice = next(name for name in given if given.count(name) > 1)
            raise TypeMismatch(f"{path}.{twice}: two columns of that name")
        if missing := self.missing(given):
            names = ", ".join(f"{path}.{name}" for name in missing)
            raise TypeMismatch(f"no column for {names}: every field is needed; there are {', '.join(given)}")

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes structs with fields of these names, in any order."""
        pa = arrow()
        array = without_nulls(array, path)
        if not pa.types.is_struct(array.type):
            raise wrong_type(path, array.type, f"a struct of {', '.join(self.fields)}")
        names = [array.type.field(at).name for at in range(array.type.num_fields)]
        self.check_names(names, path)
        given = dict(zip(names, array.flatten(), strict=True))
        wanted = [field for field in self._order if field.name in given]
        if not self._shared:
            for field in wanted:
                field.column.write(given[field.name], _part(rows, field), f"{path}.{field.name}")
            return
        written = [(field, self._overlay(given[field.name], field, rows, path)) for field in wanted]
        for field, bits in written:
            _agree(field, bits, rows, path)

    def _overlay(self, array: ArrowArray, field: Field, rows: Rows, path: str) -> Rows:
        """Put a field's bits over what is there; those bits."""
        import numpy as np

        mine = np.zeros((len(rows), field.column.size), np.uint8)
        field.column.write(array, mine, f"{path}.{field.name}")
        mask, part = field.column.mask(), _part(rows, field)
        # A byte that says the same already stays: a text's 2 where the bool over it is true, which would write 1.
        there = np.zeros(mine.shape, np.uint8)
        field.column.write(field.column.read(part), there, path)
        part[...] = np.where(mine != there, (part & ~mask) | (mine & mask), part)
        return mine


def _part(rows: Rows, field: Field) -> Rows:
    return rows[:, field.offset : field.offset + field.column.size]


def _agree(field: Field, bits: Rows, rows: Rows, path: str) -> None:
    """Raises BadRow where a member of a union does not read as it was given."""
    import numpy as np

    again = np.zeros(bits.shape, np.uint8)
    field.column.write(field.column.read(_part(rows, field)), again, path)
    differ = (bits != again).any(axis=1)
    if differ.any():
        raise BadRow(
            int(differ.argmax()),
            TypeMismatch,
            f"{path}.{field.name} says other bytes than the members of its union that share them; leave one out",
        )


class Bits(Column):
    """A bit-field: what its declared type makes of its bits.

    Args:
        column: of the declared type, in the byte order of the host.
        size: bytes that it lies in.
        shift: bits before it, as BTF counts them: from the first byte's lowest bit on a little-endian host, from
            its highest on a big-endian one.
        bits: its width.
        signed: whether its highest bit is a sign.
        byteorder: of the daemon's host.
    """

    def __init__(
        self, column: Column, size: int, shift: int, bits: int, *, signed: bool, byteorder: ByteOrder
    ) -> None:
        self.size = size
        self._column = column
        self._bits, self._signed = bits, signed
        self._byteorder: ByteOrder = byteorder
        self._place = slice(shift, shift + bits)

    def mask(self) -> Rows:
        """As Column."""
        import numpy as np

        return self._placed(np.full((1, self._bits), 1, np.uint8))

    def weight(self) -> int:
        """As Column."""
        return (self._bits + 7) // 8

    def parts(self) -> Iterator[Column]:
        """As Column."""
        yield self
        yield from self._column.parts()

    def type(self) -> ArrowType:
        """The declared type's."""
        return self._column.type()

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        unpacked = np.unpackbits(np.ascontiguousarray(rows), axis=1, bitorder=self._byteorder)
        bits = self._lowest_first(unpacked[:, self._place])
        whole = np.zeros((len(rows), 8 * self._column.size), np.uint8)
        whole[:, : self._bits] = bits
        if self._signed:
            whole[:, self._bits :] = bits[:, -1:]
        number = np.packbits(whole, axis=1, bitorder="little")
        return self._column.read(np.ascontiguousarray(self._lowest_first(number)))

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; raises BadRow for a number that its bits do not hold."""
        import numpy as np

        number = np.zeros((len(array), self._column.size), np.uint8)
        self._column.write(array, number, path)
        whole = np.unpackbits(np.ascontiguousarray(self._lowest_first(number)), axis=1, bitorder="little")
        bits = whole[:, : self._bits]
        sign: NDArray[Any] | int = bits[:, -1:] if self._signed else 0
        wrong = (whole[:, self._bits :] != sign).any(axis=1)
        if wrong.any():
            at = int(wrong.argmax())
            raise BadRow(at, SizeMismatch, f"{path}: {array[at]} does not fit into {self._bits} bits")
        rows |= self._placed(bits)

    def _placed(self, bits: NDArray[np.uint8]) -> Rows:
        """Bits, lowest first, at their place among the bytes that they lie in."""
        import numpy as np

        whole = np.zeros((len(bits), 8 * self.size), np.uint8)
        whole[:, self._place] = self._lowest_first(bits)
        return np.packbits(whole, axis=1, bitorder=self._byteorder)

    def _lowest_first(self, rows: Rows) -> Rows:
        """Rows that begin with their lowest bit or byte, of such as the host has them; and back."""
        return rows if self._byteorder == "little" else rows[:, ::-1]
