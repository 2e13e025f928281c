"""The types of one map, out of an object file: for maps whose own the daemon cannot give."""

from __future__ import annotations

from os import PathLike
from pathlib import PurePath

from mapd_client.elf import read_object
from mapd_client.errors import NoTypeInfo
from mapd_client.layouts import MapLayout


def types_from_object(path: str | PathLike[str], map_name: str) -> MapLayout:
    """What an object says of a map's keys and values. Blocking: reads a file.

    Args:
        path: of the object, on this host.
        map_name: as the object declares it; or as the kernel has it, at most 15 characters, if one map alone is so
            called.

    Raises:
        NoTypeInfo: no such map, or one declared by sizes alone; the message says which names and which types there are.
        Misuse: no object file.
        Unsupported: pyelftools is missing.
    """
    label = str(path)
    found = read_object(path)
    maps = [one for one in found.maps if one.name == map_name]
    maps = maps or [one for one in found.maps if one.kernel_name == map_name]
    if len(maps) != 1:
        told = ", ".join(one.name for one in found.maps) or "no maps"
        many = f"{len(maps)} maps that the kernel calls" if maps else "no map"
        raise NoTypeInfo(
            f"{label} has {many} {map_name!r}; it declares {told}: give one of these by its name"
        )
    (one,) = maps
    if found.btf is None:
        raise NoTypeInfo(f"{label} has no types: compile it with -g, and do not strip section .BTF")
    if not one.key_type_id and not one.value_type_id:
        raise NoTypeInfo(
            f"{label} declares {one.name!r} by key_size {one.key_size} and value_size {one.value_size} alone: declare "
            "it with __type(key, ...) and __type(value, ...), or give key= and value= classes"
        )
    layout = found.btf.layout
    return MapLayout(
        key=layout(one.key_type_id) if one.key_type_id else None,
        value=layout(one.value_type_id) if one.value_type_id else None,
        source=PurePath(path).name,
    )
