"""The one seam between mapd and Linux: what the daemon asks of bpf(2), in two halves.

*Control* makes, finds, names and unnames things; it needs rights. Its requests are plain data
and file descriptors go beside them, so that they can cross a socketpair to a helper process.
*Elements* works on a map fd that is held already; it needs no rights at all, and moves bytes in
columns. Everything here blocks: it runs on the syscall pool, never on the event loop.

``LinuxKernel`` is the real one; ``FaultyKernel`` wraps any other and breaks it on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from errno import EPIPE
from typing import Generic, Protocol, TypeVar

from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import OwnedFd
from mapd_api.ops import Op

R = TypeVar("R")


class ControlRequest(Generic[R]):
    """A request of the control half whose answer is an ``R``."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateMap(ControlRequest[OwnedFd]):
    """BPF_MAP_CREATE. ``fds``: the inner map's, then the BTF's, for those that are asked for.

    Sizes in bytes; ``flags`` are BPF_F_* of creation; ``kernel_name`` at most 15 characters.
    ``btf_vmlinux_value_type_id`` is of STRUCT_OPS: in the kernel's own BTF, the structure that it
    makes; ``exclusive_program_hash`` the SHA-256 of the only program that may use the map, or b"".
    """

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    kernel_name: str = ""
    map_extra: int = 0
    numa_node: int | None = None
    with_inner: bool = False
    with_btf: bool = False
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    btf_vmlinux_value_type_id: int = 0
    exclusive_program_hash: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenPin(ControlRequest[OwnedFd]):
    """The map pinned at ``path``, below ``root`` and through no symbolic link (openat2, BPF_OBJ_GET)."""

    root: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenId(ControlRequest[OwnedFd]):
    """BPF_MAP_GET_FD_BY_ID; needs CAP_SYS_ADMIN."""

    map_id: int
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin(ControlRequest[None]):
    """BPF_OBJ_PIN of ``fds[0]`` at ``path`` below ``root``; makes one missing folder (0700) if ``mkdir``.

    EBADF for an fd that only reads: who opens the pin may write.
    """

    root: str
    path: str
    mkdir: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpin(ControlRequest[None]):
    """Remove the pin of a map. Raises FileNotFoundError; EINVAL where the pin is not a map's."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeFolder(ControlRequest[None]):
    """Make a folder (0700) below ``root``, in one that exists. Raises FileExistsError: anything is there."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFolder(ControlRequest[None]):
    """Remove an empty folder below ``root``. Raises FileNotFoundError; ENOTEMPTY; ENOTDIR where it is a pin."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename(ControlRequest[None]):
    """Give the pin of a map another path below ``root`` in one step, which must be free; ``mkdir`` as for ``Pin``."""

    root: str
    path: str
    new_path: str
    mkdir: bool = False


@dataclass(frozen=True, slots=True)
class PinPaths:
    """What a walk found: paths of pins, sorted, and of folders that could not be read."""

    paths: Sequence[str]
    unread: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ListPins(ControlRequest[PinPaths]):
    """All pins (files) below ``root``; of programs and links too."""

    root: str


@dataclass(frozen=True, slots=True)
class PinStamp:
    """One pin of a folder, of whatever it is: ``inode`` and ``changed_ns`` (st_ctime) are others if it was replaced."""

    name: str
    inode: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class FolderPins:
    """One folder: its pins and the folders in it, by name, as they were at or after ``stamp`` (``StampFolders``).

    Attributes:
        uid: its owner.
        mode: its permission bits, below 0o10000.
    """

    stamp: int
    pins: Sequence[PinStamp]
    folders: Sequence[str]
    uid: int = 0
    mode: int = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class ListFolder(ControlRequest[FolderPins]):
    """The pins (files) of the folder ``path``, which is ``root`` or below it."""

    root: str
    path: str


STAMPED_FOLDERS = 256
"""Folders of one ``StampFolders`` at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StampFolders(ControlRequest[Sequence[int]]):
    """When each folder last changed: st_ctime in ns, another one after a pin was made, removed or renamed in it.

    0: there is no such folder, or it cannot be looked at. The clock has ticks of 1 to 10 ms, so two changes within
    one have one stamp.
    """

    root: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextMapId(ControlRequest["int | None"]):
    """BPF_MAP_GET_NEXT_ID after ``map_id``; None after the last. Needs CAP_SYS_ADMIN."""

    map_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProgramId(ControlRequest[OwnedFd]):
    """BPF_PROG_GET_FD_BY_ID; needs CAP_SYS_ADMIN."""

    prog_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenProgramPin(ControlRequest[OwnedFd]):
    """The program pinned at ``path``, below ``root`` and through no symbolic link."""

    root: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextProgramId(ControlRequest["int | None"]):
    """BPF_PROG_GET_NEXT_ID after ``prog_id``; None after the last. Needs CAP_SYS_ADMIN."""

    prog_id: int


@dataclass(frozen=True, slots=True)
class RawProgramInfo:
    """struct bpf_prog_info, as far as mapd asks: ``map_ids`` are those of the maps it uses."""

    prog_type: int
    id: int
    name: str
    map_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInfo(ControlRequest[RawProgramInfo]):
    """BPF_OBJ_GET_INFO_BY_FD of the program ``fds[0]``; needs no rights."""


@dataclass(frozen=True, slots=True)
class MapHolder:
    """A process and the ids of the maps that it has descriptors of; ``comm`` as /proc/PID/comm says."""

    pid: int
    comm: str
    map_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class MapHolders:
    """Processes with descriptors of maps, and how many processes could not be looked into."""

    holders: Sequence[MapHolder]
    unread: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListHolders(ControlRequest[MapHolders]):
    """Every process of this /proc and the maps it holds; those of other users need CAP_SYS_PTRACE.

    None but its own can be looked into by a process in a landlock domain (security/landlock/task.c, Linux 5.13).
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadBtf(ControlRequest[OwnedFd]):
    """BPF_BTF_LOAD of a blob."""

    blob: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeMap(ControlRequest[None]):
    """BPF_MAP_FREEZE of ``fds[0]``; needs no rights, and cannot be taken back: so it is no element operation.

    EBUSY while a writable mmap exists or a write is under way, EPERM if frozen already or the fd only reads.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class GetBtf(ControlRequest[bytes]):
    """The blob of the kernel's BTF object ``btf_id``; needs CAP_SYS_ADMIN."""

    btf_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTemplate(ControlRequest[OwnedFd]):
    """BPF_PROG_LOAD of a program of ``mapd.bpf.templates`` over the map ``fds[0]``; needs CAP_BPF.

    Plain data: what a template does not ask for is zero, and whoever loads one checks it all again. Sizes in bytes.

    Attributes:
        template: its name.
        key_size, value_size: the map's.
        map_type: the map's, where a template differs by it.
        cpus: slots of a per-CPU value.
        slots, slot_bytes: of the scratch ``fds[1]``, for templates that work in one (``mapd.bpf.scratch``).
        field_size: of what an atomic works on, 4 or 8.
        field_offset: of that in a value, for the template that works at one place.
    """

    template: str
    key_size: int
    value_size: int
    map_type: int = 0
    cpus: int = 0
    slots: int = 0
    slot_bytes: int = 0
    field_size: int = 0
    field_offset: int = 0


@dataclass(frozen=True, slots=True)
class RawMapInfo:
    """struct bpf_map_info and what only fdinfo says (from ``frozen`` on). Sizes in bytes.

    ``owner_prog_type``: of the programs that a PROG_ARRAY takes; 0 until its first one, and for other types.
    """

    map_type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    name: str
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int
    map_extra: int
    frozen: bool
    memlock: int
    btf_vmlinux_value_type_id: int = 0
    owner_prog_type: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a run of elements lies: ``count`` keys and values at fixed strides.

    ``keys`` and ``values`` are read or written in place; ``values`` is None for operations without.
    Whoever makes one has checked that the buffers are long enough: the kernel is told no lengths.
    """

    count: int
    keys: Buffer
    key_stride: int
    values: Buffer | None = None
    value_stride: int = 0
    key_offset: int = 0
    value_offset: int = 0


class BatchCommand(StrEnum):
    """The batch commands of bpf(2)."""

    UPDATE = "BPF_MAP_UPDATE_BATCH"
    DELETE = "BPF_MAP_DELETE_BATCH"


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch command did: the first ``count`` elements, then ``errno`` (0: all of them)."""

    count: int
    errno: int


class Elements(Protocol):
    """The half that works on a held map fd."""

    def info(self, map_fd: int) -> RawMapInfo:
        """BPF_OBJ_GET_INFO_BY_FD and /proc/self/fdinfo of a map fd."""
        ...

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """One syscall per element, in order; the errno of each (0: done).

        Stops after an element that answers EPERM, so the list may be shorter than ``count``: that
        errno speaks of the map, not of the element.
        """
        ...

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        """BPF_MAP_GET_NEXT_KEY; None after the last key."""
        ...

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        """BPF_MAP_LOOKUP_BATCH from ``cursor`` (read unless ``first``, then overwritten).

        ENOENT in the answer is the end, and its ``count`` is valid; ENOSPC: the next bucket needs a larger
        ``count``, nothing was copied and the cursor still holds.
        """
        ...

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        """BPF_MAP_UPDATE_BATCH or BPF_MAP_DELETE_BATCH: stops at the first error."""
        ...

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        """BPF_PROG_RUN of a SYSCALL program once; its R0. ``ctx`` is read, and written back."""
        ...

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        """``run`` made ready for many runs with one context: a function from a program's fd to its R0.

        ``packet``: for SOCKET_FILTER programs, whose packet is ``ctx`` as it is now. One thread at a time.
        """
        ...

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        """mmap(2) of an array made BPF_F_MMAPABLE, for reading and writing; unmapped when nobody holds it.

        Elements lie at multiples of value_size, rounded up to 8.
        """
        ...

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        """mmap(2) of a part of such an array for reading alone; unmapped when nobody holds it.

        Offset and size in bytes, aligned or not.
        """
        ...


class Kernel(Elements, Protocol):
    """Both halves."""

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """Carry out one request of the control half.

        Raises:
            SyscallError: what the kernel answered.
        """
        ...


class SyscallError(OSError):
    """A syscall's errno, with the command that got it. A plain OSError otherwise."""

    command: str

    def __init__(self, errno: int, command: str, path: str | None = None) -> None:
        from mapd.bpf.errnos import describe

        super().__init__(errno, f"{command}: {describe(errno)}", path)
        self.command = command


class ControlEnded(SyscallError):
    """Whoever carries out control requests for this process is gone, and none will be carried out any more.

    Attributes:
        unknown: this request may have been carried out, and have changed something; else nothing was done.
    """

    unknown: bool

    def __init__(self, command: str, why: str, *, unknown: bool) -> None:
        super().__init__(EPIPE, command)
        self.unknown = unknown
        self.strerror = f"{command}: {why}"


class LimitRefused(SyscallError):
    """Not the kernel, but a limit of whoever carries out control requests for others; nothing was done.

    Attributes:
        limit: which, with the numbers.
    """

    limit: str

    def __init__(self, errno: int, command: str, limit: str) -> None:
        super().__init__(errno, command)
        self.limit = limit
        self.strerror = f"{command}: {limit}"
