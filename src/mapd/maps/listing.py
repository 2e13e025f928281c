"""Which maps there are: names, other programs' pins, kernel ids, and who holds each.

A map is opened, described and closed again, one after the other: a host has thousands, and a daemon a
thousand descriptors. What was not looked at is said, with the reason and what would mend it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final, TypeAlias

from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    ControlRequest,
    ListHolders,
    ListPins,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    ProgramInfo,
    RawProgramInfo,
    SyscallError,
)
from mapd.maps.errors import MapError
from mapd.maps.leased import LeasedRef
from mapd.maps.lingering import Lingering
from mapd.maps.opened import MapFacts
from mapd.maps.store import MapStore
from mapd_api import limits
from mapd_api.reasons import Reason

LISTED: Final = 65_536
"""Maps, and programs, of one listing at most: about 25 us each."""

NOTES: Final = 16
"""Lines about single pins that were not looked at; more are counted."""

PINS: Final = 64
"""Pins that are told of one map."""

HOLDERS: Final = 64
"""Holders that are told of one map."""

SortKey: TypeAlias = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class ProcessHolder:
    """A process that has a descriptor of a map."""

    pid: int
    comm: str


@dataclass(frozen=True, slots=True)
class ProgramHolder:
    """A loaded program that uses a map."""

    id: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedMap:
    """One map of the kernel, as it was when it was looked at. Holds nothing open.

    Attributes:
        name: the first of its names that the pattern matches, "" if it has none.
        pin_path: the pin of that name, else the first pin, else "".
        pins: every pin that was found.
        leased: what keeps ``pin_path``, where that is a pin of a lease.
        holders: processes by pid, then programs by id.
    """

    facts: MapFacts
    name: str
    pin_path: str
    pins: Sequence[str]
    leased: LeasedRef | None = None
    holders: Sequence[ProcessHolder | ProgramHolder] = ()

    @property
    def order(self) -> SortKey:
        """Names first, then pins, then ids."""
        if self.name:
            return (0, self.name, 0)
        return (1, self.pin_path, 0) if self.pin_path else (2, "", self.facts.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to look for (maps.proto, ListMapsRequest)."""

    glob: str = "*"
    pins: bool = False
    ids: bool = False
    holders: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """What was not looked at, and why. ``path``: the pin or folder, "" where the line names none that is there."""

    text: str
    path: str = ""
    of_pin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Maps in order, where was looked, and what was not looked at."""

    maps: Sequence[ListedMap]
    sources: Sequence[str]
    notes: Sequence[Note]

    @property
    def not_looked_at(self) -> Sequence[str]:
        """Lines: the first ``NOTES`` pins, how many more, and all else."""
        pins = [note.text for note in self.notes if note.of_pin]
        more = len(pins) - NOTES
        counted = [f"{more} more pins like these"] if more > 0 else []
        return pins[:NOTES] + counted + [note.text for note in self.notes if not note.of_pin]


@dataclass(slots=True)
class _Found:
    facts: MapFacts
    pins: list[str] = field(default_factory=list[str])


Keep: TypeAlias = Callable[[OwnedFd, MapFacts], bool]
"""Whether a map that was looked at stays open: then the descriptor is theirs who said so."""


class _Lister:
    """One listing."""

    def __init__(self, store: MapStore, wanted: Wanted, keep: Keep | None) -> None:
        self._store = store
        self._wanted = wanted
        self._keep = keep
        self._found: dict[int, _Found] = {}
        self.sources: list[str] = []
        self.notes: list[Note] = []

    def look(self) -> None:
        """Names always; pins and ids where they are wanted."""
        store, wanted = self._store, self._wanted
        seen: set[str] = set()
        self._walk(store.names_root, seen, names=True)
        self._quarantined()
        self.sources.append(f"names below {store.names_root}")
        if wanted.pins:
            for root in store.pin_roots:
                self._walk(root, seen, names=False)
                self.sources.append(f"pins below {root}")
        else:
            roots = ", ".join(store.pin_roots)
            self._hide(f"pins of other programs below {roots}: ask for pins, or open them by path")
        if wanted.ids:
            self._ids()
        else:
            self._hide("maps without a pin: ask for ids, or open them by id (profile inspector)")

    def _hide(self, text: str, path: str = "", *, of_pin: bool = False) -> None:
        self.notes.append(Note(text, path, of_pin))

    def _walk(self, root: str, seen: set[str], *, names: bool) -> None:
        """Every pin below one root that was not seen yet."""
        kernel = self._store.kernel
        try:
            walk = kernel.control(ListPins(root=root))
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._hide(f"{root}: {_why(error)}")
            return
        for folder in walk.unread:
            line = f"{_shown(folder)}: the folder's modes do not admit the daemon (chmod o+rx it, or profile pins-ro)"
            if Note(line, folder) not in self.notes:
                self._hide(line, folder)
        for path in walk.paths:
            if path in seen:
                continue
            seen.add(path)
            if not _sendable(path):
                self._hide(
                    f"{_shown(path)}: its name is no UTF-8, and no answer could carry it", path, of_pin=True
                )
                continue
            name = self._store.name_of(path)
            if names and not name and self._store.leased_of(path) is not None:
                self._pin(root, path, named=names)
            elif names and not name:
                self._hide(f"{path}: no name (namespace/name of a-z, 0-9, '_', '-')", path, of_pin=True)
            elif names and self._names_only and not fnmatchcase(name, self._wanted.glob):
                continue
            elif len(self._found) >= LISTED:
                self._hide(f"pins after {path}: a listing has at most {LISTED} maps", path)
                return
            else:
                self._pin(root, path, named=names)

    def _quarantined(self) -> None:
        """What was found not to fit when it was last looked at, and was not met on the way: by whatever pattern."""
        met = {note.path for note in self.notes}
        listed = {path for found in self._found.values() for path in found.pins}
        for one in self._store.adoption.misfits:
            if one.path not in met and (one.served or one.path not in listed):
                self._hide(str(one), one.path, of_pin=True)

    @property
    def _names_only(self) -> bool:
        """Whether a map can be passed over by a name that does not match: other pins of it are not asked for."""
        return not (self._wanted.pins or self._wanted.ids)

    def _pin(self, root: str, path: str, *, named: bool) -> None:
        try:
            owned, found = self._described(OpenPin(root=root, path=path, read_only=True))
            misfit = self._store.adoption.misfit_of(path, found.info)
            if misfit is not None:
                owned.close()
                note = Note(str(misfit), misfit.path, of_pin=misfit.path == path)
                if note not in self.notes:  # once for a folder
                    self.notes.append(note)
                return
        except OSError as error:
            # EINVAL: a program or a link is pinned there, as elsewhere many are. ENOENT: unpinned meanwhile.
            if error.errno == errno.EINVAL:
                if named:
                    self._hide(f"{path}: not a map", path, of_pin=True)
            elif error.errno != errno.ENOENT:
                self._hide(f"{path}: {_why(error)}", path, of_pin=True)
            return
        if self._keep is None or found.id in self._found or not self._keep(owned, found):
            owned.close()
        self._found.setdefault(found.id, _Found(found)).pins.append(path)

    def _ids(self) -> None:
        kernel = self._store.kernel

        def following(map_id: int) -> int | None:
            return kernel.control(NextMapId(map_id=map_id))

        with Lingering() as lingering:

            def visit(map_id: int) -> None:
                if map_id in self._found:
                    return
                owned, facts = self._described(OpenId(map_id=map_id, read_only=True))
                lingering.close(owned, facts.info.map_type)
                self._found[map_id] = _Found(facts)

            refusal = _each_id(following, visit)
        if refusal is None:
            self.sources.append("kernel ids")
        else:
            self._hide(f"maps by id: {refusal}")

    def _described(self, request: ControlRequest[OwnedFd]) -> tuple[OwnedFd, MapFacts]:
        """An open map, which the caller closes, and what it is."""
        owned = self._store.kernel.control(request)
        try:
            with owned.lease() as map_fd:
                return owned, self._store.facts_at(map_fd)
        except BaseException:
            owned.close()
            raise

    def matching(self) -> list[ListedMap]:
        """What the pattern matches: a name; of a map without one its pins and its kernel name."""
        listed: list[ListedMap] = []
        for found in self._found.values():
            glob = self._wanted.glob
            names = {self._store.name_of(path): path for path in found.pins}
            names.pop("", None)
            words = sorted(names) or [*found.pins, found.facts.info.name]
            matched = next((word for word in words if fnmatchcase(word, glob)), None)
            if matched is None:
                continue
            name = matched if names else ""
            pin_path = names[name] if name else min(found.pins, default="")
            leased = self._store.leased_of(pin_path)
            pins = sorted(found.pins)
            listed.append(
                ListedMap(facts=found.facts, name=name, pin_path=pin_path, pins=pins, leased=leased)
            )
        return sorted(listed, key=lambda one: one.order)

    def with_holders(self, maps: Sequence[ListedMap]) -> list[ListedMap]:
        """The same, and who holds each."""
        kernel = self._store.kernel
        holders: dict[int, list[ProcessHolder | ProgramHolder]] = {one.facts.id: [] for one in maps}

        def note(map_ids: Sequence[int] | frozenset[int], holder: ProcessHolder | ProgramHolder) -> None:
            for map_id in holders.keys() & map_ids:
                if len(holders[map_id]) < HOLDERS:
                    holders[map_id].append(holder)

        processes = kernel.control(ListHolders())
        for process in processes.holders:
            note(process.map_ids, ProcessHolder(process.pid, process.comm))
        self.sources.append("descriptors of the processes in /proc")
        if processes.unread:
            self._hide(
                f"descriptors of {processes.unread} processes: those of other users need CAP_SYS_PTRACE, and a "
                "locked-in mapd may look into none, for landlock forbids it; bpftool map show, as root, tells who holds"
            )

        def following(prog_id: int) -> int | None:
            return kernel.control(NextProgramId(prog_id=prog_id))

        def visit(prog_id: int) -> None:
            with kernel.control(OpenProgramId(prog_id=prog_id)) as owned, owned.lease() as prog_fd:
                info: RawProgramInfo = kernel.control(ProgramInfo(), [prog_fd])
            note(info.map_ids, ProgramHolder(info.id, info.name))

        refusal = _each_id(following, visit)
        if refusal is None:
            self.sources.append("maps of the loaded programs")
        else:
            self._hide(f"programs that hold maps: {refusal}")
        if any(len(found) == HOLDERS for found in holders.values()):
            self._hide(f"more than {HOLDERS} holders of one map")
        return [replace(one, holders=tuple(holders[one.facts.id])) for one in maps]


def list_maps(store: MapStore, wanted: Wanted, keep: Keep | None = None) -> Listing:
    """Look for maps, one entry for each that the kernel has.

    ``keep`` is asked about each that a pin led to, once.

    Blocks: about 25 us a map, and for ``holders`` 2 us for each descriptor of the host.

    Raises:
        MapError: BAD_SPEC, the pattern is longer than any name needs.
    """
    if len(wanted.glob) > limits.GLOB_CHARACTERS:
        raise MapError(
            Reason.BAD_SPEC,
            f"list: a pattern of {len(wanted.glob)} characters; at most {limits.GLOB_CHARACTERS} are taken, twice "
            "what a name has",
            operation="list",
        )
    lister = _Lister(store, wanted, keep)
    lister.look()
    maps = lister.matching()
    if wanted.holders:
        maps = lister.with_holders(maps)
    return Listing(maps=maps, sources=lister.sources, notes=lister.notes)


def _each_id(following: Callable[[int], int | None], visit: Callable[[int], None]) -> str | None:
    """Walk ids from the first to the last; why not, or None. What goes meanwhile is left out."""
    number: int | None = 0
    for _ in range(LISTED):
        try:
            number = following(number or 0)
            if number is None:
                return None
            visit(number)
        except SyscallError as error:
            if error.errno == errno.EPERM:
                return "the daemon lacks CAP_SYS_ADMIN (profile inspector)"
            if error.errno != errno.ENOENT:
                return _why(error)
    return f"those after {number}: a listing looks at {LISTED} at most"


def _sendable(path: str) -> bool:
    """Whether a path is text: bpffs takes any bytes but '.', '/' and NUL for names."""
    return _shown(path) == path


def _shown(path: str) -> str:
    """A path as text, with bytes that are none escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _why(error: OSError) -> str:
    name = errno_name(error.errno or 0)
    if error.errno == errno.EACCES:
        return f"its mode does not admit the daemon (chmod it, or profile pins-ro) [{name}]"
    return f"{error.strerror} [{name}]"
