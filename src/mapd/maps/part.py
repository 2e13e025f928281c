"""One way through a map, with the memory that it fills: what one thread of a scan does at a time."""

from __future__ import annotations

import errno
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import Elements, SyscallError
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.mmapped import MmapWalker
from mapd.maps.opened import MapFacts
from mapd.maps.select import Selection
from mapd.maps.split import RangeWalker
from mapd.maps.walkers import BatchWalker, NextKeyWalker, Walker
from mapd_api import limits
from mapd_api.reasons import Reason

_REFUSALS: Final = {
    **dict.fromkeys(PASSING, Reason.BUSY),
    **dict.fromkeys(UNSUPPORTED, Reason.OPERATION_UNSUPPORTED),
    errno.ENOMEM: Reason.KERNEL_MEMORY,
    errno.ENOSPC: Reason.OPERATION_UNSUPPORTED,  # a socket map whose values have no room for the cookie
}


@dataclass(frozen=True, slots=True)
class Read:
    """What a part of a scan has read in one go.

    Attributes:
        scanned: elements, the unwanted ones included.
        count: elements that are wanted, with their columns.
        last: the last key that whoever asks may know of, where it may not know of all; b"" for none.
    """

    scanned: int
    count: int
    keys: bytes
    values: bytes
    last: bytes = b""


@dataclass(frozen=True, slots=True)
class Room:
    """Columns that the kernel writes: rows of keys, and of values."""

    rows: int
    keys: Buffer
    values: Buffer


class Rooms:
    """The rooms of one scan: as many as parts that are being read, each used again and again."""

    def __init__(self, facts: MapFacts) -> None:
        self._facts = facts
        self._free: deque[Room] = deque()  # whose ends any thread may use

    def take(self, rows: int) -> Room:
        """Room for so many rows; one that is free now of another size is let go."""
        with suppress(IndexError):
            if (room := self._free.pop()).rows == rows:
                return room
        facts = self._facts
        return Room(
            rows, Buffer.allocate(rows * facts.key_stride), Buffer.allocate(rows * facts.value_stride)
        )

    def give(self, room: Room) -> None:
        """Have it used again."""
        self._free.append(room)

    def forget(self) -> None:
        """Let go of what nobody uses now."""
        self._free.clear()


class Part:
    """A walk over a map, or over a range of it. Not for two threads at once."""

    def __init__(
        self, walker: Walker, elements: Elements, facts: MapFacts, selection: Selection, rooms: Rooms
    ) -> None:
        self._elements = elements
        self._facts = facts
        self._selection = selection
        self._rooms = rooms
        self._least: int = 1  # rows that the next page must have room for
        self._batch = limits.BATCH_ELEMENTS
        self.walker = walker

    def room(self, max_bytes: int, most: int = 0) -> int:
        """Rows of the next page at most; ``most`` are wanted, 0: any number."""
        rows = max_bytes // (self._facts.key_stride + self._facts.value_stride)
        return max(min(rows, most) if most else rows, self._least)

    def read(self, map_fd: int, max_bytes: int, most: int = 0) -> Read:
        """The next elements: ``room(max_bytes, most)`` of them at most.

        None where the kernel's next bucket has more; ``room`` has grown then, and the next read tries again. Blocks
        for about 0.3 us an element.

        Raises:
            MapError: the map cannot be read.
        """
        room = self._rooms.take(self.room(max_bytes, most))
        self._least = 1
        try:
            rows = self._fill(map_fd, room)
        except SyscallError as error:
            raise self._refusal(error) from error
        facts = self._facts
        keys = room.keys.view[: rows * facts.key_stride]
        values = room.values.view[: rows * facts.value_stride]
        last = self._selection.last_known(keys) if self._selection.partial else b""
        found = Read(rows, *self._selection.columns(keys, values), last)
        self._rooms.give(room)
        return found

    def _fill(self, map_fd: int, room: Room) -> int:
        rows = 0
        while not self.walker.done and (rows == 0 or room.rows - rows >= limits.BATCH_MIN_ELEMENTS):
            most = min(room.rows - rows, self._batch)
            try:
                filled = self.walker.fill(map_fd, room.keys, room.values, rows, most)
            except SyscallError as error:
                instead = None if rows else self._instead(error)
                if instead is None:
                    raise
                self.walker = instead
                continue
            if filled is None:
                if not rows:
                    self._grow(most)
                break
            rows += filled
            if filled == 0:
                break  # nothing to hand out here, perhaps for long: not all in one go
        return rows

    def _instead(self, error: SyscallError) -> Walker | None:
        """The way that serves where this one is refused."""
        walker = self.walker
        if isinstance(walker, MmapWalker):
            return BatchWalker(self._elements, self._facts, walker.cursor)
        if (
            error.errno in UNSUPPORTED
            and walker.method == BatchWalker.method
            and not isinstance(walker, RangeWalker)
        ):
            return NextKeyWalker(self._elements, self._facts, b"")
        return None

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
