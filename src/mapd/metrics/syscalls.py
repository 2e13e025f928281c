"""What is asked of the kernel, counted by operation and errno: a ``Kernel`` around another one."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from mapd.bpf import Kernel
from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.elements import BATCH_COMMANDS, COMMANDS
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import (
    Batch,
    BatchCommand,
    Columns,
    ControlRequest,
    CreateMap,
    FreezeMap,
    GetBtf,
    LoadBtf,
    LoadTemplate,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    ProgramInfo,
    R,
    RawMapInfo,
)
from mapd_api.ops import Op

T = TypeVar("T")

REQUESTS: Final[Mapping[type[Any], str]] = {
    CreateMap: "BPF_MAP_CREATE",
    FreezeMap: "BPF_MAP_FREEZE",
    GetBtf: "BPF_BTF_GET_FD_BY_ID",
    LoadBtf: "BPF_BTF_LOAD",
    LoadTemplate: "BPF_PROG_LOAD",
    NextMapId: "BPF_MAP_GET_NEXT_ID",
    NextProgramId: "BPF_PROG_GET_NEXT_ID",
    OpenId: "BPF_MAP_GET_FD_BY_ID",
    OpenPin: "BPF_OBJ_GET",
    OpenProgramId: "BPF_PROG_GET_FD_BY_ID",
    OpenProgramPin: "BPF_OBJ_GET",
    Pin: "BPF_OBJ_PIN",
    ProgramInfo: "BPF_OBJ_GET_INFO_BY_FD",
}
"""Requests that are one command of bpf(2), beside what it needs; others are counted under their own names."""

_OPS: Final = {op: command.uapi_name for op, command in COMMANDS.items()}
_BATCHES: Final = {batch: command.uapi_name for batch, command in BATCH_COMMANDS.items()}
_RUN: Final = Command.PROG_TEST_RUN.uapi_name
_INFO: Final = Command.OBJ_GET_INFO_BY_FD.uapi_name
_NEXT: Final = Command.MAP_GET_NEXT_KEY.uapi_name
_LOOKUP_BATCH: Final = Command.MAP_LOOKUP_BATCH.uapi_name

_Counts = defaultdict[tuple[str, int], int]


class _Own(threading.local):
    """What one thread has counted: made when a thread first asks, and kept in ``everybodys`` when it has ended."""

    def __init__(self, everybodys: list[_Counts]) -> None:
        self.counts: _Counts = defaultdict(int)
        everybodys.append(self.counts)


class CountingKernel:
    """``Kernel`` that counts. Safe to use from many threads: each has counters of its own, and takes no lock."""

    def __init__(self, inner: Kernel) -> None:
        self._inner: Final = inner
        self._all: list[_Counts] = []
        self._own: Final = _Own(self._all)

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Calls so far by operation and errno, "OK" for none: elements one by one where each is a call."""
        total = Counter[tuple[str, int]]()
        for counts in list(self._all):
            total.update(dict(counts))  # in one step, whatever its thread does
        return {(name, errno_name(number) if number else "OK"): n for (name, number), n in total.items()}

    def _call(self, name: str, action: Callable[[], T]) -> T:
        try:
            result = action()
        except OSError as error:
            self._own.counts[name, error.errno or 0] += 1
            raise
        self._own.counts[name, 0] += 1
        return result

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``Kernel.control``."""
        kind = type(request)
        return self._call(REQUESTS.get(kind, kind.__name__), lambda: self._inner.control(request, fds))

    def info(self, map_fd: int) -> RawMapInfo:
        """See ``Elements.info``."""
        return self._call(_INFO, lambda: self._inner.info(map_fd))

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        """See ``Elements.next_key``."""
        # A dump of some types makes a million of these: no function more than needed.
        try:
            found = self._inner.next_key(map_fd, key, key_size)
        except OSError as error:
            self._own.counts[_NEXT, error.errno or 0] += 1
            raise
        self._own.counts[_NEXT, 0] += 1
        return found

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """See ``Elements.each``."""
        errnos = self._inner.each(map_fd, op, columns, flags)
        counts, name, done = self._own.counts, _OPS[op], errnos.count(0)
        if done:
            counts[name, 0] += done
        if done != len(errnos):
            for number in set(errnos) - {0}:
                counts[name, number] += errnos.count(number)
        return errnos

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        """See ``Elements.lookup_batch``."""
        found = self._inner.lookup_batch(map_fd, cursor, first, columns, flags)
        self._own.counts[_LOOKUP_BATCH, found.errno] += 1
        return found

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        """See ``Elements.batch``."""
        found = self._inner.batch(map_fd, command, columns, flags)
        self._own.counts[_BATCHES[command], found.errno] += 1
        return found

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        """See ``Elements.run``."""
        return self._call(_RUN, lambda: self._inner.run(prog_fd, ctx))

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        """See ``Elements.runner``."""
        inner = self._inner.runner(ctx, packet=packet)

        def run(prog_fd: int) -> int:
            try:
                result = inner(prog_fd)
            except OSError as error:
                self._own.counts[_RUN, error.errno or 0] += 1
                raise
            self._own.counts[_RUN, 0] += 1
            return result

        return run

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        """See ``Elements.map_memory``."""
        return self._call("mmap", lambda: self._inner.map_memory(map_fd, size))

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        """See ``Elements.read_memory``."""
        return self._call("mmap", lambda: self._inner.read_memory(map_fd, offset, size))
