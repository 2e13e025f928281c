"""The JSON Schema of one map's records, for programs that check or generate. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mapd_client.codec import Codec, Int
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Pointer,
    Record,
    Special,
    Text,
)
from mapd_client.records.scalars import Wide, number_template

VERSION: Final = 1
"""Of the record schema; a change that old readers would misread makes a new one."""

_HEX: Final = "^([0-9a-f]{2}){%d}$"
_FLOAT_SIZES: Final = (2, 4, 8)


def schema_of(
    key: Layout,
    value: Layout,
    *,
    hints: Mapping[str, Codec[Any]],
    wide: Wide,
    slots: int | None,
) -> dict[str, Any]:
    """The schema of ``{"key": ..., "value": ...}``; ``slots``: of a per-CPU map's values."""
    making = _Making(hints, wide)
    of_value = making.schema(value, "value")
    if slots is not None:
        of_value = _list(of_value, slots)
        of_value["description"] = "one for each possible CPU, CPU 0 first"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"mapd record, version {VERSION}",
        **_object({"key": making.schema(key, "key"), "value": of_value}),
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(items: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {"type": "array", "items": dict(items), "minItems": count, "maxItems": count}


class _Making:
    def __init__(self, hints: Mapping[str, Codec[Any]], wide: Wide) -> None:
        self._hints = hints
        self._wide: Wide = wide

    def schema(self, layout: Layout, path: str) -> dict[str, Any]:
        hint = self._hints.get(path)
        if hint is not None and hint.size == layout.size:
            if isinstance(hint, Int):
                return self._integer(hint.size, 8 * hint.size, signed=hint.signed)
            return {"type": "string", "description": repr(hint)}
        match layout:
            case Integer():
                return self._integer(layout.size, 8 * layout.size, signed=layout.signed)
            case Boolean():
                return {"type": "boolean"}
            case Float() if layout.size in _FLOAT_SIZES:
                return {"type": ["number", "null"], "description": "null: not a number, or infinite"}
            case Pointer():
                return {"type": "string", "pattern": "^0x[0-9a-f]+$"}
            case Enumeration():
                names = list(dict.fromkeys(name for name, _ in layout.members))
                number = {"type": "string", "pattern": "^-?[0-9]+$"}
                return {"anyOf": [{"enum": names}, number]} if names else number
            case Text():
                return {"type": "string"}
            case Array():
                return _list(self.schema(layout.element, path), layout.count if layout.element.size else 0)
            case Record():
                return self._record(layout, path)
            case _:
                return {"type": "string", "pattern": _HEX % layout.size}

    def _integer(self, size: int, bits: int, *, signed: bool) -> dict[str, Any]:
        if number_template(size, self._wide) != "%d":
            return {"type": "string", "pattern": "^-?[0-9]+$" if signed else "^[0-9]+$"}
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return {"type": "integer", "minimum": low, "maximum": high}

    def _record(self, layout: Record, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for member in layout.named():
            if not member.name or isinstance(member.layout, Special):
                continue
            if member.bits is not None and isinstance(member.layout, Integer):
                of_member = self._integer(member.layout.size, member.bits, signed=member.layout.signed)
            else:
                of_member = self.schema(member.layout, f"{path}.{member.name}")
            found[member.name] = of_member
        return _object(found)
