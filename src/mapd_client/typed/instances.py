"""Keys and values as instances of the user's own classes: dataclasses and ctypes.Structures. Sans-I/O."""

from __future__ import annotations

import dataclasses
import struct
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Annotated, Any, Final, cast, get_args, get_origin, get_type_hints

from mapd_client.classes_foreign import is_foreign
from mapd_client.codec import Buffer, Codec, Int
from mapd_client.errors import SizeMismatch, TypeMismatch, Unsupported
from mapd_client.info import ByteOrder
from mapd_client.layouts import Layout, Record
from mapd_client.netcodec import Cidr4, Cidr6, Ipv4, Ipv6
from mapd_client.structcodec import Struct
from mapd_client.tables.dtypes import dtype_of_layout
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.composites import Composite
from mapd_client.typed.naming import given
from mapd_client.typed.records import Fields, Structure

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

Make = Callable[[Any], Any]

ADDRESSES: Final[Mapping[type, Codec[Any]]] = {
    IPv4Address: Ipv4,
    IPv6Address: Ipv6,
    IPv4Network: Cidr4,
    IPv6Network: Cidr6,
}
"""Classes that say by themselves how they lie in memory."""


def hints_of_class(kind: type, path: str) -> Mapping[str, Codec[Any]]:
    """The codecs that a class says for its fields, by path: ``Annotated[IPv4Address, Ipv4]``."""
    if kind in ADDRESSES:
        return {path: ADDRESSES[kind]}
    return dict(_hints(kind, path)) if dataclasses.is_dataclass(kind) else {}


def codec_of_class(kind: type, layout: Layout, hints: Mapping[str, Codec[Any]], path: str) -> Codec[Any]:
    """The codec whose values are instances of a class.

    Args:
        kind: a dataclass, a ctypes.Structure, or a class of ipaddress.
        layout: of its instances.
        hints: of ``hints_of_class``, with what they need to know of the daemon's host.
        path: "key" or "value", for messages.

    Raises:
        TypeMismatch: another class.
    """
    if kind in ADDRESSES:
        return ADDRESSES[kind]
    if is_foreign(kind):
        return Native(kind, layout, path)
    name = kind.__name__
    if not dataclasses.is_dataclass(kind) or not isinstance(layout, Record):
        raise TypeMismatch(
            f"{path}={name}: a dataclass, a ctypes.Structure or an address class of ipaddress is taken"
        )
    return Instances(kind, cast("Structure", codec_of(layout, hints=hints, path=path)))


class Instances(Composite):
    """A struct as instances of a dataclass; takes these, and mappings by field name.

    An instance has no padding: where a key's is not zeros, what is written is another key than the one that was read.
    """

    def __init__(self, kind: type, inner: Structure) -> None:
        self.kind = kind
        self.layout = inner.layout
        self.size = inner.size
        self.path = inner.path
        self.hints = inner.hints
        self.byteorder = inner.byteorder
        self._inner = inner
        self._make: Make = _maker(kind)

    def __repr__(self) -> str:
        return self.kind.__name__

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind."""
        return Instances(self.kind, cast("Structure", self._inner.bind(byteorder, possible_cpus)))

    def pack(self, value: Any) -> bytes:
        """As Composite.pack."""
        if isinstance(value, self.kind):
            return self._inner.pack(_as_mapping(value))
        if not isinstance(value, Mapping):
            raise TypeMismatch(f"{given(value)}: {self!r} is taken, not {type(value).__name__}")
        return self._inner.pack(value)

    def decode(self, data: Buffer) -> Any:
        """As Codec.decode."""
        return self._make(self._inner.decode(data))

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return list(map(self._make, self._inner.decode_many(column)))


class Native(Codec[Any]):
    """A struct as instances of a ctypes.Structure, padding and all.

    A Structure has the byte order of this host, or of its kind (BigEndianStructure).
    """

    def __init__(self, kind: type, layout: Layout, path: str) -> None:
        self.kind = kind
        self.layout = layout
        self.size = layout.size
        self._path = path
        self.byteorder: ByteOrder = _order(kind)
        self._copy: Callable[[bytes], Any] = cast("Any", kind).from_buffer_copy

    def __repr__(self) -> str:
        return self.kind.__name__

    @property
    def dtype(self) -> DTypeLike:
        """Every field at its place."""
        return dtype_of_layout(self.layout, self.byteorder)

    def bind(self, byteorder: ByteOrder, possible_cpus: int) -> Codec[Any]:
        """As Codec.bind.

        Raises:
            Unsupported: the daemon's host has another byte order than the class.
        """
        del possible_cpus
        if self.byteorder != byteorder:
            raise Unsupported(
                f"{self._path}={self!r}: it is {self.byteorder}-endian, the daemon's host is {byteorder}-endian: "
                f"derive it from ctypes.{byteorder.capitalize()}EndianStructure, or give a dataclass"
            )
        return self

    def encode(self, value: Any) -> bytes:
        """As Codec.encode."""
        if not isinstance(value, self.kind):
            raise TypeMismatch(f"{given(value)}: {self!r} is taken, not {type(value).__name__}")
        return bytes(cast("Buffer", value))

    def decode(self, data: Buffer) -> Any:
        """As Codec.decode."""
        if len(data) != self.size:
            raise SizeMismatch(f"{self!r} reads {self.size} bytes, not {len(data)}")
        return self._copy(bytes(data))

    def decode_many(self, column: Buffer) -> list[Any]:
        """As Codec.decode_many."""
        return [self._copy(data) for (data,) in struct.iter_unpack(f"{self.size}s", self._whole(column))]


def _order(kind: type) -> ByteOrder:
    names = {base.__name__ for base in kind.__mro__}
    if "BigEndianStructure" in names or "BigEndianUnion" in names:
        return "big"
    if "LittleEndianStructure" in names or "LittleEndianUnion" in names:
        return "little"
    return sys.byteorder


# Dataclasses


def _members(kind: type) -> Sequence[tuple[str, Any, Sequence[Any]]]:
    """Name, type and what it is annotated with of each field."""
    types = get_type_hints(kind, include_extras=True)
    found: list[tuple[str, Any, Sequence[Any]]] = []
    for field in dataclasses.fields(kind):
        hint = types[field.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        found.append((field.name, get_args(hint)[0] if marks else hint, marks))
    return found


def _hints(kind: type, path: str) -> Sequence[tuple[str, Codec[Any]]]:
    """The codecs that a dataclass names for its fields, by path."""
    found: list[tuple[str, Codec[Any]]] = []
    for name, inner, marks in _members(kind):
        here = f"{path}.{name}"
        # An integer's layout says all of it, and the names of an enum as well.
        said: list[Codec[Any]] = [m for m in marks if isinstance(m, Codec) and not isinstance(m, Int)]
        said += [Struct(mark) for mark in marks if isinstance(mark, str)]
        innermost = inner
        while get_origin(innermost) in (list, tuple, Sequence):
            innermost = get_args(innermost)[0]
        if not said and innermost in ADDRESSES:
            said = [ADDRESSES[innermost]]
        found += [(here, codec) for codec in said]
        nested = _element(inner)
        if nested is not None:
            found += _hints(nested, here)
    return found


def _element(hint: Any) -> type | None:
    """The dataclass that a field holds, or holds several of."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return hint
    if get_origin(hint) in (list, tuple, Sequence):
        first: Any = get_args(hint)[0]
        return _element(first)
    return None


def _maker(kind: type) -> Make:
    """A function that makes an instance of the fields that were read; raises TypeMismatch where it takes not all."""
    for field in dataclasses.fields(kind):
        if not field.init:
            raise TypeMismatch(
                f"{kind.__name__}.{field.name}: init=False: what is read cannot be given to it; leave init out"
            )
    makers = {name: _value_maker(hint) for name, hint, _ in _members(kind)}
    plain = [name for name, make in makers.items() if make is None]
    others = {name: make for name, make in makers.items() if make is not None}

    def made(fields: Fields) -> Any:
        values = {name: fields[name] for name in plain}
        for name, make in others.items():
            values[name] = make(fields[name])
        return kind(**values)

    return made


def _value_maker(hint: Any) -> Make | None:
    """What turns a field's value into what the class says it holds; None where it is that already."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _maker(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return partial(_member, hint)
    if isinstance(hint, type) and is_foreign(hint):
        foreign: Any = hint
        copy: Callable[[bytes], Any] = foreign.from_buffer_copy
        return lambda fields: copy(bytes(fields))
    if hint is bool:
        return bool
    origin = get_origin(hint)
    if hint is list or origin is list:
        inner = _value_maker(get_args(hint)[0]) if get_args(hint) else None
        return list if inner is None else partial(_each, inner, list)
    if origin in (tuple, Sequence):
        inner = _value_maker(get_args(hint)[0])
        return None if inner is None else partial(_each, inner, tuple)
    return None


def _each(make: Make, container: Callable[[Iterable[Any]], Any], elements: Iterable[Any]) -> Any:
    return container(map(make, elements))


def _member(kind: type[Enum], value: Any) -> Any:
    """The enum's member, or the number where it has none for it."""
    try:
        return kind[value] if isinstance(value, str) and value in kind.__members__ else kind(value)
    except ValueError:
        return value


def _as_mapping(value: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    """What the codec of a field takes for what a class holds there."""
    if is_foreign(type(cast("object", value))):
        return bytes(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _as_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in cast("Sequence[Any]", value)]
    if isinstance(value, Enum):
        return value.value
    return value
