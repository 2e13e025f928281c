"""A kernel over dicts, for tests of our own logic. It proves that logic, and never Linux.

It follows the protocol of ``mapd.bpf.kernel`` as tests/kernel found Linux to behave, in as few lines as
that takes. Refusals, delays and short batches come from the ``FaultyKernel`` that it is wrapped in.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from mapd.bpf import (
    Batch,
    BatchCommand,
    Buffer,
    Columns,
    ControlRequest,
    CreateMap,
    FolderPins,
    FreezeMap,
    GetBtf,
    ListFolder,
    ListPins,
    LoadBtf,
    NextMapId,
    OpenId,
    OpenPin,
    OwnedFd,
    Pin,
    PinPaths,
    PinStamp,
    RawMapInfo,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.kernel import R
from mapd.maps.opened import MapFacts, OpenMap, facts
from mapd.maps.programs import Programs
from mapd_api.layout import value_stride
from mapd_api.ops import MUTATES, Op
from mapd_api.uapi import MapType

CPUS = 2
ROOT = "/bpf/mapd"
ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
INDEX = struct.Struct("<I")


def raw_info(
    map_type: int = MapType.HASH,
    *,
    id: int = 41,
    key_size: int = 4,
    value_size: int = 4,
    max_entries: int = 1_000,
    map_flags: int = 0,
    name: str = "flows",
) -> RawMapInfo:
    """A map's info, a hash map called flows unless told otherwise."""
    return RawMapInfo(
        map_type, id, key_size, value_size, max_entries, map_flags, name, 0, 0, 0, 0, frozen=False, memlock=0
    )


def n(number: int) -> bytes:
    """A key or value of four bytes."""
    return INDEX.pack(number)


@dataclass(eq=False)
class DictMap:
    """One map. ``buckets``: how many a hash has, a key's first byte says which.

    ``before_lookup`` is called with each key before it is looked up, ``before_next_key`` with each cursor
    before the walk goes on from it: to act as another writer.
    """

    info: RawMapInfo
    elements: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    buckets: int = 256
    before_lookup: Callable[[bytes], None] | None = None
    before_next_key: Callable[[bytes], None] | None = None

    def fill(self, count: int) -> None:
        """Elements 0 to ``count`` - 1: their numbers, and a hundred more as values."""
        for number in range(count):
            self.elements[n(number)] = n(number + 100)

    @property
    def stride(self) -> int:
        return value_stride(self.info.map_type, self.info.value_size, CPUS)

    def look_up(self, key: bytes) -> bytes | None:
        if self.before_lookup is not None:
            self.before_lookup(key)
        return self.elements.get(key)

    def one(self, op: Op, key: bytes, value: bytes) -> tuple[int, bytes]:
        """(errno, value answered)."""
        if op in MUTATES and self.info.frozen:
            return errno.EPERM, b""
        if self.info.map_type in ARRAYS:
            return self._indexed(op, key, value)
        there = self.look_up(key)
        match op:
            case Op.UPDATE_NOEXIST if there is not None:
                return errno.EEXIST, b""
            case Op.UPDATE_EXIST | Op.LOOKUP | Op.DELETE | Op.LOOKUP_AND_DELETE if there is None:
                return errno.ENOENT, b""
            case Op.LOOKUP:
                return 0, there or b""
            case Op.DELETE | Op.LOOKUP_AND_DELETE:
                return 0, self.elements.pop(key)
            case _:
                if there is None and len(self.elements) >= self.info.max_entries:
                    return errno.E2BIG, b""
                self.elements[key] = value
                return 0, b""

    def _indexed(self, op: Op, key: bytes, value: bytes) -> tuple[int, bytes]:
        inside = INDEX.unpack(key)[0] < self.info.max_entries
        match op:
            case Op.LOOKUP:
                return (0, self.elements.get(key, bytes(self.stride))) if inside else (errno.ENOENT, b"")
            case Op.UPDATE | Op.UPDATE_EXIST if inside:
                self.elements[key] = value
                return 0, b""
            case Op.UPDATE_NOEXIST if inside:
                return errno.EEXIST, b""
            case Op.UPDATE | Op.UPDATE_EXIST | Op.UPDATE_NOEXIST:
                return errno.E2BIG, b""
            case _:
                return errno.EINVAL, b""

    def keys(self) -> list[bytes]:
        if self.info.map_type in ARRAYS:
            return [n(index) for index in range(self.info.max_entries)]
        return list(self.elements)

    def next_key(self, key: bytes | None) -> bytes | None:
        if key is not None and self.before_next_key is not None:
            self.before_next_key(key)
        keys = self.keys()
        if key is None or key not in keys:  # gone: the kernel begins anew
            return keys[0] if keys else None
        at = keys.index(key) + 1
        return keys[at] if at < len(keys) else None


class DictKernel:
    """``Kernel`` over dicts; its fds are real ones, of /dev/null, so that leaks are seen.

    Attributes:
        maps: by id.
        pins: maps by path; None is a pin of something that is no map.
        opened: every fd that was handed out.
        pins_opened: the requests to open a pin, in order.
    """

    def __init__(self) -> None:
        self.maps: dict[int, DictMap] = {}
        self.pins: dict[str, DictMap | None] = {}
        self.opened: list[OwnedFd] = []
        self.created: list[CreateMap] = []
        self.pins_opened: list[OpenPin] = []
        self._by_fd: dict[int, tuple[DictMap, bool]] = {}

    def add(self, made: DictMap, pin: str = "") -> DictMap:
        """Let a map exist, as another program's."""
        self.maps[made.info.id] = made
        if pin:
            self.pins[pin] = made
        return made

    def open(self, made: DictMap, *, read_only: bool = False) -> OpenMap:
        """As the store opens it."""
        fd = self._hand_out(self.add(made), read_only=read_only)
        programs = Programs().enter(made.info.id, fd)
        return OpenMap(fd=fd, facts=facts(made.info, CPUS), read_only=read_only, programs=programs)

    @property
    def open_fds(self) -> int:
        """How many of the fds handed out are not closed."""
        return sum(not fd.closed for fd in self.opened)

    def _hand_out(self, made: DictMap | None, *, read_only: bool = False) -> OwnedFd:
        owned = OwnedFd(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        self.opened.append(owned)
        if made is not None:
            with owned.lease() as number:
                self._by_fd[number] = (made, read_only)
        return owned

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        return cast("R", self._answer(request, fds))

    def _answer(self, request: Any, fds: Sequence[int]) -> object:
        answer: object = None
        match request:
            case CreateMap():
                answer = self._create(request)
            case OpenPin():
                self.pins_opened.append(request)
                answer = self._hand_out(self._pinned(request.path), read_only=request.read_only)
            case OpenId():
                if request.map_id not in self.maps:
                    raise SyscallError(errno.ENOENT, "BPF_MAP_GET_FD_BY_ID")
                answer = self._hand_out(self.maps[request.map_id], read_only=request.read_only)
            case Pin():
                if request.path in self.pins:
                    raise SyscallError(errno.EEXIST, "BPF_OBJ_PIN", request.path)
                made, read_only = self._by_fd[fds[0]]
                if read_only:
                    raise SyscallError(errno.EBADF, "BPF_OBJ_PIN", request.path)
                self.pins[request.path] = made
            case FreezeMap():
                self._freeze(fds[0])
            case Unpin():
                self._pinned(request.path)
                del self.pins[request.path]
            case Rename():
                made = self._pinned(request.path)
                if request.new_path in self.pins:
                    raise SyscallError(errno.EEXIST, "renameat2", request.new_path)
                self.pins[request.new_path] = made
                del self.pins[request.path]
            case ListPins():
                answer = PinPaths(sorted(path for path in self.pins if path.startswith(f"{request.root}/")))
            case ListFolder():
                answer = self._folder(request.path)
            case StampFolders():
                answer = [self._folder(path).stamp for path in request.paths]
            case NextMapId():
                answer = min((number for number in self.maps if number > request.map_id), default=None)
            case LoadBtf():
                answer = self._hand_out(None)
            case GetBtf():
                answer = b"blob"
            case _:
                raise SyscallError(errno.ENOSYS, type(request).__name__)
        return answer

    def _folder(self, path: str) -> FolderPins:
        """Pins and folders in it; its stamp is no time, and another for each content."""
        below = [pin.removeprefix(f"{path}/") for pin in self.pins if pin.startswith(f"{path}/")]
        pins = [PinStamp(name, id(self.pins[f"{path}/{name}"]), 0) for name in below if "/" not in name]
        folders = sorted({name.partition("/")[0] for name in below if "/" in name})
        return FolderPins(hash((tuple(pins), tuple(folders))), pins, folders)

    def _create(self, request: CreateMap) -> OwnedFd:
        self.created.append(request)
        made = raw_info(
            request.map_type,
            id=100 + len(self.maps),
            key_size=request.key_size,
            value_size=request.value_size,
            max_entries=request.max_entries,
            map_flags=request.flags,
            name=request.kernel_name,
        )
        return self._hand_out(self.add(DictMap(made)))

    def _pinned(self, path: str) -> DictMap:
        if path not in self.pins:
            raise SyscallError(errno.ENOENT, "openat2", path)
        found = self.pins[path]
        if found is None:
            raise SyscallError(errno.EINVAL, "BPF_OBJ_GET", path)
        return found

    def _map(self, map_fd: int) -> tuple[DictMap, bool]:
        if map_fd not in self._by_fd:
            raise SyscallError(errno.EBADF, "bpf")
        return self._by_fd[map_fd]

    def info(self, map_fd: int) -> RawMapInfo:
        return self._map(map_fd)[0].info

    def _freeze(self, map_fd: int) -> None:
        made, read_only = self._map(map_fd)
        if made.info.frozen or read_only:
            raise SyscallError(errno.EPERM, "BPF_MAP_FREEZE")
        made.info = replace(made.info, frozen=True)

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        del flags
        made, read_only = self._map(map_fd)
        errnos: list[int] = []
        for key, value in _rows(columns):
            if read_only and op in MUTATES:
                return [*errnos, errno.EPERM]
            number, answer = made.one(op, key, value)
            if answer and columns.values is not None:
                at = columns.value_offset + len(errnos) * columns.value_stride
                columns.values.view[at : at + len(answer)] = answer
            errnos.append(number)
            if number == errno.EPERM:
                break
        return errnos

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        made, _ = self._map(map_fd)
        assert key is None or len(key) == key_size == made.info.key_size
        return made.next_key(key)

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        del flags
        made, _ = self._map(map_fd)
        if made.info.map_type in (*ARRAYS, MapType.LPM_TRIE):
            return self._walk_keys(made, cursor, first, columns)
        bucket = 0 if first else INDEX.unpack(cursor.take(4))[0]
        done = 0
        while bucket < made.buckets:
            rows = [row for row in made.elements.items() if row[0][0] % made.buckets == bucket]
            if done + len(rows) > columns.count:
                cursor.view[:4] = n(bucket)
                return Batch(done, 0 if done else errno.ENOSPC)
            for row in rows:
                _put(columns, done, *row)
                done += 1
            bucket += 1
        cursor.view[:4] = n(bucket)
        return Batch(done, errno.ENOENT)

    @staticmethod
    def _walk_keys(made: DictMap, cursor: Buffer, first: bool, columns: Columns) -> Batch:
        key = None if first else cursor.take(made.info.key_size)
        for done in range(columns.count):
            key = made.next_key(key)
            if key is None:
                return Batch(done, errno.ENOENT)
            _put(columns, done, key, made.one(Op.LOOKUP, key, b"")[1])
            cursor.view[: len(key)] = key
        return Batch(columns.count, 0)

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        op = Op.UPDATE if command is BatchCommand.UPDATE else Op.DELETE
        for done in range(columns.count):
            one = replace(
                columns,
                count=1,
                key_offset=columns.key_offset + done * columns.key_stride,
                value_offset=columns.value_offset + done * columns.value_stride,
            )
            (number,) = self.each(map_fd, op, one, flags)
            if number:
                return Batch(done, number)
        return Batch(columns.count, 0)

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        del prog_fd, ctx
        raise SyscallError(errno.EBADF, "BPF_PROG_TEST_RUN")

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        del packet
        return lambda prog_fd: self.run(prog_fd, ctx)

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        del map_fd, size
        raise SyscallError(errno.EINVAL, "mmap")

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        del map_fd, offset, size
        raise SyscallError(errno.EINVAL, "mmap")


def _rows(columns: Columns) -> Iterator[tuple[bytes, bytes]]:
    for index in range(columns.count):
        key = columns.keys.take(columns.key_stride, columns.key_offset + index * columns.key_stride)
        value = b""
        if columns.values is not None:
            value = columns.values.take(
                columns.value_stride, columns.value_offset + index * columns.value_stride
            )
        yield key, value


def _put(columns: Columns, row: int, key: bytes, value: bytes) -> None:
    assert columns.values is not None
    at = columns.key_offset + row * columns.key_stride
    columns.keys.view[at : at + len(key)] = key
    at = columns.value_offset + row * columns.value_stride
    columns.values.view[at : at + len(value)] = value


def described(map_type: int = MapType.HASH, *, key_size: int = 4, value_size: int = 4) -> MapFacts:
    """The facts of a map that need not exist."""
    return facts(raw_info(map_type, key_size=key_size, value_size=value_size), CPUS)
