"""Where a vector program finds its columns in a slot of the scratch; which types and operations there are for it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Final

from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, MapType

HEAD: Final = struct.Struct("=IIIIQ")
"""Begins a slot: the next element, how many there are, the next value to take, the next value to answer (both counted
in values from the beginning of the value column), and a mask of element numbers in the op column: 0 where its first
byte stands for all, all ones otherwise. A run leaves the first, third and fourth where it ended."""

NEXT_AT, COUNT_AT, TAKEN_AT, ANSWERED_AT, MASK_AT = 0, 4, 8, 12, 16
HEAD_BYTES: Final = 64

MAX_ELEMENTS: Final = 4_096
"""Of one run: below half a millisecond, so that nothing else on the CPU waits longer."""

MIN_ELEMENTS: Final = 8
"""Of one run: a slot that holds fewer is not worth a program."""

MAX_COPY_BYTES: Final = 8_192
"""Of all slots of one value: two instructions for each 8 of them, and one more for a miss."""

LOST_ERRNO: Final = 255
"""In a status: an errno that does not fit into a byte."""

TYPES: Final = frozenset(
    {
        MapType.HASH,
        MapType.ARRAY,
        MapType.PERCPU_HASH,
        MapType.PERCPU_ARRAY,
        MapType.LRU_HASH,
        MapType.LRU_PERCPU_HASH,
        MapType.LPM_TRIE,
    }
)
"""Types that there are vector programs for: values are bytes, and a program may read and write them all."""

UPDATE_OPS: Final = frozenset({Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})


def write_ops(map_type: int) -> frozenset[Op]:
    """What the writing program of a type does; the reading one looks up alone.

    A program's update of a per-CPU value writes the slot of the CPU that it runs on and no other (helper 2).
    """
    if map_type in PER_CPU_TYPES:
        return frozenset({Op.LOOKUP, Op.DELETE})
    return UPDATE_OPS | {Op.LOOKUP, Op.DELETE}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the columns of a run lie in a slot. Sizes and offsets in bytes.

    Attributes:
        capacity: elements of one run at most.
        key_size, stride: of one key; of one value, per CPU with all its slots.
        statuses, ops, keys, values: where the columns begin. Values taken stand before values answered.
    """

    capacity: int
    key_size: int
    stride: int
    statuses: int
    ops: int
    keys: int
    values: int


@cache
def layout(key_size: int, stride: int, slot_bytes: int) -> Layout | None:
    """The layout for elements of these sizes; None where too few of them fit into a slot."""
    capacity = min(MAX_ELEMENTS, (slot_bytes - HEAD_BYTES) // (2 + key_size + stride + 1)) & ~7
    if capacity < MIN_ELEMENTS or stride > MAX_COPY_BYTES or key_size < 1 or stride < 1:
        return None
    ops = HEAD_BYTES + capacity
    keys = ops + capacity
    values = keys + capacity * key_size
    return Layout(capacity, key_size, stride, HEAD_BYTES, ops, keys, values)
