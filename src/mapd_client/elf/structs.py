"""Section ``maps``: one C struct for each map, read as words. What samples/bpf and tc have in common. Sans-I/O."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mapd_client.codec import ORDER
from mapd_client.elf.image import LOCAL, NOBITS, NOTYPE, OBJECT, Image, Section, Symbol

SECTION_NAME: Final = "maps"
MAPS_MAX: Final = 256
"""Maps of one object that are read; samples/bpf stops at 32, tc at 64."""

_SMALLEST: Final = 16
"""Bytes of the first ``struct bpf_map_def``: type, key_size, value_size, max_entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Structs:
    """The structs of section ``maps``.

    Attributes:
        image: the object.
        size: bytes of each.
        names: of their symbols, in the order that they lie in.
        words: of each, size / 4 of them.
    """

    image: Image
    size: int
    names: Sequence[str]
    words: Sequence[Sequence[int]]


def read_structs(image: Image, section: Section) -> Structs:
    """The structs, each with its symbol.

    All are of one size: the section's, divided by the number of its symbols. That is how loaders find it, for the
    symbols of old compilers have no size.

    Raises:
        BadObject: symbols that are local, of one place, outside or between structs; words that have no symbol.
    """
    if section.type == NOBITS:
        raise image.bad("it has no bytes in the file", section=section.name)
    raw = image.bytes_of(section)
    symbols = _symbols(image, section)
    size = _size(image, section, symbols)
    for at, one in enumerate(symbols):
        if one.value != at * size:
            raise image.bad(
                f"it lies at byte {one.value}, the struct of {size} bytes before it ends at {at * size}: "
                "all structs of an object have one size, and each has its symbol",
                section=section.name,
                symbol=one.name,
                number=one.value,
            )
        if one.size not in (0, size):
            raise image.bad(
                f"it has {one.size} bytes, and the section {len(raw)} bytes for {len(symbols)} maps, {size} each",
                section=section.name,
                symbol=one.name,
                number=one.size,
            )
    words = list(struct.iter_unpack(f"{ORDER[image.byteorder]}{size // 4}I", raw))
    return Structs(image=image, size=size, names=[one.name for one in symbols], words=words)


def _symbols(image: Image, section: Section) -> list[Symbol]:
    found: list[Symbol] = []
    for one in image.symbols_in(section):
        if one.type not in (OBJECT, NOTYPE):
            raise image.bad(
                f"a symbol of type {one.type}; maps are variables (type {OBJECT})",
                section=section.name,
                symbol=one.name,
                number=one.type,
            )
        if one.binding == LOCAL or not one.name:
            raise image.bad(
                "a local symbol: loaders look for global ones, so do not declare a map static",
                section=section.name,
                symbol=one.name,
                number=one.value,
            )
        found.append(one)
        if len(found) > MAPS_MAX:
            raise image.bad(f"more than {MAPS_MAX} maps", section=section.name, number=len(found))
    found.sort(key=lambda one: (one.value, one.name))
    names: set[str] = set()
    for before, one in zip([None, *found], found, strict=False):
        if before is not None and before.value == one.value:
            raise image.bad(
                f"it lies at byte {one.value}, where {before.name!r} lies: two names for one struct",
                section=section.name,
                symbol=one.name,
                number=one.value,
            )
        if one.name in names:
            raise image.bad("there are two maps of this name", section=section.name, symbol=one.name)
        names.add(one.name)
    return found


def _size(image: Image, section: Section, symbols: Sequence[Symbol]) -> int:
    if not symbols:
        raise image.bad(
            f"{section.size} bytes and no symbol: maps have no names; do not strip the object",
            section=section.name,
            number=section.size,
        )
    last = symbols[-1]
    if last.value >= section.size or last.value + last.size > section.size:
        raise image.bad(
            f"bytes {last.value} to {last.value + last.size}, the section has {section.size}",
            section=section.name,
            symbol=last.name,
            number=last.value,
        )
    size, left = divmod(section.size, len(symbols))
    if left or size % 4 or size < _SMALLEST:
        raise image.bad(
            f"{section.size} bytes for {len(symbols)} maps ({', '.join(one.name for one in symbols[:8])}): "
            f"that is no whole number of words, {_SMALLEST} bytes or more, for each; is one without a symbol?",
            section=section.name,
            number=section.size,
        )
    return size
