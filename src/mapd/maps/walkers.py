"""Ways to walk a map, each with a cursor.

BPF_MAP_LOOKUP_BATCH wherever the kernel has it: it is the only walk that returned every stable key
exactly once under concurrent writers (a get_next_key walk misses keys that are merely overwritten,
and repeats thousands when its cursor key is deleted). get_next_key serves where batch is missing.
"""

from __future__ import annotations

import errno
import sys
from typing import Final, Protocol

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Batch, Columns, Elements, SyscallError
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts
from mapd.maps.traits import Cursor
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag

METHODS: Final[tuple[str, ...]] = ("lookup_batch", "next_key", "indexes")
"""By their numbers in tokens."""

BATCH_NAME: Final = "BPF_MAP_LOOKUP_BATCH"

SEEN_BYTES: Final = 64 << 20
"""Memory for remembering keys of one scan whose kernel cursor may restart; at about 100 bytes a key,
600,000 keys. A larger map's dump says that it is not complete."""
_SEEN_OVERHEAD: Final = 90
_RETRIES: Final = 3

_WALKED: Final = "walked by next_key, which misses keys that others overwrite meanwhile"
_REPEATED: Final = (
    "a key behind which the resumed scan was to go on has gone, so the kernel began again at the first: keys from "
    "before the token come once more"
)


class Walker(Protocol):
    """One way to walk a map. Fills buffers from ``row`` on and says how far it came."""

    @property
    def method(self) -> str:
        """Its name in trailers."""
        ...

    @property
    def cursor(self) -> bytes:
        """Where to go on; empty before the first row."""
        ...

    @property
    def done(self) -> bool:
        """Whether the end was reached, or given up."""
        ...

    @property
    def incomplete(self) -> str:
        """Why the rows are not what the type promises, given up or not; "" where they are."""
        ...

    @property
    def restarts(self) -> int:
        """How often the kernel began again at the first key."""
        ...

    @property
    def duplicates(self) -> int:
        """Rows left out because they had been read before."""
        ...

    def remembered_bytes(self, rows: int) -> int:
        """Memory for keys that were read, when ``rows`` more have been."""
        ...

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """Rows read, at most ``room``; None: not even one kernel bucket fits, make more room."""
        ...


class BatchWalker:
    """BPF_MAP_LOOKUP_BATCH."""

    method = METHODS[0]

    def __init__(self, elements: Elements, facts: MapFacts, cursor: bytes) -> None:
        self._elements = elements
        self._facts = facts
        # The kernel writes u32 buckets and indexes, or a whole key, whatever room there is.
        self._cursor = Buffer.allocate(max(4, facts.key_stride))
        self._cursor.view[: len(cursor)] = cursor
        self._first = not cursor
        self._cursor_size = facts.key_stride if keyed(facts) else 4
        self._seen = SeenKeys(facts, resumed=bool(cursor)) if keyed(facts) else None
        self._rows = 0
        self._stop = ""
        self.done = False

    @property
    def cursor(self) -> bytes:
        """Where to go on."""
        return b"" if self._first else self._cursor.take(self._cursor_size)

    @property
    def restarts(self) -> int:
        """How often the kernel began again at the first key."""
        return self._seen.restarts if self._seen else 0

    @property
    def duplicates(self) -> int:
        """Rows left out because they had been read before."""
        return self._seen.duplicates if self._seen else 0

    @property
    def incomplete(self) -> str:
        """Why the rows are not what the type promises."""
        return self._stop or (self._seen.repeated if self._seen else "")

    def remembered_bytes(self, rows: int) -> int:
        """Memory for keys that were read, when ``rows`` more have been."""
        return self._seen.bytes_with(rows) if self._seen else 0

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill."""
        facts = self._facts
        if self._seen is not None:
            self._seen.begin(self._elements, map_fd)
        columns = Columns(
            count=room,
            keys=keys,
            key_stride=facts.key_stride,
            key_offset=row * facts.key_stride,
            values=values,
            value_stride=facts.value_stride,
            value_offset=row * facts.value_stride,
        )
        batch = lookup_retried(self._elements, map_fd, facts, self._cursor, self._first, columns)
        if batch.errno == errno.ENOSPC:
            return None
        if batch.errno not in (0, errno.ENOENT):
            raise SyscallError(batch.errno, BATCH_NAME)
        self.done = batch.errno == errno.ENOENT
        self._first = False
        self._rows += batch.count
        if self._seen is None:
            return batch.count
        kept = self._seen.keep_new(keys, values, row, batch.count)
        if not self.done and (stop := self._seen.must_stop(self._rows)):
            self.done, self._stop = True, stop
        return kept


class NextKeyWalker:
    """BPF_MAP_GET_NEXT_KEY and a lookup for each key: for types and kernels without batch."""

    method = METHODS[1]

    def __init__(self, elements: Elements, facts: MapFacts, cursor: bytes) -> None:
        self._elements = elements
        self._facts = facts
        self.cursor = cursor
        self._seen = SeenKeys(facts, resumed=bool(cursor))
        self._moving = facts.traits is not None and facts.traits.cursor is Cursor.BUCKET
        self._to_check = self._moving and bool(cursor)
        self._steps = 0
        self._stop = ""
        self.done = False

    @property
    def restarts(self) -> int:
        """How often the kernel began again at the first key."""
        return self._seen.restarts

    @property
    def duplicates(self) -> int:
        """Keys left out because they had been read before."""
        return self._seen.duplicates

    @property
    def incomplete(self) -> str:
        """Why the rows are not what the type promises."""
        return self._stop or self._seen.repeated or (_WALKED if self._moving else "")

    def remembered_bytes(self, rows: int) -> int:
        """Memory for keys that were read, when ``rows`` more have been."""
        return self._seen.bytes_with(rows)

    def _check_token(self, map_fd: int) -> None:
        """Refuse to go on from a token by walking where the kernel has a batch, which misses nothing.

        No such token was given out by this kernel. A batch of no elements does nothing but tell.
        """
        self._to_check = False
        none = Columns(0, Buffer.allocate(0), self._facts.key_stride, Buffer.allocate(0))
        cursor = Buffer.allocate(max(4, self._facts.key_stride))
        if self._elements.lookup_batch(map_fd, cursor, True, none).errno not in UNSUPPORTED:
            raise MapError(
                Reason.BAD_SPEC,
                f"dump {self._facts.label}: the token is of a walk by next_key, and this kernel reads the map in a "
                "better way; start anew",
                **self._facts.about("dump"),
            )

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill."""
        if self._to_check:
            self._check_token(map_fd)
        self._seen.begin(self._elements, map_fd)
        facts, filled = self._facts, 0
        while filled < room and not self.done:
            key = self._elements.next_key(map_fd, self.cursor or None, facts.key_stride)
            if key is None:
                self.done = True
                break
            self.cursor = key
            self._steps += 1
            if stop := self._seen.must_stop(self._steps):
                self.done, self._stop = True, stop
            if not self._seen.add(key):
                continue
            at = row + filled
            keys.view[at * facts.key_stride : (at + 1) * facts.key_stride] = key
            slot = Columns(
                count=1,
                keys=Buffer.of(key),
                key_stride=facts.key_stride,
                values=values,
                value_stride=facts.value_stride,
                value_offset=at * facts.value_stride,
            )
            flags = ElementFlag.LOCK if facts.has_lock else 0
            number = self._elements.each(map_fd, Op.LOOKUP, slot, flags)[0]
            if number == 0:
                filled += 1
            elif number != errno.ENOENT:  # deleted since next_key named it: not there, so not in the dump
                raise SyscallError(number, "BPF_MAP_LOOKUP_ELEM")
        return filled


class IndexWalker:
    """A lookup of each index: for types without batch whose keys are 0 to max_entries - 1."""

    method = METHODS[2]
    incomplete = ""
    restarts = 0
    duplicates = 0

    def __init__(self, elements: Elements, facts: MapFacts, cursor: bytes) -> None:
        self._elements = elements
        self._facts = facts
        self._next = int.from_bytes(cursor, sys.byteorder)

    @property
    def cursor(self) -> bytes:
        """The next index."""
        return self._next.to_bytes(4, sys.byteorder) if self._next else b""

    @property
    def done(self) -> bool:
        """Whether the last index was looked up."""
        return self._next >= self._facts.info.max_entries

    def remembered_bytes(self, rows: int) -> int:
        """None: indexes need no remembering."""
        del rows
        return 0

    def fill(self, map_fd: int, keys: Buffer, values: Buffer, row: int, room: int) -> int | None:
        """As Walker.fill; 0 where all of so many indexes hold nothing."""
        facts = self._facts
        count = min(room, facts.info.max_entries - self._next)
        column = np.frombuffer(keys.view, np.uint32)
        column[row : row + count] = np.arange(self._next, self._next + count, dtype=np.uint32)
        columns = Columns(
            count=count,
            keys=keys,
            key_stride=facts.key_stride,
            key_offset=row * facts.key_stride,
            values=values,
            value_stride=facts.value_stride,
            value_offset=row * facts.value_stride,
        )
        errnos = self._elements.each(map_fd, Op.LOOKUP, columns)
        refused = set(errnos) - {0, errno.ENOENT}
        if refused:
            raise SyscallError(min(refused), "BPF_MAP_LOOKUP_ELEM")
        self._next += count
        return keep(keys, values, row, facts.key_stride, [number == 0 for number in errnos])


def lookup_retried(
    elements: Elements, map_fd: int, facts: MapFacts, cursor: Buffer, first: bool, columns: Columns
) -> Batch:
    """One batch; where the moment was bad, the same again from the same place.

    A bucket whose lock is taken below us is EBUSY, an LPM key that goes under the kernel's hand EINTR
    (kernel/bpf/hashtab.c, syscall.c). The cursor has moved by then, past rows that were not answered.
    """
    flags = int(ElementFlag.LOCK) if facts.has_lock else 0
    before = cursor.take(cursor.size)
    batch = elements.lookup_batch(map_fd, cursor, first, columns, flags)
    for _ in range(_RETRIES):
        if batch.errno not in PASSING:
            break
        cursor.view[:] = before
        batch = elements.lookup_batch(map_fd, cursor, first, columns, flags)
    return batch


def keep(keys: Buffer, values: Buffer, row: int, key_stride: int, wanted: list[bool]) -> int:
    """Close the gaps that unwanted rows leave in both columns; the rows kept."""
    kept, count = sum(wanted), len(wanted)
    if kept < count:
        for buffer in (keys, values):
            width = key_stride if buffer is keys else values.size // (keys.size // key_stride)
            table = np.frombuffer(buffer.view, np.uint8).reshape(-1, width)
            table[row : row + kept] = table[row : row + count][wanted]
    return kept


class SeenKeys:
    """Keys of one scan, to leave repeats out and to end a scan that the kernel keeps restarting.

    A ``resumed`` scan does not know the keys from before its token; if the kernel begins again they come
    twice, and all that can be done is to notice.
    """

    def __init__(self, facts: MapFacts, *, resumed: bool) -> None:
        self._resumed = self._unbegun = resumed
        self._stride = facts.key_stride
        self._bound = 2 * facts.info.max_entries + limits.BATCH_ELEMENTS
        self._capacity = SEEN_BYTES // (facts.key_stride + _SEEN_OVERHEAD)
        self._seen: set[bytes] = set()
        self._first: bytes | None = None
        self.restarts = 0
        self.duplicates = 0

    def begin(self, elements: Elements, map_fd: int) -> None:
        """Before the first row of a resumed scan: remember the map's first key, the mark of a restart.

        The kernel restarts without a word when its cursor's key has gone (kernel/bpf/lpm_trie.c,
        trie_get_next_key(); hashtab.c, htab_map_get_next_key()).
        """
        if self._unbegun:
            self._unbegun = False
            self._first = elements.next_key(map_fd, None, self._stride)

    @property
    def repeated(self) -> str:
        """That keys came which an earlier scan had answered, or ""."""
        return _REPEATED if self._resumed and (self.restarts or self.duplicates) else ""

    def add(self, key: bytes) -> bool:
        """Whether ``key`` is new."""
        if self._first is None:
            self._first = key
        elif key == self._first:
            self.restarts += 1
        if key in self._seen:
            self.duplicates += 1
            return False
        self._seen.add(key)
        return True

    def keep_new(self, keys: Buffer, values: Buffer, row: int, count: int) -> int:
        """Close the gaps that repeated keys leave in both columns; the rows kept."""
        stride = self._stride
        fresh = [self.add(keys.take(stride, (row + at) * stride)) for at in range(count)]
        return keep(keys, values, row, stride, fresh)

    def bytes_with(self, rows: int) -> int:
        """Memory of the keys remembered, and of ``rows`` more."""
        return (len(self._seen) + rows) * (self._stride + _SEEN_OVERHEAD)

    def must_stop(self, rows: int) -> str:
        """Why the scan must end here, or ""."""
        if rows > self._bound:
            return f"the kernel restarted the scan {self.restarts} times; gave up after {rows} rows"
        if len(self._seen) > self._capacity:
            return f"more than {self._capacity} keys to remember for leaving repeats out"
        return ""


def method_of(facts: MapFacts) -> str:
    """How a map of this type is walked; LOOKUP_BATCH gives way to get_next_key where this kernel lacks it."""
    match facts.traits.cursor if facts.traits else Cursor.NEXT_KEY:
        case Cursor.NEXT_KEY:
            return NextKeyWalker.method
        case Cursor.INDEXES:
            return IndexWalker.method
        case _:
            return BatchWalker.method


def keyed(facts: MapFacts) -> bool:
    """Whether the batch cursor of this type is a key, so that the kernel may begin again."""
    return facts.traits is None or facts.traits.cursor is Cursor.KEY
