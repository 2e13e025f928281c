"""One field of a layout by its path: ``stats.packets``, ``hist[3]``. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mapd_client.codec import shown
from mapd_client.errors import Misuse
from mapd_client.layouts import Array, Layout, Member, Record
from mapd_client.typed.naming import nearest

_STEP: Final = re.compile(r"(?P<dot>\.?)(?P<name>[^.\[\]]+)|\[(?P<index>[0-9]{1,19})\]")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a value.

    Attributes:
        offset: bytes from the value's beginning; of a bit-field, of its first bit's byte.
        layout: what is there; of a bit-field, its declared type.
        bits: width of a bit-field; None for other parts.
    """

    offset: int
    layout: Layout
    bits: int | None = None


def find(layout: Layout, path: str) -> Part:
    """The part of a value that ``path`` leads to; "" is all of it.

    Raises:
        Misuse: it leads nowhere; the message names what was probably meant.
    """
    here, at = Part(0, layout), 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None or bool(step["dot"]) != (at > 0 and step["index"] is None):
            raise Misuse(f"{path!r} is no path of a field, like 'stats.packets' or 'hist[3]'")
        before = path[:at] or "the value"
        here = (
            _element(here, int(step["index"]), before)
            if step["index"]
            else _member(here, step["name"], before)
        )
        at = step.end()
    return here


def _element(part: Part, index: int, before: str) -> Part:
    array = part.layout
    if not isinstance(array, Array):
        raise Misuse(f"{before} is {kind(array)}, which has no elements")
    if index >= array.count:
        raise Misuse(f"{before}[{shown(index)}]: it has {array.count} elements, from 0 on")
    return Part(part.offset + index * array.element.size, array.element)


def _member(part: Part, name: str, before: str) -> Part:
    record = part.layout
    if isinstance(record, Array):
        raise Misuse(f"{before} is an array; say which of its {record.count} elements: {before}[0].{name}")
    if not isinstance(record, Record):
        raise Misuse(f"{before} is {kind(record)}, which has no field {name!r}")
    members: dict[str, Member] = {}
    for one in record.named():
        members.setdefault(one.name, one)
    found = members.get(name) if name else None
    if found is None:
        raise Misuse(f"{before} has no field {name!r}: {nearest(name, filter(None, members))}")
    return Part(part.offset + found.offset, found.layout, found.bits)


def kind(layout: Layout) -> str:
    """What it is, for messages: "a struct stats", "a __u8"."""
    if isinstance(layout, Record):
        return f"a {'union' if layout.union else 'struct'} {layout.type_name}".rstrip()
    name = layout.type_name or type(layout).__name__.lower()
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"
