"""The layouts that Python programs have already: dataclasses, ctypes classes, struct formats, codecs. Sans-I/O."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeGuard, cast, get_args, get_origin, get_type_hints

from mapd_client.classes_foreign import foreign, is_foreign
from mapd_client.classes_formats import Placed, layout_of_codec, layout_of_format, natural, placed
from mapd_client.codec import Codec
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import (
    Array,
    Boolean,
    Enumeration,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Pointer,
    Record,
    Special,
    Text,
)
from mapd_client.netcodec import Cidr4, Cidr6, Ipv4, Ipv6

_LAYOUTS: Final = (
    Integer,
    Boolean,
    Float,
    Pointer,
    Enumeration,
    Text,
    Array,
    Record,
    Special,
    Opaque,
)
_ADDRESSES: Final[Mapping[type, Codec[Any]]] = MappingProxyType(
    {
        IPv4Address: Ipv4,
        IPv6Address: Ipv6,
        IPv4Network: Cidr4,
        IPv6Network: Cidr6,
    }
)
"""Types that lie in memory in one way only."""

_INT_BYTES: Final = 4
"""Of an enum that says nothing else, as in C."""

_FLOAT_SIZES: Final = (2, 4, 8)


def layout_of(thing: object) -> Layout:
    """The layout of one key or value, from whatever says it.

    A **dataclass** is a C struct with natural alignment. Its fields say their C types:

    * ``Annotated[int, U32]``: any codec; ``Annotated[IPv4Address, Ipv4]``, or ``IPv4Address`` alone;
    * another dataclass, a ctypes.Structure, or ``Annotated[Any, layout]``;
    * an ``enum.IntEnum`` class: an int, or of another size by ``Annotated[Proto, U8]``;
    * ``bool`` (1 byte), ``float`` (8 bytes, ``Annotated[float, 4]`` for another size);
    * ``Annotated[str, 16]``: a char array; ``Annotated[bytes, 6]``: six bytes;
    * ``Annotated[list[int], U32, 4]`` and ``Annotated[list[Point], 4]``: arrays; with two numbers arrays of arrays.

    A **ctypes.Structure** or **Union** is what ctypes makes of it, with its packing, bit-fields and byte order. A
    **struct format** ("<IQ") is a struct of fields f0, f1 ..., or the one field that it has. A **codec** is what it
    encodes to, of a per-CPU codec one CPU's slot; of a codec of one's own its attribute ``layout``, or as many opaque
    bytes as it has. A layout is itself.

    Raises:
        TypeMismatch: a type that does not say how it lies in memory; the message names the field.
    """
    return _placed(thing, _name_of(thing)).layout


def _name_of(thing: object) -> str:
    return thing.__name__ if isinstance(thing, type) else "layout"


def _placed(thing: object, path: str) -> Placed:
    if isinstance(thing, _LAYOUTS):
        return placed(thing)
    if _is_codec(thing):
        return placed(layout_of_codec(thing))
    if isinstance(thing, str):
        return placed(layout_of_format(thing))
    found = _of_hint(thing, path, ())
    if found is None:
        raise TypeMismatch(
            f"{path}: {thing!r} says no layout: a dataclass, ctypes.Structure, struct format, codec or layout does"
        )
    return found


def _is_codec(thing: object) -> TypeGuard[Codec[Any]]:
    return isinstance(thing, Codec)


def _dataclass(kind: type, path: str, outer: tuple[type, ...]) -> Placed:
    if kind in outer:
        raise TypeMismatch(f"{path}: {kind.__name__} contains itself")
    try:
        hints = get_type_hints(kind, include_extras=True)
    except (NameError, TypeError) as error:
        raise TypeMismatch(f"{path}: the types of its fields cannot be resolved: {error}") from None
    members: list[Member] = []
    end, widest = 0, 1
    for field in dataclasses.fields(kind):
        here = f"{path}.{field.name}"
        found = _of_hint(hints[field.name], here, (*outer, kind))
        if found is None:
            raise TypeMismatch(f"{here}: {_shown(hints[field.name])} {_advice(hints[field.name])}")
        offset = natural(end, found.align)
        members.append(Member(name=field.name, offset=offset, layout=found.layout, bit_offset=8 * offset))
        end, widest = offset + found.layout.size, max(widest, found.align)
    record = Record(size=natural(end, widest), members=tuple(members), type_name=kind.__name__)
    return Placed(record, widest)


def _of_hint(hint: object, path: str, outer: tuple[type, ...]) -> Placed | None:
    """The layout of a field's type; None where it says none."""
    if get_origin(hint) is not Annotated:
        return _of_type(hint, path, outer)
    base, *marks = get_args(hint)
    said: list[object] = [mark for mark in marks if isinstance(mark, (Codec, str, *_LAYOUTS))]
    counts = [mark for mark in marks if isinstance(mark, int) and not isinstance(mark, bool)]
    if any(count < 0 for count in counts):
        raise TypeMismatch(f"{path}: {counts} are no numbers of elements")
    if said and len(said) > 1:
        raise TypeMismatch(f"{path}: it says two layouts, {said[0]!r} and {said[1]!r}")
    if _is_sequence(base):
        return _array(base, said, counts, path, outer)
    if said:
        return _said(base, said[0], counts, path)
    if len(counts) == 1 and isinstance(base, type):
        return _sized(base, counts[0], path)
    return None if counts else _of_type(base, path, outer)


def _said(base: object, mark: object, counts: Sequence[int], path: str) -> Placed:
    """A field that brings a codec, a format or a layout."""
    if counts:
        raise TypeMismatch(f"{path}: an array is a list: Annotated[list[...], {mark!r}, {counts[0]}]")
    found = _placed(mark, path)
    if isinstance(base, type) and issubclass(base, enum.IntEnum):
        if not isinstance(found.layout, Integer):
            raise TypeMismatch(f"{path}: {base.__name__} is an integer, and {mark!r} is none")
        return Placed(_enumeration(base, found.layout, path), found.align)
    return found


def _of_type(hint: object, path: str, outer: tuple[type, ...]) -> Placed | None:
    if not isinstance(hint, type):
        return None
    kind = cast("type[object]", hint)
    if kind in _ADDRESSES:
        return placed(layout_of_codec(_ADDRESSES[kind]))
    if kind is bool:
        return placed(Boolean(type_name="_Bool"))
    if kind is float:
        return placed(Float(size=8, type_name="double"))
    if issubclass(kind, enum.IntEnum):
        numbers = [int(member) for member in kind]
        signed = min(numbers, default=0) < 0
        return placed(_enumeration(kind, Integer(size=_INT_BYTES, signed=signed), path))
    if is_foreign(kind):
        return foreign(kind, path)
    return _dataclass(kind, path, outer) if dataclasses.is_dataclass(kind) else None


def _sized(base: type, size: int, path: str) -> Placed | None:
    """``Annotated[str, 16]`` and the like: a type whose number of bytes is all that is missing."""
    if base is str:
        return placed(Text(size=size))
    if base is bytes:
        return placed(Opaque(size=size))
    if base is float:
        if size not in _FLOAT_SIZES:
            raise TypeMismatch(f"{path}: a float has 2, 4 or 8 bytes, not {size}")
        return placed(Float(size=size, type_name={2: "_Float16", 4: "float", 8: "double"}[size]))
    return None


def _is_sequence(hint: object) -> bool:
    return get_origin(hint) in (list, tuple, Sequence) or hint is list or hint is tuple


def _array(
    hint: object, said: Sequence[object], counts: Sequence[int], path: str, outer: tuple[type, ...]
) -> Placed:
    """``Annotated[list[int], U32, 4]``: the innermost type is the element's, unless a codec says it."""
    levels, inner = 0, hint
    while _is_sequence(inner):
        arguments = [one for one in get_args(inner) if one is not Ellipsis]
        inner = arguments[0] if arguments else None
        levels += 1
    if len(counts) != levels:
        raise TypeMismatch(
            f"{path}: {_shown(hint)} has {levels} dimensions, {len(counts)} are counted: write Annotated[list[int], "
            "U32, 4]"
        )
    element = _said(inner, said[0], (), f"{path}[0]") if said else _of_hint(inner, f"{path}[0]", outer)
    if element is None:
        raise TypeMismatch(f"{path}[0]: {_shown(inner)} {_advice(inner)}")
    layout = element.layout
    for count in reversed(counts):
        layout = Array(element=layout, count=count)
    return Placed(layout, element.align)


def _enumeration(kind: type[enum.IntEnum], number: Integer, path: str) -> Enumeration:
    """An enum of that integer's bytes; aliases are names too."""
    bits = 8 * number.size
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if number.signed else (0, (1 << bits) - 1)
    for name, member in kind.__members__.items():
        if not low <= int(member) <= high:
            raise TypeMismatch(
                f"{path}: {kind.__name__}.{name} is {int(member)}, and {number.size} bytes hold {low} to {high}"
            )
    members = tuple((name, int(member)) for name, member in kind.__members__.items())
    return Enumeration(
        size=number.size,
        signed=number.signed,
        members=members,
        order=number.order,
        type_name=kind.__name__,
    )


def _shown(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _advice(hint: object) -> str:
    """What is missing in a field's type."""
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if inner is int:
        return "does not say its size: Annotated[int, U32], or another of U8 to I64"
    if inner in (str, bytes):
        return f"does not say its size: Annotated[{_shown(inner)}, 16]"
    if _is_sequence(inner):
        return "does not say its length: Annotated[list[int], U32, 4]"
    return "does not say how it lies in memory: give a codec or a layout, Annotated[..., codec]"
