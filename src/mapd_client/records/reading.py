"""A record's key or value back from JSON: what ``codec_of`` takes. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from mapd_client.codec import Codec
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import Array, Enumeration, Float, Integer, Layout, Opaque, Pointer, Record, Text
from mapd_client.typed.naming import nearest


def from_json(layout: Layout, value: Any, hints: Mapping[str, Codec[Any]], path: str) -> Any:
    """What a codec of ``layout`` encodes to the bytes that were written so.

    Integers are taken as numbers and as strings of digits ("0x2a" too), bytes as hex digits.

    Raises:
        TypeMismatch: a string that is neither; the message names the field.
    """
    hint = hints.get(path)
    if hint is not None and hint.size == layout.size:
        return value
    match layout, value:
        case ((Integer() | Pointer()), str()):
            return _number(value, path, f"; where it is an address or a name, a hint says so: {path}=ipv4")
        case Enumeration(), str() if value not in dict(layout.members):
            return _number(value, path, ", and no name of this enum: " + nearest(value, dict(layout.members)))
        case Opaque(), str():
            return _bytes(value, path)
        case Float(), None:
            return float("nan")
        case Text(), str():
            return value
        case Array(), list():
            return [from_json(layout.element, one, hints, path) for one in cast("Sequence[Any]", value)]
        case Record(), dict():
            fields = cast("dict[str, Any]", value)
            known = {member.name: member.layout for member in layout.named()}
            return {
                name: from_json(known[name], one, hints, f"{path}.{name}") if name in known else one
                for name, one in fields.items()
            }
        case _:
            return value


def _number(text: str, path: str, otherwise: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise TypeMismatch(f"{path}: {text!r} is no number{otherwise}") from None


def _bytes(text: str, path: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x").removeprefix("hex:"))
    except ValueError:
        raise TypeMismatch(f"{path}: {text!r}: two hex digits for each byte") from None
