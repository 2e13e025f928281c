"""Making, finding, naming and unnaming maps in memory."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final, TypeVar, cast

from mapd.bpf.abi import Command
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    FolderPins,
    FreezeMap,
    GetBtf,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    MapHolder,
    MapHolders,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    PinPaths,
    ProgramInfo,
    R,
    RawProgramInfo,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.memory import programs
from mapd.memory.btf import BadBtf, BtfBlob, MemoryBtf
from mapd.memory.creation import Refused, make_table
from mapd.memory.descriptors import Descriptors, Held, MemoryProgram, Opening
from mapd.memory.memorymap import MemoryMap
from mapd.memory.pintree import PinTree
from mapd_api.uapi import MapFlag

_PROGRAM_TYPE: Final = 31
"""BPF_PROG_TYPE_SYSCALL."""

_Kind = TypeVar("_Kind", MemoryMap, MemoryBtf, MemoryProgram)


class MemoryControl:
    """The control half. Safe to use from many threads.

    A map is there until its last descriptor and its last pin have gone. Of programs it has those that
    mapd itself loads, by name.
    """

    def __init__(self, possible_cpus: int, folders: Iterable[str] = ()) -> None:
        self._possible_cpus = possible_cpus
        self._fds: Final = Descriptors(self._freed)
        self._pins: Final[PinTree[MemoryMap]] = PinTree(folders)
        self._maps: Final[dict[int, MemoryMap]] = {}
        self._btfs: Final[dict[int, MemoryBtf]] = {}
        self._next_id = 1
        self._handlers: Final[Mapping[type, Callable[[Any, Sequence[int]], Any]]] = {
            CreateMap: self._create,
            OpenPin: self._open_pin,
            OpenId: self._open_id,
            Pin: self._pin,
            Unpin: self._unpin,
            Rename: self._rename,
            MakeFolder: self._make_folder,
            RemoveFolder: self._remove_folder,
            ListPins: self._list_pins,
            ListFolder: self._list_folder,
            StampFolders: self._stamp_folders,
            NextMapId: self._next_map_id,
            OpenProgramId: self._open_program,
            OpenProgramPin: self._open_program,
            NextProgramId: self._next_program_id,
            ProgramInfo: self._program_info,
            ListHolders: self._list_holders,
            LoadBtf: self._load_btf,
            LoadTemplate: self._load_template,
            FreezeMap: self._freeze,
            GetBtf: self._get_btf,
        }

    def make_folder(self, path: str) -> None:
        """A folder for pins, and those above it; it may exist."""
        with self._fds.lock:
            self._pins.make_folder(path)

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``Kernel.control``.

        Raises:
            SyscallError: as Linux answers; ENOTSUPP for a type of map that is not kept in memory.
            TypeError: no request of this kernel.
        """
        handler = self._handlers.get(type(request))
        if handler is None:
            raise TypeError(f"{type(request).__name__} is no control request")
        with self._fds.lock:
            return cast("R", handler(request, fds))

    def _create(self, request: CreateMap, fds: Sequence[int]) -> OwnedFd:
        if len(fds) != request.with_inner + request.with_btf:
            raise ValueError(f"{len(fds)} file descriptors for inner={request.with_inner}")
        if request.numa_node is not None:
            request = replace(request, flags=request.flags | MapFlag.NUMA_NODE)
        btf: MemoryBtf | None = None
        if request.with_btf and request.btf_value_type_id:
            btf = self._find(fds[-1], MemoryBtf, Command.MAP_CREATE)
        try:
            table = make_table(request, btf.types if btf else None, self._possible_cpus)
        except Refused as refused:
            raise SyscallError(refused.errno, Command.MAP_CREATE.uapi_name) from None
        made = MemoryMap(self._new_id(), request, table, btf)
        self._maps[made.id] = made
        if btf is not None:
            self._fds.keep(btf)
        return self._fds.open(made, MapFlag(request.flags) & (MapFlag.RDONLY | MapFlag.WRONLY))

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _open_pin(self, request: OpenPin, fds: Sequence[int]) -> OwnedFd:
        del fds
        return self._open(self._pins.get(request.root, request.path), read_only=request.read_only)

    def _open_id(self, request: OpenId, fds: Sequence[int]) -> OwnedFd:
        del fds
        if request.map_id not in self._maps:
            raise SyscallError(errno.ENOENT, Command.MAP_GET_FD_BY_ID.uapi_name)
        return self._open(self._maps[request.map_id], read_only=request.read_only)

    def _open(self, found: MemoryMap, *, read_only: bool) -> OwnedFd:
        return self._fds.open(found, MapFlag.RDONLY if read_only else MapFlag(0))

    def _pin(self, request: Pin, fds: Sequence[int]) -> None:
        (map_fd,) = fds
        pinned = self._find(map_fd, MemoryMap, Command.OBJ_PIN)
        self._pins.put(request.root, request.path, pinned, mkdir=request.mkdir)
        self._fds.keep(pinned)

    def _unpin(self, request: Unpin, fds: Sequence[int]) -> None:
        del fds
        self._fds.drop(self._pins.remove(request.root, request.path))

    def _rename(self, request: Rename, fds: Sequence[int]) -> None:
        del fds
        self._pins.rename(request.root, request.path, request.new_path, mkdir=request.mkdir)

    def _make_folder(self, request: MakeFolder, fds: Sequence[int]) -> None:
        del fds
        self._pins.mkdir(request.root, request.path)

    def _remove_folder(self, request: RemoveFolder, fds: Sequence[int]) -> None:
        del fds
        self._pins.rmdir(request.root, request.path)

    def _list_pins(self, request: ListPins, fds: Sequence[int]) -> PinPaths:
        del fds
        return PinPaths(self._pins.below(request.root))

    def _list_folder(self, request: ListFolder, fds: Sequence[int]) -> FolderPins:
        del fds
        return self._pins.folder(request.root, request.path)

    def _stamp_folders(self, request: StampFolders, fds: Sequence[int]) -> Sequence[int]:
        del fds
        return [self._pins.stamp(request.root, path) for path in request.paths]

    def _next_map_id(self, request: NextMapId, fds: Sequence[int]) -> int | None:
        del fds
        return min((number for number in self._maps if number > request.map_id), default=None)

    def _load_btf(self, request: LoadBtf, fds: Sequence[int]) -> OwnedFd:
        del fds
        try:
            types = BtfBlob(request.blob)
        except BadBtf as error:
            raise SyscallError(errno.EINVAL, Command.BTF_LOAD.uapi_name) from error
        btf = MemoryBtf(self._new_id(), types)
        self._btfs[btf.id] = btf
        return self._fds.open(btf)

    def _freeze(self, request: FreezeMap, fds: Sequence[int]) -> None:
        del request
        (map_fd,) = fds
        opening = self._opening(map_fd, Command.MAP_FREEZE)
        if not isinstance(opening.held, MemoryMap):
            raise SyscallError(errno.EINVAL, Command.MAP_FREEZE.uapi_name)
        if number := opening.held.freeze(opening.mode):
            raise SyscallError(number, Command.MAP_FREEZE.uapi_name)

    def _get_btf(self, request: GetBtf, fds: Sequence[int]) -> bytes:
        del fds
        if request.btf_id not in self._btfs:
            raise SyscallError(errno.ENOENT, Command.BTF_GET_FD_BY_ID.uapi_name)
        return self._btfs[request.btf_id].types.blob

    def _load_template(self, request: LoadTemplate, fds: Sequence[int]) -> OwnedFd:
        over, *more = (self._find(map_fd, MemoryMap, Command.PROG_LOAD) for map_fd in fds)
        scratch = more[0] if more else None
        if number := programs.refusal(request, over, scratch):
            raise SyscallError(number, Command.PROG_LOAD.uapi_name)
        program = MemoryProgram(self._new_id(), request, over, scratch)
        for held in (over, *more):
            self._fds.keep(held)
        return self._fds.open(program)

    def _program_info(self, request: ProgramInfo, fds: Sequence[int]) -> RawProgramInfo:
        del request
        (prog_fd,) = fds
        program = self._find(prog_fd, MemoryProgram, Command.OBJ_GET_INFO_BY_FD)
        maps = (program.over,) if program.scratch is None else (program.over, program.scratch)
        name = f"mapd_{program.request.template}"[:15]
        return RawProgramInfo(_PROGRAM_TYPE, program.id, name, tuple(held.id for held in maps))

    def _open_program(self, request: OpenProgramId | OpenProgramPin, fds: Sequence[int]) -> OwnedFd:
        """There is no program but mapd's own, and those have neither ids nor pins to be found by."""
        del fds
        if isinstance(request, OpenProgramPin):
            self._pins.get(request.root, request.path)
            raise SyscallError(errno.EINVAL, Command.OBJ_GET.uapi_name, request.path)
        raise SyscallError(errno.ENOENT, Command.PROG_GET_FD_BY_ID.uapi_name)

    def _next_program_id(self, request: NextProgramId, fds: Sequence[int]) -> None:
        del request, fds

    def _list_holders(self, request: ListHolders, fds: Sequence[int]) -> MapHolders:
        """This process, as nobody else can have one."""
        del request, fds
        held = frozenset(found.id for found in self._fds.opened() if isinstance(found, MemoryMap))
        return MapHolders((MapHolder(os.getpid(), PurePath(sys.argv[0]).name[:15], held),) if held else ())

    def _freed(self, held: Held) -> None:
        """Forget what nothing leads to any more."""
        match held:
            case MemoryMap():
                del self._maps[held.id]
                if held.btf is not None:
                    self._fds.drop(held.btf)
            case MemoryBtf():
                del self._btfs[held.id]
            case MemoryProgram():
                self._fds.drop(held.over)
                if held.scratch is not None:
                    self._fds.drop(held.scratch)

    def _find(self, fd: int, kind: type[_Kind], command: Command) -> _Kind:
        """The object that a number stands for."""
        opening = self._opening(fd, command)
        if not isinstance(opening.held, kind):
            raise SyscallError(errno.EINVAL, command.uapi_name)
        return opening.held

    def _opening(self, fd: int, command: Command) -> Opening:
        opening = self._fds.find(fd)
        if opening is None:
            raise SyscallError(errno.EBADF, command.uapi_name)
        return opening
