"""Columns of several elements: arrays, all CPUs' slots, and one number for these. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mapd_api.layout import round_up8
from mapd_client.errors import SizeMismatch, TypeMismatch
from mapd_client.selecting import Reducing
from mapd_client.tables.columns import BadRow, Column, Number, without_nulls, wrong_type
from mapd_client.tables.needs import ArrowArray, ArrowType, arrow, compute

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mapd_client.tables.columns import Rows


class Fixed(Column):
    """An array: Arrow's fixed-size list. Its elements begin ``stride`` bytes after each other, their size if None."""

    def __init__(self, element: Column, count: int, stride: int | None = None) -> None:
        self.element = element
        self.count = count
        self._stride = element.size if stride is None else stride
        self.size = self._stride * count
        self.exact = element.exact

    def mask(self) -> Rows:
        """As Column."""
        import numpy as np

        one = np.zeros((1, self._stride), np.uint8)
        one[:, : self.element.size] = self.element.mask()
        return np.tile(one, (1, self.count))

    def weight(self) -> int:
        """As Column."""
        return self.element.weight() * self.count

    def parts(self) -> Iterator[Column]:
        """As Column."""
        yield self
        yield from self.element.parts()

    def type(self) -> ArrowType:
        """fixed_size_list<...>[count]."""
        pa = arrow()
        return pa.list_(pa.field("item", self.element.type(), nullable=False), self.count)

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        pa = arrow()
        return pa.FixedSizeListArray.from_arrays(self.element.read(self._elements(rows)), type=self.type())

    def _elements(self, rows: Rows) -> Rows:
        import numpy as np

        flat = np.ascontiguousarray(rows).reshape(len(rows) * self.count, self._stride)
        return flat[:, : self.element.size]

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """As Column; takes lists of any kind that all have ``count`` elements."""
        import numpy as np

        pa, pc = arrow(), compute()
        array = without_nulls(array, path)
        types = pa.types
        if not (
            types.is_list(array.type)
            or types.is_large_list(array.type)
            or types.is_fixed_size_list(array.type)
        ):
            raise wrong_type(path, array.type, f"a list of {self.count}")
        lengths: NDArray[Any] = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        wrong = lengths != self.count
        if wrong.any():
            at = int(wrong.argmax())
            raise BadRow(at, SizeMismatch, f"{path}: a list of {lengths[at]}, {self.count} are due")
        flat = np.zeros((len(array) * self.count, self._stride), np.uint8)
        try:
            self.element.write(array.flatten(), flat[:, : self.element.size], path)
        except BadRow as bad:
            raise BadRow(bad.at // self.count, bad.kind, bad.text) from None
        rows[...] = flat.reshape(len(array), self.size)


def per_cpu(element: Column, cpus: int) -> Fixed:
    """All CPUs' slots of one value."""
    return Fixed(element, cpus, round_up8(element.size))


class Reduced(Column):
    """One number for those of all CPUs. Sums are of 64 bits, and wrap there as the kernel's own counters do."""

    def __init__(self, number: Number, cpus: int, kind: Reducing) -> None:
        self._number = number
        self._cpus = cpus
        self._kind: Reducing = kind
        self.size = round_up8(number.size) * cpus
        self._type = Number(number.kind, 8 if kind == "sum" else number.size, "little")

    def type(self) -> ArrowType:
        """The integer's; int64 or uint64 for a sum."""
        return self._type.type()

    def read(self, rows: Rows) -> ArrowArray:
        """As Column."""
        import numpy as np

        pa = arrow()
        slots = np.ascontiguousarray(rows).reshape(len(rows) * self._cpus, -1)[:, : self._number.size]
        numbers = self._number.numbers(slots).reshape(len(rows), self._cpus)
        if self._kind == "sum":
            wide: NDArray[Any] = numbers.sum(axis=1, dtype=f"{self._number.kind}8")
            return pa.array(wide)
        return pa.array(numbers.min(axis=1) if self._kind == "min" else numbers.max(axis=1))

    def write(self, array: ArrowArray, rows: Rows, path: str) -> None:
        """Raises TypeMismatch: a sum does not say what each CPU is to hold."""
        del array, rows
        raise TypeMismatch(f"{path}: one number for all CPUs only reads; open the map with PerCpu(...)")
