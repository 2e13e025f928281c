"""Tries counted by their memory: to the element on this kernel, and not at all where the kernel tells no such thing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mapd.bpf import possible_cpus
from mapd.bpf.kernel import RawMapInfo
from mapd.maps.estimating import by_memory, node_head
from mapd.maps.opened import facts
from mapd.memory import MemoryKernel
from mapd_api.ops import Op
from mapd_api.uapi import MapFlag, MapType
from tests.kernel.maps import KERNEL, Maps

pytestmark = pytest.mark.kernel


def prefix(chance: random.Random) -> bytes:
    """One of few addresses, with any length: many lie in each other."""
    length = chance.randrange(33)
    address = chance.randrange(4) << 30 | chance.randrange(1 << 6)
    return length.to_bytes(4, "little") + (address >> (32 - length) << (32 - length)).to_bytes(4, "big")


@pytest.mark.parametrize("value_size", [1, 8, 33])
def test_a_trie_is_counted_to_the_element_whatever_is_written_and_removed(
    maps: Maps, value_size: int
) -> None:
    """Nodes between elements, made and left behind by removals, are not in the kernel's sum."""
    made = maps.create(
        MapType.LPM_TRIE, key_size=8, value_size=value_size, max_entries=4096, flags=MapFlag.NO_PREALLOC
    )
    head, chance, there = node_head(KERNEL), random.Random(7), set[bytes]()  # noqa: S311 - the same each time
    assert head > 0
    for _ in range(2000):
        key = prefix(chance)
        if key in there and chance.random() < 0.6:
            assert made.each(Op.DELETE, [key]) == [0]
            there.discard(key)
        else:
            assert made.each(Op.UPDATE, [key], [bytes(value_size)]) == [0]
            there.add(key)
        found = by_memory(facts(KERNEL.info(made.fd), possible_cpus()), head)
        assert found is not None
        assert (found.entries, found.exact) == (len(there), False)
    assert len(there) > 100


def test_other_types_are_not_counted_so(maps: Maps) -> None:
    made = maps.create(MapType.HASH, value_size=8, max_entries=8)
    assert by_memory(facts(KERNEL.info(made.fd), possible_cpus()), node_head(KERNEL)) is None


def test_without_a_head_nothing_is_told(maps: Maps) -> None:
    made = maps.create(MapType.LPM_TRIE, key_size=8, value_size=8, max_entries=8, flags=MapFlag.NO_PREALLOC)
    assert by_memory(facts(KERNEL.info(made.fd), possible_cpus()), 0) is None


class OldKernel(MemoryKernel):
    """Tells of every map what it may take when it is full, as kernels before 6.4 do."""

    def info(self, map_fd: int) -> RawMapInfo:
        return replace(super().info(map_fd), memlock=4096)


def test_a_kernel_whose_memory_is_no_multiple_of_its_elements_has_no_head() -> None:
    assert node_head(OldKernel(possible_cpus(), ["/bpf"])) == 0
    assert node_head(MemoryKernel(possible_cpus(), ["/bpf"])) > 0  # the canary
