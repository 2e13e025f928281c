"""From what a caller names to a map with all that it is called: what decisions about it are made of.

Whoever may not list what could be at a place is told that nothing is, and nothing is opened for it; whatever is
opened is decided on what it is, with every name and pin that leads to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mapd.access.authorize import View
from mapd.access.policy.model import Subject, Unsure
from mapd.maps import leased
from mapd.maps.errors import MapError
from mapd.maps.listing import Keep, ListedMap, Listing, Wanted, list_maps
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.pinindex import Known, PinIndex, Unknown, name_of
from mapd.maps.store import IdRef, MapStore, NameRef, PinRef, Place, Ref
from mapd_api.ops import Verb
from mapd_api.reasons import Reason

_TELLING: Final = frozenset(
    {Reason.BAD_SPEC, Reason.DAEMON_CAPABILITY, Reason.OPERATION_UNSUPPORTED, Reason.INCOMPATIBLE}
)
"""Refusals of an opening that say that something is there."""


class Unlisted(Exception):
    """The caller may not know whether there is a map; none was handed out.

    Attributes:
        subject: what could be there, as far as it is known.
    """

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject


@dataclass(frozen=True, slots=True)
class Reached:
    """A map that was opened, whose fd belongs to whoever has this, and all that it is called."""

    opened: OpenMap
    subject: Subject


class Reach:
    """The maps of one host by what they are called. Blocks; for several threads.

    ``view`` is who asks, None for the admin, of whose rights no name makes a difference.
    """

    def __init__(self, store: MapStore) -> None:
        self._store = store
        self.index: Final = PinIndex(
            store.kernel, store.names_root, store.pin_roots, known=store.adoption.map_of
        )
        self._unsure: tuple[Unknown, Unsure | None] = (Unknown(), None)

    def open(
        self,
        ref: Ref,
        view: View | None,
        verbs: frozenset[Verb],
        *,
        read_only: bool = False,
        operation: str = "open",
    ) -> Reached:
        """Open a map, for whoever has these rights on it or may at least know of it.

        Raises:
            Unlisted: for the caller there is none.
            MapError: as ``MapStore.open``; BUSY, names change too fast.
        """
        store = self._store
        if view is None:
            opened = store.open(ref, read_only=read_only, operation=operation)
            return Reached(opened, self._bare(opened.facts))
        map_id, known = self._at(ref, operation)
        place = self._subject(known)
        if not view.could(verbs, place):
            raise Unlisted(place)
        try:
            opened = store.open(ref, read_only=read_only, operation=operation)
        except MapError as error:
            if error.reason in _TELLING and not view.lists(place):
                raise Unlisted(place) from None
            raise
        try:
            if opened.facts.id != map_id:  # replaced since, or nobody knew where it leads
                known = self.index.of(opened.facts.id, opened.pin_path)
        except BaseException:
            opened.fd.close()
            raise
        return Reached(opened, self._subject(known, opened.facts))

    def named(self, opened: OpenMap, view: View | None) -> Subject:
        """All that an open map is called now."""
        return self._bare(opened.facts) if view is None else self.called(opened)

    def called(self, opened: OpenMap) -> Subject:
        """The same, whoever asks."""
        return self._subject(self.index.of(opened.facts.id, opened.pin_path), opened.facts)

    def may_list(self, view: View | None) -> Callable[[OpenMap], bool]:
        """Whether the caller may know of a map that was found where it wanted to make one."""
        return lambda opened: view is None or view.lists(self.named(opened, view))

    def listing(self, wanted: Wanted, view: View | None, keep: Keep | None = None) -> Listing:
        """The maps that the caller may see; of what was not looked at, what says nothing of others.

        ``keep`` is asked about maps that he may not see, too.
        """
        listing = list_maps(self._store, wanted, keep)
        if view is None:
            return listing
        known = self.index.all_of(one.facts.id for one in listing.maps)
        maps: list[ListedMap] = []
        for one, its in zip(listing.maps, known, strict=True):
            subject = self._subject(replace(its, pins=its.pins | frozenset(one.pins)), one.facts)
            if view.lists(subject) and (one.pins or view.by_id(subject)):
                maps.append(one if view.by_id(subject) else replace(one, holders=()))
        notes = [note for note in listing.notes if not note.path or view.lists(self._place(note.path))]
        return replace(listing, maps=maps, notes=notes)

    def readable(self, maps: Sequence[ListedMap], view: View | None) -> frozenset[int]:
        """The ids of those whose every element the caller may read."""
        if view is None:
            return frozenset(one.facts.id for one in maps)
        known = self.index.all_of(one.facts.id for one in maps)
        return frozenset(
            one.facts.id
            for one, its in zip(maps, known, strict=True)
            if view.reads(self._subject(replace(its, pins=its.pins | frozenset(one.pins)), one.facts))
        )

    def check(self, held: Iterable[tuple[MapFacts, str]]) -> list[tuple[Subject, int]]:
        """What each of these maps is called now, and which other map the path it was opened by leads to; 0: none."""
        held = list(held)
        found = self.index.check((facts.id, path) for facts, path in held)
        return [
            (
                self._subject(
                    replace(known, pins=known.pins | {path}) if path and there is None else known, facts
                ),
                0 if there is None or there == facts.id else there,
            )
            for (facts, path), (known, there) in zip(held, found, strict=True)
        ]

    def place_of(
        self, ref: Place | PinRef, map_type: int | None = None, key_size: int | None = None
    ) -> Subject:
        """A place by itself: a map of this shape that has no other name."""
        path = ref.path if isinstance(ref, PinRef) else self._store.path_of(ref)
        return replace(self._place(path), type=map_type, key_size=key_size)

    def path_of(self, name: NameRef) -> str:
        """Where a name is pinned."""
        return self._store.path_of(name)

    def check_path(self, path: str, operation: str) -> None:
        """Refuse a path that no pin may have; as ``MapStore.root_of``."""
        self._store.root_of(path, operation)

    def also_at(self, subject: Subject, path: str, *, instead_of: str = "") -> Subject:
        """A map with one more pin, or one for another."""
        return self._with_pins(subject, (subject.pins - {instead_of}) | {path})

    def less(self, subject: Subject, path: str) -> Subject | None:
        """A map with this pin less; None where it has no other."""
        pins = subject.pins - {path}
        return self._with_pins(subject, pins) if pins else None

    def without_pins(self, subject: Subject) -> Subject:
        """A map that nothing leads to."""
        return self._with_pins(subject, frozenset())

    def _with_pins(self, subject: Subject, pins: frozenset[str]) -> Subject:
        names = frozenset(name for pin in pins if (name := name_of(self._store.names_root, pin)))
        return self._of(subject.type, subject.key_size, names, pins, subject.unsure)

    def _at(self, ref: Ref, operation: str) -> tuple[int, Known]:
        """The map that the index has there, 0 for none, and all that leads to it."""
        if isinstance(ref, IdRef):
            return ref.id, self.index.of(ref.id)
        if isinstance(ref, NameRef):
            return self.index.at(self._store.path_of(ref))
        self._store.root_of(ref.path, operation)  # refused for its text, whatever is there
        return self.index.at(ref.path)

    def _place(self, path: str) -> Subject:
        name = name_of(self._store.names_root, path)
        return self._of(None, None, [name] if name else (), [path])

    def _bare(self, facts: MapFacts) -> Subject:
        return Subject.of(facts.info.map_type, facts.key_stride)

    def _subject(self, known: Known, facts: MapFacts | None = None) -> Subject:
        return self._of(
            facts.info.map_type if facts else None,
            facts.key_stride if facts else None,
            known.names,
            known.pins,
            self._unsure_of(known.unknown),
        )

    def _of(
        self,
        map_type: int | None,
        key_size: int | None,
        names: Iterable[str],
        pins: Iterable[str],
        unsure: Unsure | None = None,
    ) -> Subject:
        """A map that is called so; its owners are the namespaces of its names and of its leases."""
        pins = frozenset(pins)
        owners = {owner for pin in pins if (owner := leased.owner_of(self._store.names_root, pin))}
        return Subject.of(map_type, key_size, names=names, pins=pins, owners=owners, unsure=unsure)

    def _unsure_of(self, unknown: Unknown) -> Unsure | None:
        """As decisions take it; the last one is kept, for it is nearly always that."""
        last, found = self._unsure
        if unknown is last:
            return found
        found = self._make_unsure(unknown) if unknown else None
        self._unsure = unknown, found
        return found

    def _make_unsure(self, unknown: Unknown) -> Unsure:
        root = self._store.names_root
        return Unsure(
            names=frozenset(name for pin in unknown.pins if (name := name_of(root, pin))),
            pins=unknown.pins,
            namespaces=frozenset(
                path[len(root) + 1 :] for path in unknown.below if path.startswith(f"{root}/")
            ),
            any_name=any(root == path or root.startswith(f"{path}/") for path in unknown.below),
            below=unknown.below,
        )
