"""What ``mapd.bpf.memory`` computes before a map is made, against what the kernel says of it afterwards."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from mapd.bpf import memory, possible_cpus
from mapd.bpf.memory import CACHED_BYTES, CPU_BYTES, MAP_BYTES, MapShape, map_bytes
from mapd.maps import creation
from mapd.maps.opened import OpenMap
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, NameRef
from mapd.maps.traits import Btf as Need
from mapd.maps.traits import Entries
from mapd.maps.types import TYPES, type_name
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel import stores
from tests.kernel.btf import STRUCT, Btf
from tests.kernel.maps import KERNEL, Maps
from tests.support.samples import EVERY_TYPE, TEMPLATE, VMLINUX, sample

CPUS: Final = possible_cpus()

FACTOR: Final = 2.0
"""Above what the kernel says of a full map, beside ``FIXED`` for each: arrays take a power of two of elements without
CAP_PERFMON, and elements made one by one a size of kmalloc's; the kernel's figure says neither."""

FIXED: Final = MAP_BYTES + CPUS * (CPU_BYTES + CACHED_BYTES) + 4 * mmap.PAGESIZE

NOT_TOLD: Final = frozenset(
    {
        MapType.ARENA,
        MapType.LPM_TRIE,
        MapType.CPUMAP,
        MapType.DEVMAP,
        MapType.DEVMAP_HASH,
        MapType.SOCKHASH,
        MapType.STRUCT_OPS,
    }
)
"""Types of which the kernel's figure says nothing of what elements take, or only of those that are there."""

ENTRIES: Final = (1, 3, 64, 1_000, 4_096, 65_537)
SIZES: Final = ((4, 4), (8, 8), (5, 13), (16, 200), (64, 1_024))
FLAGS: Final = (MapFlag(0), MapFlag.NO_PREALLOC, MapFlag.NO_COMMON_LRU, MapFlag.MMAPABLE)


def shape_of(spec: MapSpec) -> MapShape:
    return MapShape(
        map_type=spec.map_type,
        key_size=spec.key_size,
        value_size=spec.value_size,
        max_entries=spec.max_entries,
        flags=spec.flags,
        map_extra=spec.map_extra,
    )


def shapes(kind: MapType) -> Iterator[MapSpec]:
    """One type in the sizes that it takes, and with each flag that changes how much memory it takes."""
    traits, base = TYPES[kind], sample(kind)
    counts: tuple[int, ...] = (base.max_entries,)
    if traits.entries is Entries.ANY:
        counts = ENTRIES
    elif traits.entries in (Entries.PAGES, Entries.POWER_OF_TWO_PAGES):
        counts = tuple(mmap.PAGESIZE << shift for shift in (0, 1, 4, 8))
    elif traits.entries is Entries.CPUS:
        counts = (1, CPUS)
    if kind is MapType.ARENA:
        counts = (1, 100)
    pairs = sorted(sizes(kind))
    for flag in FLAGS:
        if flag and (not traits.flags & flag or base.flags & flag):
            continue
        for key_size, value_size in pairs:
            for count in counts:
                yield replace(
                    base, key_size=key_size, value_size=value_size, max_entries=count, flags=base.flags | flag
                )


def sizes(kind: MapType) -> set[tuple[int, int]]:
    """Key and value sizes to try; one pair where BTF fixes them."""
    traits, base = TYPES[kind], sample(kind)
    if kind is MapType.LPM_TRIE:
        return {(8, 8), (20, 1), (8, 100)}
    if traits.btf is Need.REQUIRED:
        return {(base.key_size, base.value_size)}
    return {
        (
            key if key in traits.key_sizes else base.key_size,
            value if value in traits.value_sizes else base.value_size,
        )
        for key, value in SIZES
    }


def memlock(store: MapStore, spec: MapSpec, template: OpenMap | None) -> int:
    """What the kernel says of an empty map of this shape."""
    with (
        creation.create(KERNEL, "ns/it", spec, "it", template if spec.inner else None) as made,
        made.lease() as fd,
    ):
        return store.facts_at(fd).info.memlock


@pytest.mark.parametrize("kind", EVERY_TYPE, ids=type_name)
def test_the_figure_is_never_below_the_kernels_and_little_above(kind: MapType, bpffs: Path) -> None:
    (bpffs / "names").mkdir(mode=0o700)
    store, tried = stores.store(bpffs), 0
    with ExitStack() as stack:
        template, _ = store.create(NameRef("ns", "template"), TEMPLATE, exist_ok=False)
        stack.enter_context(template.fd)
        for spec in shapes(kind):
            told, bound = memlock(store, spec, template), map_bytes(shape_of(spec), CPUS)
            assert told <= bound, spec
            if kind not in NOT_TOLD and not spec.flags & MapFlag.NO_PREALLOC:
                assert bound <= FACTOR * told + FIXED, (spec, told, bound)
            tried += 1
    assert tried >= 1


def held(maps: Maps, spec: MapSpec, count: int) -> tuple[int, int]:
    """What the kernel says of a map with ``count`` elements, and the figure."""
    made = maps.adopt(creation.create(KERNEL, "ns/it", spec, "it"))
    keys = [made.key(number) for number in range(count)]
    for _ in range(100):
        # The kernel refills what it keeps for elements behind our back: it is short of them at times.
        found = made.each(Op.UPDATE, keys, [made.value(0)] * len(keys))
        assert set(found) <= {0, errno.ENOMEM}
        keys = [key for key, number in zip(keys, found, strict=True) if number]
        if not keys:
            break
    assert not keys
    return KERNEL.info(made.fd).memlock, map_bytes(shape_of(spec), CPUS)


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.PERCPU_HASH], ids=type_name)
@pytest.mark.parametrize(("key_size", "value_size"), SIZES)
def test_a_map_without_preallocation_is_counted_full(
    kind: MapType, key_size: int, value_size: int, maps: Maps
) -> None:
    spec = replace(
        sample(kind),
        key_size=key_size,
        value_size=value_size,
        max_entries=4_096,
        flags=int(MapFlag.NO_PREALLOC),
    )
    told, bound = held(maps, spec, 4_096)
    assert told <= bound <= FACTOR * told + FIXED


def test_a_trie_is_counted_with_its_branching_nodes(maps: Maps) -> None:
    """Keys of full length side by side: as many nodes without a value as there are keys, less one."""
    spec = replace(sample(MapType.LPM_TRIE), value_size=100, max_entries=4_096)
    told, bound = held(maps, spec, 4_096)
    # The kernel counts the nodes with values (n_entries), 132 bytes each, in allocations of 192.
    assert told == 4_096 * (24 + 4 + 100)
    assert bound == MAP_BYTES + CPUS * (CPU_BYTES + CACHED_BYTES) + 2 * 4_096 * 192


def test_an_arena_is_counted_with_all_its_pages() -> None:
    spec = replace(sample(MapType.ARENA), max_entries=100)
    assert map_bytes(shape_of(spec), CPUS) >= 100 * mmap.PAGESIZE


def test_a_type_without_a_formula_is_an_error() -> None:
    with pytest.raises(ValueError, match="map type 99"):
        map_bytes(MapShape(map_type=99, key_size=4, value_size=4, max_entries=1), CPUS)


@cache
def vmlinux() -> Btf:
    return Btf(VMLINUX.read_bytes())


@pytest.mark.parametrize(
    ("structure", "constant"),
    [
        ("htab_elem", memory.HASH_ELEMENT),
        ("bucket", memory.BUCKET),
        ("lpm_trie_node", memory.TRIE_NODE),
        ("stack_map_bucket", memory.STACK_BUCKET),
        ("bpf_dtab_netdev", memory.DEVICE),
        ("bpf_shtab_elem", memory.SOCKET_ELEMENT),
        ("bpf_htab", MAP_BYTES),
        ("bpf_struct_ops_map", MAP_BYTES),
    ],
)
def test_no_structure_of_this_kernel_is_larger_than_counted(structure: str, constant: int) -> None:
    assert vmlinux().size(vmlinux().find(structure, STRUCT)) <= constant
