"""Where leased maps are: a pin says the lease, its time and its namespace, and nothing else records them.

``<names root>/_leases/<namespace>/<lease>-<ttl>ms/<name>``. So a daemon that starts knows from the pins alone what to
keep and for how long, and nothing can disagree with them after a crash; pins end with the boot, and so do leases.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final

from mapd.bpf.kernel import Kernel, MakeFolder, Pin
from mapd_api import limits
from mapd_api.names import is_part

FOLDER: Final = "_leases"
"""Below the root of names. No namespace: those begin with a letter or digit."""

_FOLDER: Final = re.compile(r"(.+)-([1-9][0-9]{0,8})ms", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class LeaseId:
    """One lease. ``str`` is "namespace/id"."""

    namespace: str
    id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id}"


@dataclass(frozen=True, slots=True)
class LeasedRef:
    """The place of one map in a lease. ``str`` is "lease:namespace/id/name".

    Attributes:
        ttl_ms: of the whole lease.
    """

    lease: LeaseId
    ttl_ms: int
    name: str

    @property
    def namespace(self) -> str:
        """Whose it is."""
        return self.lease.namespace

    def __str__(self) -> str:
        return f"lease:{self.lease}/{self.name}"


def namespaces_folder(names_root: str) -> str:
    """Where the folders of namespaces are that have leases."""
    return f"{names_root}/{FOLDER}"


def leases_folder(names_root: str, namespace: str) -> str:
    """Where one namespace's leases are."""
    return f"{names_root}/{FOLDER}/{namespace}"


def folder_of(names_root: str, lease: LeaseId, ttl_ms: int) -> str:
    """Where the maps of one lease are pinned."""
    return f"{leases_folder(names_root, lease.namespace)}/{lease.id}-{ttl_ms}ms"


def path_of(names_root: str, place: LeasedRef) -> str:
    """Where a leased map is pinned."""
    return f"{folder_of(names_root, place.lease, place.ttl_ms)}/{place.name}"


def pin(kernel: Kernel, names_root: str, place: LeasedRef, map_fd: int) -> None:
    """Pin a map in a lease; the folders above are made where they are missing.

    Raises:
        SyscallError: as ``Pin``.
    """
    request = Pin(root=names_root, path=path_of(names_root, place), mkdir=True)
    try:
        return kernel.control(request, [map_fd])
    except FileNotFoundError:
        for folder in (namespaces_folder(names_root), leases_folder(names_root, place.namespace)):
            try:
                kernel.control(MakeFolder(root=names_root, path=folder))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise
    return kernel.control(request, [map_fd])


def parse_folder(namespace: str, name: str) -> tuple[LeaseId, int] | None:
    """The lease and the ttl in ms that a folder of a namespace is; None for any other folder."""
    found = _FOLDER.fullmatch(name)
    if found is None or not (is_part(namespace) and is_part(found[1])):
        return None
    ttl_ms = int(found[2])
    return (LeaseId(namespace, found[1]), ttl_ms) if takes(ttl_ms) else None


def parse(names_root: str, path: str) -> LeasedRef | None:
    """The place in a lease that a pin's path is, None where it is none."""
    above = f"{names_root}/{FOLDER}/"
    if not path.startswith(above):
        return None
    parts = path[len(above) :].split("/")
    if len(parts) != 3 or not is_part(parts[2]):
        return None
    found = parse_folder(parts[0], parts[1])
    return None if found is None else LeasedRef(*found, parts[2])


def owner_of(names_root: str, path: str) -> str:
    """The namespace whose lease a pin's path is in, or ""."""
    found = parse(names_root, path)
    return "" if found is None else found.namespace


def takes(ttl_ms: int) -> bool:
    """Whether a lease may have this ttl."""
    return limits.LEASE_MIN_S * 1_000 <= ttl_ms <= limits.LEASE_MAX_S * 1_000
