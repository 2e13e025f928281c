"""What this kernel answers to each element operation on each map type: one errno a cell.

Every cell is one bpf(2) command on a fresh map (tests/support/samples.py), with key and value as the
type has them: inner maps, programs, the loopback device, CPU 0, sockets, a cgroup. What a host has not
(no cgroup v2, no AF_XDP) leaves its cells untried.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

from mapd.bpf import (
    Buffer,
    FreezeMap,
    LinuxKernel,
    OwnedFd,
    ProgramType,
    errno_name,
    load_program,
    possible_cpus,
)
from mapd.bpf.abi import BatchAttr, Command, ElementAttr, NextKeyAttr
from mapd.bpf.asm import Assembler, Reg
from mapd.bpf.syscall import attempt
from mapd.maps import creation
from mapd.maps.opened import OpenMap, facts
from mapd.maps.programs import Programs
from mapd.maps.spec import MapSpec
from mapd_api.layout import value_stride
from mapd_api.uapi import ElementFlag, MapFlag
from mapd_api.uapi import MapType as T
from tests.support.samples import TEMPLATE, sample

AF_XDP: Final = 44
SO_REUSEPORT: Final = 15
LO: Final = 1
QUEUE_SIZE: Final = 192
KERNEL: Final = LinuxKernel()

UNTRIED: Final = ""
OK: Final = "ok"

Answers: TypeAlias = dict[str, str]

WRITTEN_BY_PROGRAMS: Final = frozenset({T.STACK_TRACE, T.CGROUP_STORAGE, T.PERCPU_CGROUP_STORAGE})
"""Their elements cannot be made from user space, so what finds one is not tried."""


class Objects:
    """Kernel objects that values name; those that this host has not are None."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        template = creation.create(KERNEL, "inner", TEMPLATE, "inner")
        stack.callback(template.close)
        with template.lease() as number:
            info = KERNEL.info(number)
        self.template = OpenMap(
            fd=template, facts=facts(info, possible_cpus()), programs=Programs().enter(info.id, template)
        )
        self.inner = self._lease(template)
        self.program = self._lease(load_program(_nothing(), ProgramType.SOCKET_FILTER))
        self.tcp = self._socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.xdp: socket.socket | None = None
        with suppress(OSError):
            self.xdp = self._socket(AF_XDP, socket.SOCK_RAW)
        self.file = self._opened(Path(__file__))
        self.process = os.pidfd_open(os.getpid())
        stack.callback(os.close, self.process)
        self.cgroup: int | None = None
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, folder, kind, *_ = line.split()
            if kind == "cgroup2":
                self.cgroup = self._opened(Path(folder))
                break

    def _lease(self, owned: OwnedFd) -> int:
        self._stack.callback(owned.close)
        return self._stack.enter_context(owned.lease())

    def _socket(self, family: int, kind: int) -> socket.socket:
        return self._stack.enter_context(socket.socket(family, kind))

    def _in_group(self) -> int:
        """A socket that may be in a REUSEPORT_SOCKARRAY: a new one, for it can be in one map only."""
        made = self._socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", 0))
        return made.fileno()

    def _opened(self, path: Path) -> int:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, number)
        return number

    def element(self, kind: T, spec: MapSpec) -> tuple[bytes, bytes, bool]:
        """A key, a value, and whether this type takes them: not where this host has no such object."""
        number: int | None
        match kind:
            case T.HASH_OF_MAPS | T.ARRAY_OF_MAPS:
                number = self.inner
            case T.PROG_ARRAY:
                number = self.program
            case T.PERF_EVENT_ARRAY:
                number = None
            case T.CGROUP_ARRAY:
                number = self.cgroup
            case T.DEVMAP | T.DEVMAP_HASH:
                number = LO
            case T.CPUMAP:
                number = QUEUE_SIZE
            case T.XSKMAP:
                number = None if self.xdp is None else self.xdp.fileno()
            case T.SOCKMAP | T.SOCKHASH:
                number = self.tcp.fileno()
            case T.REUSEPORT_SOCKARRAY:
                number = self._in_group()
            case _:
                number = 1
        stride = value_stride(kind, spec.value_size, possible_cpus())
        owner = self._owner(kind)
        key = (owner or 0).to_bytes(max(spec.key_size, 8), "little")[: spec.key_size]
        if kind is T.LPM_TRIE:
            key = struct.pack("<I", 8) + bytes([10, 0, 0, 0])
        value = (number or 0).to_bytes(max(stride, 8), "little")[:stride]
        return key, value, number is not None and owner is not None

    def _owner(self, kind: T) -> int | None:
        """The key: a descriptor of its owner where the type's elements have owners."""
        return {
            T.SK_STORAGE: self.tcp.fileno(),
            T.INODE_STORAGE: self.file,
            T.TASK_STORAGE: self.process,
            T.CGRP_STORAGE: self.cgroup,
        }.get(kind, 0)


def _nothing() -> bytes:
    asm = Assembler()
    asm.mov(Reg.R0, 0)
    asm.exit()
    return asm.assemble()


@dataclass(frozen=True, slots=True)
class Trial:
    """A fresh map, and an element for it; ``complete``: one that can be put into it here."""

    fd: int
    kind: T
    key: bytes
    value: bytes
    complete: bool

    def one(self, command: Command, *, flags: int = 0) -> int:
        """The errno of an element command."""
        keys, values = Buffer.of(self.key), self._values()
        attr = ElementAttr(map_fd=self.fd, key=keys.address, value=values.address, flags=flags)
        if command is Command.MAP_DELETE_ELEM:
            attr.value = 0  # it refuses a value
        return max(0, -attempt(command, attr))

    def next_key(self) -> int:
        """Of the first key."""
        found = Buffer.allocate(max(8, len(self.key)))
        return max(0, -attempt(Command.MAP_GET_NEXT_KEY, NextKeyAttr(map_fd=self.fd, next_key=found.address)))

    def batch(self, command: Command) -> int:
        """Of a batch of one element; what reads begins at the beginning."""
        keys, values, cursor = Buffer.allocate(4 * max(8, len(self.key))), self._values(), Buffer.allocate(8)
        keys.view[: len(self.key)] = self.key
        attr = BatchAttr(map_fd=self.fd, keys=keys.address, values=values.address, count=1)
        if command in (Command.MAP_LOOKUP_BATCH, Command.MAP_LOOKUP_AND_DELETE_BATCH):
            attr.out_batch = cursor.address
            attr.count = 4
        number = max(0, -attempt(command, attr))
        reads = attr.out_batch != 0
        return 0 if number == errno.ENOENT and reads and attr.count else number

    def _values(self) -> Buffer:
        values = Buffer.allocate(4 * max(8, len(self.value)))
        values.view[: len(self.value)] = self.value
        return values

    def mapped(self, protection: int) -> int:
        """Of a shared mapping of its first page."""
        try:
            mmap.mmap(self.fd, mmap.PAGESIZE, mmap.MAP_SHARED, protection).close()
        except OSError as error:
            return error.errno or 0
        return 0

    def freeze(self) -> int:
        """Of BPF_MAP_FREEZE."""
        try:
            KERNEL.control(FreezeMap(), [self.fd])
        except OSError as error:
            return error.errno or 0
        return 0


LOOKUP, UPDATE, DELETE = Command.MAP_LOOKUP_ELEM, Command.MAP_UPDATE_ELEM, Command.MAP_DELETE_ELEM
TAKE: Final = Command.MAP_LOOKUP_AND_DELETE_ELEM
NOEXIST, EXIST = ElementFlag.NOEXIST, ElementFlag.EXIST


class On(Enum):
    """The map that a cell is tried on."""

    EMPTY = "empty"
    HIT = "has the element"
    EITHER = "has the element if it can be put there"


@dataclass(frozen=True, slots=True)
class Cell:
    """One column: ``run`` on such a map; ``value``: what it writes must be what the type takes."""

    name: str
    on: On
    run: Callable[[Trial], int]
    value: bool = False


def _one(command: Command, flags: int = 0) -> Callable[[Trial], int]:
    return lambda trial: trial.one(command, flags=flags)


def _batch(command: Command) -> Callable[[Trial], int]:
    return lambda trial: trial.batch(command)


def _frozen(command: Command) -> Callable[[Trial], int]:
    def run(trial: Trial) -> int:
        trial.freeze()
        return trial.one(command)

    return run


CELLS: Final[Sequence[Cell]] = (
    Cell("lookup", On.HIT, _one(LOOKUP)),
    Cell("lookup, absent", On.EMPTY, _one(LOOKUP)),
    Cell("update", On.EMPTY, _one(UPDATE), value=True),
    Cell("update, present", On.HIT, _one(UPDATE), value=True),
    Cell("NOEXIST", On.EMPTY, _one(UPDATE, NOEXIST), value=True),
    Cell("NOEXIST, present", On.HIT, _one(UPDATE, NOEXIST), value=True),
    Cell("EXIST", On.HIT, _one(UPDATE, EXIST), value=True),
    Cell("EXIST, absent", On.EMPTY, _one(UPDATE, EXIST), value=True),
    Cell("delete", On.HIT, _one(DELETE)),
    Cell("delete, absent", On.EMPTY, _one(DELETE)),
    Cell("lookup_and_delete", On.HIT, _one(TAKE)),
    Cell("lookup_and_delete, absent", On.EMPTY, _one(TAKE)),
    Cell("next_key", On.EITHER, Trial.next_key),
    Cell("LOOKUP_BATCH", On.EITHER, _batch(Command.MAP_LOOKUP_BATCH)),
    Cell("LOOKUP_AND_DELETE_BATCH", On.EITHER, _batch(Command.MAP_LOOKUP_AND_DELETE_BATCH)),
    Cell("UPDATE_BATCH", On.EMPTY, _batch(Command.MAP_UPDATE_BATCH), value=True),
    Cell("DELETE_BATCH", On.EITHER, _batch(Command.MAP_DELETE_BATCH)),
    Cell("freeze", On.EMPTY, Trial.freeze),
    Cell("update, frozen", On.EMPTY, _frozen(UPDATE)),
    Cell("delete, frozen", On.EITHER, _frozen(DELETE)),
    Cell("mmap", On.EMPTY, lambda trial: trial.mapped(mmap.PROT_READ | mmap.PROT_WRITE)),
)
"""In a map without keys the key is NULL: an update is a push or an add, lookup_and_delete a pop."""


def fresh(kind: T, objects: Objects) -> Generator[Trial]:
    """A new map of the type, again and again."""
    spec = sample(kind)
    if kind is T.ARRAY:
        spec = replace(spec, flags=spec.flags | MapFlag.MMAPABLE)
    template = objects.template if spec.inner else None
    while True:
        with creation.create(KERNEL, "trial", spec, "trial", template) as owned, owned.lease() as number:
            yield Trial(number, kind, *objects.element(kind, spec))


def answer(cell: Cell, trial: Trial) -> str:
    """The cell's text: "ok", an errno's name, or "" where it was not tried."""
    can_be_put = trial.complete and trial.kind not in WRITTEN_BY_PROGRAMS
    if (cell.on is On.HIT and not can_be_put) or (cell.value and not trial.complete):
        return UNTRIED
    if cell.on is not On.EMPTY and can_be_put:
        trial.one(UPDATE)  # where there are no elements, or all of them, it answers what it answers
    number = cell.run(trial)
    return errno_name(number) if number else OK


def matrix(kinds: Sequence[T]) -> Mapping[T, Answers]:
    """What this kernel answers, by type and column."""
    found: dict[T, Answers] = {}
    with ExitStack() as stack:
        objects = Objects(stack)
        for kind in kinds:
            with closing(fresh(kind, objects)) as maps:
                found[kind] = {cell.name: answer(cell, next(maps)) for cell in CELLS}
    return found
