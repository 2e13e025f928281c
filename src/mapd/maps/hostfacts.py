"""What values of maps refer to on this host: clocks, network devices, cgroups. Reads only, and needs no capability.

All of it can be seen from behind the front's walls: devices by /proc/self and by ioctl(2) on a UNIX socket, cgroups by
the names of their folders. What cannot be seen is said, never left out.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mapd.bpf import boot_id

DEVICES: Final = 4_096
"""Devices of one answer."""
CGROUPS: Final = 8_192
"""Cgroups of one answer, but for those that were asked for by id."""
PATH_BYTES: Final = 1 << 20
"""Of their paths together."""
FOLDERS: Final = 65_536
"""Folders of cgroups that one walk looks at; each took 11 to 15 us, with 16 files in it (2,102 of them, two CPUs)."""
WALK_BYTES: Final = 8 << 20
"""Of their paths together: whoever has a cgroup of his own may nest in it as he likes. What a walk has found is kept
until the next one: 224 bytes for each of 65,536 with paths of 103 characters, 15 MB in all."""
WALK_EVERY_S: Final = 1.0
"""A walk is good for so long, whoever asks."""
LINES: Final = 8
"""Folders that could not be read, which are named one by one."""

_READS: Final = 5
"""Of the clocks, of which the narrowest counts: a thread may lose its CPU between two."""
_GLOBAL_ROOT: Final = 1
"""Inode number, and id, of cgroup2's own root (kernel/cgroup/cgroup.c, cgroup_setup_root(): kernfs gives it 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """CLOCK_REALTIME, CLOCK_MONOTONIC and CLOCK_BOOTTIME of the host in nanoseconds, read within ``error_ns``."""

    realtime_ns: int
    monotonic_ns: int
    boottime_ns: int
    error_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asks for: ids to name, and whether all of them."""

    ifindexes: frozenset[int] = frozenset()
    cgroup_ids: frozenset[int] = frozenset()
    all_devices: bool = False
    all_cgroups: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found.

    Attributes:
        clocks: None where a time namespace stands between them and the kernel's.
        devices: names by index.
        netns: inode of the network namespace that they are in; 0: not known.
        cgroups: paths below ``cgroup_mount`` by id.
        not_looked_at: what was asked for and could not be seen, a line each.
    """

    clocks: Clocks | None
    devices: Mapping[int, str]
    netns: int
    cgroups: Mapping[int, str]
    cgroup_mount: str
    page_size: int
    kernel_release: str
    machine: str
    boot_id: str
    not_looked_at: Sequence[str]


class HostFacts:
    """This host, as this process sees it. One call at a time (``runtime`` sees to that)."""

    def __init__(self, *, cgroup_mount: str | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """``cgroup_mount``: None: the first that this process's mount namespace has."""
        self._mount = cgroup_mount
        self._now = now
        self._walk: Walk | None = None
        self._walked = 0.0

    def look(self, wanted: Wanted) -> Facts:
        """Everything that is wanted, and what could not be seen of it."""
        unseen: list[str] = []
        system = os.uname()
        devices = _devices(wanted, unseen)
        mount = cgroup_mount() if self._mount is None else self._mount
        cgroups = self._cgroups(wanted, mount, unseen)
        return Facts(
            clocks=_clocks(unseen),
            devices=devices,
            netns=_inode("/proc/self/ns/net"),
            cgroups=cgroups,
            cgroup_mount=mount,
            page_size=os.sysconf("SC_PAGE_SIZE"),
            kernel_release=system.release,
            machine=system.machine,
            boot_id=boot_id(),
            not_looked_at=tuple(unseen),
        )

    def _cgroups(self, wanted: Wanted, mount: str, unseen: list[str]) -> Mapping[int, str]:
        if not (wanted.all_cgroups or wanted.cgroup_ids):
            return {}
        if not mount:
            unseen.append("cgroups: no cgroup2 file system is mounted where the daemon sees it")
            return {}
        walk = self._walk
        if walk is None or walk.mount != mount or self._now() - self._walked >= WALK_EVERY_S:
            walk = self._walk = Walk.of(mount)
            self._walked = self._now()
        unseen += walk.unseen
        found = {number: walk.paths[number] for number in wanted.cgroup_ids & walk.paths.keys()}
        if not wanted.all_cgroups:
            return found
        size = 0
        for told, (number, path) in enumerate(walk.paths.items()):  # from the mount downwards
            size += len(path.encode())
            if told == CGROUPS or size > PATH_BYTES:
                unseen.append(
                    f"cgroups: {told} of {len(walk.paths)} are told, those nearest to the mount; ask for others by id"
                )
                break
            found[number] = path
        return found


@dataclass(slots=True)
class Walk:
    """One walk over the folders of cgroups, from the mount downwards.

    Attributes:
        paths: below the mount, by id; those nearer to it first.
        unseen: what it left out, a line each.
    """

    mount: str
    paths: dict[int, str] = field(default_factory=dict[int, str])
    unseen: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, mount: str, most: int = FOLDERS) -> Walk:
        """Walk. A folder's inode number is its cgroup's id (kernel/cgroup/cgroup.c, cgroup_id())."""
        walk = cls(mount)
        try:
            root = Path(mount).stat().st_ino
        except OSError as error:
            walk.unseen.append(f"cgroups: {mount}: {error.strerror}")
            return walk
        if root != _GLOBAL_ROOT:
            walk.unseen.append(
                f"cgroups: {mount} is the root of a cgroup namespace, or a part of the tree; nothing beside it is seen"
            )
        walk.paths[root] = "/"
        refused = size = 0
        folders = deque([b""])
        top = os.fsencode(mount)
        while folders:
            folder = folders.popleft()
            try:
                with os.scandir(top + folder) as entries:
                    inside = [(one.inode(), one.name) for one in entries if one.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                continue  # it was removed meanwhile, with all that was in it
            except OSError as error:
                refused += 1
                if refused <= LINES:
                    walk.unseen.append(f"cgroups below {readable(folder) or '/'}: {error.strerror}")
                continue
            for number, name in sorted(inside, key=_name):
                path = folder + b"/" + name
                size += len(path)
                if len(walk.paths) >= most or size > WALK_BYTES:
                    walk.unseen.append(
                        f"cgroups: there are more than the {most}, or {WALK_BYTES} bytes of paths, of one walk"
                    )
                    return walk
                walk.paths[number] = readable(path)
                folders.append(path)
        if refused > LINES:
            walk.unseen.append(f"cgroups: {refused - LINES} folders more could not be read")
        return walk


def _name(entry: tuple[int, bytes]) -> bytes:
    return entry[1]


def cgroup_mount(mountinfo: str = "/proc/self/mountinfo") -> str:
    """Where this mount namespace has a cgroup2 file system; "" where it has none. Of several, the shortest path."""
    found: list[str] = []
    try:
        lines = Path(mountinfo).read_bytes().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(b" - ")
        if after.split(b" ", 1)[0] == b"cgroup2":
            point = before.split(b" ")[4]
            # fs/proc_namespace.c, show_mountinfo() escapes these four as \ooo.
            for letter in b" \t\n\\":
                point = point.replace(b"\\%03o" % letter, bytes((letter,)))
            found.append(os.fsdecode(point))
    return min(found, key=lambda path: (len(path), path), default="")


def readable(name: bytes) -> str:
    r"""A name of the kernel's as text; bytes that are no UTF-8 as ``\xNN``."""
    return name.decode("utf-8", "backslashreplace")


def _devices(wanted: Wanted, unseen: list[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for index in wanted.ifindexes:
        # ioctl SIOCGIFNAME on a UNIX socket: neither netlink nor /sys is needed for it (net/core/dev_ioctl.c).
        try:
            found[index] = readable(os.fsencode(socket.if_indextoname(index)))
        except (OSError, OverflowError):
            continue  # ENXIO: no device has it
    if wanted.all_devices:
        try:
            names = device_names(Path("/proc/self/net/dev").read_bytes())
        except OSError as error:
            unseen.append(f"network devices: /proc/self/net/dev: {error.strerror}")
            return found
        if len(names) > DEVICES:
            unseen.append(f"network devices: {DEVICES} of {len(names)} are told; ask for others by index")
        found.update(_indexes(names[:DEVICES]))
    if wanted.all_devices or wanted.ifindexes:
        _look_private(unseen)
    return found


def device_names(table: bytes) -> list[bytes]:
    """The names in /proc/net/dev: no name has a colon or white space (net/core/dev.c, dev_valid_name())."""
    return [line.partition(b":")[0].strip() for line in table.splitlines() if b":" in line]


def _indexes(names: Iterable[bytes]) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in names:
        try:
            found[socket.if_nametoindex(os.fsdecode(name))] = readable(name)
        except OSError:
            continue  # it has gone, or another name, since the table was read
    return found


def _look_private(unseen: list[str]) -> None:
    """A namespace with nothing but its loopback device is not where anybody's packets go."""
    try:
        names = device_names(Path("/proc/self/net/dev").read_bytes())
    except OSError:
        return
    if names == [b"lo"]:
        unseen.append(
            "network devices: the daemon's network namespace has the loopback device alone; with systemd, "
            "PrivateNetwork=no for mapd.service shows it those of the host (deploy/README.md)"
        )


def _clocks(unseen: list[str]) -> Clocks | None:
    try:
        monotonic, boottime = time_offsets()
    except (OSError, ValueError) as error:
        unseen.append(f"clocks: {error}")
        return None
    best: Clocks | None = None
    for _ in range(_READS):
        first = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
        booted = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        width = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - first
        if best is None or width < best.error_ns:
            # In the middle of what it took, so that neither end is further than the width.
            best = Clocks(
                realtime_ns=realtime,
                monotonic_ns=first + width // 2 - monotonic,
                boottime_ns=booted - boottime,
                error_ns=width,
            )
    return best


def time_offsets(
    offsets: str = "/proc/self/timens_offsets", own: str = "/proc/self/ns/time", next_: str = ""
) -> tuple[int, int]:
    """What this time namespace adds to CLOCK_MONOTONIC and CLOCK_BOOTTIME, in nanoseconds; read time_namespaces(7).

    Programs see the host's own clocks (kernel/time/timekeeping.c, ktime_get_mono_fast_ns()).

    Raises:
        OSError, ValueError: it cannot be told.
    """
    if not Path(offsets).exists():
        return 0, 0  # a kernel without CONFIG_TIME_NS
    # The file is of the namespace for children, which is another than ours after unshare(2) and before fork(2).
    if _inode(own) != _inode(next_ or f"{own}_for_children"):
        raise ValueError(
            "the daemon's children have a time namespace of their own, so the daemon's is not known"
        )
    found: dict[str, int] = {}
    for line in Path(offsets).read_text().splitlines():
        name, seconds, nanoseconds = line.split()
        found[name] = int(seconds) * 10**9 + int(nanoseconds)
    return found["monotonic"], found["boottime"]


def _inode(path: str) -> int:
    try:
        found = Path(path).stat()
    except OSError:
        return 0
    return found.st_ino if stat.S_ISREG(found.st_mode) else 0
