"""Per-CPU values as a list, as a sum, or as a column for each CPU. Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final, Literal

from mapd_api.layout import round_up8
from mapd_api.uapi import MapType
from mapd_client.codec import ORDER, Buffer, Codec
from mapd_client.errors import Misuse
from mapd_client.info import ByteOrder, MapInfo
from mapd_client.layouts import Array, Integer, Layout, Member, Opaque, Record, Special

PerCpuForm = Literal["list", "sum", "columns"]

_LETTERS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}
_WIDE: Final = 8
_WRAP: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class Formed:
    """How a map's values are written, once the CPUs' slots have become something else.

    Attributes:
        info: of a map that has such values, and no slots.
        value: their layout.
        hints: for the new fields' paths.
        convert: a column of all CPUs' slots, to a column of these values.
        left_out: fields that no sum was made of.
    """

    info: MapInfo
    value: Layout
    hints: Mapping[str, Codec[Any]]
    convert: Callable[[Buffer], Buffer]
    left_out: Sequence[str] = ()


def formed(
    form: PerCpuForm,
    info: MapInfo,
    value: Layout | None,
    hints: Mapping[str, Codec[Any]],
    byteorder: ByteOrder,
) -> Formed | None:
    """The values of a per-CPU map in that form; None where they stay as they are.

    Raises:
        Misuse: a sum of values without integers.
    """
    if form == "list" or not info.per_cpu:
        return None
    if form == "columns":
        return _columns(info, value or Opaque(size=info.value_size), hints)
    return _sum(info, value, hints, byteorder)


def _columns(info: MapInfo, value: Layout, hints: Mapping[str, Codec[Any]]) -> Formed:
    slot, slots = round_up8(info.value_size), range(info.slots())
    members = [
        Member(name=f"cpu{cpu}", offset=cpu * slot, bit_offset=8 * cpu * slot, layout=value) for cpu in slots
    ]
    renamed = {path: hint for path, hint in hints.items() if path.split(".")[0] != "value"}
    for path, hint in hints.items():
        if path not in renamed:
            renamed |= {f"value.cpu{cpu}{path.removeprefix('value')}": hint for cpu in slots}
    layout = Record(size=slot * len(slots), members=tuple(members))
    return Formed(_plain(info, layout.size), layout, renamed, _as_it_is)


def _as_it_is(column: Buffer) -> Buffer:
    return column


def _plain(info: MapInfo, size: int) -> MapInfo:
    """The same, of a type whose values are no slots."""
    return replace(info, type=MapType.HASH, value_size=size, value_stride=size)


@dataclass(frozen=True, slots=True)
class _Leaf:
    offset: int
    layout: Integer


def _sum(
    info: MapInfo, value: Layout | None, hints: Mapping[str, Codec[Any]], byteorder: ByteOrder
) -> Formed:
    if value is None or isinstance(value, Opaque):
        if info.value_size not in _LETTERS:
            raise Misuse(
                f"--per-cpu sum: nothing is known of the {info.value_size} bytes of a value of {info.label}; "
                "give the types with --elf FILE or --btf FILE"
            )
        value = Integer(size=info.value_size, signed=False)
    walk = _Walk(hints)
    layout = walk.of(value, "value", 0)
    if layout is None:
        raise Misuse(f"--per-cpu sum: a value of {info.label} has no integers; take list or columns")
    sums = _Sums(walk.leaves, info, byteorder)
    kept = {path: hint for path, hint in hints.items() if path.split(".")[0] != "value"}
    return Formed(_plain(info, layout.size), layout, kept, sums, walk.left_out)


class _Walk:
    """Finds the integers of a layout, and makes the layout that has their sums: 8 bytes each, in the same order."""

    def __init__(self, hints: Mapping[str, Codec[Any]]) -> None:
        self._hints = hints
        self.leaves: list[_Leaf] = []
        self.left_out: list[str] = []

    def of(self, layout: Layout, path: str, offset: int) -> Layout | None:
        """None where there is no integer."""
        if path not in self._hints:
            match layout:
                case Integer() if layout.size in _LETTERS:
                    self.leaves.append(_Leaf(offset, layout))
                    return replace(layout, size=_WIDE, order="host")
                case Record():
                    return self._record(layout, path, offset)
                case Array() if layout.size:
                    return self._array(layout, path, offset)
                case _:
                    pass
        if layout.size and not isinstance(layout, Special) and path not in self.left_out:
            self.left_out.append(path)
        return None

    def _record(self, record: Record, path: str, offset: int) -> Layout | None:
        members: list[Member] = []
        end = 0
        for member in record.named():
            inner = f"{path}.{member.name}"
            if member.bits is not None:
                self.left_out += [inner] if member.name and inner not in self.left_out else []
            elif member.name:
                layout = self.of(member.layout, inner, offset + member.offset)
                if layout is not None:
                    members.append(Member(name=member.name, offset=end, bit_offset=8 * end, layout=layout))
                    end += layout.size
        return Record(size=end, members=tuple(members)) if members else None

    def _array(self, array: Array, path: str, offset: int) -> Layout | None:
        found = [self.of(array.element, path, offset + at * array.element.size) for at in range(array.count)]
        return None if found[0] is None else Array(element=found[0], count=array.count)


class _Sums:
    """Adds each integer up over the CPUs: exact for those of 1, 2 and 4 bytes, of 8 bytes modulo 2 to the 64."""

    def __init__(self, leaves: Sequence[_Leaf], info: MapInfo, byteorder: ByteOrder) -> None:
        slot = round_up8(info.value_size)
        self._cpus = info.slots()
        self._readers = [_reader(leaf, slot, byteorder) for leaf in leaves]
        self._signed = [leaf.layout.signed for leaf in leaves]
        letters = "".join("q" if signed else "Q" for signed in self._signed)
        self._pack = struct.Struct(ORDER[byteorder] + letters).pack

    def __call__(self, column: Buffer) -> bytes:
        sums = [
            self._added(reader, column, signed=signed)
            for reader, signed in zip(self._readers, self._signed, strict=True)
        ]
        return b"".join(map(self._pack, *sums))

    def _added(self, reader: struct.Struct, column: Buffer, *, signed: bool) -> list[int]:
        every = chain.from_iterable(reader.iter_unpack(column))
        low = -_WRAP // 2 if signed else 0
        return [(number - low) % _WRAP + low for number in map(sum, zip(*[every] * self._cpus, strict=True))]


def _reader(leaf: _Leaf, slot: int, byteorder: ByteOrder) -> struct.Struct:
    letter = _LETTERS[leaf.layout.size]
    fixed: ByteOrder = byteorder if leaf.layout.order == "host" else leaf.layout.order
    rest = slot - leaf.offset - leaf.layout.size
    return struct.Struct(
        f"{ORDER[fixed]}{leaf.offset}x{letter.lower() if leaf.layout.signed else letter}{rest}x"
    )
