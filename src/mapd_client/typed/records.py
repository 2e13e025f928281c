"""Records by field name: what is read of a struct, and how one is written. Sans-I/O.

A record keeps the bytes that it was read from and decodes a field when it is asked for. So a key that was read is
written back byte for byte, padding included, and a column of records costs a slice each.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_client.codec import Buffer, Codec
from mapd_client.errors import MapdError, Misuse, SizeMismatch, TypeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Array, Layout, Record
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed.bits import Bits
from mapd_client.typed.naming import Wrong, nearest, no_record, refused
from mapd_client.typed.scalars import Reader

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

_SHOWN: Final = 16
"""Elements of an array that ``repr`` of a record shows."""

_BYTES: Final = (bytes, bytearray, memoryview)


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
        return hash(frozenset(self.items()))

    def __repr__(self) -> str:
        shape = self._shape
        parts = (f"{name}={_shown(read, self._data)}" for name, read in shape.readers.items())
        return f"{shape.layout.type_name or 'Fields'}({', '.join(parts)})"

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


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two fields are equal, where a list stands for a tuple."""
    if isinstance(mine, tuple) and isinstance(theirs, (list, tuple)):
        ours, others = cast("Sequence[Any]", mine), cast("Sequence[Any]", theirs)
        return len(ours) == len(others) and all(map(_same, ours, others))
    return bool(mine == theirs)


def _kind(value: object) -> str:
    return type(value).__name__


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


class Composite(Codec[Any]):
    """A codec of parts, whose errors say which of them."""

    layout: Layout
    path: str
    rebind: Callable[[ByteOrder, int], Codec[Any]] | None = None
    """Compiles it for another host; None for a part of another one, which is compiled with that."""
    hints: Mapping[str, Codec[Any]] = MappingProxyType({})
    """The codecs that hints gave its fields, bound, by path; where ``rebind`` is."""
    byteorder: ByteOrder = "little"
    """Of the host that it was compiled for; where ``rebind`` is."""

    @property
    def dtype(self) -> DTypeLike:
        """Every field at its place, by its type; hints have no say."""
        return dtype_of_layout(self.layout, self.byteorder)

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        return self.rebind(byteorder, possible_cpus) if self.rebind else self

    def pack(self, value: Any) -> bytes:
        """As ``encode``; raises Wrong for a part of it, which knows the way down to it."""
        raise NotImplementedError

    def encode(self, value: Any) -> bytes:
        """Raises SizeMismatch or TypeMismatch, which name the field by its path ("key.saddr")."""
        try:
            return self.pack(value)
        except Wrong as wrong:
            raise wrong.misuse(self.path) from None


def packed(codec: Codec[Any], value: Any, step: str) -> bytes:
    """One part's bytes; raises Wrong with the step that leads to it."""
    try:
        return codec.pack(value) if isinstance(codec, Composite) else codec.encode(value)
    except Wrong as wrong:
        raise wrong.within(step) from None
    except Misuse as error:
        raise Wrong(step, refused(value, error)) from None


class Elements(Composite):
    """A C array: a tuple; any sequence is taken, and bytes where its elements are single bytes."""

    def __init__(self, layout: Array, element: Codec[Any], path: str) -> None:
        self.layout = layout
        self.path = path
        self.size = layout.size
        self._element = element
        self._count = layout.count if element.size else 0

    def __repr__(self) -> str:
        return f"{self._element!r}[{self._count}]"

    def pack(self, value: Any) -> bytes:
        """As Composite.pack."""
        if isinstance(value, _BYTES) and self._element.size == 1:
            data = bytes(cast("Buffer", value))
            if len(data) != self.size:
                raise SizeMismatch(f"{len(data)} bytes given, {self.size} needed")
            return data
        if isinstance(value, (str, *_BYTES)) or not isinstance(value, Sequence):
            raise TypeMismatch(f"{self!r} takes a list or a tuple, not {_kind(cast('object', value))}")
        elements = cast("Sequence[Any]", cast("object", value))
        if len(elements) != self._count:
            raise SizeMismatch(f"{len(elements)} elements given, {self!r} has {self._count}")
        if not isinstance(self._element, Composite):
            try:
                return self._element.encode_many(elements)
            except Misuse:
                pass  # said again below, with its place
        return b"".join(packed(self._element, one, f"[{at}]") for at, one in enumerate(elements))

    def decode(self, data: Buffer) -> tuple[Any, ...]:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} reads {self.size} bytes, not {len(data)}")
        return tuple(self._element.decode_many(data)) if self._count else ()

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        if not self._count:
            return []
        flat = self._element.decode_many(self._whole(column))
        count = self._count
        return [tuple(flat[at : at + count]) for at in range(0, len(flat), count)]


class Slot:
    """A member of a record that a person can write."""

    __slots__ = ("_codec", "_end", "_offset", "name", "optional")

    def __init__(self, name: str, offset: int, codec: Codec[Any]) -> None:
        self.name = name
        self.optional = not codec.size  # a flexible array has nothing to say
        self._codec = codec
        self._offset = offset
        self._end = offset + codec.size

    @property
    def names(self) -> Iterable[str]:
        """What it is reached by."""
        return (self.name,)

    def write(self, record: bytearray, given: Mapping[str, Any], *, partly: bool) -> None:
        """Write it; raises Wrong."""
        if self.name in given:
            record[self._offset : self._end] = packed(self._codec, given[self.name], f".{self.name}")
        elif not partly and not self.optional:
            raise Wrong(f".{self.name}", TypeMismatch("it is missing; every field is to be given"))


class BitSlot:
    """A bit-field."""

    __slots__ = ("_bits", "name")

    optional = False

    def __init__(self, name: str, bits: Bits) -> None:
        self.name = name
        self._bits = bits

    @property
    def names(self) -> Iterable[str]:
        """What it is reached by."""
        return (self.name,)

    def write(self, record: bytearray, given: Mapping[str, Any], *, partly: bool) -> None:
        """Write it; raises Wrong."""
        if self.name in given:
            try:
                self._bits.put(record, given[self.name])
            except Misuse as error:
                raise Wrong(f".{self.name}", refused(given[self.name], error)) from None
        elif not partly:
            raise Wrong(f".{self.name}", TypeMismatch("it is missing; every field is to be given"))


class Anonymous:
    """A struct or union without a name, whose members are written as if they were the outer's."""

    __slots__ = ("_end", "_offset", "_shape")

    optional = False

    def __init__(self, offset: int, shape: Shape) -> None:
        self._offset = offset
        self._end = offset + shape.layout.size
        self._shape = shape

    @property
    def names(self) -> Iterable[str]:
        """What its members are reached by."""
        return self._shape.readers

    def write(self, record: bytearray, given: Mapping[str, Any], *, partly: bool) -> None:
        """Write those of its members that are named; raises Wrong."""
        part = record[self._offset : self._end]
        mine = {name: given[name] for name in self.names if name in given}
        self._shape.write(part, mine, partly=partly)
        record[self._offset : self._end] = part


AnySlot = Slot | BitSlot | Anonymous


class Shape:
    """A record, compiled: how each field is read, and how all are written.

    Attributes:
        layout: what it was compiled from.
        byteorder: of the host that it was compiled for.
        path: of the record, for messages: "key", "value.stats".
        readers: by field name, those of anonymous members too.
    """

    __slots__ = ("_flat", "_slots", "byteorder", "layout", "path", "readers")

    def __init__(
        self,
        layout: Record,
        byteorder: ByteOrder,
        path: str,
        readers: Mapping[str, Reader],
        slots: Sequence[AnySlot],
        flat: Flat | None,
    ) -> None:
        self.layout = layout
        self.byteorder: ByteOrder = byteorder
        self.path = path
        self.readers = readers
        self._slots = slots
        self._flat = flat

    def __str__(self) -> str:
        return f"{'union' if self.layout.union else 'struct'} {self.layout.type_name}".rstrip()

    def pack(self, value: Any) -> bytes:
        """The bytes of a mapping, or of Fields as they were read; raises Wrong and Misuse."""
        if isinstance(value, Fields):
            layout = value.layout
            if value.byteorder == self.byteorder and (layout is self.layout or layout == self.layout):
                return bytes(value)
        if isinstance(value, _BYTES):
            data = bytes(cast("Buffer", value))
            if len(data) != self.layout.size:
                raise SizeMismatch(f"{len(data)} bytes given, {self} has {self.layout.size}")
            return data
        if not isinstance(value, Mapping):
            raise no_record(str(self), value)
        fields = cast("Mapping[str, Any]", value)
        if self._flat is not None and len(fields) == len(self.readers):
            # 0.4 us for ten fields, against 5 with each written by itself.
            try:
                return self._flat.pack(fields)
            except (struct.error, KeyError, TypeError, OverflowError):
                pass  # said again below, with its name
        record = bytearray(self.layout.size)
        self.write(record, fields, partly=False)
        return bytes(record)

    def write(self, record: bytearray, given: Mapping[str, Any], *, partly: bool) -> None:
        """Write the fields that are given; raises Wrong.

        Args:
            record: its bytes.
            given: by name.
            partly: some may be missing, and stay as they are.
        """
        for name in given:
            if name not in self.readers:
                text = TypeMismatch(f"{self} has no such field: {nearest(name, self.readers)}")
                raise Wrong(f".{name}", text)
        if not self.layout.union:
            for slot in self._slots:
                slot.write(record, given, partly=partly)
            return
        chosen = [slot for slot in self._slots if any(name in given for name in slot.names)]
        if len(chosen) == 1:
            chosen[0].write(record, given, partly=partly)
        elif chosen or not (partly or all(slot.optional for slot in self._slots)):
            named = ", ".join(given) if chosen else "none"
            error = TypeMismatch(f"{named} given: {self} takes one of {', '.join(self.readers)}")
            raise Wrong("", error)


class Flat:
    """A record of numbers of one byte order and nothing else: written by one call of the struct module."""

    __slots__ = ("_pack", "_pick")

    def __init__(self, format: str, names: Sequence[str]) -> None:
        self._pack = struct.Struct(format).pack
        self._pick: Callable[[Mapping[str, Any]], Any] = itemgetter(*names)
        if len(names) == 1:
            name = names[0]
            self._pick = lambda fields: (fields[name],)

    def pack(self, fields: Mapping[str, Any]) -> bytes:
        """Raises what the struct module raises, and KeyError."""
        return self._pack(*self._pick(fields))


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
        return self.shape.pack(value)

    def decode(self, data: Buffer) -> Fields:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} has {self.size} bytes, not {len(data)}")
        return Fields(self.shape, bytes(data))

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        shape = self.shape
        rows = struct.iter_unpack(f"{self.size}s", self._whole(column))
        return [Fields(shape, data) for (data,) in rows]
