"""The probes of ``sitecustomize``: each says "ok" or the errno's name. Raw syscalls: nobody's checks stand between."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mapd.bpf import abi
from mapd.bpf.abi import Command
from mapd.bpf.asm import Assembler, Reg
from mapd.bpf.buffer import Buffer
from mapd.bpf.syscall import attempt
from mapd_api.uapi import MapType


def run(asked: dict[str, Any]) -> dict[str, str]:
    """``asked``: bpffs, pin (of a map that the front holds), map_id, opener (its pid, or 0)."""
    held = held_map(int(asked["map_id"]))
    free = f"{asked['bpffs']}/probe_pin"
    told = {
        "lookup": bpf(Command.MAP_LOOKUP_ELEM, lookup(held)),
        "map_create": bpf(Command.MAP_CREATE, an_array()),
        "btf_load": bpf(Command.BTF_LOAD, abi.BtfLoadAttr(), accept=errno.EINVAL),
        "prog_load": bpf(Command.PROG_LOAD, program()),
        "obj_get": bpf(Command.OBJ_GET, named(asked["pin"])),
        "obj_pin": bpf(Command.OBJ_PIN, named(free, held)),
        "map_get_next_id": bpf(Command.MAP_GET_NEXT_ID, abi.IdAttr()),
        "map_get_fd_by_id": bpf(Command.MAP_GET_FD_BY_ID, abi.IdAttr(id=int(asked["map_id"]))),
        "prog_get_next_id": bpf(Command.PROG_GET_NEXT_ID, abi.IdAttr(), accept=errno.ENOENT),
        "prog_get_fd_by_id": bpf(Command.PROG_GET_FD_BY_ID, abi.IdAttr(id=1 << 30), accept=errno.ENOENT),
        "btf_get_fd_by_id": bpf(Command.BTF_GET_FD_BY_ID, abi.IdAttr(id=1), accept=errno.ENOENT),
        "btf_get_next_id": bpf_number(23, abi.IdAttr(), accept=errno.ENOENT),
        "link_get_fd_by_id": bpf_number(30, abi.IdAttr(id=1 << 30), accept=errno.ENOENT),
        "freeze": bpf(Command.MAP_FREEZE, abi.NextKeyAttr(map_fd=held)),
        "mkdir in bpffs": system(lambda: Path(asked["bpffs"], "probe_folder").mkdir()),
        "unlink a pin": system(lambda: Path(asked["pin"]).unlink()),
        "read /": system(lambda: list(Path("/").iterdir())),
        "write /tmp": system(lambda: Path(f"/tmp/mapd-probe-{os.getpid()}").touch()),
        "run a program": system(spawn),
        "fork": system(fork),
        "signal another": system(lambda: os.kill(os.getppid(), 0)),
        "inet socket": system(lambda: socket.socket().close()),
        "become another": system(lambda: os.setresuid(-1, -1, -1)),
        "dumps again": system(dumpable),
    }
    if asked["opener"]:
        told["opener's memory"] = system(lambda: Path(f"/proc/{asked['opener']}/mem").open("rb").close())
        told["signal the opener"] = system(lambda: os.kill(int(asked["opener"]), signal.SIGKILL))
    return told


def bpf(command: Command, attr: ctypes.Structure, *, accept: int = 0) -> str:
    return bpf_number(int(command), attr, accept=accept)


def bpf_number(command: int, attr: ctypes.Structure, *, accept: int = 0) -> str:
    """``accept``: an errno that comes after the kernel's check of rights."""
    result = attempt(command, attr)  # type: ignore[arg-type]
    if result == -accept or result >= 0:
        return "ok"
    return errno.errorcode[-result]


def system(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def held_map(map_id: int) -> int:
    """A descriptor of the front's own, as an intruder finds it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers
        path = Path(f"/proc/self/fdinfo/{name}")
        if path.exists() and f"map_id:\t{map_id}\n" in path.read_text():
            return int(name)
    raise LookupError(map_id)


KEPT: list[Buffer] = []


def kept(raw: bytes) -> Buffer:
    KEPT.append(Buffer.of(raw))
    return KEPT[-1]


def lookup(map_fd: int) -> ctypes.Structure:
    return abi.ElementAttr(
        map_fd=map_fd, key=kept((1).to_bytes(4, "little")).address, value=kept(bytes(8)).address
    )


def an_array() -> ctypes.Structure:
    return abi.MapCreateAttr(map_type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)


def named(path: str, fd: int = 0) -> ctypes.Structure:
    return abi.ObjectAttr(pathname=kept(path.encode() + b"\0").address, bpf_fd=fd)


def program() -> ctypes.Structure:
    asm = Assembler()
    asm.mov(Reg.R0, 0)
    asm.exit()
    code = asm.assemble()
    return abi.ProgLoadAttr(
        prog_type=1,
        insn_cnt=len(code) // 8,
        insns=kept(bytes(code)).address,
        license=kept(b"Dual BSD/GPL\0").address,
    )


def spawn() -> None:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)


def fork() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)


def dumpable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(4, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
