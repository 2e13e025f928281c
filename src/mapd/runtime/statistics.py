"""How full many maps are, without reading an element: for who watches them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Self

from mapd.access.authorize import View
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import OpenId, OpenPin
from mapd.maps.counting import Counted, by_kernel, by_shape
from mapd.maps.errors import MapError
from mapd.maps.estimating import by_memory, node_head
from mapd.maps.lingering import Lingering
from mapd.maps.listing import ListedMap, SortKey, Wanted
from mapd.maps.opened import MapFacts
from mapd.maps.store import MapStore
from mapd.runtime.reach import Reach

MOST: Final = 500
"""Maps of one call: about 0.3 ms for one that the kernel counts."""


KEPT: Final = 128
"""Maps that are open at once for one call; those beyond are opened again, 0.2 ms each."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One map. ``counted``: None where nothing tells it cheaply, or where it is not for the caller."""

    listed: ListedMap
    counted: Counted | None
    readable: bool


class Kept:
    """Descriptors that a listing had open anyway, of maps that the kernel counts; closed at the end of the block."""

    def __init__(self) -> None:
        self._held: dict[int, OwnedFd] = {}

    def keep(self, owned: OwnedFd, facts: MapFacts) -> bool:
        """Hold it, if it will be asked for and there is room."""
        if len(self._held) >= KEPT or facts.traits is None or not facts.traits.counted:
            return False
        self._held[facts.id] = owned
        return True

    def take(self, map_id: int) -> OwnedFd | None:
        """The descriptor of a map, which the caller closes."""
        return self._held.pop(map_id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            self._held.popitem()[1].close()


@dataclass(frozen=True, slots=True)
class Look:
    """Maps as they were counted; ``more``: whether others follow."""

    maps: Sequence[Watched]
    more: bool
    not_looked_at: Sequence[str]


class Statistics:
    """Counts maps of one store. Blocks; for several threads."""

    def __init__(self, store: MapStore, reach: Reach) -> None:
        self._store = store
        self._reach = reach
        self._head: int | None = None

    def look(self, wanted: Wanted, view: View | None, after: SortKey | None, size: int) -> Look:
        """The maps that the caller may see, ``size`` of those behind ``after``, counted where he may read them."""
        with Kept() as kept:
            listing = self._reach.listing(wanted, view, kept.keep)
            rest = [one for one in listing.maps if after is None or one.order > after]
            page = rest[:size]
            readable = self._reach.readable(page, view)
            return Look(self._counted(page, readable, kept), len(rest) > size, listing.not_looked_at)

    def _counted(self, listed: Sequence[ListedMap], readable: Collection[int], kept: Kept) -> list[Watched]:
        """Each of these, counted where its id is in ``readable``."""
        with Lingering() as lingering:
            return [
                Watched(one, self._count(one, kept, lingering), True)
                if one.facts.id in readable
                else Watched(one, None, False)
                for one in listed
            ]

    def _count(self, one: ListedMap, kept: Kept, lingering: Lingering) -> Counted | None:
        facts = one.facts
        if (found := by_shape(facts) or by_memory(facts, self._trie_head())) is not None:
            return found
        if facts.traits is None or not facts.traits.counted:
            return None
        owned = kept.take(facts.id)
        if owned is not None:
            with owned, owned.lease() as map_fd:
                return by_kernel(self._store.kernel, facts, map_fd)
        owned = self._reopened(one)
        if owned is None:
            return None
        try:
            with owned.lease() as map_fd:
                # Another map may be there by now, of which the caller may know nothing.
                if self._store.kernel.info(map_fd).id != facts.id:
                    return None
                return by_kernel(self._store.kernel, facts, map_fd)
        finally:
            lingering.close(owned, facts.info.map_type)

    def _reopened(self, one: ListedMap) -> OwnedFd | None:
        """None where it has gone since, or the daemon may not open it any more."""
        store = self._store
        try:
            if not one.pin_path:
                return store.kernel.control(OpenId(map_id=one.facts.id, read_only=True))
            root = store.root_of(one.pin_path, "stats")
            return store.kernel.control(OpenPin(root=root, path=one.pin_path, read_only=True))
        except (OSError, MapError):
            return None

    def _trie_head(self) -> int:
        if self._head is None:
            self._head = node_head(self._store.kernel)
        return self._head
