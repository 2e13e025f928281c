"""Arrays read through memory: made BPF_F_MMAPABLE, opened to write, and so mapped into this process to read."""

from __future__ import annotations

import sys

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Elements
from mapd.maps.opened import MapFacts
from mapd_api.uapi import MapFlag, MapType


class MmapWalker:
    """Copies out of the kernel's own memory: 4 ns an element of 8 bytes, where LOOKUP_BATCH takes 230.

    Words of eight aligned bytes are whole, as they are for a lookup, which copies by words too. Each ``fill`` maps
    what it copies and unmaps it: mapped pages count as this process' memory, and nothing is left to unmap when a scan
    is cancelled. A mapping that only reads keeps nobody from freezing the map, as a writable one would. The cursor is
    LOOKUP_BATCH's, the last index read: a token may be taken up by either.

    The kernel maps only for a descriptor that may write; for another ``fill`` raises SyscallError EINVAL.

    Source: kernel/bpf/syscall.c, bpf_map_mmap(); kernel/bpf/arraymap.c, array_map_mmap(). Linux 5.5.
    """

    method = "mmap"
    incomplete = ""
    restarts = 0
    duplicates = 0

    def __init__(self, elements: Elements, facts: MapFacts, cursor: bytes) -> None:
        self._elements = elements
        self._facts = facts
        self._next = int.from_bytes(cursor, sys.byteorder) + 1 if cursor else 0

    @property
    def cursor(self) -> bytes:
        """The last index that was read."""
        return (self._next - 1).to_bytes(4, sys.byteorder) if self._next else b""

    @property
    def done(self) -> bool:
        """Whether the last index was read."""
        return self._next >= self._facts.info.max_entries

    def remembered_bytes(self, rows: int) -> int:
        """None: indexes need no remembering."""
        del rows
        return 0

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill."""
        facts = self._facts
        count = min(room, facts.info.max_entries - self._next)
        stride = facts.slot_stride
        memory = self._elements.read_memory(map_fd, self._next * stride, count * stride)
        slots = np.frombuffer(memory, np.uint8).reshape(-1, stride)
        table = np.frombuffer(values.view, np.uint8).reshape(-1, facts.value_stride)
        table[row : row + count] = slots[:, : facts.value_stride]
        indexes = np.arange(self._next, self._next + count, dtype=np.uint32)
        np.frombuffer(keys.view, np.uint32)[row : row + count] = indexes
        self._next += count
        return count


def mappable(facts: MapFacts) -> bool:
    """Whether a map may be read through memory: an array that was made so, without a lock to take for each value."""
    info = facts.info
    return info.map_type == MapType.ARRAY and bool(info.map_flags & MapFlag.MMAPABLE) and not facts.has_lock
