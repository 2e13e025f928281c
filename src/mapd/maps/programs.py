"""The programs that this daemon has loaded: few per map, bounded over all maps, gone when their map is closed.

A program holds its map: as long as one is loaded, the map's memory stays. So each belongs to the openings of its
map, and the last of those that ends takes the programs with it. Closing one waits for the runs that use it
(``OwnedFd``), so nothing here is ever closed under a run.
"""

from __future__ import annotations

import errno
import itertools
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import FdLease, OwnedFd
from mapd.bpf.kernel import BatchCommand, Columns, Kernel, LoadTemplate, SyscallError
from mapd.bpf.scratch import Scratch

MOST: Final = 256
"""Programs of one daemon at most; 8 to 24 KiB of kernel memory each."""

REFUSED: Final = 64
"""Programs of one map that are remembered as refused: which there are depends on what clients ask for."""

SLOT_BYTES: Final = 256 << 10
"""Of a slot of the scratch: 4,096 elements of up to 60 bytes, and what a core's second-level cache holds."""

_SCARCE: Final = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EBADF})
"""A refusal for one of these says nothing about the next attempt."""

_NO_ELEMENTS: Final = Columns(0, Buffer.allocate(0), 0, Buffer.allocate(0), 0)

_uses = itertools.count()


class WritesRefused(SyscallError):
    """The map may not be written through this descriptor: it is frozen, or the descriptor only reads."""


def _may_not_write(kernel: Kernel, map_fd: int) -> bool:
    return kernel.batch(map_fd, BatchCommand.UPDATE, _NO_ELEMENTS).errno == errno.EPERM


def open_scratch(kernel: Kernel, slots: int) -> Scratch | None:
    """A scratch with a slot for each thread that runs programs; None where the kernel, or its backend, has none."""
    try:
        return Scratch(kernel, slots, SLOT_BYTES)
    except SyscallError:
        return None


@dataclass(slots=True, eq=False)
class Loaded:
    """One program. ``used``: when last, counted over all programs."""

    fd: OwnedFd
    used: int = 0

    def lease(self) -> FdLease:
        """Borrow its descriptor for a run.

        Raises:
            OSError: EBADF, it was closed to make room for others; ask ``MapPrograms.load`` again.
        """
        self.used = next(_uses)
        return self.fd.lease()


class Programs:
    """All programs of a daemon, by map. Safe to use from many threads.

    Args:
        scratch: where programs find their columns; None where none may be loaded that needs one. ``close`` closes it.
        names: of programs that this kernel was found to load (``mapd.maps.program_trials``).
        most: programs loaded at once; of more, the one that was not used for longest is closed.
    """

    def __init__(
        self, scratch: Scratch | None = None, names: Collection[str] = (), *, most: int = MOST
    ) -> None:
        self.scratch: Final = scratch
        self.names: Final = frozenset(names)
        self._most = most
        self._lock = threading.Lock()
        self._maps: dict[int, MapPrograms] = {}

    @property
    def loaded(self) -> int:
        """How many programs are loaded."""
        return sum(len(of.loaded) for of in list(self._maps.values()))

    def enter(self, map_id: int, owner: OwnedFd) -> MapPrograms:
        """The programs of a map, for one more opening of it, until ``owner`` is closed."""
        with self._lock:
            found = self._maps.get(map_id)
            if found is None:
                found = self._maps[map_id] = MapPrograms(self, map_id)
            found.openings += 1
        owner.attach(_Leave(self, found))
        return found

    def leave(self, of: MapPrograms) -> None:
        """One opening has ended; with the last one its programs end."""
        with self._lock:
            of.openings -= 1
            if of.openings:
                return
            del self._maps[of.map_id]
            ended = list(of.loaded.values())
            of.loaded.clear()
        for program in ended:
            program.fd.close()

    def keep(self, of: MapPrograms, request: LoadTemplate, fd: OwnedFd) -> Loaded:
        """Keep a program that was just loaded, or the one that another thread has loaded meanwhile.

        Raises:
            OSError: EBADF, the map's last opening ended meanwhile; the program is closed.
        """
        with self._lock:
            open_still = of.openings > 0
            kept = of.loaded.get(request) if open_still else None
            surplus = [fd] if kept is not None or not open_still else []
            if kept is None and open_still:
                kept = of.loaded[request] = Loaded(fd, next(_uses))
                surplus += self._make_room()
        for program in surplus:
            program.close()
        if kept is None:
            raise OSError(errno.EBADF, "the map was closed")
        return kept

    def _make_room(self) -> list[OwnedFd]:
        """Take the programs out that were not used for longest, as many as are too many; with the lock held."""
        held = [
            (program.used, of, request)
            for of in self._maps.values()
            for request, program in of.loaded.items()
        ]
        if len(held) <= self._most:
            return []
        held.sort(key=lambda one: one[0])
        return [of.loaded.pop(request).fd for _, of, request in held[: len(held) - self._most]]

    def close(self) -> None:
        """Close every program and the scratch; runs under way end first. Again does nothing."""
        with self._lock:
            ended = [program for of in self._maps.values() for program in of.loaded.values()]
            for of in self._maps.values():
                of.loaded.clear()
        for program in ended:
            program.fd.close()
        if self.scratch is not None:
            self.scratch.close()


class MapPrograms:
    """The programs over one map, shared by its openings.

    Attributes:
        owner: the programs of the whole daemon.
        writing: held from asking the kernel whether the map may be written (a program does not ask) to the end of a
            program's run, and by mapd's own freeze: nothing is written behind a freeze that it has answered.
        seen: elements of this map that syscalls have served where a program could have.
        openings, loaded: ``Programs``' own.
    """

    __slots__ = ("_refused", "loaded", "map_id", "openings", "owner", "seen", "writing")

    def __init__(self, owner: Programs, map_id: int) -> None:
        self.owner: Final = owner
        self.map_id: Final = map_id
        self.openings = 0
        self.loaded: Final[dict[LoadTemplate, Loaded]] = {}
        self.writing: Final = threading.Lock()
        self.seen = 0
        self._refused: dict[LoadTemplate, int] = {}

    def load(self, kernel: Kernel, request: LoadTemplate, map_fd: int, *, scratch: bool = False) -> Loaded:
        """A program, loaded unless it is there. From 0.1 to 1 ms the first time.

        Args:
            map_fd: of this map, with a lease on it.
            scratch: the program works in the daemon's scratch, of which the request names slots and sizes.

        Raises:
            WritesRefused: an opener loads no program that writes a map which this descriptor may not write.
            SyscallError: the kernel refuses it; it is not asked again while the map is open, unless it was short of
                something.
            OSError: EBADF, map or scratch was closed.
        """
        found = self.loaded.get(request)
        if found is not None:
            return found
        number = self._refused.get(request)
        if number is not None:
            raise SyscallError(number, "BPF_PROG_LOAD")
        try:
            fd = self._load(kernel, request, map_fd, scratch=scratch)
        except SyscallError as error:
            if error.errno == errno.EPERM and _may_not_write(kernel, map_fd):
                raise WritesRefused(errno.EPERM, error.command) from error
            if error.errno not in _SCARCE:
                if len(self._refused) >= REFUSED:
                    self._refused.clear()  # they are asked for again, which costs time and no memory
                self._refused[request] = error.errno or 0
            raise
        return self.owner.keep(self, request, fd)

    def _load(self, kernel: Kernel, request: LoadTemplate, map_fd: int, *, scratch: bool) -> OwnedFd:
        if not scratch:
            return kernel.control(request, [map_fd])
        if self.owner.scratch is None:
            raise SyscallError(errno.EPERM, "BPF_PROG_LOAD")
        with self.owner.scratch.fd.lease() as scratch_fd:
            return kernel.control(request, [map_fd, scratch_fd])


@dataclass(frozen=True, slots=True)
class _Leave:
    """What an opening's descriptor closes beside itself."""

    programs: Programs
    of: MapPrograms

    def close(self) -> None:
        self.programs.leave(self.of)
