"""Maps made of classes and codecs: the codec of a class, and the BTF that tells bpftool its fields. Sans-I/O.

What reads classes and writes BTF is imported by who has classes: all programs import this module.
"""

from __future__ import annotations

import builtins
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from mapd_api.uapi import PER_CPU_TYPES, MapType
from mapd_client.codec import Codec
from mapd_client.errors import TypeMismatch
from mapd_client.failures import Asked
from mapd_client.info import Btf, ByteOrder
from mapd_client.layouts import Integer, Layout, MapLayout, Record
from mapd_client.percpu import PerCpu, of_one_cpu
from mapd_client.requests import naming
from mapd_client.structcodec import Struct

if TYPE_CHECKING:
    from mapd_client.map import Map

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_ANY_KEY: Final = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH})
_INTEGER_KEY: Final = frozenset(
    {
        # array_map_check_btf(), bpf_local_storage_map_check_btf(): an int of 32 bits.
        MapType.ARRAY,
        MapType.PERCPU_ARRAY,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
_DESCRIBED: Final = _ANY_KEY | _INTEGER_KEY | {MapType.LPM_TRIE}
"""Types whose elements BTF describes. Of queues, rings and the like the kernel takes none without keys."""

_PREFIXLEN_BYTES: Final = 4


def instances(kind: type[T]) -> Codec[T]:
    """The codec whose values are instances of a dataclass, ctypes.Structure or Union.

    ``create_map`` takes the class itself; this is for ``PerCpu(instances(Stats))``, and for maps that are opened.

    Raises:
        TypeMismatch: no such class, or one that does not say how it lies in memory.
    """
    from mapd_client.classes import layout_of
    from mapd_client.typed.instances import codec_of_class, hints_of_class

    layout, name = layout_of(kind), kind.__name__
    return cast("Codec[T]", codec_of_class(kind, layout, hints_of_class(kind, name), name))


def describe(key: object, value: object, *, byteorder: ByteOrder = sys.byteorder) -> Btf:
    """BTF that says what keys and values are made of, for ``create_map(btf=...)``.

    Args:
        key: what ``layout_of`` takes: a dataclass, a ctypes.Structure, "<IQ", a codec, a layout.
        value: likewise; of a per-CPU map one CPU's.
        byteorder: of the daemon's host; this host's.

    bpftool 7.1 shows no floats, and nothing that follows one; what is written is right nevertheless.

    Raises:
        TypeMismatch: what has no layout, or one that BTF cannot say; the message names the field.
    """
    from mapd_client.btf.build import blob_of
    from mapd_client.classes import layout_of

    return blob_of(layout_of(key), layout_of(value), byteorder)


@dataclass(frozen=True, slots=True)
class Plan(Generic[K, V]):
    """What a map is created of.

    Attributes:
        key: codec of its keys.
        value: codec of its values.
        wishes: the caller's codecs and classes, keys' and values'.
        given: the caller's BTF.
        layout: that BTF is to be written of; None: of nothing.
    """

    key: Codec[Any]
    value: Codec[Any]
    wishes: tuple[Codec[K] | type[K], Codec[V] | type[V]]
    given: Btf | None
    layout: MapLayout | None

    def btf(self, byteorder: ByteOrder, asked: Asked) -> Btf | None:
        """What is sent to a daemon whose host has that byte order.

        Raises:
            TypeMismatch: a layout that BTF cannot say.
        """
        if self.layout is None:
            return self.given
        from mapd_client.btf.build import blob_of

        try:
            return blob_of(self.layout.key, self.layout.value, byteorder)
        except TypeMismatch as error:
            raise TypeMismatch(
                f"{asked}: BTF cannot say what it is made of: {error}; btf=False creates the map without",
                operation=asked.operation,
                map=asked.map,
            ) from None

    async def viewed(self, made: Map[K, V]) -> Map[K, V]:
        """The map by the caller's classes, with what they need to know of the daemon's host.

        Raises:
            Incompatible: the map was there, and its BTF does not say what the classes say. It is closed then.
        """
        if not any(isinstance(wish, type) for wish in self.wishes):
            return made
        key, value = self.wishes
        try:
            return await made.typed(key=key, value=value)
        except BaseException:
            await made.aclose()
            raise


def planned(
    type: MapType,
    key: Codec[K] | builtins.type[K],
    value: Codec[V] | builtins.type[V],
    btf: Btf | bool | None,
    asked: Asked,
) -> Plan[K, V]:
    """The plan of ``Client.create_map``'s arguments.

    Raises:
        TypeMismatch: a class that does not say how it lies in memory.
    """
    with naming(asked):
        keys, values = _as_codec("key", key), _as_codec("value", value)
        if values is not value and type in PER_CPU_TYPES:
            values = PerCpu(values)
        layout = None if isinstance(btf, Btf) else _described(type, keys, values, btf)
    return Plan(keys, values, (key, value), btf if isinstance(btf, Btf) else None, layout)


def _as_codec(side: str, given: Codec[Any] | type[Any]) -> Codec[Any]:
    """The codec, or that of a class."""
    if isinstance(given, Codec):
        return given
    if not isinstance(cast("object", given), type):
        raise TypeMismatch(f"{side}={given!r}: a codec, a dataclass or a ctypes.Structure{_meant(given)}")
    from mapd_client.classes import layout_of
    from mapd_client.typed.instances import codec_of_class, hints_of_class

    return codec_of_class(given, layout_of(given), hints_of_class(given, side), side)


def _meant(given: object) -> str:
    """The codec that stands for what is none, for messages: that of a struct format, or of so many bytes."""
    if isinstance(given, int):
        return f"; for {given} bytes write Bytes({given})"
    if not isinstance(given, str):
        return ""
    try:
        meant = Struct(given)
    except TypeMismatch:
        return ""
    return f"; for that struct format write {meant!r}"


def _described(type: MapType, key: Codec[Any], value: Codec[Any], wanted: bool | None) -> MapLayout | None:
    """What a new map's BTF is to say; None: nothing."""
    if wanted is None:
        # Maps of plain numbers and bytes are created as they ever were.
        wanted = _has_fields(key) or _has_fields(value)
    if not wanted or type not in _DESCRIBED or not key.size or not value.size:
        return None
    from mapd_client.classes import layout_of

    return MapLayout(key=_key(type, layout_of(key)), value=layout_of(value), source=f"{key!r} and {value!r}")


def _has_fields(codec: Codec[Any]) -> bool:
    """Whether a codec knows names of fields: that of a class, or of a layout."""
    slot = of_one_cpu(codec)
    return isinstance(getattr(codec if slot is None else slot, "layout", None), Record)


def _key(type: MapType, layout: Layout) -> Layout:
    """A key as the kernel wants it described: it takes one kind of type from arrays, another from tries."""
    from mapd_client.classes_formats import integer, prefix

    if type in _INTEGER_KEY and (not isinstance(layout, Integer) or layout.order != "host"):
        return integer(4, signed=False)
    if type is MapType.LPM_TRIE and not isinstance(layout, Record):
        return prefix(layout.size - _PREFIXLEN_BYTES)
    return layout
