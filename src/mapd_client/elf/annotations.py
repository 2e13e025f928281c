"""Types of maps in section ``maps``: a struct ``____btf_map_NAME`` of two members, ``key`` and ``value``. Sans-I/O.

BPF_ANNOTATE_KV_PAIR() of libbpf before 1.0 and of iproute2 makes it, in a section ``.maps.NAME`` of its own.
"""

from __future__ import annotations

from typing import Final

from mapd_client.btf import BadBtf, Types, kinds
from mapd_client.elf.image import Image

_PREFIX: Final = "____btf_map_"


def annotated(image: Image, name: str, key_size: int, value_size: int, notes: list[str]) -> tuple[int, int]:
    """Type ids of the key and the value; (0, 0) where nothing is said, or what is said is of another size.

    Args:
        image: the object.
        name: of the map.
        key_size: as the map declares it.
        value_size: likewise.
        notes: gets a sentence where the annotation is not the map's; loaders then go on without it too.
    """
    types = image.types
    if types is None:
        return 0, 0
    struct_name = _PREFIX + name
    try:
        if image.annotations is None:
            image.annotations = _annotations(types)
        if struct_name not in image.annotations:
            return 0, 0
        found = types[image.annotations[struct_name]]
        assert isinstance(found, kinds.Struct)
        named = {one.name: one.type for one in found.members}
        if len(found.members) != 2 or named.keys() != {"key", "value"}:
            notes.append(
                f"{name}: struct {struct_name} has the members {', '.join([*named][:8]) or 'none'}, not key and value: "
                "the map has no types"
            )
            return 0, 0
        sizes = types.size(named["key"]), types.size(named["value"])
    except BadBtf as error:
        raise image.bad(str(error), section=".BTF", symbol=struct_name, number=error.number) from None
    if sizes != (key_size, value_size):
        notes.append(
            f"{name}: struct {struct_name} has a key of {sizes[0]} and a value of {sizes[1]} bytes, the map {key_size} "
            f"and {value_size}: it has no types"
        )
        return 0, 0
    return named["key"], named["value"]


def _annotations(types: Types) -> dict[str, int]:
    """All such structs by their names. One walk: a search by name reads all strings, for each map."""
    if _PREFIX.encode() not in types.blob:
        return {}
    structs = (at for at in range(1, len(types)) if types.kind(at) is kinds.Struct)
    return {types.name(at): at for at in structs if types.name(at).startswith(_PREFIX)}
