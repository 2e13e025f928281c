"""Types of maps in section ``maps``: a struct ``____btf_map_NAME`` of two members, ``key`` and ``value``. Sans-I/O.

BPF_ANNOTATE_KV_PAIR() of libbpf before 1.0 and of iproute2 makes it, in a section ``.maps.NAME`` of its own.
"""

from __future__ import annotations

from typing import Final

from mapd_client.btf import BadBtf, kinds
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
    if types is None or _PREFIX.encode() not in types.blob:
        return 0, 0
    struct_name = _PREFIX + name
    try:
        ids = types.ids(struct_name, kinds.Struct)
        if not ids:
            return 0, 0
        found = types[ids[0]]
        assert isinstance(found, kinds.Struct)
        named = {one.name: one.type for one in found.members}
        if len(found.members) != 2 or named.keys() != {"key", "value"}:
            notes.append(
                f"{name}: struct {struct_name} has the members {', '.join(named) or 'none'}, not key and value: "
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
