"""The difference between what a map has and what it should have. Sans-I/O.

``Wanted`` is held in memory, some 250 bytes an element; what the map has passes by in chunks, and only what differs of
it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, islice
from operator import ne

from mapd_client.batches import Batch
from mapd_client.errors import Misuse
from mapd_client.syncing.report import SyncReport
from mapd_client.syncing.shape import Shape, cells


class Contradiction(Misuse):
    """Two wanted elements of one key with different values.

    Attributes:
        first: the place of the one.
        second: of the other.
    """

    first: int
    second: int

    def __init__(
        self, message: str, *, first: int = 0, second: int = 0, operation: str = "", map: str = ""
    ) -> None:
        super().__init__(message, operation=operation, map=map)
        self.first, self.second = first, second


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a map should have.

    Attributes:
        shape: of the map.
        elements: values by key, as the kernel compares them, in the order they were given.
        merged: how many more were given.
        canonicalised: how many networks were given with host bits.
        twins: the places of some that became one, each with that of the first of its key.
    """

    shape: Shape
    elements: Mapping[bytes, bytes]
    merged: int = 0
    canonicalised: int = 0
    twins: tuple[tuple[int, int], ...] = ()


TWINS = 3
"""Examples of elements that became one; more than a few nobody reads."""


class Wishes:
    """Collects what a map should have, part by part."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._names: list[bytes] = []
        self._elements: dict[bytes, bytes] = {}
        self._canonicalised = 0

    def add(self, keys: bytes, values: bytes) -> None:
        """More elements, as packed columns.

        Raises:
            Contradiction: a key that was there, with another value.
            Misuse: a prefix longer than an address.
        """
        shape, elements = self._shape, self._elements
        names = shape.keys(keys, len(self._names))
        contents = shape.values(values, len(names))
        if shape.networks:
            self._canonicalised += sum(map(ne, cells(keys, shape.key_stride), names))
        first = len(self._names)
        self._names += names
        part = dict(zip(names, contents, strict=True))
        if len(part) == len(names) and elements.keys().isdisjoint(part):
            elements.update(part)
            return
        for at, (name, content) in enumerate(zip(names, contents, strict=True), first):
            if elements.setdefault(name, content) != content:
                raise _contradiction(self._names.index(name), at)

    def show(self, keys: bytes, values: bytes) -> None:
        """More elements, of a dump: of a key that it repeats, the value that was shown last counts.

        Raises:
            Misuse: a prefix longer than an address.
        """
        names = self._shape.keys(keys, len(self._names))
        self._names += names
        self._elements.update(zip(names, self._shape.values(values, len(names)), strict=True))

    def wanted(self) -> Wanted:
        """All of it."""
        merged = len(self._names) - len(self._elements)
        twins = tuple(islice(_twins(self._names), TWINS)) if merged else ()
        return Wanted(self._shape, self._elements, merged, self._canonicalised, twins)


def wanted(shape: Shape, keys: bytes, values: bytes) -> Wanted:
    """What packed columns ask for; raises as ``Wishes.add``."""
    wishes = Wishes(shape)
    wishes.add(keys, values)
    return wishes.wanted()


def _twins(names: list[bytes]) -> Iterator[tuple[int, int]]:
    firsts: dict[bytes, int] = {}
    for at, name in enumerate(names):
        first = firsts.setdefault(name, at)
        if first != at:
            yield first, at


def _contradiction(first: int, second: int) -> Contradiction:
    return Contradiction(
        f"elements {first} and {second} are of one key, and their values differ", first=first, second=second
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written so that a map has what is wanted.

    Attributes:
        wanted: all of it.
        added: keys that the map does not have, in the order they are wanted.
        changed: what the map has instead, by key.
        removed: what nobody wants, by key.
    """

    wanted: Wanted
    added: list[bytes]
    changed: Mapping[bytes, bytes]
    removed: Mapping[bytes, bytes]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    @property
    def unchanged(self) -> int:
        """Elements that are there as they are wanted."""
        return len(self.wanted.elements) - len(self.added) - len(self.changed)

    @property
    def entries(self) -> int:
        """Elements that the map has now."""
        return self.unchanged + len(self.changed) + len(self.removed)

    def fits(self, max_entries: int) -> bool:
        """Whether the new elements have room beside those that are to go."""
        return self.entries + len(self.added) <= max_entries

    def excessive(self, max_removals: float) -> bool:
        """Whether more elements would go than this share of what the map has."""
        return len(self.removed) > max_removals * self.entries

    def writes(self, per_message: int) -> Iterator[Batch]:
        """What is to be written, changes before additions, a message at a time."""
        elements = self.wanted.elements
        keys = iter([*self.changed, *self.added])
        first = 0
        while part := list(islice(keys, per_message)):
            yield Batch(first, len(part), b"".join(part), b"".join(map(elements.__getitem__, part)))
            first += len(part)

    def removals(self, per_message: int) -> Iterator[Batch]:
        """What is to be removed, a message at a time."""
        keys = iter(self.removed)
        first = 0
        while part := list(islice(keys, per_message)):
            yield Batch(first, len(part), b"".join(part))
            first += len(part)

    def report(self, *, removed_first: bool, dry_run: bool) -> SyncReport:
        """In numbers."""
        return SyncReport(
            added=len(self.added),
            removed=len(self.removed),
            changed=len(self.changed),
            unchanged=self.unchanged,
            merged=self.wanted.merged,
            canonicalised=self.wanted.canonicalised,
            removed_first=removed_first,
            dry_run=dry_run,
        )


class Planner:
    """Is shown what a map has, chunk by chunk, and then says what to write.

    A key that is shown twice (a map whose walk may repeat keys, under writers) counts as it was shown last.
    """

    def __init__(self, wish: Wanted) -> None:
        self._wanted = wish
        self._missing = set(wish.elements)
        self._changed: dict[bytes, bytes] = {}
        self._removed: dict[bytes, bytes] = {}

    def feed(self, keys: bytes | memoryview, values: bytes | memoryview, count: int) -> None:
        """More of what the map has: packed columns of so many elements."""
        shape = self._wanted.shape
        names, contents = shape.keys(keys), shape.values(values, count)
        last = dict(zip(names, contents, strict=True))
        if len(last) != count:
            names, contents = [*last], [*last.values()]
        due = [*map(self._wanted.elements.get, names)]
        if self._changed:  # seldom true for more than a few
            for name in self._changed.keys() & set(names):
                del self._changed[name]
        for name, content, value in compress(zip(names, contents, due, strict=True), map(ne, contents, due)):
            if value is None:
                self._removed[name] = content
            else:
                self._changed[name] = content
        self._missing.difference_update(names)

    def plan(self) -> Plan:
        """What is to be written."""
        added = list(filter(self._missing.__contains__, self._wanted.elements)) if self._missing else []
        return Plan(self._wanted, added, self._changed, self._removed)
