"""Leases as the kernel has them: found by their folders, and ended with all that is pinned in these. Blocks."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import FolderPins, ListFolder, OpenPin, RemoveFolder, Unpin
from mapd.maps import leased
from mapd.maps.errors import not_now
from mapd.maps.leased import LeasedRef, LeaseId
from mapd.maps.opened import MapFacts
from mapd.maps.store import MapStore
from mapd_api import limits
from mapd_api.names import is_part

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class LeasedMap:
    """One map of a lease, as it was when it was looked at. Holds nothing open."""

    place: LeasedRef
    path: str
    facts: MapFacts


@dataclass(frozen=True, slots=True)
class FoundLease:
    """One lease that has a folder; without maps where somebody has unpinned them."""

    id: LeaseId
    ttl_ms: int
    maps: Sequence[LeasedMap]


@dataclass(frozen=True, slots=True)
class Found:
    """All leases, and a line for each thing below their folder that is none, which is left alone."""

    leases: Sequence[FoundLease]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ended:
    """What was removed with a lease.

    Attributes:
        pins: paths and the kernel ids of their maps.
        left: a line for each thing that is no map, or that could not be removed; the folder stays with it.
    """

    pins: Sequence[tuple[str, int]]
    left: Sequence[str]


def find(store: MapStore) -> Found:
    """Every lease. About 50 us for a lease and its map.

    Raises:
        MapError: QUOTA, KERNEL_MEMORY, BUSY: the daemon could not look.
    """
    root = store.names_root
    leases: dict[LeaseId, FoundLease] = {}
    notes: list[str] = []
    above = leased.namespaces_folder(root)
    for namespace in sorted(_listed(store, above, notes).folders):
        folder = leased.leases_folder(root, namespace)
        for name in sorted(_listed(store, folder, notes).folders):
            parsed = leased.parse_folder(namespace, name)
            if parsed is None:
                notes.append(f"{folder}/{name}: no folder of a lease (<id>-<ttl>ms)")
            elif parsed[0] in leases:
                notes.append(f"{folder}/{name}: the lease {parsed[0]} has another folder, of another ttl")
            elif len(leases) >= limits.LEASES:
                notes.append(f"{folder}/{name}: a daemon has at most {limits.LEASES} leases")
            else:
                leases[parsed[0]] = FoundLease(*parsed, maps_in(store, *parsed, notes))
    return Found(tuple(leases.values()), notes)


def maps_in(store: MapStore, lease: LeaseId, ttl_ms: int, notes: list[str]) -> Sequence[LeasedMap]:
    """The maps of one lease; ``notes`` is told of what is none. Raises as ``find``."""
    folder = leased.folder_of(store.names_root, lease, ttl_ms)
    found: list[LeasedMap] = []
    for pin in _listed(store, folder, notes).pins:
        path = f"{folder}/{pin.name}"
        if not is_part(pin.name):
            notes.append(f"{path}: no name of a map in a lease")
            continue
        try:
            with (
                store.kernel.control(OpenPin(root=store.names_root, path=path, read_only=True)) as owned,
                owned.lease() as map_fd,
            ):
                facts = store.facts_at(map_fd)
        except OSError as error:
            _note(error, path, notes)
        else:
            found.append(LeasedMap(LeasedRef(lease, ttl_ms, pin.name), path, facts))
    return found


def end(store: MapStore, lease: LeaseId, ttl_ms: int) -> Ended:
    """Unpin every map of a lease, whoever has pinned it there, and remove its folder.

    A lease that has gone already is none that cannot be ended.

    Raises:
        MapError: QUOTA, KERNEL_MEMORY, BUSY: some may be unpinned.
    """
    root, kernel = store.names_root, store.kernel
    folder = leased.folder_of(root, lease, ttl_ms)
    left: list[str] = []
    pins: list[tuple[str, int]] = []
    for pin in _listed(store, folder, left).pins:
        path = f"{folder}/{pin.name}"
        try:
            with (
                kernel.control(OpenPin(root=root, path=path, read_only=True)) as owned,
                owned.lease() as map_fd,
            ):
                map_id = kernel.info(map_fd).id
            kernel.control(Unpin(root=root, path=path))
        except OSError as error:
            _note(error, path, left)
        else:
            pins.append((path, map_id))
    try:
        kernel.control(RemoveFolder(root=root, path=folder))
    except OSError as error:
        _note(error, folder, left)
    return Ended(pins, left)


def _listed(store: MapStore, folder: str, notes: list[str]) -> FolderPins:
    """A folder's pins and folders; none where it is not there, or others could have put them there."""
    try:
        found = store.kernel.control(ListFolder(root=store.names_root, path=folder))
    except OSError as error:
        _note(error, folder, notes)
        return FolderPins(0, (), ())
    misfit = store.adoption.misfit_of(folder) or store.adoption.trust(folder, found)
    if misfit is None:
        return found
    notes.append(str(misfit))
    return FolderPins(0, (), ())


def _note(error: OSError, path: str, notes: list[str]) -> None:
    """A line about what could not be done; none where it has gone meanwhile.

    Raises:
        MapError: the daemon has run out of something, or the kernel was busy.
    """
    if error.errno in _GONE:
        return
    # EBUSY is of a folder on which something is mounted, and lasts.
    refusal = not_now(error, f"lease: {path}", operation="lease")
    if refusal is not None and error.errno != errno.EBUSY:
        raise refusal from error
    why = "not a map" if error.errno == errno.EINVAL else error.strerror
    notes.append(f"{path}: {why} [{errno_name(error.errno or 0)}]")
