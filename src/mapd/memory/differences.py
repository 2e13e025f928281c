"""What is known to be other in memory than in the kernel: the page of the documentation, and what tests allow for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mapd_api.uapi import MapType


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One row. ``types``: which maps it concerns; empty for what is around maps rather than in them."""

    name: str
    types: frozenset[MapType] = frozenset()
    kernel: str
    memory: str


LRU_VICTIM: Final = Difference(
    name="which element an LRU map drops",
    types=frozenset({MapType.LRU_HASH, MapType.LRU_PERCPU_HASH}),
    kernel="about the least recent one, of lists per CPU; 1 to 2 % go before the map is full, and what a program "
    "reads becomes recent",
    memory="the one written longest ago, and none before max_entries are there",
)
BLOOM_MISTAKES: Final = Difference(
    name="which values a Bloom filter has by mistake",
    types=frozenset({MapType.BLOOM_FILTER}),
    kernel="by jhash, seeded for each map",
    memory="about as many, but others: as many bits and hashes, of another hash function",
)
HASH_ORDER: Final = Difference(
    name="the order of a hash map's elements",
    types=frozenset({MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH}),
    kernel="by bucket of jhash, seeded for each map",
    memory="by bucket of another hash, and never more than 65,536 buckets",
)
HOST: Final = Difference(
    name="what depends on the host",
    kernel="memory is charged and can run out; NUMA nodes; BTF is verified type by type",
    memory="elements take memory of the daemon when they are written, and memlock estimates it; node 0 alone; of BTF "
    "sizes and bpf_spin_lock are looked at",
)
WORLD: Final = Difference(
    name="what is around the maps",
    kernel="33 map types; programs and other processes use the same maps; pins are files with owners and modes",
    memory="the eleven types of data; one process; no program but what mapd itself runs; pins are names",
)

DIFFERENCES: Final = (LRU_VICTIM, BLOOM_MISTAKES, HASH_ORDER, HOST, WORLD)
"""All of them. Whatever else differs is a mistake."""
