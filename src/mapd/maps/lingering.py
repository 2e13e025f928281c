"""Descriptors that must not be closed at once: those of program arrays that were opened by id.

When the last descriptor or pin of a PROG_ARRAY goes, the kernel takes a reference and schedules work that
empties the array and gives the reference back. If the array is opened by id and closed again before the work
ran, the kernel takes a second reference for work that is scheduled already, and the array stays for ever: 297
of 300 on Linux 6.18, 0 of 20 where 0.1 ms lay between. So such a descriptor is kept for a moment.

Source: kernel/bpf/arraymap.c, prog_array_map_clear(): schedule_work() of pending work does nothing.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from mapd.bpf.fd import OwnedFd
from mapd_api.uapi import MapType

SETTLE_S: Final = 0.05
"""The work takes 0.01 ms, and longer where other work keeps the kernel's queue: of 44,000 times on two CPUs with five
times as much to do 19 took more than 10 ms, 2 more than this, the longest 0.97 s. An array that is just then looked at
stays in the kernel. Nothing that a process can see tells when the work has run, and a descriptor that is kept for
seconds would keep the array from being emptied."""

KEPT: Final = 256
"""Descriptors that are kept at once."""


class Lingering:
    """Closes descriptors of maps that were opened by id, those of program arrays a moment later. Blocks."""

    def __init__(self) -> None:
        self._kept: list[OwnedFd] = []

    def close(self, owned: OwnedFd, map_type: int) -> None:
        """Close it, now or soon."""
        if map_type != MapType.PROG_ARRAY:
            owned.close()
            return
        self._kept.append(owned)
        if len(self._kept) == KEPT:
            self._settle()

    def _settle(self) -> None:
        if self._kept:
            time.sleep(SETTLE_S)
        while self._kept:
            self._kept.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._settle()
