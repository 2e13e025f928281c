"""File descriptors of maps in memory: real numbers, that lead back to the object until they are closed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import LoadTemplate
from mapd.memory.btf import MemoryBtf
from mapd.memory.memorymap import MemoryMap
from mapd_api.uapi import MapFlag

BOTH_WAYS: Final = MapFlag(0)
"""The mode of a descriptor that may read and write."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryProgram:
    """One of mapd's own programs over a map; ``scratch`` is the array that it works in, where it takes one."""

    id: int
    request: LoadTemplate
    over: MemoryMap
    scratch: MemoryMap | None


Held: TypeAlias = MemoryMap | MemoryBtf | MemoryProgram


@dataclass(frozen=True, slots=True)
class Opening:
    """What a number stands for; ``mode``: RDONLY, WRONLY or BOTH_WAYS."""

    held: Held
    mode: MapFlag


class MemoryFd(OwnedFd):
    """An fd that tells when its number goes, before anybody else can get the same one."""

    __slots__ = ("_forget",)

    def __init__(self, fd: int, forget: Callable[[int], None]) -> None:
        super().__init__(fd)
        self._forget = forget

    def _end(self) -> None:
        self._forget(self._fd)
        super()._end()


class Descriptors:
    """Openings by number, and how often each object is held. Safe to use from many threads.

    The files are empty ones in memory (memfd_create(2)): leaks are seen where those of map fds would be.

    Attributes:
        lock: of everything here; ``freed`` is called with it held.
    """

    def __init__(self, freed: Callable[[Held], None]) -> None:
        self.lock: Final = threading.RLock()  # a forgotten descriptor ends wherever the collector runs
        self._openings: Final[dict[int, Opening]] = {}
        self._uses: Final[Counter[Held]] = Counter()
        self._freed = freed

    def open(self, held: Held, mode: MapFlag = BOTH_WAYS) -> OwnedFd:
        """A new number for it."""
        owned = MemoryFd(os.memfd_create("mapd-memory", os.MFD_CLOEXEC), self._forget)
        with owned.lease() as number, self.lock:
            self._openings[number] = Opening(held, mode)
            self.keep(held)
        return owned

    def find(self, fd: int) -> Opening | None:
        """What a number stands for; None where it is none of ours."""
        with self.lock:
            return self._openings.get(fd)

    def opened(self) -> frozenset[Held]:
        """Everything that has a number."""
        with self.lock:
            return frozenset(opening.held for opening in self._openings.values())

    def keep(self, held: Held) -> None:
        """Hold it once more: by a pin, by an object that needs it."""
        with self.lock:
            self._uses[held] += 1

    def drop(self, held: Held) -> None:
        """Hold it once less; what nothing holds is freed."""
        with self.lock:
            self._uses[held] -= 1
            if self._uses[held] == 0:
                del self._uses[held]
                self._freed(held)

    def _forget(self, fd: int) -> None:
        with self.lock:
            opening = self._openings.pop(fd, None)
            if opening is not None:
                self.drop(opening.held)
