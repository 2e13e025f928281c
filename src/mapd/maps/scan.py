"""Reading a whole map, in pages that a dump can be resumed behind.

BPF_MAP_LOOKUP_BATCH wherever the kernel has it: it is the only scan that returned every stable key
exactly once under concurrent writers (a get_next_key walk misses keys that are merely overwritten,
and repeats thousands when its cursor key is deleted). get_next_key serves where batch is missing.
"""

from __future__ import annotations

import errno
import struct
import sys
import uuid
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import Batch, Columns, Elements, SyscallError
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts
from mapd.maps.types import Cursor
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason

_TOKEN: Final = struct.Struct("<BBI16s")
"""version, method, map id, boot id; the cursor's bytes follow."""
_TOKEN_VERSION: Final = 1
_METHODS: Final[tuple[str, ...]] = ("lookup_batch", "next_key")

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What is wanted of a scan. ``limit`` 0: all; ``token`` of an earlier page of the same map."""

    keys: bool = True
    values: bool = True
    prefix: bytes = b""
    limit: int = 0
    token: bytes = b""


@dataclass(frozen=True, slots=True)
class Page:
    """Elements read in one go; ``token`` resumes behind them, and is empty where none could, or for none."""

    count: int
    keys: bytes
    values: bytes
    token: bytes


_REFUSALS: Final = {
    **dict.fromkeys(PASSING, Reason.BUSY),
    **dict.fromkeys(UNSUPPORTED, Reason.OPERATION_UNSUPPORTED),
    errno.ENOMEM: Reason.KERNEL_MEMORY,
}


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

    method = _METHODS[0]

    def __init__(self, elements: Elements, facts: MapFacts, cursor: bytes) -> None:
        self._elements = elements
        self._facts = facts
        # The kernel writes u32 buckets and indexes, or a whole key, whatever room there is.
        self._cursor = Buffer.allocate(max(4, facts.key_stride))
        self._cursor.view[: len(cursor)] = cursor
        self._first = not cursor
        self._cursor_size = facts.key_stride if _keyed(facts) else 4
        self._seen = SeenKeys(facts, resumed=bool(cursor)) if _keyed(facts) else None
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
        batch = self._lookup(map_fd, columns)
        if batch.errno == errno.ENOSPC:
            return None
        if batch.errno not in (0, errno.ENOENT):
            raise SyscallError(batch.errno, "BPF_MAP_LOOKUP_BATCH")
        self.done = batch.errno == errno.ENOENT
        self._first = False
        self._rows += batch.count
        if self._seen is None:
            return batch.count
        kept = self._seen.keep_new(keys, values, row, batch.count)
        if not self.done and (stop := self._seen.must_stop(self._rows)):
            self.done, self._stop = True, stop
        return kept

    def _lookup(self, map_fd: int, columns: Columns) -> Batch:
        """One batch; where the moment was bad, the same again from the same place.

        A bucket whose lock is taken below us is EBUSY, an LPM key that goes under the kernel's hand EINTR
        (kernel/bpf/hashtab.c, syscall.c). The cursor has moved by then, past rows that were not answered.
        """
        before = self._cursor.take(self._cursor.size)
        batch = self._elements.lookup_batch(map_fd, self._cursor, self._first, columns)
        for _ in range(_RETRIES):
            if batch.errno not in PASSING:
                break
            self._cursor.view[:] = before
            batch = self._elements.lookup_batch(map_fd, self._cursor, self._first, columns)
        return batch


class NextKeyWalker:
    """BPF_MAP_GET_NEXT_KEY and a lookup for each key: for types and kernels without batch."""

    method = _METHODS[1]

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
            number = self._elements.each(map_fd, Op.LOOKUP, slot)[0]
            if number == 0:
                filled += 1
            elif number != errno.ENOENT:  # deleted since next_key named it: not there, so not in the dump
                raise SyscallError(number, "BPF_MAP_LOOKUP_ELEM")
        return filled


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
        kept = sum(fresh)
        if kept < count:
            for buffer in (keys, values):
                width = stride if buffer is keys else values.size // (keys.size // stride)
                table = np.frombuffer(buffer.view, np.uint8).reshape(-1, width)
                table[row : row + kept] = table[row : row + count][fresh]
        return kept

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


def _keyed(facts: MapFacts) -> bool:
    return facts.traits is None or facts.traits.cursor is Cursor.KEY


class Scan:
    """A walk over one map in pages. Not for two threads at once.

    Attributes:
        entries: elements handed out so far.
        done: no page follows.
    """

    def __init__(self, elements: Elements, facts: MapFacts, options: ScanOptions, boot_id: uuid.UUID) -> None:
        self._elements = elements
        self._facts = facts
        self._options = options
        self._boot_id = boot_id
        self.entries: int = 0
        self.done = False
        self._capacity: int = 0
        self._least: int = 1  # rows that the next page must have room for
        self._batch = limits.BATCH_ELEMENTS
        self._keys = self._values = Buffer.allocate(0)
        if len(options.prefix) > facts.key_stride:
            raise MapError(
                Reason.KEY_SIZE_MISMATCH,
                f"dump {facts.label}: prefix of {len(options.prefix)} bytes; keys have {facts.key_stride} bytes",
                **{**facts.about("dump"), "given": len(options.prefix), "expected": facts.key_stride},
            )
        facts.iterable("dump")
        facts.check_message("dump")
        method, cursor = self._parse_token(options.token) if options.token else (_METHODS[0], b"")
        walker = BatchWalker if method == BatchWalker.method else NextKeyWalker
        self._walker: Walker = walker(elements, facts, cursor)

    @property
    def method(self) -> str:
        """How the map is walked: "lookup_batch" or "next_key"."""
        return self._walker.method

    @property
    def restarts(self) -> int:
        """How often the kernel's cursor began again."""
        return self._walker.restarts

    @property
    def duplicates(self) -> int:
        """Repeats left out."""
        return self._walker.duplicates

    @property
    def incomplete(self) -> str:
        """Why the pages are not what the type promises: the end was not reached, or not in the way that is due."""
        return self._walker.incomplete

    def page_bytes(self, max_bytes: int) -> int:
        """Columns of the next ``page(max_bytes)``: more than that where one row, or one bucket, has more."""
        return self._room(max_bytes) * (self._facts.key_stride + self._facts.value_stride)

    def remembered_bytes(self, max_bytes: int) -> int:
        """Memory for the keys that were read, after the next ``page(max_bytes)``."""
        return self._walker.remembered_bytes(self._room(max_bytes))

    def _room(self, max_bytes: int) -> int:
        """Rows of the next page at most."""
        rows = max_bytes // (self._facts.key_stride + self._facts.value_stride)
        if self._options.limit and not self._options.prefix:
            # Not to read what is not wanted, nor to cut it off: no token resumes inside a kernel bucket.
            rows = min(rows, self._options.limit - self.entries)
        return max(rows, self._least)

    def page(self, map_fd: int, max_bytes: int) -> Page:
        """The next elements: ``page_bytes(max_bytes)`` of columns at most.

        None where the kernel's next bucket has more; ``page_bytes`` has grown then, and the next page tries
        again. Blocks for about 0.3 us an element.

        Raises:
            MapError: the map cannot be read.
        """
        self._reserve(self._room(max_bytes))
        self._least = 1
        try:
            rows = self._fill(map_fd)
        except SyscallError as error:
            raise self._refusal(error) from error
        return self._take(rows)

    def _reserve(self, capacity: int) -> None:
        if capacity != self._capacity:
            self._capacity = capacity
            self._keys = Buffer.allocate(capacity * self._facts.key_stride)
            self._values = Buffer.allocate(capacity * self._facts.value_stride)

    def _fill(self, map_fd: int) -> int:
        rows = 0
        while not self._walker.done and (rows == 0 or self._capacity - rows >= limits.BATCH_MIN_ELEMENTS):
            room = min(self._capacity - rows, self._batch)
            try:
                filled = self._walker.fill(map_fd, self._keys, self._values, rows, room)
            except SyscallError as error:
                if error.errno not in UNSUPPORTED or self._walker.method != BatchWalker.method or rows:
                    raise
                self._walker = NextKeyWalker(self._elements, self._facts, b"")
                continue
            if filled is None:
                if not rows:
                    self._grow(room)
                break
            rows += filled
        return rows

    def _grow(self, room: int) -> None:
        """One bucket holds more than ``room`` entries: twice the room in the next page, the same cursor.

        Not in this one, so that whoever counts the bytes can do so before they are there.
        """
        if room >= self._facts.info.max_entries:
            raise MapError(
                Reason.INTERNAL, f"dump {self._facts.label}: one bucket seems to hold more than the whole map"
            )
        self._batch = max(self._batch, 2 * room)
        self._least = 2 * room

    def _take(self, rows: int) -> Page:
        """Copy the wanted part of the buffers out."""
        facts, options = self._facts, self._options
        token = self._token() if rows else b""
        self.done = self._walker.done
        keys = self._keys.take(rows * facts.key_stride)
        values = self._values.take(rows * facts.value_stride) if options.values else b""
        if options.prefix:
            mask = _matches(keys, facts.key_stride, options.prefix)
            rows = int(mask.sum())
            keys = _rows(keys, facts.key_stride)[mask].tobytes()
            values = _rows(values, facts.value_stride)[mask].tobytes() if options.values else b""
        if options.limit and self.entries + rows >= options.limit:
            if self.entries + rows > options.limit:
                token = b""  # it would resume behind what is cut off here
            rows = options.limit - self.entries
            keys, values = keys[: rows * facts.key_stride], values[: rows * facts.value_stride]
            self.done = True
        self.entries += rows
        return Page(rows, keys if options.keys else b"", values, token)

    def _token(self) -> bytes:
        method = _METHODS.index(self._walker.method)
        head = _TOKEN.pack(_TOKEN_VERSION, method, self._facts.id, self._boot_id.bytes)
        return head + self._walker.cursor

    def _parse_token(self, token: bytes) -> tuple[str, bytes]:
        """Method and cursor of a token of this map and boot."""
        about = self._facts.about("dump")
        if len(token) <= _TOKEN.size or token[0] != _TOKEN_VERSION:
            raise MapError(
                Reason.BAD_SPEC, f"dump {self._facts.label}: this is no token of a dump; start anew", **about
            )
        _, method, map_id, boot_id = _TOKEN.unpack_from(token)
        cursor = token[_TOKEN.size :]
        if (map_id, boot_id) != (self._facts.id, self._boot_id.bytes):
            raise MapError(
                Reason.MAP_REPLACED,
                f"dump {self._facts.label}: the token is of map {map_id}"
                + ("" if boot_id == self._boot_id.bytes else " before the host's last boot")
                + "; start anew",
                **about,
            )
        traits = self._facts.traits
        size = self._facts.key_stride if method or _keyed(self._facts) else 4
        beyond = (
            traits is not None
            and traits.indexed
            and len(cursor) == size
            # The kernel would begin again at index 0.
            and int.from_bytes(cursor, sys.byteorder) >= self._facts.info.max_entries
        )
        if method >= len(_METHODS) or len(cursor) != size or beyond:
            raise MapError(
                Reason.BAD_SPEC, f"dump {self._facts.label}: the token is damaged; start anew", **about
            )
        return _METHODS[int(method)], cursor

    def _refusal(self, error: SyscallError) -> MapError:
        if error.errno == errno.EPERM:
            return self._facts.access_refusal("dump", writes=False)
        number = error.errno or 0
        return MapError(
            _REFUSALS.get(number, Reason.INTERNAL),
            f"dump {self._facts.label}: {error.strerror}",
            **self._facts.about("dump"),
            errno=errno_name(number),
        )


def _rows(column: bytes, stride: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(column, np.uint8).reshape(-1, stride)


def _matches(keys: bytes, stride: int, prefix: bytes) -> npt.NDArray[np.bool_]:
    """Which keys begin with ``prefix``; 1.7 ms a million rows of 8 bytes."""
    wanted = np.frombuffer(prefix, np.uint8)
    found: npt.NDArray[np.bool_] = (_rows(keys, stride)[:, : len(prefix)] == wanted).all(axis=1)
    return found
