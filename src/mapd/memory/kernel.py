"""``mapd.bpf.kernel.Kernel`` in memory: both halves together."""

from __future__ import annotations

import errno
from collections.abc import Callable

from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.elements import check_columns
from mapd.bpf.kernel import Batch, BatchCommand, Columns, RawMapInfo, SyscallError
from mapd.memory import programs
from mapd.memory.control import MemoryControl
from mapd.memory.descriptors import MemoryProgram
from mapd.memory.memorymap import MemoryMap
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import MapFlag


class MemoryKernel(MemoryControl):
    """``Kernel`` of a machine of its own, with maps in memory. One serves all threads.

    Args:
        possible_cpus: slots of a per-CPU value.
        folders: absolute paths that pins can be made below.
    """

    def info(self, map_fd: int) -> RawMapInfo:
        """See ``Elements.info``."""
        return self._find(map_fd, MemoryMap, Command.OBJ_GET_INFO_BY_FD).info()

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """See ``Elements.each``.

        Raises:
            ValueError: the columns are shorter than their count, or not writable where they must be.
        """
        check_columns(columns, reads_values=op in TAKES_VALUE, writes_values=op in ANSWERS_VALUE)
        try:
            found, mode = self._map(map_fd, Command.MAP_LOOKUP_ELEM)
        except SyscallError as error:
            return [error.errno or errno.EBADF] * columns.count
        return found.each(mode, op, columns, flags)

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        """See ``Elements.next_key``.

        Raises:
            SyscallError: any errno but ENOENT.
            ValueError: ``key`` is not ``key_size`` bytes long.
        """
        if key is not None and len(key) != key_size:
            raise ValueError(f"a key of {len(key)} bytes where the map has {key_size}")
        opened, mode = self._map(map_fd, Command.MAP_GET_NEXT_KEY)
        found = opened.next_key(mode, key)
        if found == errno.ENOENT:
            return None
        if isinstance(found, int):
            raise SyscallError(found, Command.MAP_GET_NEXT_KEY.uapi_name)
        return found

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        """See ``Elements.lookup_batch``.

        Raises:
            ValueError: the columns are shorter than their count, or not writable.
        """
        check_columns(columns, writes_keys=True, writes_values=True)
        try:
            found, mode = self._map(map_fd, Command.MAP_LOOKUP_BATCH)
        except SyscallError as error:
            return Batch(0, error.errno or errno.EBADF)
        return found.lookup_batch(mode, cursor, first, columns, flags)

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        """See ``Elements.batch``.

        Raises:
            ValueError: the columns are shorter than their count.
        """
        check_columns(columns, reads_values=command is BatchCommand.UPDATE)
        try:
            found, mode = self._map(map_fd, Command.MAP_UPDATE_BATCH)
        except SyscallError as error:
            return Batch(0, error.errno or errno.EBADF)
        return found.batch(mode, command, columns, flags)

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        """See ``Elements.run``: what the named program does, done here."""
        program = self._find(prog_fd, MemoryProgram, Command.PROG_TEST_RUN)
        return programs.run(program.request, program.over, program.scratch, ctx)

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        """See ``Elements.runner``. No program here takes packets, so none is run with one."""
        del packet
        return lambda prog_fd: self.run(prog_fd, ctx)

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        """See ``Elements.map_memory``.

        Raises:
            SyscallError: EINVAL, the array was not made so, or is shorter; EPERM, it is frozen.
        """
        found, mode = self._map(map_fd, Command.MAP_LOOKUP_ELEM)
        memory = found.map_memory(mode, size)
        if isinstance(memory, int):
            raise SyscallError(memory, "mmap")
        return memory

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        """See ``Elements.read_memory``: what the array holds now, for later writes are not seen in it.

        Raises:
            SyscallError: EINVAL, the array was not made so, or is shorter, or the descriptor only reads.
        """
        found, mode = self._map(map_fd, Command.MAP_LOOKUP_ELEM)
        memory = found.memory(mode, offset, size)
        if memory is None:
            raise SyscallError(errno.EINVAL, "mmap")
        return memoryview(memory)

    def _map(self, fd: int, command: Command) -> tuple[MemoryMap, MapFlag]:
        opening = self._opening(fd, command)
        if not isinstance(opening.held, MemoryMap):
            raise SyscallError(errno.EINVAL, command.uapi_name)
        return opening.held, opening.mode
