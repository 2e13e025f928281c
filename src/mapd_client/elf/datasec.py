"""Sections of variables as a loader fills them in: sizes and offsets that the compiler leaves to the linker. Sans-I/O.

clang writes size 0 and offsets 0 into every DATASEC; what they are, the section and the symbols say
(``btf_fixup_datasec()``, tools/lib/bpf/libbpf.c).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mapd_client.btf import Types, kinds
from mapd_client.codec import ORDER

_HEAD: Final = 12
_ENTRY: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A section: its size in bytes, and where each symbol in it lies."""

    size: int
    symbols: Mapping[str, int]


def filled_in(types: Types, sections: Mapping[str, Placed]) -> Types:
    """The same types with the sizes and offsets of ``sections``, variables in the order that they lie in.

    Sections that are not named, and variables without a symbol, stay as they are.
    """
    blob = bytearray(types.blob)
    order = ORDER[types.byteorder]
    # One walk: a search by name reads all strings of the blob, for each section.
    for at in range(1, len(types)):
        if types.kind(at) is not kinds.Datasec:
            continue
        found = types[at]
        assert isinstance(found, kinds.Datasec)
        if (section := sections.get(found.name)) is not None:
            entries: list[tuple[int, int, int]] = []
            for one in found.vars:
                variable = types[one.type]
                offset = section.symbols.get(getattr(variable, "name", ""), one.offset)
                entries.append((offset, one.type, one.size))
            begin = types.offset(at)
            struct.pack_into(f"{order}I", blob, begin + 8, section.size)
            for number, (offset, of, size) in enumerate(sorted(entries)):
                place = begin + _HEAD + _ENTRY * number
                struct.pack_into(f"{order}3I", blob, place, of, offset, size)
    return Types(bytes(blob))
