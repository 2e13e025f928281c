"""Which names and pins each map has: kernel ids by the paths that lead to them, kept up to date at small cost.

bpffs says when a folder last changed, so nothing is looked at twice that has not: an open costs one look at the
folders' stamps. Blocks; for several threads.
"""

from __future__ import annotations

import errno
import itertools
import posixpath
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from mapd.bpf.kernel import STAMPED_FOLDERS, Kernel, ListFolder, OpenPin, StampFolders
from mapd.maps.errors import MapError, not_now
from mapd_api.names import is_part
from mapd_api.reasons import Reason

INDEXED: Final = 65_536
"""Pins that are known at most: some 400 bytes each. Of a folder that would go beyond it none is."""

FOLDERS: Final = 4_096
"""Folders at most: 4 us each at every open."""

SETTLED_NS: Final = 20_000_000
"""A folder that changed less than this before it was looked at is looked at again: the clock that stamps it has ticks
of up to 10 ms (CONFIG_HZ=100), and another change in the same tick has the same stamp."""

ROUNDS: Final = 8
"""Looks until nothing changes any more meanwhile."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_OTHER: Final = frozenset({errno.EINVAL, errno.EISDIR})
_NO_MAP: Final = 0
"""Stands for the map of a pin that is another object's; the kernel's ids begin at 1."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Where pins are whose maps nobody could tell.

    Attributes:
        pins: that could not be opened (their modes).
        below: folders that could not be read, or that have more pins than are kept.
    """

    pins: frozenset[str] = frozenset()
    below: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.pins or self.below)


@dataclass(frozen=True, slots=True)
class Known:
    """All that leads to one map.

    Attributes:
        names: "namespace/name".
        pins: paths, those of its names among them.
        unknown: pins that may lead to it too.
    """

    names: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    unknown: Unknown = Unknown()


@dataclass(slots=True)
class _Pin:
    inode: int
    changed_ns: int
    map_id: int | None  # None: unknown


@dataclass(slots=True)
class _Folder:
    """One folder as it was last read.

    Attributes:
        stamp: the kernel's.
        settled: whether the stamp tells of every change since.
        unread: its pins are not known.
        again: pins that could not be opened are to be tried once more.
    """

    root: str
    stamp: int = 0
    settled: bool = False
    unread: bool = False
    again: bool = False
    pins: dict[str, _Pin] = field(default_factory=dict[str, _Pin])
    folders: frozenset[str] = frozenset()


class PinIndex:
    """The pins of one host below some roots. What is pinned elsewhere it cannot know.

    Args:
        names_root: pins two levels below it are names, namespace/name.
        most: pins, and ``folders``, that are kept; what is beyond is ``Unknown``.
        clock: time.time_ns, or a test's.
        known: the map of a pin with this inode and time of its last change, if somebody has looked at it already.
    """

    def __init__(
        self,
        kernel: Kernel,
        names_root: str,
        pin_roots: Iterable[str],
        *,
        known: Callable[[str, int, int], int | None] = lambda _path, _inode, _changed_ns: None,
        most: int = INDEXED,
        folders: int = FOLDERS,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._kernel = kernel
        self._known_map = known
        self._names_root = names_root
        self._roots = _outermost([names_root, *pin_roots])
        self._most = most
        self._most_folders = folders
        self._clock = clock
        self._folders: dict[str, _Folder] = {root: _Folder(root) for root in self._roots}
        self._paths: dict[int, set[str]] = {}
        self._pins = 0
        self._unknown = Unknown()
        self._lock = threading.Lock()
        self._unopened: set[str] = set()
        self._found_new = self._found_gone = False
        self._begun = 0  # refreshes so far
        self._done = 0  # the last that came to its end

    def of(self, map_id: int, path: str = "") -> Known:
        """What leads to a map now, and ``path``, which led there.

        Raises:
            MapError: BUSY, pins change all the time; QUOTA or KERNEL_MEMORY, they could not be looked at.
        """
        with self._refreshed():
            return self._known(map_id, path)

    def at(self, path: str) -> tuple[int, Known]:
        """The map of a pin, and what leads to it; 0 and ``path`` where none is known to be. Raises as ``of``."""
        with self._refreshed():
            map_id = self._map_at(path) or _NO_MAP
            return map_id, self._known(map_id, path)

    def all_of(self, map_ids: Iterable[int]) -> list[Known]:
        """``of`` several, at one moment. Raises as ``of``."""
        with self._refreshed():
            return [self._known(map_id, "") for map_id in map_ids]

    def check(self, held: Iterable[tuple[int, str]]) -> list[tuple[Known, int | None]]:
        """What leads to each of these maps, and which map the path that it was opened by leads to now.

        That is 0 for none, and None where it cannot be told. Pins that could not be opened are tried again.
        Raises as ``of``.
        """
        with self._refreshed(again=True):
            return [(self._known(map_id, ""), self._map_at(path) if path else 0) for map_id, path in held]

    # ---- all below: with the lock held ---------------------------------------------------------

    def _known(self, map_id: int, path: str) -> Known:
        pins = frozenset(self._paths.get(map_id, ()))
        if path:
            pins |= {path}
        names = frozenset(name for pin in pins if (name := name_of(self._names_root, pin)))
        return Known(names, pins, self._unknown)

    def _map_at(self, path: str) -> int | None:
        head, _, name = path.rpartition("/")
        folder = self._folders.get(head)
        if folder is None or folder.unread:
            return None if self._unknown_below(head) else _NO_MAP
        pin = folder.pins.get(name)
        return _NO_MAP if pin is None else pin.map_id

    def _unknown_below(self, folder: str) -> bool:
        return any(folder == one or folder.startswith(f"{one}/") for one in self._unknown.below)

    def _refreshed(self, *, again: bool = False) -> _Refreshed:
        return _Refreshed(self._lock, self._refresh, self._begun, again)

    def _refresh(self, since: int, again: bool) -> None:
        """Look at what has changed, unless somebody did who began after ``since``."""
        if self._done > since and not again:
            return
        self._begun += 1
        if again:
            for folder in self._folders.values():
                if folder.unread or any(pin.map_id is None for pin in folder.pins.values()):
                    folder.settled, folder.again = False, True
        for _ in range(ROUNDS):
            # Until a round finds nothing new: a name that went from a folder not read yet into one that was would be
            # in neither.
            if not self._round():
                break
        else:
            raise MapError(
                Reason.BUSY,
                f"names and pins below {', '.join(self._roots)} change faster than they can be looked at; try again",
            )
        self._done = self._begun

    def _round(self) -> bool:
        """Read the folders that may have changed; whether what they have may be elsewhere by now."""
        waiting = self._suspects(unsettled=True)
        if not waiting:
            return False
        self._found_new = self._found_gone = False
        read = 0
        while waiting:
            path = waiting.pop()
            if path in self._folders:
                waiting += self._read(path)
                read += 1
        unread = frozenset(path for path, folder in self._folders.items() if folder.unread)
        unknown = Unknown(frozenset(self._unopened), unread)
        if unknown != self._unknown:
            self._unknown, self._found_new = unknown, True
        # What is new in one folder alone has come from no other.
        moved = self._found_gone or (self._found_new and read > 1)
        return moved or bool(self._suspects(unsettled=False))

    def _suspects(self, *, unsettled: bool) -> list[str]:
        """Folders whose stamps are others now, and those ``unsettled``, whose stamps do not tell."""
        found: list[str] = []
        for root in self._roots:
            mine = [path for path, folder in self._folders.items() if folder.root == root]
            for some in _batches(mine):
                for path, stamp in zip(some, self._stamps(root, some), strict=True):
                    folder = self._folders[path]
                    if stamp != folder.stamp or (unsettled and not folder.settled):
                        found.append(path)
        return found

    def _stamps(self, root: str, paths: Sequence[str]) -> Sequence[int]:
        try:
            return self._kernel.control(StampFolders(root=root, paths=tuple(paths)))
        except OSError as error:
            _raise_scarcity(error, root)
            return [0] * len(paths)

    def _read(self, path: str) -> list[str]:
        """Read one folder; those in it that are new."""
        folder = self._folders[path]
        began = self._clock()  # before the kernel says anything
        try:
            found = self._kernel.control(ListFolder(root=folder.root, path=path))
        except OSError as error:
            if error.errno in _GONE and path not in self._roots:
                self._drop(path)
                return []
            _raise_scarcity(error, path)
            self._close(path, folder, unread=error.errno not in _GONE)
            folder.stamp = self._stamps(folder.root, [path])[0]
            folder.settled = error.errno not in _GONE  # a root that is made later is found then
            return []
        if self._pins - len(folder.pins) + len(found.pins) > self._most:
            self._close(path, folder, unread=True)
        else:
            self._take(path, folder, {one.name: (one.inode, one.changed_ns) for one in found.pins})
        folder.stamp = found.stamp
        folder.settled = found.stamp < began - SETTLED_NS
        return self._descend(path, folder, found.folders)

    def _close(self, path: str, folder: _Folder, *, unread: bool) -> None:
        """Nothing of a folder's own pins is known, or there are none."""
        self._take(path, folder, {})
        folder.unread = unread

    def _take(self, path: str, folder: _Folder, pins: dict[str, tuple[int, int]]) -> None:
        """These pins are in a folder now; only those that are new are opened, or to be tried again."""
        again, folder.again = folder.again, False
        folder.unread = False
        for name in [name for name in folder.pins if name not in pins]:
            self._forget(f"{path}/{name}", folder.pins.pop(name))
        for name, (inode, changed_ns) in pins.items():
            old = folder.pins.get(name)
            if old is not None:
                if (old.inode, old.changed_ns) == (inode, changed_ns) and not (old.map_id is None and again):
                    continue
                self._forget(f"{path}/{name}", old)
            map_id = self._known_map(f"{path}/{name}", inode, changed_ns)
            if map_id is None:
                map_id = self._map_of(folder.root, f"{path}/{name}")
            folder.pins[name] = _Pin(inode, changed_ns, map_id)
            self._pins += 1
            self._found_new = True
            if map_id is None:
                self._unopened.add(f"{path}/{name}")
            if map_id:
                self._paths.setdefault(map_id, set()).add(f"{path}/{name}")

    def _forget(self, path: str, pin: _Pin) -> None:
        self._pins -= 1
        self._found_gone = True
        self._unopened.discard(path)
        if pin.map_id:
            paths = self._paths[pin.map_id]
            paths.discard(path)
            if not paths:
                del self._paths[pin.map_id]

    def _map_of(self, root: str, path: str) -> int | None:
        """The map that a pin leads to; None where the daemon may not open it."""
        try:
            owned = self._kernel.control(OpenPin(root=root, path=path, read_only=True))
        except OSError as error:
            # EINVAL: a program or a link is pinned there. ENOENT: removed meanwhile, and the stamp says so.
            if error.errno in _OTHER or error.errno in _GONE:
                return _NO_MAP
            _raise_scarcity(error, path)
            return None
        with owned, owned.lease() as map_fd:
            return self._kernel.info(map_fd).id

    def _descend(self, path: str, folder: _Folder, names: Sequence[str]) -> list[str]:
        """These folders are in a folder now; those that are new, to be read."""
        there = frozenset(names)
        for name in folder.folders - there:
            self._drop(f"{path}/{name}")
        folder.folders = there
        new = [inner for name in names if (inner := f"{path}/{name}") not in self._folders]
        room = self._most_folders - len(self._folders)
        if len(new) > room:
            folder.unread = True
        for inner in new[:room]:
            self._folders[inner] = _Folder(folder.root)
        return new[:room]

    def _drop(self, path: str) -> None:
        """A folder that has gone, with all that was in it."""
        waiting = [path]
        while waiting:
            gone = waiting.pop()
            folder = self._folders.pop(gone, None)
            if folder is not None:
                for name, pin in folder.pins.items():
                    self._forget(f"{gone}/{name}", pin)
                waiting += [f"{gone}/{name}" for name in folder.folders]


class _Refreshed:
    """The index's lock, taken when all is as it is now."""

    __slots__ = ("_again", "_lock", "_refresh", "_since")

    def __init__(
        self, lock: threading.Lock, refresh: Callable[[int, bool], None], since: int, again: bool
    ) -> None:
        self._lock = lock
        self._refresh = refresh
        self._since = since
        self._again = again

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._refresh(self._since, self._again)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _raise_scarcity(error: OSError, path: str) -> None:
    """Give up where the daemon has run out of something: a pin that was not looked at for that is not unknown for ever.

    Raises:
        MapError: QUOTA, KERNEL_MEMORY, BUSY.
    """
    scarce = not_now(error, f"look at {path}", operation="open")
    if scarce is not None:
        raise scarce from error


def name_of(names_root: str, path: str) -> str:
    """The name that a pin's path is, or "" where it is none."""
    if not path.startswith(f"{names_root}/"):
        return ""
    parts = path[len(names_root) + 1 :].split("/")
    return "/".join(parts) if len(parts) == 2 and all(map(is_part, parts)) else ""


def _outermost(roots: Sequence[str]) -> list[str]:
    """The roots that are in no other."""
    clean = dict.fromkeys(posixpath.normpath(root) for root in roots)
    return [
        root for root in clean if not any(root.startswith(f"{other}/") for other in clean if other != root)
    ]


def _batches(paths: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in itertools.count(0, STAMPED_FOLDERS):
        if start >= len(paths):
            return
        yield paths[start : start + STAMPED_FOLDERS]
