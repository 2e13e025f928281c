"""What the opener looks at before it carries out a request: each request of the grammar has its check here.

The front is taken for somebody else's: what it says of a map or a descriptor is compared with the kernel's own word.
A check passes or raises; it opens nothing, and changes nothing but the meters.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from mapd.bpf.abi import Command
from mapd.bpf.cpus import possible_cpus
from mapd.bpf.elements import LinuxElements
from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    FreezeMap,
    GetBtf,
    LimitRefused,
    ListFolder,
    ListHolders,
    ListPins,
    LoadBtf,
    LoadTemplate,
    MakeFolder,
    NextMapId,
    NextProgramId,
    OpenId,
    OpenPin,
    OpenProgramId,
    OpenProgramPin,
    Pin,
    RawMapInfo,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.memory import MapShape, map_bytes
from mapd.bpf.templates import IN_SCRATCH, MUTATING, Template
from mapd.opener.limits import EVERY_TYPE, Limits
from mapd.opener.meter import Meter
from mapd_api.uapi import MapFlag, MapType

_KNOWN_FLAGS: Final = sum(MapFlag)
_MAP: Final = "anon_inode:bpf-map"
_BTF: Final = "anon_inode:btf"
_BURST_S: Final = 4
_ELEMENTS: Final = LinuxElements()


@dataclass(slots=True)
class Checks:
    """The checks of one opener, and what has been made through it."""

    limits: Limits
    made: Meter = field(init=False)
    made_bytes: Meter = field(init=False)
    cpus: int = field(init=False)

    def __post_init__(self) -> None:
        """Fill the meters, and ask for what later must not fail.

        Raises:
            OSError: /sys is not mounted.
        """
        limits = self.limits
        self.cpus = possible_cpus()
        self.made = Meter(limits.makes, limits.makes_per_s)
        self.made_bytes = Meter(limits.map_bytes + _BURST_S * limits.bytes_per_s, limits.bytes_per_s)

    def check(self, request: ControlRequest[Any], fds: Sequence[int]) -> None:
        """Pass a request with its descriptors, or refuse it.

        Raises:
            LimitRefused: a limit of this opener.
            SyscallError: as the kernel would answer.
            ValueError: not the descriptors that the request takes.
        """
        CHECKS[type(request)](self, request, fds)

    def create(self, request: CreateMap, fds: Sequence[int]) -> None:
        """A map: its type, its flags, the memory it will take, and what its descriptors are of."""
        name = Command.MAP_CREATE.uapi_name
        kinds = [_MAP] * request.with_inner + [_BTF] * request.with_btf
        if len(fds) != len(kinds):
            raise ValueError(
                f"{len(fds)} file descriptors for inner={request.with_inner} btf={request.with_btf}"
            )
        if request.map_type not in EVERY_TYPE or request.flags & ~_KNOWN_FLAGS:
            raise SyscallError(errno.EINVAL, name)
        for fd, kind in zip(fds, kinds, strict=True):
            if _leads_to(fd) != kind:
                raise SyscallError(errno.EINVAL, name)
        if request.map_type not in self.limits.map_types:
            raise LimitRefused(
                errno.EPERM, name, f"maps of type {MapType(request.map_type).name.lower()} are not made here"
            )
        size = self.bytes_of(request)
        if size > self.limits.map_bytes:
            raise LimitRefused(
                errno.E2BIG, name, f"a map of {size} bytes; map_bytes is {self.limits.map_bytes} for each"
            )
        self._make(name)
        if wait := self.made_bytes.take(size):
            raise LimitRefused(
                errno.EAGAIN,
                name,
                f"bytes_per_s is {self.limits.bytes_per_s}: room for {size} in {wait:.1f} s",
            )

    def bytes_of(self, request: CreateMap) -> int:
        """Kernel memory of the map that is asked for.

        Raises:
            ValueError: there is no such type.
        """
        shape = MapShape(
            map_type=request.map_type,
            key_size=request.key_size,
            value_size=request.value_size,
            max_entries=request.max_entries,
            flags=request.flags,
            map_extra=request.map_extra,
        )
        return map_bytes(shape, self.cpus)

    def _make(self, name: str) -> None:
        if wait := self.made.take(1):
            raise LimitRefused(
                errno.EAGAIN, name, f"makes_per_s is {self.limits.makes_per_s}: room in {wait:.3f} s"
            )

    def root(self, root: str, *paths: str) -> None:
        """A root of this opener's own, and paths that begin with it; openat2(2) sees to the rest."""
        if root not in self.limits.roots:
            raise LimitRefused(errno.EPERM, "openat2", f"{root} is none of the roots")
        beneath = root.rstrip("/")
        for path in paths:
            if path != beneath and not path.startswith(f"{beneath}/"):
                raise SyscallError(errno.EXDEV, "openat2", path)

    def mkdir(self, root: str, *, mkdir: bool) -> None:
        """Folders are made, and removed, for names alone."""
        if mkdir and root != self.limits.names_root:
            raise LimitRefused(
                errno.EPERM, "mkdirat", f"folders are made below {self.limits.names_root} only"
            )

    def open_pin(self, request: OpenPin | OpenProgramPin | Unpin | ListFolder, fds: Sequence[int]) -> None:
        """One path below a root."""
        _counted(fds, 0)
        self.root(request.root, request.path)

    def pin(self, request: Pin, fds: Sequence[int]) -> None:
        """A name for a map; that its descriptor may write ``mapd.bpf.pins`` sees to."""
        _counted(fds, 1)
        self.root(request.root, request.path)
        self.mkdir(request.root, mkdir=request.mkdir)
        self._make(Command.OBJ_PIN.uapi_name)

    def rename(self, request: Rename, fds: Sequence[int]) -> None:
        """Two paths below one root."""
        _counted(fds, 0)
        self.root(request.root, request.path, request.new_path)
        self.mkdir(request.root, mkdir=request.mkdir)
        self._make("renameat2")

    def folder(self, request: MakeFolder | RemoveFolder, fds: Sequence[int]) -> None:
        """A folder for names; to make one costs as much as to make a pin."""
        _counted(fds, 0)
        self.root(request.root, request.path)
        self.mkdir(request.root, mkdir=True)
        if isinstance(request, MakeFolder):
            self._make("mkdirat")

    def list_pins(self, request: ListPins, fds: Sequence[int]) -> None:
        """All below a root."""
        _counted(fds, 0)
        self.root(request.root)

    def stamp_folders(self, request: StampFolders, fds: Sequence[int]) -> None:
        """Some folders below a root."""
        _counted(fds, 0)
        self.root(request.root, *request.paths)

    def by_id(self, request: ControlRequest[Any], fds: Sequence[int]) -> None:
        """What needs CAP_SYS_ADMIN is refused as the kernel refuses it where the profile does not have it."""
        _counted(fds, 0)
        if not self.limits.ids:
            raise SyscallError(errno.EPERM, _BY_ID[type(request)].uapi_name)

    def load_btf(self, request: LoadBtf, fds: Sequence[int]) -> None:
        """A blob of types."""
        _counted(fds, 0)
        name = Command.BTF_LOAD.uapi_name
        if len(request.blob) > self.limits.btf_bytes:
            raise LimitRefused(
                errno.E2BIG,
                name,
                f"a blob of {len(request.blob)} bytes; btf_bytes is {self.limits.btf_bytes}",
            )
        self._make(name)

    def holders(self, request: ListHolders, fds: Sequence[int]) -> None:
        """The kernel shows of other processes none to who is in a landlock domain, and else what is admitted."""
        del request
        _counted(fds, 0)

    def freeze(self, request: FreezeMap, fds: Sequence[int]) -> None:
        """A map; that its descriptor may write the kernel sees to."""
        del request
        _counted(fds, 1)
        if _leads_to(fds[0]) != _MAP:
            raise SyscallError(errno.EINVAL, Command.MAP_FREEZE.uapi_name)

    def load_template(self, request: LoadTemplate, fds: Sequence[int]) -> None:
        """A program that does to a map no more than its descriptor may: programs themselves ask nobody.

        One that writes over a descriptor that only reads, or over a frozen map, is EPERM; so is one that reads over a
        descriptor that only writes. Sizes are the map's own, and the scratch is an array that may be written.
        """
        name = Command.PROG_LOAD.uapi_name
        if request.template not in list(Template):
            raise SyscallError(errno.EINVAL, name)
        template = Template(request.template)
        if len(fds) != (2 if template in IN_SCRATCH else 1):
            raise SyscallError(errno.EINVAL, name)
        infos = [_map_info(fd, name) for fd in fds]
        over = infos[0]
        if (over.key_size, over.value_size) != (request.key_size, request.value_size):
            raise SyscallError(errno.EINVAL, name)
        if request.map_type not in (0, over.map_type):
            raise SyscallError(errno.EINVAL, name)
        access = _access(fds[0])
        if access == os.O_WRONLY or (template in MUTATING and (access == os.O_RDONLY or over.frozen)):
            raise SyscallError(errno.EPERM, name)
        if template in IN_SCRATCH and not _is_scratch(infos[1], fds[1], request):
            raise SyscallError(errno.EINVAL, name)
        self._make(name)


def _counted(fds: Sequence[int], count: int) -> None:
    if len(fds) != count:
        raise ValueError(f"{len(fds)} file descriptors where the request takes {count}")


def _leads_to(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 - text is all that is asked for


def _access(fd: int) -> int:
    """The descriptor's access mode, which is the file's and which nobody can change (kernel/bpf/syscall.c)."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _map_info(fd: int, command: str) -> RawMapInfo:
    if _leads_to(fd) != _MAP:
        raise SyscallError(errno.EINVAL, command)
    return _ELEMENTS.info(fd)


def _is_scratch(info: RawMapInfo, fd: int, request: LoadTemplate) -> bool:
    """Whether a program may write there: else an array opened read-only could be handed over as a scratch."""
    return (
        info.map_type == MapType.ARRAY
        and bool(info.map_flags & MapFlag.MMAPABLE)
        and info.value_size == request.slot_bytes
        and request.slots in (0, info.max_entries)
        and not info.frozen
        and _access(fd) == os.O_RDWR
    )


_BY_ID: Final[Mapping[type, Command]] = MappingProxyType(
    {
        OpenId: Command.MAP_GET_FD_BY_ID,
        NextMapId: Command.MAP_GET_NEXT_ID,
        OpenProgramId: Command.PROG_GET_FD_BY_ID,
        NextProgramId: Command.PROG_GET_NEXT_ID,
        GetBtf: Command.BTF_GET_FD_BY_ID,
    }
)

CHECKS: Final[Mapping[type[ControlRequest[Any]], Callable[[Checks, Any, Sequence[int]], None]]] = (
    MappingProxyType(
        {
            CreateMap: Checks.create,
            OpenPin: Checks.open_pin,
            OpenProgramPin: Checks.open_pin,
            Unpin: Checks.open_pin,
            ListFolder: Checks.open_pin,
            Pin: Checks.pin,
            Rename: Checks.rename,
            MakeFolder: Checks.folder,
            RemoveFolder: Checks.folder,
            ListPins: Checks.list_pins,
            StampFolders: Checks.stamp_folders,
            LoadBtf: Checks.load_btf,
            ListHolders: Checks.holders,
            FreezeMap: Checks.freeze,
            LoadTemplate: Checks.load_template,
            **dict.fromkeys(_BY_ID, Checks.by_id),
        }
    )
)
"""How each request is checked: of ``forms.FORMS`` all."""
