"""Maps with BTF that is made from layouts: created, written and shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mapd.bpf import CreateMap, possible_cpus
from mapd.bpf.kernel import LoadBtf
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType
from mapd_client.btf.build import blob_of
from mapd_client.info import Btf
from mapd_client.layouts import Array, Integer, Layout, Record
from mapd_client.typed import codec_of
from tests.kernel.maps import KERNEL, Maps, TestMap
from tests.support import bpftool

INDEX: Final = Integer(size=4, signed=False, type_name="__u32")
"""The only key that an array's BTF may say."""

_NO_PREALLOC = (MapType.HASH, MapType.LPM_TRIE)
"""Types that are made faster without their elements, or not at all with them."""


def create_described(maps: Maps, map_type: MapType, key_size: int, value_size: int, btf: Btf) -> TestMap:
    """A map of four elements with that BTF."""
    request = CreateMap(
        map_type=map_type,
        key_size=key_size,
        value_size=value_size,
        max_entries=4,
        flags=MapFlag.NO_PREALLOC if map_type in _NO_PREALLOC else 0,
        kernel_name="mapd_typed",
        with_btf=True,
        btf_key_type_id=btf.key_type_id,
        btf_value_type_id=btf.value_type_id,
    )
    with KERNEL.control(LoadBtf(blob=btf.blob)) as loaded, loaded.lease() as lease:
        return maps.adopt(KERNEL.control(request, [lease]))


def create_typed(maps: Maps, map_type: MapType, key: Layout, value: Layout) -> TestMap:
    """A map of four elements whose BTF is built from those layouts."""
    return create_described(maps, map_type, key.size, value.size, blob_of(key, value, "little"))


def write(made: TestMap, elements: Mapping[bytes, Sequence[bytes]]) -> None:
    """Write keys and their values, of which per-CPU maps have one for each CPU."""
    values = list(elements.values())
    columns = (
        [b"".join(one.ljust(round_up8(made.value_size), b"\0") for one in slots) for slots in values]
        if made.map_type in PER_CPU_TYPES
        else [only for (only,) in values]
    )
    assert not any(made.each(Op.UPDATE, list(elements), columns))


def slots_of(map_type: MapType) -> int:
    """Values that an element has: one, or one for each possible CPU."""
    return possible_cpus() if map_type in PER_CPU_TYPES else 1


def shown(made: TestMap) -> dict[bytes, bpftool.Shown]:
    """What bpftool shows of it, by key."""
    return {one.key: one for one in bpftool.dump(KERNEL.info(made.fd).id)}


def shown_value(maps: Maps, layout: Layout, data: bytes) -> Any:
    """How bpftool formats one value: of an array of it, whose key is 0."""
    made = create_typed(maps, MapType.ARRAY, INDEX, layout)
    write(made, {bytes(4): [data]} | {at.to_bytes(4, "little"): [data] for at in (1, 2, 3)})
    return shown(made)[bytes(4)].formatted_values[0]


def read(layout: Layout, data: bytes) -> Any:
    """What we decode."""
    return codec_of(layout).decode(data)


def plain(layout: Layout, value: Any) -> Any:
    """A decoded value as a user writes it: dicts by field name, of a union its first member alone."""
    if isinstance(layout, Array):
        return [plain(layout.element, one) for one in value]
    if not isinstance(layout, Record):
        return value
    fields: dict[str, Any] = {}
    for member in layout.members:
        if not member.name:
            inner = plain(member.layout, value)
            if layout.union and not inner:
                continue
            fields |= inner
        else:
            fields[member.name] = plain(member.layout, value[member.name])
        if layout.union:
            break
    return fields
