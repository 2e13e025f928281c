"""Which groups are so short that the event loop may run them itself, instead of a thread of the pool."""

from __future__ import annotations

from typing import Final

from mapd.maps.groups import Plan
from mapd.maps.opened import OpenMap
from mapd_api.ops import Op
from mapd_api.uapi import MapType

INLINE_BYTES: Final = 64 << 10
"""Keys and values of a group that runs in the loop's own turn: some 10 us to copy."""

_NEVER_BLOCKING: Final = frozenset(
    {
        MapType.HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.QUEUE,
        MapType.STACK,
        MapType.BLOOM_FILTER,
    }
)
"""Elements of these are reached under rcu_read_lock and spin locks (kernel/bpf/hashtab.c, arraymap.c,
queue_stack_maps.c, bloom_filter.c); an LPM trie is walked as a whole for an exact prefix."""


def passes(target: OpenMap, checked: Plan, most: int) -> bool:
    """Whether a group is so short that the loop may run it. The program of COMPARE_UPDATE is found by trial."""
    group = checked.group
    return (
        group.count <= most
        and target.facts.info.map_type in _NEVER_BLOCKING
        and Op.COMPARE_UPDATE not in checked.ops
        and len(group.keys) + len(group.values) + checked.answer_bytes <= INLINE_BYTES
    )
