"""What ``Map.typed`` makes of what it was given: codecs, and errors that say what to do next. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from mapd_api.uapi import MapType
from mapd_client.btf import Types
from mapd_client.classes import layout_of
from mapd_client.codec import Codec
from mapd_client.compare import differences, listed
from mapd_client.errors import Incompatible, MapdError, Misuse, NoTypeInfo
from mapd_client.failures import Asked
from mapd_client.info import Btf, ByteOrder, MapInfo
from mapd_client.layouts import Array, Integer, Layout, MapLayout, Opaque, Record
from mapd_client.percpu import PerCpu, PerCpuReduced, of_one_cpu
from mapd_client.typed.compiling import codec_of
from mapd_client.typed.hints import Hint, resolve
from mapd_client.typed.instances import codec_of_class, hints_of_class
from mapd_client.typed.naming import nearest

Wish: TypeAlias = type[Any] | Codec[Any] | None
"""What a caller wants keys or values to be: instances, what a codec says; None: fields by name."""

_INDEXED: Final = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
"""Types whose keys are indexes; the BTF of .bss and the like says nothing of them (``array_map_check_btf()``)."""

_INDEX: Final = Integer(size=4, signed=False, type_name="__u32")


def of_btf(btf: Btf, info: MapInfo) -> MapLayout:
    """What a map's BTF says of it.

    Raises:
        BadBtf: nothing that can be read.
    """
    types = Types(btf.blob)
    key = types.layout(btf.key_type_id) if btf.key_type_id else None
    if key is None and info.type in _INDEXED:
        key = _INDEX
    value = types.layout(btf.value_type_id) if btf.value_type_id else None
    return MapLayout(key=key, value=value, source="the map's BTF")


def wanted(key: Wish, value: Wish) -> MapLayout:
    """What the caller's classes are made of, as it is compared with what the map says.

    A field with a codec that says what its bytes mean (an address, a time) may be of any type of that size.

    Raises:
        TypeMismatch: a class that does not say it.
    """
    classes = [(side, wish) for side, wish in (("key", key), ("value", value)) if isinstance(wish, type)]
    layouts: dict[str, Layout] = {}
    for side, wish in classes:
        hints = hints_of_class(wish, side)
        meant = {path: codec.size for path, codec in hints.items()}
        layouts[side] = _loosened(layout_of(wish), side, meant)
    return MapLayout(
        key=layouts.get("key"),
        value=layouts.get("value"),
        source=f"class {' and '.join(wish.__name__ for _, wish in classes)}",
    )


def _loosened(layout: Layout, path: str, meant: Mapping[str, int]) -> Layout:
    """The layout with bytes of which nothing is said where a codec, of so many bytes, says what they mean."""
    if meant.get(path) == layout.size and not (
        isinstance(layout, Array) and layout.element.size == layout.size
    ):
        return Opaque(size=layout.size)
    if isinstance(layout, Array):
        return replace(layout, element=_loosened(layout.element, path, meant))
    if not isinstance(layout, Record):
        return layout
    members = tuple(
        replace(member, layout=_loosened(member.layout, f"{path}.{member.name}", meant))
        for member in layout.members
    )
    return replace(layout, members=members)


def check(wanted: MapLayout, there: MapLayout, byteorder: ByteOrder, asked: Asked) -> None:
    """Raises Incompatible, with a line for each field that differs, unless the classes are what the map has."""
    found = differences(wanted, there, byteorder=byteorder)
    if found:
        raise Incompatible(
            f"{asked}: {wanted.source} is not what {there.source} says:\n{listed(found)}",
            operation=asked.operation,
            map=asked.map,
            metadata={difference.path: str(difference) for difference in found},
        )


def no_types(asked: Asked, why: MapdError | None) -> NoTypeInfo:
    """Nothing says what the map is made of: why, and the three ways out."""
    reason = "it was created without BTF" if why is None else f"its BTF is not to be had: {why.message}"
    return NoTypeInfo(
        f"{asked}: nothing says what its keys and values are made of; {reason}. Three ways out: the object file that "
        "declares the map, typed(elf='prog.o'); classes of your own, typed(key=Key, value=Value), which are "
        "dataclasses or ctypes.Structures; codecs, open_map(..., key=U32, value=Struct('=QQ'))",
        reason=None if why is None else why.reason,
        operation=asked.operation,
        map=asked.map,
    )


def hints_of(hints: Mapping[str, Hint], key: Wish, value: Wish) -> Mapping[str, Codec[Any]]:
    """The codecs of fields by path: the caller's, and what the classes say of theirs.

    Raises:
        Misuse: a path that leads nowhere, or into a class, which says itself what its fields are.
    """
    found: dict[str, Codec[Any]] = {}
    for path, hint in hints.items():
        side = path.split(".")[0]
        if side not in ("key", "value"):
            meant = nearest(path, (f"key.{path}", f"value.{path}"))
            raise Misuse(f"hint {path!r}: paths begin with 'key' or 'value': {meant}")
        wish = key if side == "key" else value
        if wish is not None:
            raise Misuse(f"hint {path!r}: {side}={_shown(wish)} says itself what it is made of")
        found[path] = resolve(hint)
    for side, wish in (("key", key), ("value", value)):
        if isinstance(wish, type):
            found.update(hints_of_class(wish, side))
    return found


def chosen(
    side: str, wish: Wish, layout: Layout | None, hints: Mapping[str, Codec[Any]], opened: Codec[Any]
) -> Codec[Any]:
    """The codec of keys or values; what the map was opened with where nothing is known of them.

    Args:
        side: "key" or "value".
        wish: the caller's.
        layout: of one key, of one CPU's value.
        hints: of ``hints_of``.
        opened: the codec that the map has now.
    """
    if isinstance(wish, Codec):
        return wish
    if isinstance(wish, type):
        return codec_of_class(wish, layout_of(wish), hints, side)
    return opened if layout is None else codec_of(layout, hints=hints, path=side)


def per_cpu(codec: Codec[Any], opened: Codec[Any]) -> Codec[Any]:
    """A value's codec for a per-CPU map: a list of all CPUs'.

    Where the map was opened for the sum (least, greatest) of all CPUs' integers, it stays one.
    """
    if of_one_cpu(codec) is not None:
        return codec
    slots = PerCpu(codec)
    if isinstance(opened, PerCpuReduced) and repr(opened.per_cpu) == repr(slots):
        return PerCpuReduced(slots, opened.kind)
    return slots


def layout_now(side: str, wish: Wish, there: MapLayout | None) -> Layout | None:
    """What is known of keys or values of a typed map."""
    if wish is not None:
        return layout_of(wish)
    return None if there is None else there.key if side == "key" else there.value


def _shown(wish: Wish) -> str:
    return wish.__name__ if isinstance(wish, type) else repr(wish)
