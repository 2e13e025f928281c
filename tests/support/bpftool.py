"""What ``bpftool -j map dump`` says of a map, and where it differs from what was decoded here.

bpftool says some things in another way, or not at all. Each such case is one branch of ``_number`` and ``_text``, and
has a test by its name in tests/kernel/test_btf_notation.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Integer,
    Layout,
    Member,
    Opaque,
    Pointer,
    Record,
    Special,
    Text,
)

Pairs: TypeAlias = Sequence[tuple[str, Any]]
"""An object of bpftool's JSON: two anonymous members are both called ""."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One element as bpftool shows it.

    Attributes:
        key: bytes.
        formatted_key: by the BTF.
        formatted_values: by the BTF, one for each CPU of a per-CPU map.
    """

    key: bytes
    formatted_key: Any
    formatted_values: Sequence[Any]


def dump(map_id: int) -> list[Shown]:
    """All elements of a map with BTF.

    Raises:
        json.JSONDecodeError: bpftool wrote something else than JSON.
    """
    return parsed(raw_dump(map_id))


def raw_dump(map_id: int) -> bytes:
    """What bpftool writes."""
    command = ["bpftool", "-j", "map", "dump", "id", str(map_id)]
    return subprocess.run(command, capture_output=True, check=True).stdout


def parsed(output: bytes) -> list[Shown]:
    """The elements of bpftool's JSON."""
    found: list[Shown] = []
    for element in json.loads(output, object_pairs_hook=_Object):
        formatted = dict(cast("Pairs", dict(element)["formatted"]))
        values = (
            [dict(slot)["value"] for slot in formatted["values"]]
            if "values" in formatted
            else [formatted["value"]]
        )
        key = bytes(int(octet, 16) for octet in dict(element)["key"])
        found.append(Shown(key, formatted["key"], values))
    return found


class _Object(list[tuple[str, Any]]):
    """A JSON object with its members in their order, equal names included."""


def differences(layout: Layout, shown: Any, ours: Any, path: str) -> Iterator[str]:
    """The fields in which bpftool's reading differs from ours, each as "path: shown, ours".

    Args:
        layout: of both, by which bpftool's notation is understood; for a little-endian host.
        shown: as bpftool formats it.
        ours: as ``codec_of(layout)`` decodes it, or a mapping that it encodes. Of a union only the members that are
            in it are compared.
        path: of the field.
    """
    if isinstance(layout, Record):
        yield from _of_record(layout, shown, ours, path)
    elif isinstance(layout, Array):
        elements, decoded = _elements(shown), _elements(ours)
        if not len(elements) == len(decoded) == layout.count:
            yield f"{path}: {shown!r} is shown, {ours!r} decoded"
            return
        for at, (theirs, mine) in enumerate(zip(elements, decoded, strict=True)):
            yield from differences(layout.element, theirs, mine, f"{path}[{at}]")
    elif not isinstance(layout, Special):
        theirs, mine = (
            _text(shown, ours) if isinstance(layout, Text) else (_scalar(layout, shown, None), ours)
        )
        if type(theirs) is not type(mine) or theirs != mine:
            yield f"{path}: {shown!r} is shown, read as {theirs!r}; {mine!r} decoded"


def _elements(array: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", array) if isinstance(array, (list, tuple)) else ()


def _of_record(layout: Record, shown: Any, ours: Any, path: str) -> Iterator[str]:
    members = layout.members if layout.union else sorted(layout.members, key=_place)
    if not isinstance(shown, _Object) or [name for name, _ in shown] != [one.name for one in members]:
        yield f"{path}: {shown!r} is shown, its members are {[one.name for one in members]}"
        return
    fields = cast("Mapping[str, Any]", ours)
    for member, (_, theirs) in zip(members, shown, strict=True):
        here = f"{path}.{member.name}"
        if not member.name:
            # Its members are the outer's own: all of them, or none where a union has another one.
            inner = cast("Record", member.layout)
            names = [one.name for one in inner.named() if not isinstance(one.layout, Special)]
            if not (layout.union and names and not any(name in fields for name in names)):
                yield from differences(inner, theirs, ours, path)
        elif member.name not in fields:
            if not layout.union and not isinstance(member.layout, Special):
                yield f"{here}: {theirs!r} is shown, and not decoded"
        elif member.bits is None:
            yield from differences(member.layout, theirs, fields[member.name], here)
        else:
            mine, read = fields[member.name], _scalar(member.layout, theirs, member.bits)
            if type(read) is not type(mine) or read != mine:
                yield f"{here}: {theirs!r} is shown, read as {read!r}; {mine!r} decoded"


def _place(member: Member) -> int:
    return member.bit_offset if member.bits is not None else 8 * member.offset


def _text(shown: Any, ours: Any) -> tuple[Any, Any]:
    """A char array: a string where all before a NUL is printable ASCII, else the numbers of its signed chars.

    Of a string bpftool shows nothing behind the NUL, where our value is bytes if there is something. It writes a
    backslash as a newline, which no string of its own contains.
    """
    if isinstance(shown, str):
        mine = ours.partition(b"\0")[0].decode() if isinstance(ours, bytes) else ours
        return shown.replace("\n", "\\"), mine
    if not isinstance(shown, list):
        return shown, ours
    data = bytes(number & 0xFF for number in cast("list[int]", shown)).rstrip(b"\0")
    mine = ours.encode("utf-8", "surrogateescape") if isinstance(ours, str) else bytes(ours).rstrip(b"\0")
    return data, mine


def _scalar(layout: Layout, shown: Any, bits: int | None) -> Any:
    """The value that ``codec_of(layout)`` would read; ``shown`` itself where bpftool says something unexpected."""
    match layout:
        case Opaque():
            return bytes(_elements(shown)) if isinstance(shown, list) else shown
        case Boolean():
            if bits is not None and isinstance(shown, str):
                return bool(int(shown, 16))
            return shown
        case Integer() | Pointer() | Enumeration():
            return _number(layout, shown, bits)
        case _:
            return shown


def _number(layout: Integer | Pointer | Enumeration, shown: Any, bits: int | None) -> Any:
    """A number: of bit-fields and 16 bytes in hexadecimal without sign, of enums signed, or the name.

    Of an unsigned enum of 1 or 2 bytes bpftool does not find the names of numbers whose highest bit is set.
    bpftool takes no notice of ``__be32``: a number of a fixed byte order is shown as the host would read it.
    """
    signed = not isinstance(layout, Pointer) and layout.signed
    if isinstance(layout, Enumeration) and isinstance(shown, str) and not shown.startswith("0x"):
        return shown
    if isinstance(shown, bool) or not isinstance(shown, (int, str)):
        return shown
    if isinstance(shown, str) != (bits is not None or layout.size == 16):
        return shown
    number = int(shown, 16) if isinstance(shown, str) else shown
    width = 8 * layout.size if bits is None else bits
    if isinstance(shown, str) or isinstance(layout, Enumeration):
        number &= (1 << width) - 1
        number = number - (1 << width) if signed and number >> width - 1 else number
    if layout.order == "big" and bits is None:
        number = int.from_bytes(number.to_bytes(layout.size, "little", signed=signed), "big", signed=signed)
    if isinstance(layout, Enumeration):
        unfound = not signed and layout.size < 4 and number >> width - 1
        named = isinstance(shown, str) or unfound
        return next((name for name, value in layout.members if value == number and named), number)
    return number
