"""The pins below the folder of names, as a daemon found them: which are maps that it may serve, and which are not.

Each is looked at when the daemon starts, and again when its folder has changed. What does not fit is *quarantined*: it
is not served, it is told with the reason and what mends it, and it stays as it is. mapd neither makes it anew nor
unpins it. Whoever mends it needs to tell nobody: the next look sees it. Leases have their own look (``leases``).
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import (
    STAMPED_FOLDERS,
    FolderPins,
    Kernel,
    ListFolder,
    OpenPin,
    PinStamp,
    RawMapInfo,
    StampFolders,
)
from mapd.maps import leased
from mapd.maps.blobs import BtfBlobs
from mapd.maps.errors import MapError, scarcity
from mapd.maps.pinindex import SETTLED_NS
from mapd.maps.types import TYPES, type_name
from mapd_api.names import is_part
from mapd_api.reasons import Reason

ADOPTED: Final = 65_536
"""Pins that are looked at: some 300 bytes each. Those beyond are served, and judged when they are opened."""

OTHERS_WRITE: Final = 0o022
"""Mode bits of a folder by which others than its owner may put pins there."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
_PARTS: Final = "namespace/name, each 1 to 63 of a-z, 0-9, '_', '-', beginning with a letter or digit"


@dataclass(frozen=True, slots=True)
class Misfit:
    """Something below the folder of names that is not as it should be. ``str`` is the line that tells of it.

    Attributes:
        path: the pin, or the folder with all that is in it.
        served: only a part of it is missing; it is no reason to refuse the map.
    """

    path: str
    why: str
    fix: str
    served: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {'' if self.served else 'quarantined: '}{self.why}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A pin that is to be looked at: it is new, or another one by now."""

    folder: str
    stamp: PinStamp

    @property
    def path(self) -> str:
        """Of the pin."""
        return f"{self.folder}/{self.stamp.name}"


@dataclass(frozen=True, slots=True)
class _Pin:
    """A pin as it was looked at. ``map_id``: 0 where there is no map, or it could not be told."""

    inode: int
    changed_ns: int
    map_id: int = 0
    misfit: Misfit | None = None

    @property
    def served(self) -> bool:
        return self.map_id != 0 and (self.misfit is None or self.misfit.served)


@dataclass(slots=True)
class _Folder:
    """One folder as it was last read.

    Attributes:
        settled: its stamp tells of every change since.
        waiting: pins that are yet to be looked at.
    """

    stamp: int = 0
    settled: bool = False
    misfit: Misfit | None = None
    strange: tuple[Misfit, ...] = ()
    pins: dict[str, _Pin] = field(default_factory=dict[str, _Pin])
    waiting: set[str] = field(default_factory=set[str])

    @property
    def at_rest(self) -> bool:
        """Whether an unchanged stamp means that there is nothing to do: chmod(2) of a pin is none of its folder's."""
        ended = self.settled and not self.waiting
        return ended and not any(pin.misfit is not None for pin in self.pins.values())


class Adoption:
    """What is known of the pins below ``names_root``. Methods block, and may be called from any thread.

    Before the first look nothing is known, and nothing refused but for what an open map itself says.

    Args:
        owner: the user who makes the folders; one that belongs to anybody else but root is not trusted.
        known: map types that this daemon knows.
        blobs: where the types of maps are kept; files that are damaged are told.
        most: pins that are looked at.
        clock: time.time_ns, or a test's.
    """

    def __init__(
        self,
        kernel: Kernel,
        names_root: str,
        *,
        owner: int,
        known: Container[int] = TYPES,
        blobs: BtfBlobs | None = None,
        most: int = ADOPTED,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._kernel = kernel
        self._root = names_root
        self._owner = owner
        self._known = known
        self._blobs = blobs
        self._most = most
        self._clock = clock
        self._folders: dict[str, _Folder] = {}
        self._namespaces: Sequence[str] = ()  # as the root was last read
        self._lock = threading.Lock()

    @property
    def served(self) -> int:
        """Pins that were looked at and are maps to be served."""
        with self._lock:
            root = self._folders.get(self._root)
            if root is None or root.misfit is not None:
                return 0
            trusted = [folder for folder in self._folders.values() if folder.misfit is None]
            return sum(pin.served for folder in trusted for pin in folder.pins.values())

    @property
    def misfits(self) -> Sequence[Misfit]:
        """All that does not fit, as it was last looked at: folders before what is in them."""
        with self._lock:
            found: list[Misfit] = []
            for _, folder in sorted(self._folders.items()):
                found += [folder.misfit] if folder.misfit is not None else []
                found += folder.strange
                pins = sorted(folder.pins.items())
                found += [pin.misfit for _, pin in pins if pin.misfit is not None]
            return found

    def survey(self) -> Sequence[Unseen]:
        """Read the folders that have changed since they were read; the pins that are to be looked at.

        Raises:
            MapError: QUOTA, KERNEL_MEMORY: the daemon could not look.
        """
        unseen: list[Unseen] = []
        for path in self._changed():
            unseen += self._read(path)
        with self._lock:
            new = [path for path in self._namespaces if path not in self._folders]
        for path in new:
            unseen += self._read(path)
        return unseen

    def judge(self, one: Unseen) -> None:
        """Look at a pin, some 60 us. Raises as ``survey``."""
        map_id, misfit = self._looked_at(one.path)
        self._note(one, map_id, misfit)

    def unanswered(self, one: Unseen, seconds: float) -> None:
        """A pin that was looked at for so long, and nothing came of it."""
        fix = "see what holds bpf(2) there; mapd asks again when somebody opens it, or its pin changes"
        self._note(one, 0, Misfit(one.path, f"the kernel said nothing within {seconds:g} s", fix))

    def look(self) -> None:
        """Look at what has changed, one after the other. Raises as ``survey``."""
        for one in self.survey():
            self.judge(one)

    def map_of(self, path: str, inode: int, changed_ns: int) -> int | None:
        """The id of the map that a pin leads to, if this pin was looked at and leads to one."""
        folder_path, _, name = path.rpartition("/")
        folder = self._folders.get(folder_path)
        pin = folder.pins.get(name) if folder is not None else None
        if pin is None or (pin.inode, pin.changed_ns) != (inode, changed_ns):
            return None
        return pin.map_id or None

    def misfit_of(self, path: str, info: RawMapInfo | None = None) -> Misfit | None:
        """Why a pin with this map is not served, None where it is; without ``info`` whether its folder's are."""
        if not path.startswith(f"{self._root}/"):
            return None
        for above in (self._root, path.rpartition("/")[0]):
            folder = self._folders.get(above)
            if folder is not None and folder.misfit is not None:
                return folder.misfit
        return None if info is None else self._type(path, info)

    def check(self, path: str, info: RawMapInfo | None, operation: str, what: str) -> None:
        """Refuse what is not served; where a folder was in the way, it is looked at again before.

        Raises:
            MapError: INCOMPATIBLE.
        """
        misfit = self.misfit_of(path, info)
        if misfit is not None and misfit.path in self._folders:
            self._read(misfit.path)
            misfit = self.misfit_of(path, info)
        if misfit is not None:
            raise MapError(
                Reason.INCOMPATIBLE,
                f"{operation} {what}: quarantined, and left as it is: {misfit.why} ({misfit.path}); {misfit.fix}",
                operation=operation,
                map=what,
                fix=misfit.fix,
            )

    def trust(self, path: str, found: FolderPins) -> Misfit | None:
        """Whether none but the daemon and root could have put the pins of a folder there."""
        if found.uid not in (0, self._owner):
            why = f"the folder belongs to uid {found.uid}, who can put any map under its names"
            return Misfit(path, why, f"chown {self._owner} {path}, when its pins are what they should be")
        if found.mode & OTHERS_WRITE:
            why = f"the folder has mode {found.mode:04o}: others can put any map under its names"
            return Misfit(path, why, f"chmod go-w {path}, when its pins are what they should be")
        return None

    # ---- what is below -------------------------------------------------------------------------

    def _changed(self) -> Sequence[str]:
        """The root before it was read; later the folders whose stamps are others now, or do not tell."""
        with self._lock:
            known = {path: (folder.stamp, folder.at_rest) for path, folder in self._folders.items()}
        if self._root not in known:
            return [self._root]
        found: list[str] = []
        paths = list(known)
        for start in range(0, len(paths), STAMPED_FOLDERS):
            some = paths[start : start + STAMPED_FOLDERS]
            for path, stamp in zip(some, self._stamps(some), strict=True):
                if (stamp, True) != known[path]:
                    found.append(path)
        return sorted(found)  # the root first

    def _stamps(self, paths: Sequence[str]) -> Sequence[int]:
        try:
            return self._kernel.control(StampFolders(root=self._root, paths=tuple(paths)))
        except OSError as error:
            self._scarce(error, self._root)
            return [0] * len(paths)

    def _read(self, path: str) -> Sequence[Unseen]:
        began = self._clock()
        try:
            found = self._kernel.control(ListFolder(root=self._root, path=path))
        except OSError as error:
            self._scarce(error, path)
            with self._lock:
                if error.errno in _GONE and path != self._root:
                    self._folders.pop(path, None)
                else:
                    self._folders[path] = _Folder(misfit=self._closed(path, error))
            return []
        with self._lock:
            folder = self._folders.setdefault(path, _Folder())
            folder.stamp, folder.settled = found.stamp, found.stamp < began - SETTLED_NS
            folder.misfit = self.trust(path, found)
            if path == self._root:
                folder.strange = tuple(self._strange_in_root(found))
                self._namespaces = [f"{path}/{name}" for name in sorted(found.folders) if is_part(name)]
                for gone in self._folders.keys() - {path, *self._namespaces}:
                    del self._folders[gone]
                return []
            folder.strange = tuple(self._strange_in_namespace(path, found))
            return self._compare(path, folder, found.pins)

    def _compare(self, path: str, folder: _Folder, pins: Sequence[PinStamp]) -> Sequence[Unseen]:
        """The pins of a folder that were not looked at as they are now; those that have gone are forgotten."""
        there = {one.name: one for one in pins if is_part(one.name)}
        for name in folder.pins.keys() - there.keys():
            del folder.pins[name]
        room = self._most - sum(len(one.pins) for one in self._folders.values())
        unseen: list[Unseen] = []
        for name, one in there.items():
            pin = folder.pins.get(name)
            same = pin is not None and (pin.inode, pin.changed_ns) == (one.inode, one.changed_ns)
            if same and pin is not None and (pin.misfit is None or not pin.misfit.served):
                continue  # of one that is served in part, what is missing is elsewhere
            if pin is None and room <= 0:
                continue
            room -= pin is None
            unseen.append(Unseen(path, one))
        folder.waiting = {one.stamp.name for one in unseen}
        return unseen

    def _note(self, one: Unseen, map_id: int, misfit: Misfit | None) -> None:
        with self._lock:
            folder = self._folders.get(one.folder)
            if folder is not None:
                folder.waiting.discard(one.stamp.name)
                folder.pins[one.stamp.name] = _Pin(one.stamp.inode, one.stamp.changed_ns, map_id, misfit)

    def _looked_at(self, path: str) -> tuple[int, Misfit | None]:
        """The map that a pin leads to, 0 for none, and what does not fit."""
        try:
            owned = self._kernel.control(OpenPin(root=self._root, path=path, read_only=True))
        except OSError as error:
            if error.errno in _GONE:  # unpinned meanwhile, and the folder's stamp says so
                return 0, None
            self._scarce(error, path)
            return 0, self._closed(path, error)
        with owned, owned.lease() as map_fd:
            info = self._kernel.info(map_fd)
        return info.id, self._type(path, info) or self._types(path, info)

    # ---- what does not fit ---------------------------------------------------------------------

    def _closed(self, path: str, error: OSError) -> Misfit:
        """A pin or folder that could not be opened."""
        name = errno_name(error.errno or 0)
        if error.errno == errno.EINVAL:
            return Misfit(path, f"not a map: a program or a link is pinned there [{name}]", f"rm {path}")
        if error.errno in (errno.EACCES, errno.EPERM):
            fix = f"chown or chmod {path}, or give mapd profile pins-rw"
            return Misfit(path, f"its mode does not admit the daemon [{name}]", fix)
        return Misfit(path, f"{error.strerror} [{name}]", f"see what is at {path}")

    def _type(self, path: str, info: RawMapInfo) -> Misfit | None:
        if info.map_type in self._known:
            return None
        known = f"this mapd does not know map type {type_name(info.map_type)}"
        return Misfit(
            path, f"map {info.id}: {known}", "a newer mapd serves it; bpftool map, as root, reads it as it is"
        )

    def _types(self, path: str, info: RawMapInfo) -> Misfit | None:
        """A map whose kept types are no BTF; one that has none kept is as others make them."""
        if self._blobs is None or info.btf_id == 0 or not self._blobs.is_damaged(info.id):
            return None
        return Misfit(
            path,
            f"map {info.id} is served without its types: {self._blobs.path_of(info.id)} is damaged",
            "remove that file; profile inspector, or a codec of the client's, tells the types",
            served=True,
        )

    def _strange_in_root(self, found: FolderPins) -> Iterable[Misfit]:
        for pin in found.pins:
            path = f"{self._root}/{pin.name}"
            yield Misfit(
                path, f"no name: names are {_PARTS}", "move it to another folder of the bpffs, or remove it"
            )
        for name in found.folders:
            if name != leased.FOLDER and not is_part(name):
                yield Misfit(
                    f"{self._root}/{name}", f"no namespace: names are {_PARTS}", "move it, or remove it"
                )

    def _strange_in_namespace(self, path: str, found: FolderPins) -> Iterable[Misfit]:
        for name in (*(pin.name for pin in found.pins), *found.folders):
            if not is_part(name) or name in found.folders:
                fix = "move it to another folder of the bpffs, or remove it"
                yield Misfit(f"{path}/{name}", f"no name: names are {_PARTS}", fix)

    def _scarce(self, error: OSError, path: str) -> None:
        """Give up where the daemon has run out of something: what was not looked at for that has not changed.

        Raises:
            MapError: QUOTA, KERNEL_MEMORY.
        """
        scarce = scarcity(error, f"look at {path}", operation="adopt")
        if scarce is not None:
            raise scarce from error


def differences(
    before: Iterable[Misfit], after: Iterable[Misfit]
) -> tuple[Sequence[Misfit], Sequence[Misfit]]:
    """What does not fit any more, and what does again."""
    old: Mapping[str, Misfit] = {str(one): one for one in before}
    new: Mapping[str, Misfit] = {str(one): one for one in after}
    return [one for line, one in new.items() if line not in old], [
        one for line, one in old.items() if line not in new
    ]
