"""One map in memory: its facts, its lock, and what bpf(2) asks before it touches an element."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable
from typing import Final

from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.elements import COMMANDS
from mapd.bpf.kernel import Batch, BatchCommand, Columns, CreateMap, RawMapInfo
from mapd.memory.arrays import ArrayTable
from mapd.memory.btf import MemoryBtf
from mapd.memory.table import BUT_LOCK, Found, Table
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.uapi import ENOTSUPP, ElementFlag, MapFlag

_OP_FLAGS: Final = {
    Op.UPDATE_NOEXIST: ElementFlag.NOEXIST,
    Op.UPDATE_EXIST: ElementFlag.EXIST,
    Op.PUSH_EXIST: ElementFlag.EXIST,
}
_READS: Final = frozenset(
    {Command.MAP_LOOKUP_ELEM, Command.MAP_LOOKUP_AND_DELETE_ELEM, Command.MAP_GET_NEXT_KEY}
)
_WRITES: Final = frozenset(
    {Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM, Command.MAP_LOOKUP_AND_DELETE_ELEM, Command.MAP_FREEZE}
)
_MEMLOCK_OVERHEAD: Final = 64
_OF_THE_FD: Final = int(MapFlag.RDONLY | MapFlag.WRONLY)
"""They are the creator's descriptor's, not the map's (syscall.c, bpf_map_flags_retain_permanent())."""


class MemoryMap:
    """A map. Safe to use from many threads: each call holds its lock, so a batch is one step."""

    def __init__(self, map_id: int, request: CreateMap, table: Table, btf: MemoryBtf | None) -> None:
        self.id: Final = map_id
        self.table: Final = table
        self.btf: Final = btf
        self._request = request
        self._lock = threading.Lock()
        self._frozen = False

    def info(self) -> RawMapInfo:
        """As the kernel's; ``memlock`` is an estimate."""
        request = self._request
        element = request.key_size + self.table.shape.stride + _MEMLOCK_OVERHEAD
        with self._lock:
            held = len(self.table) * element
        return RawMapInfo(
            map_type=request.map_type,
            id=self.id,
            key_size=request.key_size,
            value_size=request.value_size,
            max_entries=self.table.shape.max_entries,
            map_flags=request.flags & ~_OF_THE_FD,
            name=request.kernel_name,
            btf_id=self.btf.id if self.btf else 0,
            btf_key_type_id=request.btf_key_type_id if self.btf else 0,
            btf_value_type_id=request.btf_value_type_id if self.btf else 0,
            map_extra=request.map_extra,
            frozen=self._frozen,
            memlock=held,
        )

    def may(self, mode: MapFlag, command: Command) -> bool:
        """Whether an fd of this access mode may (kernel/bpf/syscall.c, map_get_sys_perms())."""
        reads, writes = command in _READS, command in _WRITES
        return not (reads and mode & MapFlag.WRONLY) and not (
            writes and (mode & MapFlag.RDONLY or self._frozen)
        )

    def freeze(self, mode: MapFlag) -> int:
        """BPF_MAP_FREEZE; its errno. A map with a spin lock cannot be frozen (map_freeze())."""
        if self.table.shape.lock is not None:
            return ENOTSUPP
        with self._lock:
            if not self.may(mode, Command.MAP_FREEZE):
                return errno.EPERM
            if isinstance(self.table, ArrayTable) and self.table.shared:
                return errno.EBUSY  # somebody has it mapped to write, and nobody gives a mapping back
            self._frozen = True
            return 0

    def each(self, mode: MapFlag, op: Op, columns: Columns, flags: int) -> list[int]:
        """As ``Elements.each``."""
        command, errnos = COMMANDS[op], list[int]()
        with self._lock:
            for index in range(columns.count):
                key, at = _key(columns, index), columns.value_offset + index * columns.value_stride
                if refused := self._refusal(mode, command, flags):
                    errnos.append(refused)
                else:
                    errnos.append(
                        self._element(command, key, columns.values, at, flags | _OP_FLAGS.get(op, 0))
                    )
                if errnos[-1] == errno.EPERM:
                    break
        return errnos

    def _refusal(self, mode: MapFlag, command: Command, flags: int) -> int:
        """What bpf(2) says before it looks at the element."""
        if command is Command.MAP_DELETE_ELEM and flags:
            return errno.EINVAL
        if command is not Command.MAP_UPDATE_ELEM and flags & BUT_LOCK:
            return errno.EINVAL
        if not self.may(mode, command):
            return errno.EPERM
        return errno.EINVAL if self._lacks_lock(flags) else 0

    def _lacks_lock(self, flags: int) -> bool:
        return bool(flags & ElementFlag.LOCK) and self.table.shape.lock is None

    def _element(self, command: Command, key: bytes, values: Buffer | None, at: int, flags: int) -> int:
        stride = self.table.shape.stride
        given = b"" if values is None else values.take(stride, at)
        found: Found
        match command:
            case Command.MAP_UPDATE_ELEM:
                return self.table.update(key, given, flags)
            case Command.MAP_DELETE_ELEM:
                return self.table.delete(key)
            case Command.MAP_LOOKUP_AND_DELETE_ELEM:
                found = self.table.take(key) if self.table.takes_out else ENOTSUPP
            case _:
                found = self.table.lookup(key, given)
        if isinstance(found, int):
            return found
        if values is not None and not values.view.readonly:
            values.view[at : at + stride] = found
        return 0

    def next_key(self, mode: MapFlag, key: bytes | None) -> Found:
        """BPF_MAP_GET_NEXT_KEY: a key, or an errno."""
        with self._lock:
            if not self.may(mode, Command.MAP_GET_NEXT_KEY):
                return errno.EPERM
            return self.table.next_key(key)

    def lookup_batch(self, mode: MapFlag, cursor: Buffer, first: bool, columns: Columns, flags: int) -> Batch:
        """As ``Elements.lookup_batch``."""
        refused = self._batch_refusal(mode, 0, flags)
        if refused or not columns.count:
            return Batch(0, refused)
        with self._lock:
            found = self.table.lookup_batch(None if first else bytes(cursor.view), columns.count)
        for index, (key, value) in enumerate(found.rows):
            at = columns.key_offset + index * columns.key_stride
            columns.keys.view[at : at + len(key)] = key
            if columns.values is not None:
                at = columns.value_offset + index * columns.value_stride
                columns.values.view[at : at + len(value)] = value
        if self.table.cursor_size() != self._request.key_size or found.rows:
            cursor.view[: len(found.cursor)] = found.cursor
        return Batch(len(found.rows), found.errno)

    def batch(self, mode: MapFlag, command: BatchCommand, columns: Columns, flags: int) -> Batch:
        """As ``Elements.batch``."""
        updates = command is BatchCommand.UPDATE
        refused = self._batch_refusal(mode, 1 if updates else 2, flags)
        if refused:
            return Batch(0, refused)
        with self._lock:
            for index in range(columns.count):
                key, number = _key(columns, index), 0
                if updates and columns.values is not None:
                    at = columns.value_offset + index * columns.value_stride
                    number = self.table.update(key, columns.values.take(self.table.shape.stride, at), flags)
                elif not updates:
                    number = self.table.delete(key)
                if number:
                    return Batch(index, number)
        return Batch(columns.count, 0)

    def _batch_refusal(self, mode: MapFlag, which: int, flags: int) -> int:
        """Kernel/bpf/syscall.c, bpf_map_do_batch() and the generic batch commands."""
        command = (Command.MAP_GET_NEXT_KEY, Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM)[which]
        if not self.may(mode, command):
            return errno.EPERM
        if not self.table.batches[which]:
            return ENOTSUPP
        return errno.EINVAL if flags & BUT_LOCK or self._lacks_lock(flags) else 0

    def write_one_cpu(self, key: bytes, value: bytes, cpu: int) -> int:
        """Overwrite one CPU's value of an element that is there: 0, or ENOENT.

        As programs do, whether the map is frozen or not.
        """
        begin = cpu * round_up8(self._request.value_size)
        with self._lock:
            there = self.table.lookup(key, b"")
            if isinstance(there, int) or begin >= len(there):
                return errno.ENOENT
            written = there[:begin] + value + there[begin + len(value) :]
            return self.table.update(key, written, ElementFlag.ANY)

    def memory(self, mode: MapFlag, offset: int, size: int) -> bytes | None:
        """Bytes of an array that was made BPF_F_MMAPABLE, as mmap(2) shows them; None where it refuses."""
        request, slot = self._request, round_up8(self._request.value_size)
        if (
            not request.flags & MapFlag.MMAPABLE
            or mode & _OF_THE_FD
            or offset + size > request.max_entries * slot
        ):
            return None
        first, end = offset // slot, -(-(offset + size) // slot)
        keys = (index.to_bytes(4, sys.byteorder) for index in range(first, end))
        with self._lock:
            values = [self.table.lookup(key, b"") for key in keys]
        held = b"".join(value.ljust(slot, b"\0") for value in values if isinstance(value, bytes))
        return held[offset - first * slot :][:size]

    def change(self, key: bytes, change: Callable[[bytes], bytes | int], *, create: bool) -> bytes | int:
        """Change one element in place, in one step, as programs do: frozen or not; the value that it was.

        ``create``: an absent one is made of zeros first. An errno is handed on, also one that ``change`` answers.
        """
        with self._lock:
            there = self.table.lookup(key, b"")
            absent = isinstance(there, int)
            if isinstance(there, int):
                if not create:
                    return there
                there = bytes(self.table.shape.stride)
            new = change(there)
            if isinstance(new, int):
                return new
            if absent:
                return self.table.update(key, new, ElementFlag.NOEXIST) or there
            self.table.overwrite(key, new)
            return there

    def map_memory(self, mode: MapFlag, size: int) -> Buffer | int:
        """mmap(2) for reading and writing: the array's own memory from now on, or an errno (array_map_mmap())."""
        with self._lock:
            if self._frozen:
                return errno.EPERM
            if not self._request.flags & MapFlag.MMAPABLE or mode or not isinstance(self.table, ArrayTable):
                return errno.EINVAL
            memory = self.table.share()
            return memory if size <= memory.size else errno.EINVAL

    def slot(self, index: int) -> memoryview | None:
        """The memory of one element of an array that was mapped; None where there is none."""
        size, memory = round_up8(self._request.value_size), None
        if isinstance(self.table, ArrayTable) and index < self.table.shape.max_entries:
            memory = self.table.share()
        return None if memory is None else memory.view[index * size : (index + 1) * size]

    def count(self) -> int:
        """bpf_map_sum_elem_count()."""
        with self._lock:
            return self.table.count()


def _key(columns: Columns, index: int) -> bytes:
    return columns.keys.take(columns.key_stride, columns.key_offset + index * columns.key_stride)
