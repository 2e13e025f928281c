"""The types of one map, out of an object file: for maps whose own the daemon cannot give."""

from __future__ import annotations

from os import PathLike
from pathlib import PurePath
from typing import Final

from mapd_api.uapi import MapType
from mapd_client.elf import read_object
from mapd_client.errors import Incompatible, NoTypeInfo
from mapd_client.info import ByteOrder
from mapd_client.layouts import Integer, MapLayout

_INDEXED: Final = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_INDEX: Final = Integer(size=4, signed=False, type_name="__u32")
"""A key of these, of which the types of a section say nothing."""


def types_from_object(
    path: str | PathLike[str],
    map_name: str,
    *,
    pinned_as: str | None = None,
    byteorder: ByteOrder | None = None,
) -> MapLayout:
    """What an object says of a map's keys and values. Blocking: reads a file.

    Args:
        path: of the object, on this host.
        map_name: as the object declares it; or as the kernel has it, at most 15 characters.
        pinned_as: ``map_name`` is the kernel's; the last part of the pin's path, which is the declared name where a
            loader pinned it, or "". Of maps that the kernel calls alike it says which.
        byteorder: of the daemon's host.

    Raises:
        Incompatible: it is compiled for hosts of the other byte order.
        NoTypeInfo: no such map, or several of different types, or one declared by sizes alone; the message says which
            there are.
        Misuse: no object file.
        Unsupported: pyelftools is missing.
    """
    label = str(path)
    found = read_object(path)
    if byteorder is not None and found.byteorder != byteorder:
        raise Incompatible(
            f"{label} is compiled for {found.byteorder} endian hosts, and the daemon's host is {byteorder} endian: "
            f"compile it with -target {'bpfel' if byteorder == 'little' else 'bpfeb'}"
        )
    alike = [one for one in found.maps if map_name in (one.name, one.kernel_name)]
    named = [one for one in alike if one.name == (map_name if pinned_as is None else pinned_as)]
    maps = named or alike
    if not maps:
        told = ", ".join(one.name for one in found.maps) or "no maps"
        raise NoTypeInfo(
            f"{label} has no map {map_name!r}; it declares {told}: give the object that declares it, or key= and "
            "value= classes"
        )
    one = maps[0]
    if any(
        (other.key_type_id, other.value_type_id) != (one.key_type_id, one.value_type_id) for other in maps
    ):
        told = ", ".join(other.name for other in maps)
        raise NoTypeInfo(
            f"{label} has {len(maps)} maps that the kernel calls {map_name!r}: {told}; their types are not the same, "
            "and the name of a pin does not say which it is: give key= and value= classes"
        )
    if found.btf is None:
        raise NoTypeInfo(f"{label} has no types: compile it with -g, and do not strip section .BTF")
    if not one.key_type_id and not one.value_type_id:
        raise NoTypeInfo(
            f"{label} declares {one.name!r} by key_size {one.key_size} and value_size {one.value_size} alone: declare "
            "it with __type(key, ...) and __type(value, ...), or give key= and value= classes"
        )
    layout = found.btf.layout
    return MapLayout(
        key=layout(one.key_type_id) if one.key_type_id else _INDEX if one.type in _INDEXED else None,
        value=layout(one.value_type_id) if one.value_type_id else None,
        source=PurePath(path).name,
    )
