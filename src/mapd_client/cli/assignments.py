"""``saddr=10.0.0.1,dport=443``: a struct by its fields, as one types it. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any, Final, TypeAlias, cast

from mapd_client.errors import Misuse
from mapd_client.layouts import Array, Boolean, Float, Integer, Layout, Pointer, Record

_FIELD: Final = re.compile(r"(?:^|,)([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)=")
"""A comma begins a field only where a name and "=" follow; any other belongs to the value before."""

Fields: TypeAlias = dict[str, "str | Fields"]


def is_fields(text: str) -> bool:
    """Whether it is written so."""
    return _FIELD.match(text) is not None


def from_fields(text: str, layout: Layout, hints: Container[str], path: str) -> dict[str, Any]:
    """What ``json.loads`` would have made of the same struct as JSON.

    Args:
        text: fields by their paths: ``addr.port=53``.
        layout: of the whole.
        hints: paths of fields whose text a codec reads.
        path: "key" or "value".

    Raises:
        Misuse: it is no struct; a field that is there twice; a value that is no number where one is due.
    """
    if not isinstance(layout, Record) or path in hints:
        raise Misuse(f"{text!r}: a {path} of this map has no fields")
    return cast("dict[str, Any]", _typed(_parsed(text), layout, hints, path))


def _parsed(text: str) -> Fields:
    found: Fields = {}
    marks = list(_FIELD.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True):
        *outer, last = mark[1].split(".")
        place = found
        for name in outer:
            inside = place.setdefault(name, {})
            if isinstance(inside, str):
                raise Misuse(f"{text!r}: {name} is given twice")
            place = inside
        if last in place:
            raise Misuse(f"{text!r}: {mark[1]} is given twice")
        place[last] = text[mark.end() : end]
    return found


def _typed(given: str | Fields, layout: Layout | None, hints: Container[str], path: str) -> Any:
    if isinstance(given, dict):
        members = {one.name: one.layout for one in layout.named()} if isinstance(layout, Record) else {}
        return {name: _typed(one, members.get(name), hints, f"{path}.{name}") for name, one in given.items()}
    if path in hints:
        return given
    try:
        match layout:
            case Integer() | Pointer():
                return int(given, 0)
            case Float():
                return float(given)
            case Boolean() | Array() | Record():
                return json.loads(given)
            case _:
                return given  # a string, an enum's name; a field that is not there, which is said later
    except (ValueError, RecursionError):
        return given  # the codec knows better what is wrong with it
