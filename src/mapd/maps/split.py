"""A hash table's scan in ranges of buckets that several threads may read at once, exact where they meet.

A key's bucket never changes, and LOOKUP_BATCH goes through the buckets in order and reads each under its lock
(kernel/bpf/hashtab.c, __htab_map_lookup_and_delete_batch()). Its cursor is a bucket's number, and any number may be
given. But it does not stop where one likes: it ends at the next bucket *with elements* that has no room any more, so
what a call near a range's end answers may be of the next range, and nothing says which of it.

So before anything else a few elements at the beginning of each range are read, the *fence* (``FenceWalker``), and
their keys remembered until the range before has been read. That one may read on beyond its end, up to the fence's:
whatever is in the fence was answered already and is left out, whatever is not will never be answered by the next
range, which goes on behind the fence. No key can be missed or come twice, whoever writes meanwhile. Only where
all the elements that were in the fence's buckets are gone does a call overrun it too (``RangeWalker._settle``).
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Batch, Columns, Elements, SyscallError
from mapd.maps.opened import MapFacts
from mapd.maps.walkers import BATCH_NAME, BatchWalker, keep, lookup_retried

END: Final = 0xFFFF_FFFF
"""Behind the last bucket, however many there are."""

FENCE_ELEMENTS: Final = 64
"""Elements remembered at a range's beginning: half a kilobyte of each token with keys of eight bytes."""

MARK_BYTES: Final = 16
"""Longer keys are remembered by a hash of so many bytes."""

SPLIT_FROM: Final = 1 << 15
"""Buckets from which a scan is split. A full table of so many takes a dump 2.0 times what C takes to read it, and 2.6
in one range; with half as many nothing is gained."""

_BUCKET: Final = struct.Struct("=I")
_TRIES: Final = 8
_MANY: Final = 4_096
_NARROW: Final = 4
"""Standard deviations by which a call that comes near a range's end asks for less than it expects there."""

_DOUBTFUL: Final = (
    "while it was read in parts, all elements behind the end of a part were removed: a key that was removed and "
    "added again meanwhile may be there twice"
)


def mark(key: bytes) -> bytes:
    """What is remembered of a key."""
    return key if len(key) <= MARK_BYTES else blake2b(key, digest_size=MARK_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Fence:
    """The beginning of the next range: its marks, and the bucket before which they are."""

    reach: int
    marks: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets from ``cursor`` until before ``end`` that are still to be read."""

    cursor: int
    end: int = END
    fence: Fence | None = None

    @property
    def reach(self) -> int:
        """The bucket up to which it is known what the next range answered."""
        return self.fence.reach if self.fence else self.end


def n_buckets(facts: MapFacts) -> int:
    """How many buckets a hash table of these facts has.

    Wrong for a kernel to come, this would make ranges of unequal size and nothing worse.

    Source: kernel/bpf/hashtab.c, htab_map_alloc(); max_entries is told as it was rounded for the CPUs there.
    """
    return 1 << max(0, facts.info.max_entries - 1).bit_length()


def boundaries(facts: MapFacts, cursor: int, ranges: int) -> list[int]:
    """Where to cut what is left from ``cursor`` on into so many ranges; nowhere if it is little."""
    left = n_buckets(facts) - cursor
    if ranges < 2 or left < SPLIT_FROM:
        return []
    return [cursor + left * at // ranges for at in range(1, ranges)]


class FenceWalker:
    """Reads the fences of a scan that is to be split: the first elements behind each boundary.

    Attributes:
        ranges: what is left to be read, once ``done``.
    """

    method = BatchWalker.method
    incomplete = ""
    restarts = 0
    duplicates = 0
    cursor = b""

    def __init__(self, elements: Elements, facts: MapFacts, cursor: int, cuts: list[int]) -> None:
        self._elements = elements
        self._facts = facts
        self._begin = cursor
        self._cuts = cuts
        self.done = False
        self.ranges: tuple[BucketRange, ...] = ()

    def remembered_bytes(self, rows: int) -> int:
        """A few kilobytes, not counted."""
        del rows
        return 0

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill; all of it in one call, and ``done``."""
        facts = self._facts
        ranges: list[BucketRange] = []
        begin, rows = self._begin, 0
        most = min(FENCE_ELEMENTS, room // len(self._cuts))
        for cut in self._cuts if most else ():
            if cut <= begin:
                continue  # few elements: the fence before has reached beyond this one
            columns = _columns(facts, keys, values, row + rows, most)
            batch, reach = _lookup(self._elements, map_fd, facts, cut, columns)
            if batch.errno == errno.ENOSPC:
                continue  # a crowded bucket: no cut here
            marks = _marks(facts, keys, row + rows, batch.count)
            ranges.append(BucketRange(begin, cut, Fence(reach, frozenset(marks))))
            begin, rows = reach, rows + batch.count
        if begin != END:
            ranges.append(BucketRange(begin))
        self.ranges = tuple(ranges)
        self.done = True
        return rows


class RangeWalker:
    """BPF_MAP_LOOKUP_BATCH from one bucket to another."""

    method = BatchWalker.method
    restarts = 0
    cursor = b""

    def __init__(self, elements: Elements, facts: MapFacts, of: BucketRange) -> None:
        self._elements = elements
        self._facts = facts
        self.left = of
        self.duplicates = 0
        self.incomplete = ""
        self._buckets_per_row = 0.0
        self._reached = 0

    @property
    def done(self) -> bool:
        """Whether the range's end was reached."""
        return self.left.cursor >= self.left.end

    def remembered_bytes(self, rows: int) -> int:
        """A few kilobytes, not counted."""
        del rows
        return 0

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill.

        Raises:
            SyscallError: EBUSY where writers emptied and filled the buckets behind the end all the while.
        """
        for _ in range(_TRIES):
            if (count := self._read(map_fd, keys, values, row, room)) is None:
                return None
            reached = self._reached
            kept: int | None = count
            if count and reached > self.left.end:
                kept = self._settle(map_fd, keys, values, row, count, reached)
            if kept is not None:
                self.left = replace(self.left, cursor=min(reached, self.left.end))
                return kept
        raise SyscallError(errno.EBUSY, BATCH_NAME)

    def _read(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """One call, made again for fewer rows where it ran beyond the fence; None: a bucket needs more room."""
        too_few = too_many = 0  # rows that held no bucket, and rows that reached beyond the fence
        ask = self._near_the_end(room)
        while ask <= room:
            columns = _columns(self._facts, keys, values, row, ask)
            batch, self._reached = _lookup(self._elements, map_fd, self._facts, self.left.cursor, columns)
            if batch.errno == errno.ENOSPC:
                if self._reached >= self.left.end:
                    return 0  # all before the end is empty
                self.left = replace(self.left, cursor=self._reached)
                too_few = ask
                if ask == room:
                    break
            elif self._reached <= self.left.reach or ask <= too_few + 1:
                self._measure(batch.count)
                return batch.count
            else:
                too_many = ask
            ask = max(too_few + 1, (too_few + too_many) // 2) if too_many else room
        return None

    def _near_the_end(self, room: int) -> int:
        """How many rows to ask for, so as not to read much that belongs to the next range."""
        if self.left.end == END or not self._buckets_per_row:
            return room
        expected = (self.left.end - self.left.cursor) / self._buckets_per_row
        return max(1, min(room, int(expected - _NARROW * expected**0.5) + FENCE_ELEMENTS // 2))

    def _measure(self, rows: int) -> None:
        if rows and self._reached != END:
            self._buckets_per_row = max(1, self._reached - self.left.cursor) / rows

    def _settle(
        self, map_fd: int, keys: Buffer, values: Buffer, row: int, count: int, reached: int
    ) -> int | None:
        """Leave out what the next range answers, of rows that were read beyond this one's end.

        None where that cannot be told, because the buckets have filled again: read once more.
        """
        fence = self.left.fence
        answered = set(fence.marks) if fence else set[bytes]()
        marks = _marks(self._facts, keys, row, count)
        if emptied := reached > self.left.reach:
            # What is found behind the end is the next range's. What is not, and is not to be found from here
            # either, has gone.
            behind = self._found(map_fd, self.left.end, reached)
            here = self._found(map_fd, self.left.cursor, reached)
            if behind is None or here is None:
                return None
            answered |= behind
            answered.update(one for one in marks if one not in here)
        wanted = [one not in answered for one in marks]
        self.duplicates += count - sum(wanted)
        if emptied and any(wanted):
            self.incomplete = _DOUBTFUL
        return keep(keys, values, row, self._facts.key_stride, wanted)

    def _found(self, map_fd: int, cursor: int, until: int) -> set[bytes] | None:
        """Marks of all in the buckets from ``cursor`` until before ``until``; None if they are many."""
        facts, room = self._facts, FENCE_ELEMENTS
        found: set[bytes] = set()
        while cursor < until:
            keys, values = (
                Buffer.allocate(room * facts.key_stride),
                Buffer.allocate(room * facts.value_stride),
            )
            batch, cursor = _lookup(
                self._elements, map_fd, facts, cursor, _columns(facts, keys, values, 0, room)
            )
            found |= set(_marks(facts, keys, 0, batch.count))
            room *= 2 if batch.errno == errno.ENOSPC else 1
            if len(found) > _MANY or room > _MANY:
                return None
        return found


def _columns(facts: MapFacts, keys: Buffer, values: Buffer, row: int, room: int) -> Columns:
    return Columns(
        count=room,
        keys=keys,
        key_stride=facts.key_stride,
        key_offset=row * facts.key_stride,
        values=values,
        value_stride=facts.value_stride,
        value_offset=row * facts.value_stride,
    )


def _lookup(
    elements: Elements, map_fd: int, facts: MapFacts, bucket: int, columns: Columns
) -> tuple[Batch, int]:
    """A batch from ``bucket`` on, and the bucket that it reached; raises but for ENOSPC."""
    cursor = Buffer.allocate(max(_BUCKET.size, facts.key_stride))
    _BUCKET.pack_into(cursor.view, 0, bucket)
    batch = lookup_retried(elements, map_fd, facts, cursor, False, columns)
    if batch.errno not in (0, errno.ENOENT, errno.ENOSPC):
        raise SyscallError(batch.errno, BATCH_NAME)
    return batch, END if batch.errno == errno.ENOENT else int(_BUCKET.unpack_from(cursor.view)[0])


def _marks(facts: MapFacts, keys: Buffer, row: int, count: int) -> list[bytes]:
    """Of some rows: a few at each boundary, once."""
    stride = facts.key_stride
    return [mark(keys.take(stride, (row + at) * stride)) for at in range(count)]
