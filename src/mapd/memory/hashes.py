"""Hash maps: plain, per-CPU, and those that drop their least recent elements instead of being full."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from mapd.memory.table import Found, Row, Rows, Shape, Table, refused_flags
from mapd_api.uapi import PER_CPU_TYPES

MOST_BUCKETS: Final = 1 << 16
"""The kernel has max_entries of them, rounded up to a power of two. Nobody can see how many there are, and
fewer make walks over a nearly empty map short."""

_BUCKET: Final = struct.Struct("=I")


class HashTable(Table):
    """HASH and PERCPU_HASH. A bucket's newest element comes first, and a full map is E2BIG.

    An update of a plain hash puts a new element in the place of the old one, at the head of its bucket;
    one of a per-CPU hash writes in place (kernel/bpf/hashtab.c, htab_map_update_elem()).
    """

    batches = (True, True, True)
    takes_out = True

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._in_place = shape.map_type in PER_CPU_TYPES
        self._n_buckets = min(1 << (shape.max_entries - 1).bit_length(), MOST_BUCKETS)
        self._buckets: dict[int, dict[bytes, bytes]] = {}
        self._count = 0
        self._hash: Callable[[bytes], int] = (
            hash  # seeded anew in every process, as the kernel's in every map
        )

    def __len__(self) -> int:
        return self._count

    def count(self) -> int:
        """As ``Table.count``."""
        return self._count

    def _number(self, key: bytes) -> int:
        return self._hash(key) % self._n_buckets

    def lookup(self, key: bytes, value: bytes) -> Found:
        """As ``Table.lookup``."""
        del value
        return self._buckets.get(self._number(key), {}).get(key, errno.ENOENT)

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """As ``Table.update``."""
        number = self._number(key)
        bucket = self._buckets.get(number, {})
        there = key in bucket
        if refused := refused_flags(flags, there=there):
            return refused
        if not there and (full := self._make_room()):
            return full
        if there and not self._in_place:
            del bucket[key]
        # _make_room may have emptied and dropped this very bucket.
        self._buckets.setdefault(number, bucket)[key] = self.stored(value)
        self._count += not there
        return 0

    def overwrite(self, key: bytes, value: bytes) -> None:
        """As ``Table.overwrite``: the element keeps its place in its bucket."""
        self._buckets[self._number(key)][key] = self.stored(value)

    def _make_room(self) -> int:
        return errno.E2BIG if self._count >= self.shape.max_entries else 0

    def delete(self, key: bytes) -> int:
        """As ``Table.delete``."""
        found = self.take(key)
        return found if isinstance(found, int) else 0

    def take(self, key: bytes) -> Found:
        """As ``Table.take``."""
        number = self._number(key)
        bucket = self._buckets.get(number, {})
        if key not in bucket:
            return errno.ENOENT
        value = bucket.pop(key)
        if not bucket:
            del self._buckets[number]
        self._count -= 1
        return value

    def next_key(self, key: bytes | None) -> Found:
        """As ``Table.next_key``."""
        number = 0
        if key is not None and key in self._buckets.get(own := self._number(key), {}):
            for one, following in pairwise(reversed(self._buckets[own])):
                if one == key:
                    return following
            number = own + 1
        number = self._filled_from(number)
        return errno.ENOENT if number >= self._n_buckets else next(reversed(self._buckets[number]))

    def _filled_from(self, number: int) -> int:
        """The first bucket from ``number`` on that has elements; the number of buckets if none has."""
        while number < self._n_buckets and number not in self._buckets:
            number += 1
        return number

    def lookup_batch(self, cursor: bytes | None, count: int) -> Rows:
        """MAP_LOOKUP_BATCH by whole buckets, as __htab_map_lookup_and_delete_batch()."""
        number = 0 if cursor is None else _BUCKET.unpack_from(cursor)[0]
        rows: list[Row] = []
        if number >= self._n_buckets:
            return Rows((), errno.ENOENT, _BUCKET.pack(number))
        while (number := self._filled_from(number)) < self._n_buckets:
            bucket = self._buckets[number]
            if len(bucket) > count - len(rows):
                return Rows(rows, 0 if rows else errno.ENOSPC, _BUCKET.pack(number))
            rows += reversed(bucket.items())
            number += 1
        return Rows(rows, errno.ENOENT, _BUCKET.pack(number))

    def cursor_size(self) -> int:
        """A bucket's number."""
        return _BUCKET.size


class LruTable(HashTable):
    """LRU_HASH and LRU_PERCPU_HASH: a new key drops the one that was written longest ago.

    The kernel approximates (lists per CPU, reference bits that only programs set) and begins to drop a
    little before the map is full; here nothing goes before. An element that is merely read stays old.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._written: dict[bytes, None] = {}

    def update(self, key: bytes, value: bytes, flags: int) -> int:
        """As ``Table.update``."""
        refused = super().update(key, value, flags)
        if not refused:
            self._written.pop(key, None)
            self._written[key] = None
        return refused

    def overwrite(self, key: bytes, value: bytes) -> None:
        """As ``Table.overwrite``; a program that looks an element up marks it as recent."""
        super().overwrite(key, value)
        self._written[key] = self._written.pop(key)

    def take(self, key: bytes) -> Found:
        """As ``Table.take``."""
        found = super().take(key)
        self._written.pop(key, None)
        return found

    def _make_room(self) -> int:
        if self._count >= self.shape.max_entries:
            self.take(next(iter(self._written)))
        return 0
