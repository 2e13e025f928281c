"""The half that makes, finds and names things: each request of ``mapd.bpf.kernel`` and its function.

Needs rights, which depend on the request. What a request may ask for is checked by whoever passes it
on; here the kernel decides.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from mapd.bpf import abi, holders, pins, program
from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.compare import compare_layout, load_compare
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    ControlRequest,
    CreateMap,
    FreezeMap,
    GetBtf,
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
    ProgramInfo,
    R,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.program import load_program
from mapd.bpf.syscall import attempt, bpf
from mapd.bpf.templates import Template, assemble
from mapd.bpf.vmlinux import NoSuchFunction
from mapd_api.uapi import ENOTSUPP, MapFlag


class LinuxControl:
    """The control half of ``mapd.bpf.kernel.Kernel`` by bpf(2) and openat2(2)."""

    __slots__ = ()

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``Kernel.control``.

        Raises:
            SyscallError: what the kernel answered.
            ValueError: ``fds`` are not as many as the request takes.
            TypeError: no request of this kernel.
        """
        handler = HANDLERS.get(type(request))
        if handler is None:
            raise TypeError(f"{type(request).__name__} is no control request")
        answer: R = handler(request, fds)
        return answer


def create_map(request: CreateMap, fds: Sequence[int]) -> OwnedFd:
    """See ``CreateMap``. Takes from 1 to over 100 ms, as the map is large (preallocation).

    A numa node sets BPF_F_NUMA_NODE: without it the kernel would leave the node unread.

    Raises:
        SyscallError: any errno; EPERM without CAP_BPF, or CAP_NET_ADMIN for socket and device maps; E2BIG
            also where the kernel knows no exclusive programs.

    Source: kernel/bpf/syscall.c, map_create(). Linux 4.15 (names); map_extra 5.16; exclusive programs 6.18.
    """
    if len(fds) != request.with_inner + request.with_btf:
        raise ValueError(f"{len(fds)} file descriptors for inner={request.with_inner} btf={request.with_btf}")
    given = iter(fds)
    numa = 0 if request.numa_node is None else MapFlag.NUMA_NODE
    exclusive = Buffer.of(request.exclusive_program_hash)  # kept until the call returns
    attr = abi.MapCreateAttr(
        map_type=request.map_type,
        key_size=request.key_size,
        value_size=request.value_size,
        max_entries=request.max_entries,
        map_flags=request.flags | numa,
        inner_map_fd=next(given) if request.with_inner else 0,
        numa_node=request.numa_node or 0,
        # 16 characters leave no room for the NUL, and the kernel says EINVAL: it judges, not we.
        map_name=request.kernel_name.encode()[:16],
        btf_fd=next(given) if request.with_btf else 0,
        btf_key_type_id=request.btf_key_type_id,
        btf_value_type_id=request.btf_value_type_id,
        btf_vmlinux_value_type_id=request.btf_vmlinux_value_type_id,
        map_extra=request.map_extra,
        excl_prog_hash=exclusive.address if exclusive.size else 0,
        excl_prog_hash_size=exclusive.size,
    )
    return OwnedFd(bpf(Command.MAP_CREATE, attr))


def open_id(request: OpenId, fds: Sequence[int]) -> OwnedFd:
    """See ``OpenId``.

    Raises:
        SyscallError: ENOENT, no map has the id; EPERM without CAP_SYS_ADMIN.

    Source: kernel/bpf/syscall.c, bpf_map_get_fd_by_id(). Linux 4.13; read-only 4.15.
    """
    _no_fds(fds)
    attr = abi.IdAttr(id=request.map_id, open_flags=abi.F_RDONLY if request.read_only else 0)
    return OwnedFd(bpf(Command.MAP_GET_FD_BY_ID, attr))


def next_map_id(request: NextMapId, fds: Sequence[int]) -> int | None:
    """See ``NextMapId``. The map may be gone by the time its id is used.

    Source: kernel/bpf/syscall.c, bpf_obj_get_next_id(). Linux 4.13.
    """
    _no_fds(fds)
    return _next_id(Command.MAP_GET_NEXT_ID, request.map_id)


def open_program_id(request: OpenProgramId, fds: Sequence[int]) -> OwnedFd:
    """See ``OpenProgramId``.

    Raises:
        SyscallError: ENOENT, no program has the id; EPERM without CAP_SYS_ADMIN.

    Source: kernel/bpf/syscall.c, bpf_prog_get_fd_by_id(). Linux 4.13.
    """
    _no_fds(fds)
    return OwnedFd(bpf(Command.PROG_GET_FD_BY_ID, abi.IdAttr(id=request.prog_id)))


def next_program_id(request: NextProgramId, fds: Sequence[int]) -> int | None:
    """See ``NextProgramId``. The program may be gone by the time its id is used.

    Source: kernel/bpf/syscall.c, bpf_obj_get_next_id(). Linux 4.13.
    """
    _no_fds(fds)
    return _next_id(Command.PROG_GET_NEXT_ID, request.prog_id)


def _next_id(command: Command, after: int) -> int | None:
    attr = abi.IdAttr(id=after)
    number = -attempt(command, attr)
    if number == errno.ENOENT:
        return None
    if number:
        raise SyscallError(number, command.uapi_name)
    found: int = attr.next_id
    return found


def load_btf(request: LoadBtf, fds: Sequence[int]) -> OwnedFd:
    """See ``LoadBtf``.

    Raises:
        SyscallError: EINVAL, the blob is malformed; EPERM without CAP_BPF.

    Source: kernel/bpf/btf.c, btf_new_fd(). Linux 4.18.
    """
    _no_fds(fds)
    blob = Buffer.of(request.blob)
    return OwnedFd(bpf(Command.BTF_LOAD, abi.BtfLoadAttr(btf=blob.address, btf_size=blob.size)))


def freeze_map(request: FreezeMap, fds: Sequence[int]) -> None:
    """See ``FreezeMap``.

    Raises:
        SyscallError: EPERM, EBUSY; ENOTSUPP for STRUCT_OPS, and for values that hold more than bytes.

    Source: kernel/bpf/syscall.c, map_freeze(). Linux 5.2.
    """
    del request
    if len(fds) != 1:
        raise ValueError(f"{len(fds)} file descriptors where the request takes 1")
    bpf(Command.MAP_FREEZE, abi.NextKeyAttr(map_fd=fds[0]))


def get_btf(request: GetBtf, fds: Sequence[int]) -> bytes:
    """See ``GetBtf``.

    Raises:
        SyscallError: ENOENT, no such BTF; EPERM without CAP_SYS_ADMIN.

    Source: kernel/bpf/btf.c, btf_get_info_by_fd(). Linux 4.18.
    """
    _no_fds(fds)
    with (
        OwnedFd(bpf(Command.BTF_GET_FD_BY_ID, abi.IdAttr(id=request.btf_id))) as owned,
        owned.lease() as btf_fd,
    ):
        size = _btf_info(btf_fd, Buffer.allocate(0))
        blob = Buffer.allocate(size)
        _btf_info(btf_fd, blob)
        return blob.take(size)


def _btf_info(btf_fd: int, blob: Buffer) -> int:
    """Fill ``blob``, and say how many bytes the whole one has."""
    info = abi.BtfInfo(btf=blob.address, btf_size=blob.size)
    attr = abi.InfoAttr(bpf_fd=btf_fd, info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, attr)
    size: int = info.btf_size
    return size


def load_template(request: LoadTemplate, fds: Sequence[int]) -> OwnedFd:
    """See ``LoadTemplate``. From 0.06 ms, 1 ms for values of 32 KiB and for vector programs.

    Raises:
        ProgramRefused: EPERM without CAP_BPF; EINVAL, EACCES where this kernel cannot run it.
        SyscallError: EINVAL, no such template, or none with these sizes and so many ``fds``; ENOTSUPP, this
            kernel does not count.

    Source: kernel/bpf/syscall.c, bpf_prog_load().
    """
    name = f"mapd_{request.template}"[:15]
    try:
        if request.template == Template.COMPARE_UPDATE:
            return _load_compare(request, fds, name)
        made = assemble(request, fds)
    except NoSuchFunction as error:
        raise SyscallError(ENOTSUPP, Command.PROG_LOAD.uapi_name) from error
    except ValueError as error:
        raise SyscallError(errno.EINVAL, Command.PROG_LOAD.uapi_name) from error
    return load_program(made.code, made.kind, name, callbacks=made.callbacks)


def _load_compare(request: LoadTemplate, fds: Sequence[int], name: str) -> OwnedFd:
    layout = compare_layout(request.key_size, request.value_size, request.slot_bytes)
    if layout is None:
        raise ValueError("too large to be compared under a lock")
    map_fd, scratch_fd = fds
    return load_compare(map_fd, scratch_fd, layout, name)


def _no_fds(fds: Sequence[int]) -> None:
    if fds:
        raise ValueError(f"{len(fds)} file descriptors where the request takes none")


# Each function takes its own request; the table is what says that they belong together.
HANDLERS: Final[Mapping[type, Callable[[Any, Sequence[int]], Any]]] = MappingProxyType(
    {
        CreateMap: create_map,
        OpenPin: pins.open_pin,
        OpenId: open_id,
        Pin: pins.pin,
        Unpin: pins.unpin,
        Rename: pins.rename,
        MakeFolder: pins.make_folder,
        RemoveFolder: pins.remove_folder,
        ListPins: pins.list_pins,
        ListFolder: pins.list_folder,
        StampFolders: pins.stamp_folders,
        NextMapId: next_map_id,
        OpenProgramId: open_program_id,
        OpenProgramPin: pins.open_program_pin,
        NextProgramId: next_program_id,
        ProgramInfo: program.program_info,
        ListHolders: holders.list_holders,
        LoadBtf: load_btf,
        LoadTemplate: load_template,
        FreezeMap: freeze_map,
        GetBtf: get_btf,
    }
)
"""How each request is carried out."""
