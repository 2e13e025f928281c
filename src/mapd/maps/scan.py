"""Reading a whole map, in pages that a dump can be resumed behind."""

from __future__ import annotations

import errno
import struct
import sys
import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import Elements, SyscallError
from mapd.maps import lpm
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts
from mapd.maps.traits import Cursor
from mapd.maps.walkers import (
    METHODS,
    WALKERS,
    BatchWalker,
    IndexWalker,
    NextKeyWalker,
    Walker,
    keyed,
    method_of,
)
from mapd_api import limits
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

_TOKEN: Final = struct.Struct("<BBI16s")
"""version, method, map id, boot id; the cursor's bytes follow."""
_TOKEN_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """What is wanted of a scan. ``limit`` 0: all; ``token`` of an earlier page of the same map.

    ``covered_by``, a key of an LPM trie: only prefixes within it, itself included.
    """

    keys: bool = True
    values: bool = True
    prefix: bytes = b""
    limit: int = 0
    token: bytes = b""
    covered_by: bytes = b""


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
    errno.ENOSPC: Reason.OPERATION_UNSUPPORTED,  # a socket map whose values have no room for the cookie
}


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
        self._filters = bool(options.prefix or options.covered_by)
        self._boot_id = boot_id
        self.entries: int = 0
        self.done = False
        self._capacity: int = 0
        self._least: int = 1  # rows that the next page must have room for
        self._batch = limits.BATCH_ELEMENTS
        self._keys = self._values = Buffer.allocate(0)
        _check_filters(options, facts)
        facts.iterable("dump")
        facts.check_message("dump")
        method, cursor = self._parse_token(options.token) if options.token else (method_of(facts), b"")
        self._walker: Walker = WALKERS[method](elements, facts, cursor)

    @property
    def method(self) -> str:
        """How the map is walked: "lookup_batch", "next_key" or "indexes"."""
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
        if self._options.limit and not self._filters:
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
            if filled == 0:
                break  # nothing to hand out here, perhaps for long: not all in one go
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
        if self._filters:
            mask = _wanted(keys, facts.key_stride, options)
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
        method = METHODS.index(self._walker.method)
        head = _TOKEN.pack(_TOKEN_VERSION, method, self._facts.id, self._boot_id.bytes)
        return head + self._walker.cursor

    def _parse_token(self, token: bytes) -> tuple[str, bytes]:
        """Method and cursor of a token of this map and boot."""
        about = self._facts.about("dump")
        if len(token) <= _TOKEN.size or token[0] != _TOKEN_VERSION:
            raise MapError(
                Reason.BAD_SPEC, f"dump {self._facts.label}: this is no token of a dump; start anew", **about
            )
        method: int
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
        walks = METHODS[method] if method < len(METHODS) else ""
        whole = walks == NextKeyWalker.method or keyed(self._facts)
        usual = method_of(self._facts)
        if (
            (walks != usual and (walks, usual) != (NextKeyWalker.method, BatchWalker.method))
            or len(cursor) != (self._facts.key_stride if whole else 4)
            or _beyond(self._facts, walks, cursor)
        ):
            raise MapError(
                Reason.BAD_SPEC, f"dump {self._facts.label}: the token is damaged; start anew", **about
            )
        return walks, cursor

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


def _beyond(facts: MapFacts, walks: str, cursor: bytes) -> bool:
    """Whether a cursor is an index that no scan comes to; the kernel would begin again at index 0."""
    if facts.traits is None or facts.traits.cursor not in (Cursor.INDEX, Cursor.INDEXES):
        return False
    # "indexes" has the next index as its cursor, the others have the last one.
    last = facts.info.max_entries if walks == IndexWalker.method else facts.info.max_entries - 1
    return int.from_bytes(cursor, sys.byteorder) > last


def _rows(column: bytes, stride: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(column, np.uint8).reshape(-1, stride)


def _check_filters(options: ScanOptions, facts: MapFacts) -> None:
    """Refuse filters that no key of this map could pass."""
    for what, key in (("prefix", options.prefix), ("covered_by", options.covered_by)):
        if len(key) > facts.key_stride or (what == "covered_by" and key and len(key) != facts.key_stride):
            raise MapError(
                Reason.KEY_SIZE_MISMATCH,
                f"dump {facts.label}: {what} of {len(key)} bytes; keys have {facts.key_stride} bytes",
                **{**facts.about("dump"), "given": len(key), "expected": facts.key_stride},
            )
    if options.covered_by and facts.info.map_type != MapType.LPM_TRIE:
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"dump {facts.label}: covered_by is for LPM tries; {facts.type_name} maps take prefix, the first bytes "
            "of a key",
            **facts.about("dump"),
        )


def _wanted(keys: bytes, stride: int, options: ScanOptions) -> npt.NDArray[np.bool_]:
    """Which keys pass the filters."""
    mask = _matches(keys, stride, options.prefix)
    return mask & lpm.within(keys, stride, options.covered_by) if options.covered_by else mask


def _matches(keys: bytes, stride: int, prefix: bytes) -> npt.NDArray[np.bool_]:
    """Which keys begin with ``prefix``; 1.7 ms a million rows of 8 bytes."""
    wanted = np.frombuffer(prefix, np.uint8)
    found: npt.NDArray[np.bool_] = (_rows(keys, stride)[:, : len(prefix)] == wanted).all(axis=1)
    return found
