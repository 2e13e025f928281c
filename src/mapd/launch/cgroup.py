"""The opener's memory cgroup: whoever creates a map is charged for it, as long as the map lives.

Standard library alone.

Source: kernel/bpf/syscall.c, bpf_map_save_memcg(); mm/memcontrol.c. A process in a cgroup that is full is ended as soon
as it needs a page itself, and the kernel asks it for one at each openat(2). So what maps may come to take together
stays RESERVE below the limit, and a creation beyond it is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mapd.launch import LaunchError

RESERVE: Final = 16 << 20
"""Bytes of the cgroup that are the opener's own: 11 MiB of its memory, and what the kernel needs for it."""

_UNLIMITED: Final = 1 << 60
"""cgroup v1 has no word for "no limit": it tells 2^63 less a page."""


def join(folder: str) -> None:
    """Move this process into a cgroup; nothing where none is named.

    Raises:
        LaunchError: it is none, or not this user's to enter.
    """
    if not folder:
        return
    try:
        Path(folder, "cgroup.procs").write_text("0")
    except OSError as error:
        raise LaunchError(
            f"[opener] cgroup: {folder}: {error.strerror}; it must be a folder of a mounted cgroup hierarchy that "
            "whoever starts mapd may enter"
        ) from error


def memory_limit(proc: Path = Path("/proc/self")) -> int:
    """Bytes that the memory cgroup of this process, and those around it, admit; 0: there is no limit.

    Raises:
        LaunchError: RESERVE leaves nothing for maps.
    """
    limits = [limit for limit in _limits(proc) if limit < _UNLIMITED]
    if not limits:
        return 0
    if min(limits) <= RESERVE:
        raise LaunchError(
            f"the opener's memory cgroup admits {min(limits)} bytes, and of these {RESERVE} are its own: raise "
            "memory.max (systemd: MemoryMax=), or start mapd in another cgroup"
        )
    return min(limits)


def _limits(proc: Path) -> Iterator[int]:
    for line in (proc / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield from _of_v1(proc, path)
        elif not controllers:
            yield from _of_v2(proc, path)


def _of_v1(proc: Path, path: str) -> Iterator[int]:
    for folder in _folders(proc, "cgroup", "memory", path):
        for line in _text(folder / "memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == "hierarchical_memory_limit":
                yield int(value)


def _of_v2(proc: Path, path: str) -> Iterator[int]:
    for folder in _folders(proc, "cgroup2", "", path):
        for one in (folder, *folder.parents):
            if not (one / "cgroup.controllers").exists():
                break
            said = _text(one / "memory.max").strip()
            if said and said != "max":
                yield int(said)


def _folders(proc: Path, kind: str, option: str, path: str) -> Iterator[Path]:
    """Where a cgroup's files are, by the mounts that this process sees (proc(5), mountinfo)."""
    for line in (proc / "mountinfo").read_text().splitlines():
        place, _, source = line.partition(" - ")
        _, _, _, root, mounted = place.split()[:5]
        found, _, options = source.split()[:3]
        if found == kind and (not option or option in options.split(",")):
            inside = path if root == "/" else path.removeprefix(root)
            yield Path(mounted, inside.lstrip("/"))


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""  # this hierarchy does not have it
