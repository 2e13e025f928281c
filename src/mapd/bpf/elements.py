"""The half that works on a map fd that is held already. It needs no rights, and makes no fds.

Imports nothing of the control half: a process that gave up all its capabilities runs this alone.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mapd.bpf import abi
from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Batch, BatchCommand, Columns, RawMapInfo, SyscallError
from mapd.bpf.program import program_runner, run_program
from mapd.bpf.syscall import attempt, bpf, last_errno, prepare
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.uapi import ElementFlag

COMMANDS: Final = {
    Op.LOOKUP: Command.MAP_LOOKUP_ELEM,
    Op.UPDATE: Command.MAP_UPDATE_ELEM,
    Op.UPDATE_NOEXIST: Command.MAP_UPDATE_ELEM,
    Op.UPDATE_EXIST: Command.MAP_UPDATE_ELEM,
    Op.DELETE: Command.MAP_DELETE_ELEM,
    Op.LOOKUP_AND_DELETE: Command.MAP_LOOKUP_AND_DELETE_ELEM,
    # Queues, stacks and Bloom filters have no keys: an empty key column is the NULL that they ask for.
    Op.PUSH: Command.MAP_UPDATE_ELEM,
    Op.PUSH_EXIST: Command.MAP_UPDATE_ELEM,
    Op.POP: Command.MAP_LOOKUP_AND_DELETE_ELEM,
    Op.PEEK: Command.MAP_LOOKUP_ELEM,
    Op.ADD: Command.MAP_UPDATE_ELEM,
    Op.CONTAINS: Command.MAP_LOOKUP_ELEM,
}
"""The command that each operation is; LOOKUP_EXACT is more than one (mapd.maps)."""

BATCH_COMMANDS: Final = {
    BatchCommand.UPDATE: Command.MAP_UPDATE_BATCH,
    BatchCommand.DELETE: Command.MAP_DELETE_BATCH,
}

_OP_FLAGS: Final = {
    Op.UPDATE_NOEXIST: ElementFlag.NOEXIST,
    Op.UPDATE_EXIST: ElementFlag.EXIST,
    Op.PUSH_EXIST: ElementFlag.EXIST,
}
_TRIES: Final = 3
# A bucket lock taken below us on this CPU answers EBUSY (kernel/bpf/hashtab.c, htab_lock_bucket()); the
# element was not touched, so the same call may be made again.
_TRANSIENT: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.EBUSY})


class LinuxElements:
    """``mapd.bpf.kernel.Elements`` by bpf(2)."""

    __slots__ = ()

    def info(self, map_fd: int) -> RawMapInfo:
        """See ``Elements.info``. About 20 us, most of it fdinfo.

        Source: kernel/bpf/syscall.c, bpf_map_get_info_by_fd() and bpf_map_show_fdinfo(). Linux 4.13.
        """
        info = abi.MapInfo()
        attr = abi.InfoAttr(bpf_fd=map_fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
        bpf(Command.OBJ_GET_INFO_BY_FD, attr)
        fdinfo = _fdinfo(map_fd)
        return RawMapInfo(
            map_type=info.type,
            id=info.id,
            key_size=info.key_size,
            value_size=info.value_size,
            max_entries=info.max_entries,
            map_flags=info.map_flags,
            name=info.name.decode("ascii", "replace"),
            btf_id=info.btf_id,
            btf_key_type_id=info.btf_key_type_id,
            btf_value_type_id=info.btf_value_type_id,
            map_extra=info.map_extra,
            frozen=fdinfo.get("frozen") == "1",
            memlock=int(fdinfo.get("memlock", "0")),
            btf_vmlinux_value_type_id=info.btf_vmlinux_value_type_id,
            owner_prog_type=int(fdinfo.get("owner_prog_type", "0")),
        )

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """See ``Elements.each``. An element costs about 1.3 times the syscall itself.

        EINTR, EAGAIN and EBUSY are the answer after three tries.

        Raises:
            ValueError: the columns are shorter than their count, or not writable where they must be.

        Source: bpf(2); kernel/bpf/syscall.c, map_lookup_elem() and its neighbours. Linux 3.19;
        lookup-and-delete 4.20, on hash maps 5.14.
        """
        check_columns(columns, reads_values=op in TAKES_VALUE, writes_values=op in ANSWERS_VALUE)
        attr = abi.ElementAttr(map_fd=map_fd, flags=flags | _OP_FLAGS.get(op, 0))
        call = prepare(COMMANDS[op], attr)
        words = memoryview(attr).cast("B").cast("Q")  # an assignment here costs half of one to a field
        key = columns.keys.address + columns.key_offset if columns.keys.size else 0
        value, value_stride = 0, 0
        if op is not Op.DELETE and columns.values is not None:  # DELETE_ELEM refuses a value: EINVAL
            value, value_stride = columns.values.address + columns.value_offset, columns.value_stride
        errnos = [0] * columns.count
        for index in range(columns.count):
            words[1] = key
            words[2] = value
            if call():
                errnos[index] = number = retried(call)
                if number == errno.EPERM:
                    return errnos[: index + 1]
            key += columns.key_stride
            value += value_stride
        return errnos

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        """See ``Elements.next_key``. A ``key`` that is gone makes the walk begin anew.

        Raises:
            SyscallError: any errno but ENOENT; 524 on a type that cannot be walked.
            ValueError: ``key`` is not ``key_size`` bytes long.

        Source: kernel/bpf/syscall.c, map_get_next_key(). Linux 3.19; from None 4.12.
        """
        if key is not None and len(key) != key_size:
            raise ValueError(f"a key of {len(key)} bytes where the map has {key_size}")
        found = Buffer.allocate(key_size)
        source = None if key is None else Buffer.of(key)
        attr = abi.NextKeyAttr(
            map_fd=map_fd, key=0 if source is None else source.address, next_key=found.address
        )
        number = -attempt(Command.MAP_GET_NEXT_KEY, attr)
        if number == errno.ENOENT:
            return None
        if number:
            raise SyscallError(number, Command.MAP_GET_NEXT_KEY.uapi_name)
        return found.take(key_size)

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        """See ``Elements.lookup_batch``. ``cursor`` holds four bytes, or key_size if that is more.

        Raises:
            ValueError: the columns are shorter than their count, or not writable.

        Source: kernel/bpf/hashtab.c, __htab_map_lookup_and_delete_batch(); kernel/bpf/syscall.c,
        generic_map_lookup_batch(). Linux 5.6; per-CPU arrays 5.13; some types later or never (524).
        """
        check_columns(columns, writes_keys=True, writes_values=True)
        attr = _batch_attr(map_fd, columns)
        attr.elem_flags = flags
        attr.in_batch = 0 if first else cursor.address
        attr.out_batch = cursor.address
        number = -min(0, attempt(Command.MAP_LOOKUP_BATCH, attr))
        # Early refusals (524, EINVAL, EPERM) leave count as it was given, and ENOSPC copied nothing.
        return Batch(attr.count if number in (0, errno.ENOENT) else 0, number)

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        """See ``Elements.batch``. Only BPF_F_LOCK is a flag here: NOEXIST and EXIST are EINVAL.

        A count of 0 does nothing but answer EPERM on a frozen map (0.4 us).

        Raises:
            ValueError: the columns are shorter than their count.

        Source: kernel/bpf/syscall.c, generic_map_update_batch() and generic_map_delete_batch().
        Linux 5.6; per-CPU arrays 5.13; some types later or never (524).
        """
        check_columns(columns, reads_values=command is BatchCommand.UPDATE)
        if columns.count == 0 and flags == 0 and command is BatchCommand.UPDATE:
            return _ask_to_write(map_fd)
        attr = _batch_attr(map_fd, columns)
        attr.elem_flags = flags
        if command is BatchCommand.DELETE:
            attr.values = 0
        number = -min(0, attempt(BATCH_COMMANDS[command], attr))
        # An error from an element leaves count below what was asked; an early refusal leaves it as it
        # was (524, EINVAL, ENOMEM), which must not be read as "all done".
        untouched = number != 0 and attr.count >= columns.count
        return Batch(0 if untouched else attr.count, number)

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        """See ``Elements.run``; as ``run_program``."""
        return run_program(prog_fd, ctx)

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        """See ``Elements.runner``; as ``program_runner``."""
        return program_runner(ctx, packet=packet)

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        """See ``Elements.map_memory``.

        Raises:
            SyscallError: EINVAL, the array was not made so, or is shorter; EPERM, it is frozen.

        Source: kernel/bpf/arraymap.c, array_map_mmap(). Linux 5.5.
        """
        try:
            mapping = mmap.mmap(map_fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise SyscallError(error.errno or 0, "mmap") from error
        first = ctypes.c_char.from_buffer(mapping)
        return Buffer(first, ctypes.addressof(first), memoryview(mapping))

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        """See ``Elements.read_memory``. It keeps nobody from freezing the map.

        Raises:
            SyscallError: EINVAL, the array was not made so, or is shorter, or the descriptor only reads.

        Source: kernel/bpf/syscall.c, bpf_map_mmap(); kernel/bpf/arraymap.c, array_map_mmap(). Linux 5.5.
        """
        before = offset % mmap.ALLOCATIONGRANULARITY
        pages = -(-(before + size) // mmap.PAGESIZE)
        try:
            mapping = mmap.mmap(
                map_fd, pages * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset - before
            )
        except OSError as error:
            raise SyscallError(error.errno or 0, "mmap") from error
        return memoryview(mapping)[before : before + size]


class _Asking(threading.local):
    """An UPDATE_BATCH of no elements, made ready once for each thread: it is asked before each run that writes."""

    def __init__(self) -> None:
        self._attr = abi.BatchAttr()
        self.call: Final = prepare(Command.MAP_UPDATE_BATCH, self._attr)
        self.words: Final = memoryview(self._attr).cast("B").cast("I")


_asking: Final = _Asking()
_MAP_FD_WORD: Final = abi.BatchAttr.map_fd.offset // 4
_MAY_WRITE: Final = Batch(0, 0)


def _ask_to_write(map_fd: int) -> Batch:
    """A third of what the same takes with a new attr."""
    _asking.words[_MAP_FD_WORD] = map_fd
    return _MAY_WRITE if _asking.call() == 0 else Batch(0, last_errno())


def _batch_attr(map_fd: int, columns: Columns) -> abi.BatchAttr:
    values = columns.values
    return abi.BatchAttr(
        map_fd=map_fd,
        count=columns.count,
        keys=columns.keys.address + columns.key_offset,
        values=0 if values is None else values.address + columns.value_offset,
    )


def retried(call: Callable[[], int]) -> int:
    """The errno of a call that has just failed, or 0 if it went through when tried again."""
    for _ in range(_TRIES - 1):
        number = last_errno()
        if number not in _TRANSIENT:
            return number
        if call() == 0:
            return 0
    return last_errno()


def check_columns(
    columns: Columns, *, writes_keys: bool = False, reads_values: bool = False, writes_values: bool = False
) -> None:
    """Refuse columns that the kernel, which is told no lengths, would run past.

    That a stride is as long as the map's keys or values only the maker of the columns knows.

    Raises:
        ValueError: they are shorter than their count, or not writable where they must be.
    """
    if columns.key_offset + columns.count * columns.key_stride > columns.keys.size:
        raise ValueError(f"{columns.count} keys of {columns.key_stride} bytes exceed {columns.keys.size}")
    if writes_keys and columns.keys.view.readonly:
        raise ValueError("the key column cannot be written")
    if not (reads_values or writes_values) or columns.count == 0:
        return
    values = columns.values
    if values is None:
        raise ValueError("there is no value column")
    if columns.value_offset + columns.count * columns.value_stride > values.size:
        raise ValueError(f"{columns.count} values of {columns.value_stride} bytes exceed {values.size}")
    if writes_values and values.view.readonly:
        raise ValueError("the value column cannot be written")


def _fdinfo(fd: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}
