"""Whose maps there are, and how much kernel memory they may come to take: asked before a map is made.

A map is charged to the namespace of its name or of its lease, and to the principal that makes it. Both are pins, so
what is charged is counted from the kernel at each creation: nothing is kept that could disagree with it after a crash.
What has been made by this daemon and lost its name is counted too, as long as a handle or another pin that it was
given here keeps it; a daemon that was restarted knows no longer who made a map with no name.

Blocks, and is safe to use from many threads: it runs in the pool, around the making itself.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal
from mapd.access.quotas import Dimension
from mapd.bpf.kernel import FolderPins, ListFolder, OpenPin, PinStamp, RawMapInfo
from mapd.bpf.memory import MapShape, map_bytes
from mapd.maps.errors import MapError
from mapd.maps.leased import leases_folder, namespaces_folder
from mapd.maps.spec import MapSpec
from mapd.maps.store import MapStore, Place
from mapd.runtime.shares import over
from mapd_api.reasons import Reason

Held: TypeAlias = Callable[[int], bool]
"""Whether a handle is open on the map of this id; for any thread."""

REMEMBERED = 65_536
"""Maps whose size is remembered by their id, and pins that are looked at for one namespace, at most."""

GONE = 4_096
"""Maps of one principal that nothing seemed to keep, at most: one that is being opened meanwhile is held only then."""

PATHS = 64
"""Pins of one map that was made here, from which on those that are gone are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who is charged: the maps of ``principal``'s namespace count against ``quotas``."""

    principal: Principal
    quotas: Quotas

    @property
    def limited(self) -> bool:
        """Whether there is anything to check."""
        return self.quotas.maps is not None or self.quotas.map_bytes is not None


@dataclass(slots=True)
class _Made:
    """A map that a principal made: where it was pinned, and its size. ``gone``: nothing kept it when last counted."""

    size: int
    paths: set[str]
    gone: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A map that is being made."""

    principal: str
    path: str
    size: int


@dataclass(slots=True)
class Bill:
    """What is being made; ``made`` tells that it was.

    Attributes:
        check: whether there is room for it after all.
    """

    size: int
    check: Callable[[], None]
    map_id: int = 0

    def made(self, map_id: int) -> None:
        """A new map is there.

        Raises:
            MapError: QUOTA, it is beyond one: whoever made it takes it away.
        """
        self.check()
        self.map_id = map_id


@dataclass(slots=True)
class _Counted:
    """Maps by id, and those being made."""

    sizes: dict[int, int] = field(default_factory=dict[int, int])
    pending: dict[str, int] = field(default_factory=dict[str, int])
    unseen: int = 0

    @property
    def maps(self) -> int:
        return len(self.sizes) + len(self.pending) + self.unseen

    @property
    def size(self) -> int:
        return sum(self.sizes.values()) + sum(self.pending.values())


class Charges:
    """The maps of every namespace of one daemon.

    Args:
        memory: bytes that all of them together may come to take; None: whatever the kernel gives.
    """

    def __init__(self, store: MapStore, memory: int | None = None) -> None:
        self._store = store
        self._memory = memory
        self._lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        self._pending: list[_Pending] = []
        self._made: dict[str, dict[int, _Made]] = {}
        # Whoever asks for maps beyond its quota again and again would have each of its pins opened each time.
        self._seen: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {}

    @contextmanager
    def reserve(self, name: Place, spec: MapSpec, accounts: Sequence[Account], held: Held) -> Generator[Bill]:
        """Room for one map while it is made in the block, on each of ``accounts``; the first is its maker's.

        Two that are made at once never get what one of them is due: what is begun counts until it is done.

        Args:
            spec: one that ``spec.check`` has passed.
            held: asked from this thread, whenever maps are counted.

        Raises:
            MapError: QUOTA; KERNEL_MEMORY, all maps together may come to need more than there is. Nothing was made.
        """
        size = map_bytes(_shape(spec), self._store.possible_cpus)
        maker, path = accounts[0].principal.name, self._store.path_of(name)
        pending = _Pending(maker, path, size)
        limited = [account for account in accounts if account.limited]
        with self._lock:
            again = [one for one in limited if not self._check(one, name, spec, path, size, held)]
            self._check_memory(name, spec, path, size, held)
            self._pending.append(pending)

        def check() -> None:
            with self._lock:
                for account in again:
                    counted = self._count(account.principal, held, {})
                    counted.pending.pop(path, 0)
                    _refuse_more(account, counted, f"create {name} ({spec})", size)

        bill = Bill(size, check)
        try:
            yield bill
        finally:
            with self._lock:
                self._pending.remove(pending)
                if bill.map_id and (accounts[0].limited or self._memory is not None):
                    self._made.setdefault(maker, {})[bill.map_id] = _Made(size, {path})

    def pinned(self, map_id: int, path: str) -> None:
        """A map has one more pin, which keeps it when its name is gone."""
        with self._lock:
            for made in self._made.values():
                found = made.get(map_id)
                if found is None:
                    continue
                found.gone = False
                if len(found.paths) >= PATHS:
                    found.paths = {one for one in found.paths if self._leads_to(one, map_id)}
                found.paths.add(path)

    def renamed(self, path: str, new_path: str) -> None:
        """A pin has another path."""
        with self._lock:
            for made in self._made.values():
                for found in made.values():
                    if path in found.paths:
                        found.gone = False
                        found.paths = (found.paths - {path}) | {new_path}

    def used(self, principal: Principal, held: Held) -> tuple[int, int]:
        """Maps of one principal, and their bytes. Looks at every pin of its namespace: 10 to 25 us each."""
        with self._lock:
            counted = self._count(principal, held, known={})
            return counted.maps, counted.size

    def _check_memory(self, name: Place, spec: MapSpec, path: str, size: int, held: Held) -> None:
        """Refuse what could fill the cgroup that maps are charged to: the opener lives there too."""
        if self._memory is None:
            return
        known: dict[str, int] = {}
        counted = self._count_all(held, known)
        own = counted.pending.pop(path, 0)
        if path in known:
            own = counted.sizes.pop(known[path])
        if counted.size + max(size, own) > self._memory:
            raise MapError(
                Reason.KERNEL_MEMORY,
                f"create {name} ({spec}): it may come to take {size} bytes, and the maps that are there "
                f"{counted.size} of the {self._memory} that the cgroup of mapd's opener leaves them; ask for fewer "
                "entries, unpin what is not needed, or raise the cgroup's limit (memory.max)",
                operation="create",
                map=str(name),
                asked=size,
                used=counted.size,
                most=self._memory,
            )

    def _count_all(self, held: Held, known: dict[str, int]) -> _Counted:
        """All maps of all namespaces; ``known`` as for ``_count``."""
        counted, root = _Counted(), self._store.names_root
        for one in self._pending:
            counted.pending[one.path] = max(one.size, counted.pending.get(one.path, 0))
        for namespace in self._listed(root).folders:
            folder = f"{root}/{namespace}"
            self._count_pins(folder, self._listed(folder).pins, counted, known)
        for namespace in self._listed(namespaces_folder(root)).folders:
            self._count_leases(leases_folder(root, namespace), counted, known)
        for maker in self._made:
            self._count_made(maker, held, counted)
        return counted

    def _check(
        self,
        account: Account,
        name: Place,
        spec: MapSpec,
        path: str,
        size: int,
        held: Held,
    ) -> bool:
        """Whether there is room; False: only if the map of that name stays, and nothing is made."""
        known: dict[str, int] = {}
        counted = self._count(account.principal, held, known)
        # Nothing new is made where the name leads to a map, unless that goes meanwhile: count the larger of both.
        own = counted.pending.pop(path, 0)
        if path in known:
            own = counted.sizes.pop(known[path])
        if not own or size > own:
            _refuse_more(account, counted, f"create {name} ({spec})", size)
        return not own

    def _count(self, principal: Principal, held: Held, known: dict[str, int]) -> _Counted:
        """All that counts for one principal; ``known`` is told the id behind each path."""
        counted, root = _Counted(), self._store.names_root
        folder, leases = f"{root}/{principal.namespace}", leases_folder(root, principal.namespace)
        for one in self._pending:
            if one.principal == principal.name or one.path.startswith((f"{folder}/", f"{leases}/")):
                counted.pending[one.path] = max(one.size, counted.pending.get(one.path, 0))
        self._count_pins(folder, self._listed(folder).pins, counted, known)
        self._count_leases(leases, counted, known)
        self._count_made(principal.name, held, counted)
        return counted

    def _count_leases(self, leases: str, counted: _Counted, known: dict[str, int]) -> None:
        """All that is pinned in the leases of one namespace."""
        for lease in self._listed(leases).folders:
            inside = f"{leases}/{lease}"
            self._count_pins(inside, self._listed(inside).pins, counted, known)

    def _count_pins(
        self, folder: str, pins: Sequence[PinStamp], counted: _Counted, known: dict[str, int]
    ) -> None:
        """All that is pinned in one folder."""
        for pin in pins[:REMEMBERED]:
            path = f"{folder}/{pin.name}"
            if path in counted.pending:
                continue
            found = self._known(path, pin)
            if found is None:
                continue
            map_id, size = found
            if map_id:
                known[path] = map_id
                counted.sizes[map_id] = size
            else:
                counted.unseen += 1

    def _count_made(self, maker: str, held: Held, counted: _Counted) -> None:
        """Maps that a principal made and that have no name that was counted; what is long gone is forgotten."""
        made = self._made.get(maker, {})
        gone: list[int] = []
        for map_id, one in made.items():
            if map_id in counted.sizes:
                one.gone = False
                continue
            paths = set[str]() if one.gone else one.paths
            there = {path for path in paths if self._leads_to(path, map_id)}
            if there & counted.pending.keys():
                continue  # it counts as what is being made there
            if there or held(map_id):
                counted.sizes[map_id] = one.size
            else:
                one.gone = True
                gone.append(map_id)
        for map_id in gone[: max(0, len(gone) - GONE)]:
            del made[map_id]

    def _known(self, path: str, pin: PinStamp) -> tuple[int, int] | None:
        """As ``_look``, without opening a pin that is the one that was looked at before."""
        stamp = pin.inode, pin.changed_ns
        known = self._seen.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        found = self._look(self._store.names_root, path)
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        if found is not None and found[0]:
            self._seen[path] = stamp, found
        else:
            self._seen.pop(path, None)
        return found

    def _listed(self, folder: str) -> FolderPins:
        try:
            # The root as it is configured: a separate opener knows no other.
            return self._store.kernel.control(ListFolder(root=self._store.names_root, path=folder))
        except FileNotFoundError:
            return FolderPins(0, (), ())
        except OSError as error:
            raise self._store.pin_refusal(error, "create", folder, folder) from error

    def _look(self, root: str, path: str) -> tuple[int, int] | None:
        """Id and bytes of the map at a path; id 0 for one that cannot be looked at; None where there is none."""
        kernel = self._store.kernel
        try:
            with kernel.control(OpenPin(root=root, path=path, read_only=True)) as owned, owned.lease() as fd:
                info = kernel.info(fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
                return None  # unpinned meanwhile, or something that is no map
            if error.errno in (errno.EACCES, errno.EPERM):
                return 0, 0  # its modes do not admit the daemon: a map there is all that can be said
            raise self._store.pin_refusal(error, "create", path, path) from error
        return info.id, self._size(info)

    def _leads_to(self, path: str, map_id: int) -> bool:
        """Whether a pin still keeps this map; one that cannot be looked at does."""
        root = self._store.root_of(path, "create")
        found = self._look(root, path)
        return found is not None and found[0] in (0, map_id)

    def _size(self, info: RawMapInfo) -> int:
        """Bytes of a map that is there: as for one that is made, and never less than the kernel says it has."""
        known = self._sizes.get(info.id)
        if known is None:
            if len(self._sizes) >= REMEMBERED:
                self._sizes.clear()
            try:
                known = map_bytes(_shape(info), self._store.possible_cpus)
            except ValueError:
                known = 0  # a type of a newer kernel, made by others
            self._sizes[info.id] = known
        return max(known, info.memlock)


def _refuse_more(account: Account, counted: _Counted, what: str, size: int) -> None:
    """Refuse one map more of so many bytes, where that is beyond what ``account`` has left."""
    principal, quotas = account.principal, account.quotas
    if quotas.maps is not None and counted.maps >= quotas.maps:
        raise over(principal, Dimension.MAPS, what, used=counted.maps, most=quotas.maps)
    if quotas.map_bytes is not None and counted.size + size > quotas.map_bytes:
        used, most = counted.size, quotas.map_bytes
        raise over(principal, Dimension.MAP_BYTES, what, used=used, most=most, asked=size)


def _shape(of: MapSpec | RawMapInfo) -> MapShape:
    flags = of.flags if isinstance(of, MapSpec) else of.map_flags
    return MapShape(
        map_type=of.map_type,
        key_size=of.key_size,
        value_size=of.value_size,
        max_entries=of.max_entries,
        flags=flags,
        map_extra=of.map_extra,
    )
