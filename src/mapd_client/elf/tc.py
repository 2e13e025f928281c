"""``struct bpf_elf_map`` in section ``maps``, as iproute2 reads it (include/bpf_elf.h, lib/bpf_legacy.c). Sans-I/O.

Words, u32: type, size_key, size_value, max_elem, then

* 20 bytes (April 2015): id
* 24 bytes (November 2015): id, pinning, at first a u8 with three bytes of padding
* 28 bytes (2016): flags, id, pinning
* 36 bytes (2017): flags, id, pinning, inner_id, inner_idx

iproute2 of today reads shorter structs as the beginning of the newest, so it takes the id of 2015 for flags; here
they are read as they were written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from mapd_api.uapi import OBJ_NAME_LENGTH, MapType
from mapd_client.elf.annotations import annotated
from mapd_client.elf.declared import Declared, Pinning, Slot
from mapd_client.elf.samples import OUTER
from mapd_client.elf.structs import SECTION_NAME, Structs
from mapd_client.errors import Misuse

FIELDS: Final[Mapping[int, Sequence[str]]] = {
    16: (),
    20: ("id",),
    24: ("id", "pinning"),
    28: ("flags", "id", "pinning"),
    32: ("flags", "id", "pinning", "inner_id"),
    36: ("flags", "id", "pinning", "inner_id", "inner_idx"),
}
"""What follows type, size_key, size_value, max_elem; 16 and 32 bytes nobody released, and tc takes them."""

TAIL_CALL: Final = re.compile(r"(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,9})", re.ASCII)
"""A section's name: the program goes into the PROG_ARRAY of that id, at that index."""

_NOT_INSERTED: Final = 0xFFFF_FFFF
"""inner_idx -1."""

_PIN_OBJECT_NS: Final = 1
_PIN_GLOBAL_NS: Final = 2


def read_pinnings(text: str) -> dict[int, str]:
    """``/etc/iproute2/bpf_pinning``: which number of a map's ``pinning`` means which folder.

    Lines are "NUMBER SUBPATH"; '#' begins a comment.

    Raises:
        Misuse: another line, with its number; a number below 3, which are tc's own.
    """
    found: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            at = int(words[0], 0)
        except ValueError:
            at = -1
        if len(words) != 2 or at <= _PIN_GLOBAL_NS:
            raise Misuse(
                f"bpf_pinning, line {number}: {line.strip()[:80]!r}; a line is a number of 3 or more, and a subpath"
            )
        found[at] = words[1]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Map:
    """One struct as it was written."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    id: int = 0
    pinning: int = 0
    inner_id: int = 0
    inner_idx: int = 0


def declared(
    structs: Structs, programs: Sequence[str], pinnings: Mapping[int, str], notes: list[str]
) -> Sequence[Declared]:
    """The maps; tail calls and inner maps as slots.

    Args:
        structs: as they lie in the section.
        programs: names of the program sections.
        pinnings: folders of custom numbers (``read_pinnings``); a number that it lacks means not pinned, as for tc.
        notes: gets a sentence for each such number.

    Raises:
        BadObject: a size that tc does not know; an outer map whose ``inner_id`` is no other map's ``id``, or several's.
    """
    image = structs.image
    fields = FIELDS.get(structs.size)
    if fields is None:
        raise image.bad(
            f"structs of {structs.size} bytes; struct bpf_elf_map has {', '.join(map(str, FIELDS))}, longer ones are "
            "of a version to come",
            section=SECTION_NAME,
            number=structs.size,
        )
    maps = [
        _written(structs, name, words, fields)
        for name, words in zip(structs.names, structs.words, strict=True)
    ]
    sha: Final = sha1(image.data, usedforsecurity=False).hexdigest()
    inserted = _inserted(maps)
    called = _called(programs)
    found: list[Declared] = []
    for index, one in enumerate(maps):
        pinning, pin = _pin(one, sha, pinnings, notes)
        slots = inserted.get(one.inner_id, ()) if one.type in OUTER and one.inner_id else ()
        if one.type == MapType.PROG_ARRAY:
            slots = called.get(one.id, ())
        key_type_id, value_type_id = annotated(image, one.name, one.key_size, one.value_size, notes)
        found.append(
            Declared(
                name=one.name,
                kernel_name=one.name[:OBJ_NAME_LENGTH],
                index=index,
                type=one.type,
                key_size=one.key_size,
                value_size=one.value_size,
                max_entries=one.max_entries,
                flags=one.flags,
                pinning=pinning,
                pin=pin,
                inner=_template(structs, maps, one) if one.type in OUTER else None,
                slots=tuple(
                    Slot(key=key.to_bytes(4, image.byteorder), map=place, program=program)
                    for key, place, program in slots
                ),
                inserts=bool(slots),
                key_type_id=key_type_id,
                value_type_id=value_type_id,
            )
        )
    return found


def _written(structs: Structs, name: str, words: Sequence[int], fields: Sequence[str]) -> _Map:
    more = dict(zip(fields, words[4:], strict=True))
    pinning = more.get("pinning", 0)
    if structs.size == 24 and pinning > 0xFF:
        # The first struct of 24 bytes: a u8, and padding that need not be zero.
        more["pinning"] = pinning >> 24 if structs.image.byteorder == "big" else pinning & 0xFF
    return _Map(
        name=name, type=words[0], key_size=words[1], value_size=words[2], max_entries=words[3], **more
    )


def _inserted(maps: Sequence[_Map]) -> dict[int, list[tuple[int, int | None, str]]]:
    """By ``id``: what goes into every outer map that has it as its ``inner_id``."""
    found: dict[int, list[tuple[int, int | None, str]]] = {}
    for place, one in enumerate(maps):
        if one.id and not one.inner_id and one.inner_idx != _NOT_INSERTED:
            found.setdefault(one.id, []).append((one.inner_idx, place, ""))
    return found


def _called(programs: Sequence[str]) -> dict[int, list[tuple[int, int | None, str]]]:
    """By ``id`` of a PROG_ARRAY: its tail calls."""
    found: dict[int, list[tuple[int, int | None, str]]] = {}
    for program in programs:
        if call := TAIL_CALL.fullmatch(program):
            of, key = int(call[1]), int(call[2])
            if key <= 0xFFFF_FFFF:
                found.setdefault(of, []).append((key, None, program))
    return found


def _template(structs: Structs, maps: Sequence[_Map], outer: _Map) -> int:
    """The first map of that id is the template, as for tc; several may be inserted."""
    for place, one in enumerate(maps):
        if outer.inner_id and one.id == outer.inner_id and one is not outer and one.type not in OUTER:
            return place
    raise structs.image.bad(
        f"inner_id {outer.inner_id}: a map of maps names its template by the id of another map, no map of maps; "
        f"ids are {', '.join(f'{one.id} ({one.name})' for one in maps[:16] if one.id) or 'not given'}",
        section=SECTION_NAME,
        symbol=outer.name,
        number=outer.inner_id,
    )


def _pin(one: _Map, sha: str, pinnings: Mapping[int, str], notes: list[str]) -> tuple[Pinning, str]:
    """How it is pinned, and where below the bpffs."""
    if one.pinning == 0:
        return "none", ""
    if one.pinning == _PIN_OBJECT_NS:
        return "object", f"tc/{sha}/{one.name}"
    if one.pinning == _PIN_GLOBAL_NS:
        return "global", f"tc/globals/{one.name}"
    if one.pinning in pinnings:
        # tc writes MNT/tc/../SUBPATH.
        return "custom", f"{pinnings[one.pinning].strip('/')}/{one.name}"
    notes.append(
        f"{one.name}: pinning {one.pinning} is not in the list of custom pinnings, so the map is not pinned; "
        "/etc/iproute2/bpf_pinning has such a list"
    )
    return "custom", ""
