"""BPF programs: loading them, running them, and a small one that writes a map."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final

from mapd.bpf import abi
from mapd.bpf.abi import Command
from mapd.bpf.asm import Alu, Assembler, Atomic, Helper, Jump, Reg, Size
from mapd.bpf.buffer import Buffer
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import ProgramInfo, RawProgramInfo, SyscallError
from mapd.bpf.syscall import attempt, bpf, last_errno, prepare
from mapd_api.layout import round_up8
from mapd_api.uapi import ElementFlag

LICENSE: Final = "Dual BSD/GPL"
"""What the kernel is told: some helpers are for GPL-compatible programs only."""

LOG_BYTES: Final = 1 << 20
STACK_BYTES: Final = 512
"""A program's stack (include/linux/filter.h, MAX_BPF_STACK)."""

ETHERNET_BYTES: Final = 14
"""What PROG_RUN takes off a packet before the program sees it (net/bpf/test_run.c, eth_type_trans())."""

_NAMES: Final = b"\0int\0main\0callback\0"
_TYPES: Final = b"".join(
    struct.pack("=" + "I" * len(words), *words)
    for words in (
        (1, 1 << 24, 4, 1 << 24 | 32),  # 1: int, signed
        (0, 13 << 24, 1),  # 2: a function that answers an int
        (5, 12 << 24 | 1, 2),  # 3: main, global
        (10, 12 << 24, 2),  # 4: callback, static
    )
)
FUNCTIONS_BTF: Final = (
    struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_NAMES)) + _TYPES + _NAMES
)
"""Types of a program's functions: the verifier calls no callback of which it has none (Documentation/bpf/btf.rst)."""

_MAIN: Final = 3
_CALLBACK: Final = 4
_FUNCTION_INFO: Final = struct.Struct("=II")
"""struct bpf_func_info: where a function begins, in slots, and its type."""


class ProgramType(IntEnum):
    """enum bpf_prog_type, those that mapd and its tests load.

    CAP_BPF suffices for all but XDP (CAP_NET_ADMIN) and RAW_TRACEPOINT (CAP_PERFMON).
    """

    SOCKET_FILTER = 1
    XDP = 6
    RAW_TRACEPOINT = 17
    SYSCALL = 31


class AttachType(IntEnum):
    """enum bpf_attach_type, those that maps of programs ask for."""

    NONE = 0
    XDP_DEVMAP = 33
    XDP_CPUMAP = 35


class ProgramRefused(SyscallError):
    """BPF_PROG_LOAD failed.

    Attributes:
        log: what the verifier said; empty if it did not come to that (EPERM).
    """

    def __init__(self, errno: int, log: str) -> None:
        super().__init__(errno, Command.PROG_LOAD.uapi_name)
        self.log = log
        last = log.strip().splitlines()[-4:]
        self.strerror = "\n".join([self.strerror or "", *last])


def load_program(
    code: bytes,
    kind: ProgramType,
    kernel_name: str = "",
    *,
    attach: AttachType = AttachType.NONE,
    callbacks: Sequence[int] = (),
) -> OwnedFd:
    """Load a program (BPF_PROG_LOAD). Takes from 0.06 to some ms: the verifier runs.

    Args:
        code: instructions of 8 bytes.
        kind: its type; SYSCALL programs are loaded as sleepable, the kernel takes no others.
        kernel_name: at most 15 characters.
        attach: expected_attach_type, which decides what an XDP program may be put into.
        callbacks: where functions that helpers call begin, in slots (``Assembler.callbacks``).

    The verifier's log is asked for only after a failure: writing it makes loading slower.

    Raises:
        ProgramRefused: any errno, with the log; EPERM without CAP_BPF.
        SyscallError: with callbacks, this kernel takes no BTF.

    Source: kernel/bpf/syscall.c, bpf_prog_load(). Linux 3.18; SYSCALL 5.14; callbacks 5.13.
    """
    instructions, license_text = Buffer.of(code), Buffer.of(LICENSE.encode() + b"\0")
    attr = abi.ProgLoadAttr(
        prog_type=kind,
        insn_cnt=len(code) // 8,
        insns=instructions.address,
        license=license_text.address,
        prog_flags=abi.F_SLEEPABLE if kind is ProgramType.SYSCALL else 0,
        prog_name=kernel_name.encode()[:16],
        expected_attach_type=attach,
    )
    if not callbacks:
        return _load(attr)
    records = [(0, _MAIN), *((at, _CALLBACK) for at in callbacks)]
    table = Buffer.of(b"".join(_FUNCTION_INFO.pack(*record) for record in records))
    attr.func_info, attr.func_info_cnt, attr.func_info_rec_size = (
        table.address,
        len(records),
        _FUNCTION_INFO.size,
    )
    blob = Buffer.of(FUNCTIONS_BTF)
    btf = OwnedFd(bpf(Command.BTF_LOAD, abi.BtfLoadAttr(btf=blob.address, btf_size=blob.size)))
    with btf, btf.lease() as btf_fd:
        attr.prog_btf_fd = btf_fd
        return _load(attr)


def _load(attr: abi.ProgLoadAttr) -> OwnedFd:
    prog_fd = attempt(Command.PROG_LOAD, attr)
    if prog_fd < 0:
        log = Buffer.allocate(LOG_BYTES)
        attr.log_buf, attr.log_size, attr.log_level = log.address, log.size, 1
        prog_fd = attempt(Command.PROG_LOAD, attr)
        if prog_fd < 0:
            text = bytes(log.view).partition(b"\0")[0].decode("utf-8", "replace")
            raise ProgramRefused(-prog_fd, text)
    return OwnedFd(prog_fd)


def program_info(request: ProgramInfo, fds: Sequence[int]) -> RawProgramInfo:
    """See ``ProgramInfo``. About 5 us.

    A program's maps do not change while it lives; asked twice, first for how many there are.

    Raises:
        SyscallError: EINVAL, the fd is of no BPF object. A map's is taken for a program's: who opened it knows.

    Source: kernel/bpf/syscall.c, bpf_prog_get_info_by_fd(). Linux 4.13; map ids 4.15.
    """
    del request
    if len(fds) != 1:
        raise ValueError(f"{len(fds)} file descriptors where the request takes 1")
    info = abi.ProgInfo()
    attr = abi.InfoAttr(bpf_fd=fds[0], info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
    bpf(Command.OBJ_GET_INFO_BY_FD, attr)
    count: int = info.nr_map_ids
    room = (abi.u32 * count)()
    if count:
        info = abi.ProgInfo(nr_map_ids=count, map_ids=ctypes.addressof(room))
        attr = abi.InfoAttr(bpf_fd=fds[0], info_len=ctypes.sizeof(info), info=ctypes.addressof(info))
        bpf(Command.OBJ_GET_INFO_BY_FD, attr)
    name: bytes = info.name
    return RawProgramInfo(info.type, info.id, name.decode("ascii", "replace"), tuple(room[: info.nr_map_ids]))


def run_program(prog_fd: int, ctx: Buffer) -> int:
    """Run a SYSCALL program once (BPF_PROG_TEST_RUN); its R0. Who holds the fd needs no rights.

    Args:
        prog_fd: as ``load_program`` gave it.
        ctx: what the program gets in R1, 1 to 65,535 bytes; the kernel writes it back.

    Raises:
        SyscallError: EINVAL, ``ctx`` is shorter than what the program reads.

    Source: net/bpf/test_run.c, bpf_prog_test_run_syscall(). Linux 5.14.
    """
    attr = abi.ProgRunAttr(prog_fd=prog_fd, ctx_size_in=ctx.size, ctx_in=ctx.address)
    bpf(Command.PROG_TEST_RUN, attr)
    result: int = attr.retval
    return result


def program_runner(ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
    """As ``run_program``, made ready once for many runs with this context; not for two threads at once.

    Args:
        ctx: what programs get in R1, or, for ``packet``, the packet that SOCKET_FILTER programs see: behind an
            Ethernet header, which is zeros.
    """
    attr = abi.ProgRunAttr(ctx_size_in=ctx.size, ctx_in=ctx.address)
    frame = Buffer.allocate(ETHERNET_BYTES + ctx.size)
    if packet:
        frame.view[ETHERNET_BYTES:] = ctx.view
        attr = abi.ProgRunAttr(data_size_in=frame.size, data_in=frame.address)
    call = prepare(Command.PROG_TEST_RUN, attr)
    words = memoryview(attr).cast("B").cast("I")  # an assignment here costs half of one to a field

    def run(prog_fd: int) -> int:
        _ = ctx, frame  # what the kernel is told the addresses of lives as long as this
        words[0] = prog_fd
        if call() < 0:
            raise SyscallError(last_errno(), Command.PROG_TEST_RUN.uapi_name)
        return words[1]

    return run


def counter_program(map_fd: int, key_size: int, value_size: int) -> bytes:
    """A SYSCALL program that adds 1 to the counter of the key that stands in its context.

    The counter is the first 8 bytes of a value, added to atomically; an absent key is created with
    1, the rest of its value zero. R0 is 0 where it counted, 1 where it could not (map full, index too
    large). For HASH, LRU_HASH, ARRAY and, on the running CPU's slot, their per-CPU forms.

    Args:
        map_fd: the map that the program will hold.
        key_size: bytes; the context is the key, padded with anything to a multiple of 8.
        value_size: bytes, at least 8.

    Raises:
        ValueError: the value cannot hold a counter, or key and value exceed the stack.
    """
    key_room, value_room = round_up8(key_size), round_up8(value_size)
    if value_size < 8 or key_size < 1 or key_room + value_room > STACK_BYTES:
        raise ValueError(f"no counter in key_size={key_size} value_size={value_size}")
    key, value = -key_room, -key_room - value_room
    asm = Assembler()
    # A context is no memory that helpers take a key from, the stack is.
    for offset in range(0, key_room, 8):
        asm.load(Size.DW, Reg.R2, Reg.R1, offset)
        asm.store(Size.DW, Reg.R10, key + offset, Reg.R2)
    _map_and_key(asm, map_fd, key)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.jump_if(Jump.NE, Reg.R0, 0, "add")

    for offset in range(0, value_room, 8):
        asm.store(Size.DW, Reg.R10, value + offset, 1 if offset == 0 else 0)
    _map_and_key(asm, map_fd, key)
    asm.mov(Reg.R3, Reg.R10)
    asm.alu(Alu.ADD, Reg.R3, value)
    asm.mov(Reg.R4, ElementFlag.NOEXIST)
    asm.call(Helper.MAP_UPDATE_ELEM)
    asm.jump_if(Jump.EQ, Reg.R0, 0, "end")

    # Refused: somebody else created it meanwhile (EEXIST), so look again; or there is no room.
    _map_and_key(asm, map_fd, key)
    asm.call(Helper.MAP_LOOKUP_ELEM)
    asm.jump_if(Jump.NE, Reg.R0, 0, "add")
    asm.mov(Reg.R0, 1)
    asm.jump("end")

    asm.label("add")
    asm.mov(Reg.R1, 1)
    asm.atomic(Atomic.ADD, Size.DW, Reg.R0, 0, Reg.R1)
    asm.mov(Reg.R0, 0)
    asm.label("end")
    asm.exit()
    return asm.assemble()


def _map_and_key(asm: Assembler, map_fd: int, key: int) -> None:
    asm.map_pointer(Reg.R1, map_fd)
    asm.mov(Reg.R2, Reg.R10)
    asm.alu(Alu.ADD, Reg.R2, key)
