"""How one field is written as JSON: what the struct module reads, and the text of it. Sans-I/O.

One field always has one JSON type, whatever its value: consumers that make columns of it need that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from math import isfinite
from typing import Any, Final, Literal, TypeAlias, cast

from mapd_client.codec import ORDER, Buffer, Codec, Int
from mapd_client.info import ByteOrder
from mapd_client.layouts import (
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Order,
    Pointer,
    Text,
)

Wide: TypeAlias = Literal["number", "string"]
"""How integers of 8 bytes are written: jq before 1.7 and JavaScript round numbers beyond 2 to the 53rd."""

Cells: TypeAlias = Sequence[Any]
Convert: TypeAlias = Callable[[Cells], Iterable[Any]]

_LETTERS: Final[Mapping[tuple[int, bool], str]] = {
    (1, False): "B", (1, True): "b",
    (2, False): "H", (2, True): "h",
    (4, False): "I", (4, True): "i",
    (8, False): "Q", (8, True): "q",
}  # fmt: skip
_FLOATS: Final = {2: "e", 4: "f", 8: "d"}
_BOOLS: Final = ("false", "true")
_WIDE_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field.

    Attributes:
        letter: what the struct module reads it as.
        convert: a column of what was read to a column of what ``template`` takes; None: as it was read.
        template: "%d" or "%s", with what is around it.
    """

    letter: str
    convert: Convert | None
    template: str


def number_template(size: int, wide: Wide) -> str:
    """An integer of that many bytes."""
    return '"%d"' if size > _WIDE_BYTES or (size == _WIDE_BYTES and wide == "string") else "%d"


def scalar(layout: Layout, byteorder: ByteOrder, wide: Wide) -> Leaf:
    """A field that has no parts; what is none of the known is bytes, as hex digits."""
    match layout:
        case Integer():
            template = number_template(layout.size, wide)
            return _number(layout.size, layout.order, byteorder, template, None, signed=layout.signed)
        case Pointer():
            return _number(layout.size, layout.order, byteorder, '"0x%x"', None, signed=False)
        case Boolean():
            return _number(layout.size, layout.order, byteorder, "%s", _truths, signed=False)
        case Enumeration():
            names = enum_texts(layout)
            return _number(layout.size, layout.order, byteorder, "%s", names, signed=layout.signed)
        case Float() if layout.size in _FLOATS:
            return _float(layout, byteorder)
        case Text():
            return Leaf(f"{layout.size}s", _texts, "%s")
        case _:
            return Leaf(f"{layout.size}s", _hexes, '"%s"')


def _number(
    size: int,
    order: Order,
    byteorder: ByteOrder,
    template: str,
    convert: Callable[[Iterable[int]], Iterable[Any]] | None,
    *,
    signed: bool,
) -> Leaf:
    letter = _LETTERS.get((size, signed))
    fixed: ByteOrder = byteorder if order == "host" else order
    if letter is not None and (fixed == byteorder or size == 1):
        return Leaf(letter, convert, template)

    def numbers(cells: Cells) -> Iterable[Any]:
        found: Iterable[int]
        if letter is None:
            found = [int.from_bytes(cell, fixed, signed=signed) for cell in cells]
        else:
            found = struct.unpack(f"{ORDER[fixed]}{len(cells)}{letter}", b"".join(cells))
        return found if convert is None else convert(found)

    return Leaf(f"{size}s", numbers, template)


def enum_texts(layout: Enumeration) -> Callable[[Iterable[int]], Iterable[str]]:
    """Names as JSON strings; the digits where a value has none. The first of two names of a value."""
    known: dict[int, str] = {}
    for name, value in layout.members:
        known.setdefault(value, quoted(name))

    def named(cells: Iterable[int]) -> Iterable[str]:
        return [known.get(cell) or f'"{cell}"' for cell in cells]

    return named


def _truths(cells: Iterable[int]) -> Iterable[str]:
    return [_BOOLS[cell != 0] for cell in cells]


def _float(layout: Float, byteorder: ByteOrder) -> Leaf:
    def numbers(cells: Cells) -> Iterable[str]:
        fixed: ByteOrder = byteorder if layout.order == "host" else layout.order
        letter = _FLOATS[layout.size]
        found = struct.unpack(f"{ORDER[fixed]}{len(cells)}{letter}", b"".join(cells))
        return [repr(number) if isfinite(number) else "null" for number in found]

    return Leaf(f"{layout.size}s", numbers, "%s")


def text_of(data: bytes) -> str:
    """What C reads of a char array; a byte that is not UTF-8 becomes its escape: backslash, x, two digits."""
    return data.partition(b"\0")[0].decode("utf-8", "backslashreplace")


def _texts(cells: Cells) -> Iterable[str]:
    return [quoted(text_of(cell)) for cell in cells]


def _hexes(cells: Cells) -> Iterable[str]:
    size = len(cells[0])
    return b"".join(cells).hex("\n", size).split("\n") if size else [""] * len(cells)


def hinted(codec: Codec[Any], wide: Wide) -> Leaf:
    """A field that a hint gave a codec, which is bound: a string, but for integers."""
    if isinstance(codec, Int):
        return Leaf(
            f"{codec.size}s",
            lambda cells: codec.decode_many(b"".join(cells)),
            number_template(codec.size, wide),
        )

    def texts(cells: Cells) -> Iterable[str]:
        return [quoted(said(value)) for value in codec.decode_many(b"".join(cells))]

    return Leaf(f"{codec.size}s", texts, "%s")


def said(value: object) -> str:
    """A decoded value as a string: datetimes by ISO 8601, bytes as hex digits, all else as Python writes it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(cast("Buffer", value)).hex()
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return str(value) if isoformat is None else isoformat()
