"""Reading a whole map, in pages that a dump can be resumed behind."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from mapd.bpf.kernel import Elements
from mapd.maps import split, tokens
from mapd.maps.mmapped import MmapWalker, mappable
from mapd.maps.opened import MapFacts
from mapd.maps.part import Part, Read, Rooms
from mapd.maps.select import ScanOptions, Selection
from mapd.maps.split import BucketRange, FenceWalker, RangeWalker
from mapd.maps.tokens import Place, Position
from mapd.maps.traits import Cursor
from mapd.maps.walkers import BatchWalker, IndexWalker, NextKeyWalker, Walker, keyed, method_of

__all__ = ["Page", "Scan", "ScanOptions"]

_WALKERS: Final[Mapping[str, type[BatchWalker] | type[NextKeyWalker] | type[IndexWalker]]] = MappingProxyType(
    {walker.method: walker for walker in (BatchWalker, NextKeyWalker, IndexWalker)}
)
_RESUMED: Final = (
    "it goes on from a dump in which the kernel had begun again, or a part could not be told from the next: keys may "
    "be there twice"
)

_BUCKET: Final = struct.Struct("=I")


def _by_key(method: str, facts: MapFacts) -> bool:
    """Whether a walk's cursor is a key."""
    return method == NextKeyWalker.method or (method == BatchWalker.method and keyed(facts))


@dataclass(frozen=True, slots=True)
class Page:
    """Elements read in one go; ``token`` resumes behind them, and is empty where none could, or for none."""

    count: int
    keys: bytes
    values: bytes
    token: bytes


class Scan:
    """A walk over one map in pages, in one part or in several that may be read at once.

    ``page`` is for one reader. Several read the ``parts``, each by one thread at a time, and hand out what they have
    read one after the other: the token of a page is behind everything that was handed out until then.

    Args:
        ranges: parts that a large hash table is to be read in (``mapd.maps.split``), unless there is a limit.

    Attributes:
        entries: elements handed out so far.
        parts: what is left to be read; none: the scan is over.
        value_bytes: of one value in the pages; 0 where values are not wanted.

    Raises:
        MapError: the map cannot be read, not in this way, or not from this token on.
    """

    def __init__(
        self,
        elements: Elements,
        facts: MapFacts,
        options: ScanOptions,
        boot_id: uuid.UUID,
        *,
        ranges: int = 1,
    ) -> None:
        self._elements = elements
        self._facts = facts
        self._options = options
        self._boot_id = boot_id
        self.entries: int = 0
        self._selection = Selection(options, facts)
        self._rooms = Rooms(facts)
        facts.iterable("dump")
        facts.check_message("dump")
        self.value_bytes = self._selection.value_bytes
        position = tokens.parse(options.token, facts, boot_id) if options.token else Place(method_of(facts))
        self._doubtful = bool(options.token) and tokens.doubtful(options.token)
        # Behind which key a token resumes that nobody else's key may stand in.
        self._known: bytes = self._key_of(position)
        self.parts: tuple[Part, ...] = ()
        self._read: list[Part] = []  # and those that are over, for what they have met
        self._ranges: dict[Part, BucketRange] = {}  # what is left behind all that was handed out
        self._begin(self._walkers(position, 1 if options.limit else ranges))

    def _key_of(self, position: Position) -> bytes:
        """The key that a token has for its place, where only some may be known; b"" where it has none.

        Raises:
            MapError: BAD_SPEC, it is another's, or it has marks, of whichever keys. The kernel goes on behind a key
                that is there, and begins anew at one that is not; what is left out for a mark is counted: whoever may
                name any key would learn which there are.
        """
        only = self._options.only
        if only is None:
            return b""
        if not isinstance(position, Place):
            if any(one.fence is not None for one in position):
                raise tokens.damaged(self._facts)
            return b""
        if not position.cursor:
            return b""
        if not _by_key(position.method, self._facts):
            return b""
        if not only.permits(position.cursor):
            raise tokens.damaged(self._facts)
        return position.cursor

    def _walkers(self, position: Position, ranges: int) -> Sequence[Walker]:
        elements, facts = self._elements, self._facts
        if not isinstance(position, Place):
            return [RangeWalker(elements, facts, one) for one in position]
        if position.method == BatchWalker.method and facts.traits and facts.traits.cursor is Cursor.BUCKET:
            bucket = _BUCKET.unpack(position.cursor)[0] if position.cursor else 0
            if cuts := split.boundaries(facts, bucket, ranges):
                return [FenceWalker(elements, facts, bucket, cuts)]
        if position.method == BatchWalker.method and mappable(facts):
            return [MmapWalker(elements, facts, position.cursor)]
        return [_WALKERS[position.method](elements, facts, position.cursor)]

    def _begin(self, walkers: Sequence[Walker]) -> None:
        self.parts = tuple(
            Part(one, self._elements, self._facts, self._selection, self._rooms) for one in walkers
        )
        self._read += self.parts
        for part in self.parts:
            if isinstance(part.walker, RangeWalker):
                self._ranges[part] = part.walker.left

    @property
    def done(self) -> bool:
        """No page follows."""
        return not self.parts

    @property
    def width(self) -> int:
        """How many parts may be read at once."""
        return min(1, len(self.parts)) if self._options.limit else len(self.parts)

    @property
    def method(self) -> str:
        """How the map is walked: "lookup_batch", "next_key", "indexes" or "mmap"."""
        return self._read[-1].walker.method if self._read else BatchWalker.method

    @property
    def restarts(self) -> int:
        """How often the kernel's cursor began again."""
        return sum(part.walker.restarts for part in self._read)

    @property
    def duplicates(self) -> int:
        """Repeats left out."""
        return sum(part.walker.duplicates for part in self._read)

    @property
    def incomplete(self) -> str:
        """Why the pages are not what the type promises: the end was not reached, or not in the way that is due."""
        why = _RESUMED if self._doubtful else ""
        return next((why for part in self._read if (why := part.walker.incomplete)), why)

    def page_bytes(self, max_bytes: int) -> int:
        """Columns of the next read of ``max_bytes``: more than that where one row, or one bucket, has more."""
        rows = max((part.room(max_bytes, self._most) for part in self.parts), default=0)
        return rows * (self._facts.key_stride + self._facts.value_stride)

    def remembered_bytes(self, max_bytes: int) -> int:
        """Memory for the keys that were read, after the next read of ``max_bytes``."""
        return sum(part.walker.remembered_bytes(part.room(max_bytes, self._most)) for part in self.parts)

    @property
    def _most(self) -> int:
        """Rows that are still wanted; 0: all.

        Not to read what is not wanted, nor to cut it off: no token resumes inside a kernel bucket.
        """
        limit = self._options.limit
        return limit - self.entries if limit and not self._options.filters else 0

    def forget_rooms(self) -> None:
        """Let go of the memory that is kept from one read to the next."""
        self._rooms.forget()

    def page(self, map_fd: int, max_bytes: int) -> Page:
        """The next elements, of the first part: ``page_bytes(max_bytes)`` of columns at most. Blocks.

        None where the kernel's next bucket has more; ``page_bytes`` has grown then, and the next page tries again.

        Raises:
            MapError: the map cannot be read.
        """
        if self.done:
            return Page(0, b"", b"", b"")
        part = self.parts[0]
        return self.hand_out(part, self.read(part, map_fd, max_bytes))

    def read(self, part: Part, map_fd: int, max_bytes: int) -> Read:
        """Read on in one of the parts, as ``Part.read``. In any thread; not twice before it was handed out."""
        return part.read(map_fd, max_bytes, self._most)

    def hand_out(self, part: Part, read: Read) -> Page:
        """What was read of a part, as the next page."""
        walker = part.walker
        if isinstance(walker, RangeWalker):
            self._ranges[part] = walker.left
        if isinstance(walker, FenceWalker):
            self._begin([RangeWalker(self._elements, self._facts, one) for one in walker.ranges])
        elif walker.done:
            self.parts = tuple(one for one in self.parts if one is not part)
        self._known = read.last or self._known
        token = self._token(part) if read.scanned else b""
        count, keys, values = read.count, read.keys, read.values
        limit = self._options.limit
        if limit and self.entries + count >= limit:
            if self.entries + count > limit:
                token = b""  # it would resume behind what is cut off here
            count = limit - self.entries
            keys, values = keys[: count * self._facts.key_stride], values[: count * self.value_bytes]
            self.parts = ()
        self.entries += count
        return Page(count, keys, values, token)

    def _token(self, part: Part) -> bytes:
        position = self._position(part)
        if self._options.only is not None and isinstance(position, Place):
            by_key = _by_key(position.method, self._facts)
            if by_key and not self._known:
                return b""
            position = Place(position.method, self._known) if by_key else position
        # The keys that were read, by which repeats are known, go with the scan.
        doubtful = self._doubtful or any(one.walker.restarts or one.walker.incomplete for one in self._read)
        return tokens.encode(position, self._facts, self._boot_id, doubtful=doubtful)

    def _position(self, part: Part) -> Position:
        """Behind all that was handed out, ``part`` last."""
        if isinstance(part.walker, (FenceWalker, RangeWalker)):
            return tuple(self._ranges[one] for one in self.parts)
        # What mapped memory came to is told as LOOKUP_BATCH's: either goes on from it.
        mapped = isinstance(part.walker, MmapWalker)
        return Place(BatchWalker.method if mapped else part.walker.method, part.walker.cursor)
