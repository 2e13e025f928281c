"""Layouts of ctypes classes, read from what they say of themselves. Sans-I/O.

ctypes itself is not imported (it has its home in ``mapd.bpf``): whoever has such a class has done so.
"""

from __future__ import annotations

import sys
from typing import Any, Final, cast

from mapd_client.classes_formats import Placed, natural
from mapd_client.errors import TypeMismatch
from mapd_client.layouts import (
    Array,
    Boolean,
    Float,
    Integer,
    Layout,
    Member,
    Opaque,
    Order,
    Pointer,
    Record,
    Text,
)

_HOME: Final = "_ctypes"
_SIMPLE, _STRUCTURE, _UNION, _ARRAY = "_SimpleCData", "Structure", "Union", "Array"
_POINTERS: Final = ("_Pointer", "CFuncPtr")
_POINTER_CODES: Final = "PzZOX"
_INTEGERS: Final = "bBhHiIlLqQ"
_FLOATS: Final = {"f": "float", "d": "double"}


def is_foreign(kind: type) -> bool:
    """Whether it is a class of ctypes whose instances have bytes."""
    return _family(kind) is not None


def _family(kind: type) -> str | None:
    """Which of ctypes' own classes it comes from."""
    names = {base.__name__ for base in kind.__mro__ if base.__module__ == _HOME}
    for family in (_STRUCTURE, _UNION, _ARRAY, _SIMPLE, *_POINTERS):
        if family in names:
            return family
    return None


def foreign(kind: type, path: str) -> Placed:
    """The layout of a ctypes class, and its alignment.

    Raises:
        TypeMismatch: what no map can hold, or no layout express; begins with ``path``.
    """
    family = _family(kind)
    if family in (_STRUCTURE, _UNION):
        return _record(kind, path, union=family == _UNION)
    if family == _ARRAY:
        return _array(kind, path)
    size = _size(kind, path)
    if family in _POINTERS:
        return Placed(Pointer(size=size), size)
    return _simple(kind, size, path)


def _size(kind: type, path: str) -> int:
    """As ctypes.sizeof()."""
    try:
        return memoryview(kind()).nbytes
    except (TypeError, ValueError) as error:
        raise TypeMismatch(f"{path}: {kind.__name__} cannot be made: {error}") from None


def _array(kind: type, path: str) -> Placed:
    element, count = cast("tuple[type, int]", (cast("Any", kind)._type_, cast("Any", kind)._length_))
    if getattr(element, "_type_", None) == "c" and _family(element) == _SIMPLE:
        return Placed(Text(size=count), 1)
    found = foreign(element, f"{path}[0]")
    return Placed(Array(element=found.layout, count=count), found.align)


def _simple(kind: type, size: int, path: str) -> Placed:
    code: str = cast("Any", kind)._type_
    order = _order(kind)
    layout: Layout
    if code == "O":
        raise TypeMismatch(f"{path}: a Python object is no bytes")
    if code in _INTEGERS:
        signed = code.islower()
        letter = f"{'s' if signed else 'u'}" if order == "host" else "be" if order == "big" else "le"
        layout = Integer(size=size, signed=signed, order=order, type_name=f"__{letter}{8 * size}")
    elif code == "c":
        layout = Integer(size=1, signed=True, type_name="char")
    elif code == "?":
        layout = Boolean(size=size, order=order, type_name="_Bool")
    elif code in _FLOATS:
        layout = Float(size=size, order=order, type_name=_FLOATS[code])
    elif code == "u":
        layout = Integer(size=size, signed=True, type_name="wchar_t")
    elif code in _POINTER_CODES:
        layout = Pointer(size=size, order=order)
    else:
        layout = Opaque(size=size, type_name="long double" if code == "g" else "")
    return Placed(layout, size)


def _order(kind: type) -> Order:
    """The byte order: "host", unless it is of the other one: ``c_uint.__ctype_be__`` on a little-endian host."""
    big, little = getattr(kind, "__ctype_be__", kind), getattr(kind, "__ctype_le__", kind)
    if big is little:
        return "host"
    other: type = big if sys.byteorder == "little" else little
    if kind is not other:
        return "host"
    return "big" if sys.byteorder == "little" else "little"


def _record(kind: type, path: str, *, union: bool) -> Placed:
    size = _size(kind, path)
    members: list[Member] = []
    widest = 1
    for base in reversed(kind.__mro__):
        for field in base.__dict__.get("_fields_", ()):
            name: str = field[0]
            of: type = field[1]
            here = f"{path}.{name}"
            found = foreign(of, here)
            packed: int = getattr(base, "_pack_", 0)
            widest = max(widest, min(found.align, packed) if packed else found.align)
            descriptor = getattr(base, name)
            if len(field) > 2:
                members.append(_bit_field(name, found.layout, descriptor, here))
                continue
            hidden = name in getattr(base, "_anonymous_", ()) and isinstance(found.layout, Record)
            members.append(
                Member(
                    name="" if hidden else name,
                    offset=descriptor.offset,
                    layout=found.layout,
                    bit_offset=8 * descriptor.offset,
                )
            )
    if not members:
        raise TypeMismatch(f"{path}: {kind.__name__} has no _fields_")
    align = widest if natural(size, widest) == size else 1
    return Placed(Record(size=size, members=tuple(members), union=union, type_name=kind.__name__), align)


def _bit_field(name: str, layout: Layout, descriptor: Any, path: str) -> Member:
    """A bit-field: ctypes says its unit's offset, and its width and lowest bit in the unit's integer."""
    if not isinstance(layout, (Integer, Boolean)):
        raise TypeMismatch(f"{path}: no bit-field of {type(layout).__name__} exists")
    if layout.order != "host":
        raise TypeMismatch(
            f"{path}: a {layout.order}-endian bit-field: of such there is no description that the kernel has; "
            "declare the whole integer"
        )
    width, lowest = descriptor.size >> 16, descriptor.size & 0xFFFF
    first = lowest if sys.byteorder == "little" else 8 * layout.size - lowest - width
    if descriptor.offset < 0 or lowest + width > 8 * layout.size:
        # CPython 3.11 to 3.13 say offset -1 of a union's second bit-field, and bit 25 of a c_short behind a c_int:25;
        # what they read there is nobody's.
        raise TypeMismatch(
            f"{path}: this Python's ctypes places it at bit {lowest} of {8 * layout.size}, offset {descriptor.offset}, "
            "which is outside: give neighbouring bit-fields one type, and a union one bit-field"
        )
    bit_offset = 8 * descriptor.offset + first
    return Member(name=name, offset=bit_offset // 8, layout=layout, bits=width, bit_offset=bit_offset)
