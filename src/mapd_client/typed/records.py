"""Records by field name: what is read of a struct, and how one is written. Sans-I/O.

A record keeps the bytes that it was read from and decodes a field when it is asked for. So a key that was read is
written back byte for byte, padding included, and a column of records costs a slice each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NoReturn, cast

from mapd_client.codec import Buffer
from mapd_client.errors import MapdError, SizeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Record
from mapd_client.typed.composites import BYTES, Composite
from mapd_client.typed.naming import Wrong, nearest, no_record
from mapd_client.typed.scalars import Reader
from mapd_client.typed.shape import Shape

_SHOWN: Final = 16
"""Elements of an array that ``repr`` of a record shows."""


class Fields(Mapping[str, Any]):
    """One struct or union as it was read: a mapping of its field names, which nobody can change.

    A field is reached as an item, ``fields["saddr"]``, whatever it is called: a field named ``keys`` or ``items`` is
    found there as well, while ``fields.keys()`` and ``fields.items()`` are those of every mapping. Nested structs are
    ``Fields`` too, arrays are tuples; members of an anonymous struct or union are the outer's own. What belongs to the
    kernel (a bpf_spin_lock, a timer) is left out. All members of a union are there, each read from the same bytes.

    Equal to every mapping with equal fields; a list is as good as a tuple there. Two that differ in their padding only
    are equal, though they are two keys of a hash map: ``bytes(fields)`` tells them apart.

    Accessing a field may raise TypeMismatch where a codec that a hint named cannot express its bytes.
    """

    __slots__ = ("_data", "_shape")

    def __init__(self, shape: Shape, data: bytes) -> None:
        self._shape = shape
        self._data = data

    def __getitem__(self, name: str) -> Any:
        read = self._shape.readers.get(name)
        if read is None:
            raise KeyError(f"{self._shape} has no field {name!r}: {nearest(name, self._shape.readers)}")
        return read(self._data)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shape.readers)

    def __len__(self) -> int:
        return len(self._shape.readers)

    def __contains__(self, name: object) -> bool:
        return name in self._shape.readers

    def __bytes__(self) -> bytes:
        return self._data

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        theirs = cast("Mapping[object, Any]", other)
        if isinstance(other, Fields) and other._shape is self._shape and other._data == self._data:
            return True
        return len(theirs) == len(self) and all(
            name in theirs and _same(value, theirs[name]) for name, value in self.items()
        )

    def __hash__(self) -> int:
        return hash(frozenset((name, _hash(value)) for name, value in self.items()))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Fields cannot be pickled: pickle bytes(fields), which the codec of the layout decodes"
        )

    def __repr__(self) -> str:
        shape = self._shape
        parts = (f"{name}={_shown(read, self._data)}" for name, read in shape.readers.items())
        return f"{shape.layout.type_name or 'Fields'}({', '.join(parts)})"

    def __copy__(self) -> Fields:
        return self

    def __deepcopy__(self, memo: object) -> Fields:
        return self

    def replace(self, **changes: Any) -> Fields:
        """These fields with some others' values; all else, padding too, is as it was read.

        Of a union, the member that is named is written. A field whose name is no Python name is given by
        ``replace(**{"name": value})``.

        Raises:
            SizeMismatch, TypeMismatch: no such field, or what it cannot hold.
        """
        shape = self._shape
        data = bytearray(self._data)
        try:
            shape.write(data, changes, partly=True)
        except Wrong as wrong:
            raise wrong.misuse(shape.path) from None
        return Fields(shape, bytes(data))

    __replace__ = replace

    @property
    def layout(self) -> Record:
        """What the bytes mean."""
        return self._shape.layout

    @property
    def byteorder(self) -> ByteOrder:
        """Of the host that they are from."""
        return self._shape.byteorder


def _hash(value: Any) -> int:
    """One for all NaNs: Python hashes each by its place, and a field is another object whenever it is read."""
    if isinstance(value, tuple):
        return hash(tuple(map(_hash, cast("tuple[Any, ...]", cast("object", value)))))
    return hash(value) if value == value else 0  # NaN alone is not


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two fields are equal, where a list stands for a tuple."""
    if isinstance(mine, tuple) and isinstance(theirs, (list, tuple)):
        ours, others = cast("Sequence[Any]", mine), cast("Sequence[Any]", theirs)
        return len(ours) == len(others) and all(map(_same, ours, others))
    return bool(mine == theirs)


def _shown(read: Reader, data: bytes) -> str:
    try:
        value = read(data)
    except MapdError:
        return "?"
    if isinstance(value, tuple):
        elements = cast("tuple[Any, ...]", cast("object", value))
        if len(elements) > _SHOWN:
            first = ", ".join(map(repr, elements[:_SHOWN]))
            return f"({first}, ... {len(elements)} in all)"
    return repr(cast("object", value))


class Structure(Composite):
    """A struct or a union: ``Fields``; takes these, every mapping by field name, and its bytes."""

    def __init__(self, shape: Shape) -> None:
        self.layout = shape.layout
        self.size = shape.layout.size
        self.path = shape.path
        self.shape = shape

    def __repr__(self) -> str:
        return str(self.shape)

    def pack(self, value: Any) -> bytes:
        """As Composite.pack."""
        shape = self.shape
        if isinstance(value, Fields):
            layout = value.layout
            if value.byteorder == shape.byteorder and (layout is shape.layout or layout == shape.layout):
                return bytes(value)
        if isinstance(value, BYTES):
            data = bytes(cast("Buffer", value))
            if len(data) != self.size:
                raise SizeMismatch(f"{len(data)} bytes given, {self!r} has {self.size}")
            return data
        if not isinstance(value, Mapping):
            raise no_record(repr(self), value)
        return shape.pack(cast("Mapping[str, Any]", value))

    def decode(self, data: Buffer) -> Fields:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} has {self.size} bytes, not {len(data)}")
        return Fields(self.shape, bytes(data))

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return list(self.lazily(column)[0])

    def lazily(self, column: Buffer) -> tuple[Iterator[Fields], Iterator[bytes]]:
        """The records of a column, each made when it is asked for; and what says how many are left."""
        rows = struct.iter_unpack(f"{self.size}s", self._whole(column))
        left = iter([data for (data,) in rows])
        return map(Fields, repeat(self.shape), left), left
