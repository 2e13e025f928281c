"""The kernel's ABI: the home of bpf(2), of ctypes, and of file descriptors.

Owns the one seam between mapd and Linux (``Kernel``), what implements it, and what breaks it on
purpose. It knows bytes, fds and errnos; what they mean is ``mapd.maps``' business. Everything here
blocks. It imports the standard library, ``mapd_api.ops``, ``.layout`` and ``.uapi``, and must not import
asyncio, grpc, numpy or any other package of mapd: the privileged helper process imports it alone.
"""

from __future__ import annotations

from mapd.bpf.buffer import Buffer
from mapd.bpf.cpus import possible_cpus
from mapd.bpf.errnos import describe, errno_name
from mapd.bpf.faulty import Fault, FaultyKernel, Seen
from mapd.bpf.fd import FdLease, OwnedFd
from mapd.bpf.host import boot_id, effective_capabilities, is_bpffs
from mapd.bpf.kernel import (
    Batch,
    BatchCommand,
    Columns,
    ControlEnded,
    ControlRequest,
    CreateMap,
    Elements,
    FolderPins,
    FreezeMap,
    GetBtf,
    Kernel,
    LimitRefused,
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
    PinStamp,
    ProgramInfo,
    RawMapInfo,
    RawProgramInfo,
    RemoveFolder,
    Rename,
    StampFolders,
    SyscallError,
    Unpin,
)
from mapd.bpf.linux import LinuxKernel
from mapd.bpf.pins import PinNotFound
from mapd.bpf.program import (
    AttachType,
    ProgramRefused,
    ProgramType,
    counter_program,
    load_program,
    run_program,
)
from mapd.bpf.templates import Template

__all__ = [
    "AttachType",
    "Batch",
    "BatchCommand",
    "Buffer",
    "Columns",
    "ControlEnded",
    "ControlRequest",
    "CreateMap",
    "Elements",
    "Fault",
    "FaultyKernel",
    "FdLease",
    "FolderPins",
    "FreezeMap",
    "GetBtf",
    "Kernel",
    "LimitRefused",
    "LinuxKernel",
    "ListFolder",
    "ListHolders",
    "ListPins",
    "LoadBtf",
    "LoadTemplate",
    "MakeFolder",
    "MapHolder",
    "MapHolders",
    "NextMapId",
    "NextProgramId",
    "OpenId",
    "OpenPin",
    "OpenProgramId",
    "OpenProgramPin",
    "OwnedFd",
    "Pin",
    "PinNotFound",
    "PinPaths",
    "PinStamp",
    "ProgramInfo",
    "ProgramRefused",
    "ProgramType",
    "RawMapInfo",
    "RawProgramInfo",
    "RemoveFolder",
    "Rename",
    "Seen",
    "StampFolders",
    "SyscallError",
    "Template",
    "Unpin",
    "boot_id",
    "counter_program",
    "describe",
    "effective_capabilities",
    "errno_name",
    "is_bpffs",
    "load_program",
    "possible_cpus",
    "run_program",
]
