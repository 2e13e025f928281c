"""A kernel that is broken on purpose: wraps any ``Kernel`` and fails what the rules name.

For tests of what must hold when the kernel refuses, stalls or stops half way. It invents no
behaviour of its own: what no rule names goes to the kernel inside, unchanged.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

from mapd.bpf.abi import Command
from mapd.bpf.buffer import Buffer
from mapd.bpf.elements import BATCH_COMMANDS, COMMANDS
from mapd.bpf.fd import OwnedFd
from mapd.bpf.kernel import (
    Batch,
    BatchCommand,
    Columns,
    ControlRequest,
    CreateMap,
    FreezeMap,
    Kernel,
    R,
    RawMapInfo,
    SyscallError,
)
from mapd_api.ops import Op

T = TypeVar("T")

Target: TypeAlias = Command | type[ControlRequest[Any]]
"""What a rule aims at: a command of the elements half, or a request type of the control half."""

_NAMES: Final[Mapping[type, str]] = MappingProxyType(
    {CreateMap: Command.MAP_CREATE.uapi_name, FreezeMap: Command.MAP_FREEZE.uapi_name}
)
"""What the errors of requests that are one command name; others bear the request's own name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fault:
    """One rule. Its effects happen in this order: ``reached``, ``wait``, ``failpoint``, ``errno``.

    Attributes:
        target: the command or request type that it concerns.
        map_id: only calls on this map; None for any. Of the control half FreezeMap alone has one.
        nth: only the n-th such call since the rule was added, from 1; None for each. Elements of
            ``each`` count one by one, any other call once.
        after: the call is made first, and its effects come then: done, and yet reported as failed.
        reached: is set when the call has arrived here.
        wait: the call stands still until it is set.
        failpoint: is called, in the thread of the call. What it raises, the call raises.
        errno: the answer; 0 lets the call go on.
        done: batch commands only: no more than the first ``done`` elements are carried out.
        name: for whoever reads ``FaultyKernel.fired``.
    """

    target: Target
    map_id: int | None = None
    nth: int | None = None
    after: bool = False
    reached: threading.Event | None = None
    wait: threading.Event | None = None
    failpoint: Callable[[], None] | None = None
    errno: int = 0
    done: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One call that arrived: ``count`` elements for those that have columns, 1 otherwise."""

    target: Target
    map_id: int | None = None
    count: int = 1


class FaultyKernel:
    """``Kernel`` with rules. Safe to use from many threads; calls to the kernel inside are not serialised.

    Each call on a map asks the kernel inside for its id first, which makes it some 20 us slower.
    Of several rules that a call meets, the one added first has effect; all of them count the call.
    """

    def __init__(self, inner: Kernel, *faults: Fault) -> None:
        self._inner: Final = inner
        self._lock = threading.Lock()
        self._met: dict[Fault, int] = dict.fromkeys(faults, 0)
        self._seen: list[Seen] = []
        self._fired: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Put a rule after the others; it counts from now on."""
        with self._lock:
            self._met[fault] = 0

    def remove(self, fault: Fault) -> None:
        """Take a rule away. A call that waits in it goes on waiting. Again does nothing."""
        with self._lock:
            self._met.pop(fault, None)

    @property
    def seen(self) -> Sequence[Seen]:
        """The calls that arrived so far, in order: refused ones too."""
        with self._lock:
            return tuple(self._seen)

    @property
    def fired(self) -> Sequence[Fault]:
        """The rules that had effect so far, once per time."""
        with self._lock:
            return tuple(self._fired)

    def forget(self) -> None:
        """Empty ``seen`` and ``fired``; the rules go on counting."""
        with self._lock:
            self._seen.clear()
            self._fired.clear()

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        """See ``Kernel.control``. A map or BTF whose making is to fail ``after`` it was made is closed."""
        target = type(request)
        name = _NAMES.get(target, target.__name__)
        map_fd = fds[0] if target is FreezeMap else None
        return self._call(target, map_fd, name, lambda: self._inner.control(request, fds))

    def info(self, map_fd: int) -> RawMapInfo:
        """See ``Elements.info``."""
        return self._on_map(Command.OBJ_GET_INFO_BY_FD, map_fd, lambda: self._inner.info(map_fd))

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        """See ``Elements.next_key``."""
        return self._on_map(
            Command.MAP_GET_NEXT_KEY, map_fd, lambda: self._inner.next_key(map_fd, key, key_size)
        )

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        """See ``Elements.each``. Runs of elements without a fault go to the kernel inside in one call.

        A run that the kernel inside stops with EPERM has been counted as a whole.
        """
        map_id = self._record(COMMANDS[op], map_fd, columns.count)
        errnos: list[int] = []
        while (begin := len(errnos)) < columns.count:
            run, fault = self._claim(COMMANDS[op], map_id, columns.count - begin)
            if run:
                errnos += self._inner.each(map_fd, op, _part(columns, begin, run), flags)
                if len(errnos) < begin + run:
                    break
            if fault is not None:
                element = _part(columns, begin + run, 1)
                number = self._element(fault, map_fd, op, element, flags)
                errnos.append(number)
                if number == errno.EPERM:
                    break
        return errnos

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        """See ``Elements.lookup_batch``. With ``done``, the kernel inside is asked for that many."""
        return self._batch(
            Command.MAP_LOOKUP_BATCH,
            map_fd,
            columns,
            lambda part: self._inner.lookup_batch(map_fd, cursor, first, part, flags),
        )

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        """See ``Elements.batch``. With ``done``, the kernel inside is given that many."""
        return self._batch(
            BATCH_COMMANDS[command],
            map_fd,
            columns,
            lambda part: self._inner.batch(map_fd, command, part, flags),
        )

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        """See ``Elements.run``. A program is no map: rules that name one do not concern it."""
        command = Command.PROG_TEST_RUN
        return self._call(command, None, command.uapi_name, lambda: self._inner.run(prog_fd, ctx))

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        """See ``Elements.runner``. Rules concern each run, as in ``run``."""
        command, inner = Command.PROG_TEST_RUN, self._inner.runner(ctx, packet=packet)
        return lambda prog_fd: self._call(command, None, command.uapi_name, lambda: inner(prog_fd))

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        """See ``Elements.map_memory``. No rule concerns it."""
        return self._inner.map_memory(map_fd, size)

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        """See ``Elements.read_memory``. No rule concerns it."""
        return self._inner.read_memory(map_fd, offset, size)

    def _on_map(self, command: Command, map_fd: int, action: Callable[[], T]) -> T:
        return self._call(command, map_fd, command.uapi_name, action)

    def _call(self, target: Target, map_fd: int | None, name: str, action: Callable[[], T]) -> T:
        """One call that answers by value or by raising."""
        map_id = self._record(target, map_fd, 1)
        _, fault = self._claim(target, map_id, 1)
        if fault is None:
            return action()
        if not fault.after:
            _strike(fault)
            if fault.errno:
                raise SyscallError(fault.errno, name)
            return action()
        answer = action()
        _strike(fault)
        if fault.errno:
            if isinstance(answer, OwnedFd):
                answer.close()
            raise SyscallError(fault.errno, name)
        return answer

    def _element(self, fault: Fault, map_fd: int, op: Op, element: Columns, flags: int) -> int:
        number = self._inner.each(map_fd, op, element, flags)[0] if fault.after else 0
        _strike(fault)
        if fault.errno:
            return fault.errno
        return number if fault.after else self._inner.each(map_fd, op, element, flags)[0]

    def _batch(
        self, command: Command, map_fd: int, columns: Columns, action: Callable[[Columns], Batch]
    ) -> Batch:
        map_id = self._record(command, map_fd, columns.count)
        _, fault = self._claim(command, map_id, 1)
        if fault is None:
            return action(columns)
        part = columns if fault.done is None else _part(columns, 0, min(fault.done, columns.count))
        if fault.after:
            answer = action(part)
            _strike(fault)
        else:
            _strike(fault)
            if fault.errno and fault.done is None:
                return Batch(0, fault.errno)
            answer = action(part)
        return Batch(answer.count, answer.errno or fault.errno)

    def _record(self, target: Target, map_fd: int | None, count: int) -> int | None:
        """Write the call down; return the id of its map."""
        map_id: int | None = None
        if map_fd is not None:
            try:
                map_id = self._inner.info(map_fd).id
            except OSError:
                map_id = None  # not a map: the call itself will say so
        with self._lock:
            self._seen.append(Seen(target, map_id, count))
        return map_id

    def _claim(self, target: Target, map_id: int | None, count: int) -> tuple[int, Fault | None]:
        """How many of ``count`` calls pass before a rule has effect, and that rule.

        They are counted here, together, so that threads cannot both be the n-th.
        """
        with self._lock:
            mine = [fault for fault in self._met if fault.target == target and fault.map_id in (None, map_id)]
            passing, struck = count, None
            for fault in mine:
                distance = 0 if fault.nth is None else fault.nth - self._met[fault] - 1
                if 0 <= distance < passing:
                    passing, struck = distance, fault
            for fault in mine:
                self._met[fault] += passing + (struck is not None)
            if struck is not None:
                self._fired.append(struck)
        return passing, struck


def _strike(fault: Fault) -> None:
    if fault.reached is not None:
        fault.reached.set()
    if fault.wait is not None:
        fault.wait.wait()
    if fault.failpoint is not None:
        fault.failpoint()


def _part(columns: Columns, begin: int, count: int) -> Columns:
    return replace(
        columns,
        count=count,
        key_offset=columns.key_offset + begin * columns.key_stride,
        value_offset=columns.value_offset + begin * columns.value_stride,
    )
