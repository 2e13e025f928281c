"""Which column each field of a map becomes. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from mapd_client.codec import ORDER, Bytes, Codec, Int
from mapd_client.errors import Unsupported
from mapd_client.facts_codecs import HostCodec, KernelClock
from mapd_client.info import ByteOrder
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Pointer,
    Record,
    Special,
    Text,
)
from mapd_client.percpu import PerCpuReduced, has_slots
from mapd_client.tables.binary import WIDE, Raw, Wide
from mapd_client.tables.columns import Column, Flag, Moments, Number
from mapd_client.tables.dtypes import FLOATS, NUMBERS, Storage, order_of, units
from mapd_client.tables.lists import Fixed, Reduced, per_cpu
from mapd_client.tables.needs import ArrowType, arrow
from mapd_client.tables.nested import Bits, Field, Struct
from mapd_client.tables.shown import Words, words_of
from mapd_client.tables.words import Chars, Enum
from mapd_client.typed.hints import Hinted

if TYPE_CHECKING:
    import numpy as np

Hints = Mapping[str, Codec[Any]]

_SIDES: Final = ("key", "value")


@dataclass(frozen=True, slots=True)
class Plan:
    """The two columns of a map's tables."""

    key: Column
    value: Column

    @property
    def asks(self) -> bool:
        """Whether its columns are made of facts that the event loop keeps, so in its thread."""
        parts = (*self.key.parts(), *self.value.parts())
        return any(isinstance(part, Words) and isinstance(part.codec, HostCodec) for part in parts)

    def write_out(self) -> None:
        """Make text of enums, where there can be no dictionaries."""
        for part in (*self.key.parts(), *self.value.parts()):
            if isinstance(part, Enum):
                part.write_out()

    def schema(self) -> Any:
        """``key`` and ``value``, without nulls; a pyarrow.Schema."""
        pa = arrow()
        types: tuple[ArrowType, ...] = (self.key.type(), self.value.type())
        return pa.schema(
            [pa.field(side, kind, nullable=False) for side, kind in zip(_SIDES, types, strict=True)]
        )

    def batch(self, count: int, keys: memoryview, values: memoryview) -> Any:
        """So many packed elements as a pyarrow.RecordBatch; copies what it needs."""
        import numpy as np

        pa = arrow()
        columns = [
            column.read(np.frombuffer(data, np.uint8).reshape(count, column.size))
            for column, data in ((self.key, keys), (self.value, values))
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema())


def plan(key: Codec[Any], value: Codec[Any], byteorder: ByteOrder) -> Plan:
    """What a map's keys and values become; its codecs, bound to its daemon's host, say what they mean.

    Raises:
        Unsupported: a codec of which no column can be made.
    """
    return Plan(column_of(key, byteorder, "key"), column_of(value, byteorder, "value"))


def column_of(codec: Codec[Any], byteorder: ByteOrder, path: str) -> Column:
    """The column of a codec: of its layout where it has one."""
    if isinstance(codec, PerCpuReduced):
        inner = column_of(codec.per_cpu.inner, byteorder, path)
        if not isinstance(inner, Number):
            raise Unsupported(f"{path}: {codec!r} is no number; ask for the CPUs' values: {codec.per_cpu!r}")
        return Reduced(inner, codec.stride // per_cpu(inner, 1).size, codec.kind)
    if has_slots(codec):
        inner = column_of(codec.inner, byteorder, path)
        return per_cpu(inner, codec.stride // per_cpu(inner, 1).size)
    if isinstance(codec, Hinted):
        return column_of(codec.codec, byteorder, path)
    layout = getattr(codec, "layout", None)
    if layout is not None:
        hints = cast("Hints", getattr(codec, "hints", None) or {})
        return column_of_layout(cast("Layout", layout), byteorder, hints, path) or Raw(codec.size)
    if isinstance(codec, HostCodec):
        return _of_host(codec, byteorder)
    if isinstance(codec, Int):
        return _of_dtype(codec, path)
    if isinstance(codec, Bytes):
        return Raw(codec.size)
    if isinstance(codec.dtype, dict) and not repr(codec).startswith("Cidr"):
        return _of_dtype(codec, path)
    return words_of(codec)


def _of_host(codec: HostCodec, byteorder: ByteOrder) -> Column:
    """Times, names; the numbers that they are where the facts of the host are not to be had."""
    number = Number("u", codec.size, byteorder)
    if codec.why:
        return number
    if not isinstance(codec, KernelClock):
        return words_of(codec)
    return number if codec.zero is None else Moments(number, codec.zero)


def _of_dtype(codec: Codec[Any], path: str) -> Column:
    """By what the codec tells numpy: of integers, and of the struct module's formats."""
    import numpy as np

    return _of_numpy(np.dtype(codec.dtype), codec, path)


def _of_numpy(dtype: np.dtype[Any], codec: Codec[Any], path: str) -> Column:
    if dtype.names is not None:
        fields = cast("Mapping[str, tuple[Any, ...]]", dtype.fields)
        parts = [
            Field(name, fields[name][1], _of_numpy(fields[name][0], codec, path)) for name in dtype.names
        ]
        return Struct(dtype.itemsize, [part for part in parts if part.column.size])
    if dtype.shape:
        return Fixed(_of_numpy(dtype.subdtype[0], codec, path), dtype.shape[0])  # type: ignore[index]
    order: ByteOrder = "big" if dtype.str.startswith(ORDER["big"]) else "little"
    if dtype.kind in "iuf" and dtype.itemsize in NUMBERS:
        return Number(dtype.kind, dtype.itemsize, order)
    if dtype.kind == "b":
        return Flag(1, order)
    if dtype.kind in "SV":
        return Raw(dtype.itemsize)
    raise Unsupported(f"{path}: {codec!r} has {dtype}, which no column can hold; open the map with Bytes")


def column_of_layout(layout: Layout, byteorder: ByteOrder, hints: Hints, path: str) -> Column | None:
    """The column of a layout; None where nothing is there that user space may see, or no byte at all.

    Args:
        layout: what the bytes mean.
        byteorder: of the daemon's host.
        hints: codecs by path, bound.
        path: of the layout.
    """
    hint = hints.get(path)
    if hint is not None and hint.size == layout.size:
        return column_of(hint, byteorder, path)
    if not layout.size or isinstance(layout, Special):
        return None
    if isinstance(layout, Record):
        return _struct(layout, byteorder, hints, path)
    if isinstance(layout, Array):
        element = column_of_layout(layout.element, byteorder, hints, path)
        return None if element is None else Fixed(element, layout.count)
    return _scalar(layout, byteorder)


def _scalar(layout: Layout, byteorder: ByteOrder) -> Column:
    match layout:
        case Integer(size=size, signed=signed) if size in NUMBERS:
            return Number("i" if signed else "u", size, order_of(layout.order, byteorder))
        case Integer(size=size) if size == WIDE:
            return Wide(order_of(layout.order, byteorder))
        case Pointer(size=size) if size in NUMBERS:
            return Number("u", size, order_of(layout.order, byteorder))
        case Float(size=size) if size in FLOATS:
            return Number("f", size, order_of(layout.order, byteorder))
        case Boolean(size=size):
            return Flag(size, order_of(layout.order, byteorder))
        case Enumeration(size=size, signed=signed, members=members) if size in NUMBERS:
            number = Number("i" if signed else "u", size, order_of(layout.order, byteorder))
            return Enum(number, members)
        case Text(size=size):
            return Chars(size)
        case _:
            return Raw(layout.size)


def _struct(record: Record, byteorder: ByteOrder, hints: Hints, path: str) -> Column | None:
    fields: list[Field] = []
    for unit in units(record):
        if isinstance(unit, Storage):
            fields += [_bits(member, byteorder) for member in unit.members]
            continue
        column = column_of_layout(unit.layout, byteorder, hints, f"{path}.{unit.name}")
        if column is not None:
            fields.append(Field(unit.name, unit.offset, column))
    return Struct(record.size, fields) if fields else None


def _bits(member: Member, byteorder: ByteOrder) -> Field:
    bits = cast("int", member.bits)
    first, end = member.bit_offset // 8, (member.bit_offset + bits + 7) // 8
    declared = member.layout
    signed = isinstance(declared, (Integer, Enumeration)) and declared.signed
    column = _scalar(declared, byteorder)
    shift = member.bit_offset - 8 * first
    made = Bits(column, end - first, shift, bits, signed=signed, byteorder=byteorder)
    return Field(member.name, first, made)
