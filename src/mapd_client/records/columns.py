"""A layout compiled to a template: columns of bytes to JSON texts, a struct at a time. Sans-I/O.

All fields of an element are read by one call of the struct module and written by one ``%``. What cannot be read so
(bit-fields, members of unions, long arrays) is read as bytes, and its own template is filled from these.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

from mapd_client.codec import ORDER, Buffer, Codec
from mapd_client.errors import SizeMismatch
from mapd_client.info import ByteOrder
from mapd_client.layouts import Array, Boolean, Enumeration, Integer, Layout, Member, Record, Special
from mapd_client.records.scalars import (
    Cells,
    Convert,
    Leaf,
    Wide,
    enum_texts,
    hinted,
    number_template,
    scalar,
)
from mapd_client.typed.bits import Bits

_INLINE: Final = 64
"""Elements of an array that become fields of the template; longer ones have a template per element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a record is written by.

    Attributes:
        byteorder: of the daemon's host.
        wide: how integers of 8 bytes are written.
        hints: codecs by field path, bound.
    """

    byteorder: ByteOrder
    wide: Wide = "number"
    hints: Mapping[str, Codec[Any]] = field(default_factory=dict[str, "Codec[Any]"])


@dataclass(frozen=True, slots=True)
class _Part:
    """A template, and where its fields are read."""

    template: str
    leaves: Sequence[tuple[int, int, Leaf]]  # offset, size

    def at(self, offset: int) -> list[tuple[int, int, Leaf]]:
        return [(offset + start, size, leaf) for start, size, leaf in self.leaves]


class Column:
    """Texts of a column of elements, each of one layout.

    Args:
        layout: of one element.
        rules: how its fields are written.
        path: "key" or "value", for hints.
        slots: per-CPU values: a list of so many.
    """

    __slots__ = ("_converts", "_one", "_template", "size")

    def __init__(self, layout: Layout, rules: Rules, path: str, slots: int | None = None) -> None:
        part = _part(layout, rules, path)
        self.size = layout.size
        if slots is not None:
            stride = (layout.size + 7) // 8 * 8
            self.size = slots * stride
            part = _repeated(part, slots, stride)
        letters = [ORDER[rules.byteorder]]
        end = 0
        for offset, size, leaf in part.leaves:
            letters.append(f"{offset - end}x{leaf.letter}")
            end = offset + size
        self._one = struct.Struct("".join([*letters, f"{self.size - end}x"]))
        self._template = part.template
        self._converts: list[Convert | None] = [leaf.convert for _, _, leaf in part.leaves]

    def texts(self, column: Buffer, count: int) -> Iterable[str]:
        """The elements, ``count`` of them, as JSON.

        Raises:
            SizeMismatch: the column is of another size.
        """
        view = memoryview(column)
        if view.nbytes != count * self.size:
            raise SizeMismatch(f"{view.nbytes} bytes are not {count} elements of {self.size}")
        if not self.size:
            empty = (next(iter(_converted(convert, [b""]))) for convert in self._converts)
            return [self._template % tuple(empty)] * count
        rows = self._one.iter_unpack(view)
        if any(self._converts):
            columns = zip(*rows, strict=True)
            rows = zip(*map(_converted, self._converts, columns), strict=True)
        return map(self._template.__mod__, rows)


def _converted(convert: Convert | None, cells: Cells) -> Iterable[Any]:
    return cells if convert is None else convert(cells)


def _part(layout: Layout, rules: Rules, path: str) -> _Part:
    hint = rules.hints.get(path)
    of_elements = isinstance(layout, Array) and (hint is None or layout.element.size == hint.size)
    if hint is not None and hint.size == layout.size and not (of_elements and layout.size != hint.size):
        return _Part(*_leaf(hinted(hint, rules.wide), layout.size))
    if isinstance(layout, Array):
        return _array(layout, rules, path)
    if isinstance(layout, Record):
        return _record(layout, rules, path)
    return _Part(*_leaf(scalar(layout, rules.byteorder, rules.wide), layout.size))


def _leaf(leaf: Leaf, size: int) -> tuple[str, list[tuple[int, int, Leaf]]]:
    return leaf.template, [(0, size, leaf)]


def _array(layout: Array, rules: Rules, path: str) -> _Part:
    if layout.element.size and layout.count <= _INLINE:
        element = _part(layout.element, rules, path)
        if layout.count * len(element.leaves) <= 4 * _INLINE:
            return _repeated(element, layout.count, layout.element.size)
    if not layout.size:
        return _Part("[]", [])
    column = Column(layout.element, rules, path)

    def lists(cells: Cells) -> Iterable[str]:
        return [", ".join(column.texts(cell, layout.count)) for cell in cells]

    return _Part("[%s]", [(0, layout.size, Leaf(f"{layout.size}s", lists, "%s"))])


def _repeated(part: _Part, count: int, stride: int) -> _Part:
    leaves = [leaf for at in range(count) for leaf in part.at(at * stride)]
    return _Part(f"[{', '.join([part.template] * count)}]", leaves)


def _record(layout: Record, rules: Rules, path: str) -> _Part:
    members = [one for one in layout.named() if one.name and not isinstance(one.layout, Special)]
    texts: list[str] = []
    leaves: list[tuple[int, int, Leaf]] = []
    for cluster in _clusters(members, rules.byteorder):
        first, end = cluster[0][0], max(one[1] for one in cluster)
        member = cluster[0][2]
        if len(cluster) == 1 and member.bits is None:
            part = _part(member.layout, rules, f"{path}.{member.name}")
            texts.append(f"{_name(member)}: {part.template}")
            leaves += part.at(first)
        else:
            together = Leaf(f"{end - first}s", _sharing(cluster, first, rules, path), "%s")
            texts.append("%s")
            leaves.append((first, end - first, together))
    return _Part(f"{{{', '.join(texts)}}}", leaves)


def _name(member: Member) -> str:
    return quoted(member.name).replace("%", "%%")


_Spot = tuple[int, int, Member]
"""First byte, byte behind the last, member."""


def _clusters(members: Sequence[Member], byteorder: ByteOrder) -> list[list[_Spot]]:
    """The members in the order of their bytes, those together that share some."""
    spots: list[_Spot] = []
    for member in members:
        if member.bits is None:
            spots.append((member.offset, member.offset + member.layout.size, member))
        else:
            bits = Bits.of(member, member.bits, byteorder)
            spots.append((bits.first, bits.end, member))
    found: list[list[_Spot]] = []
    end = 0
    for spot in sorted(spots, key=lambda one: one[:2]):
        if found and spot[0] < end:
            found[-1].append(spot)
        else:
            found.append([spot])
        end = max(end, spot[1])
    return found


def _sharing(cluster: Sequence[_Spot], first: int, rules: Rules, path: str) -> Convert:
    """Members of a union, and bit-fields: each from its own slice of the same bytes."""
    names = [quoted(member.name) for _, _, member in cluster]
    readers = [_slice(spot, first, rules, path) for spot in cluster]

    def texts(cells: Cells) -> Iterable[str]:
        columns = [read(cells) for read in readers]
        return [
            ", ".join(f"{name}: {text}" for name, text in zip(names, row, strict=True))
            for row in zip(*columns, strict=True)
        ]

    return texts


def _slice(spot: _Spot, first: int, rules: Rules, path: str) -> Convert:
    start, end, member = spot[0] - first, spot[1] - first, spot[2]
    if member.bits is not None:
        return _bits(member, member.bits, start, end, rules)
    column = Column(member.layout, rules, f"{path}.{member.name}")

    def texts(cells: Cells) -> Iterable[str]:
        return column.texts(b"".join([cell[start:end] for cell in cells]), len(cells))

    return texts


def _bits(member: Member, width: int, start: int, end: int, rules: Rules) -> Convert:
    place = Bits.of(member, width, rules.byteorder)
    mask, sign = (1 << width) - 1, 1 << width - 1 if place.signed else 0

    def numbers(cells: Cells) -> list[int]:
        raw = [int.from_bytes(cell[start:end], rules.byteorder) >> place.shift & mask for cell in cells]
        return [(number ^ sign) - sign for number in raw] if sign else raw

    layout = member.layout
    if isinstance(layout, Boolean):
        return lambda cells: ["true" if number else "false" for number in numbers(cells)]
    if isinstance(layout, Enumeration):
        names = enum_texts(layout)
        return lambda cells: names(numbers(cells))
    assert isinstance(layout, Integer), "Bits.of refuses others"
    template = number_template(layout.size, rules.wide)
    return lambda cells: [template % number for number in numbers(cells)]
