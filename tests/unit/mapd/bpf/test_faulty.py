from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from typing import Final, cast

import pytest

from mapd.bpf import (
    Batch,
    BatchCommand,
    Buffer,
    Columns,
    ControlRequest,
    CreateMap,
    Fault,
    FaultyKernel,
    FreezeMap,
    Kernel,
    NextMapId,
    RawMapInfo,
    Seen,
    SyscallError,
)
from mapd.bpf.abi import Command
from mapd.bpf.kernel import R
from mapd_api.ops import Op

UPDATE: Final = Command.MAP_UPDATE_ELEM
FROZEN: Final = 99


class Recorder:
    """A kernel that does nothing and writes down what it was asked. A map's id is its fd.

    Map 99 refuses each element.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []

    def control(self, request: ControlRequest[R], fds: Sequence[int] = ()) -> R:
        self.calls.append((type(request).__name__, list(fds)))
        if isinstance(request, FreezeMap):
            return cast("R", None)
        raise SyscallError(errno.ENOSYS, "recorder")

    def info(self, map_fd: int) -> RawMapInfo:
        return RawMapInfo(1, map_fd, 1, 1, 9, 0, "", 0, 0, 0, 0, False, 0)

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        del flags
        if map_fd == FROZEN:
            return [errno.EPERM]
        self.calls.append((op.name, keys_of(columns)))
        return [0] * columns.count

    def next_key(self, map_fd: int, key: bytes | None, key_size: int) -> bytes | None:
        self.calls.append(("next_key", [map_fd, key_size]))
        return key

    def lookup_batch(
        self, map_fd: int, cursor: Buffer, first: bool, columns: Columns, flags: int = 0
    ) -> Batch:
        del map_fd, cursor, first, flags
        self.calls.append(("lookup_batch", [columns.count]))
        return Batch(columns.count, 0)

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        del map_fd, flags
        self.calls.append((command.name, keys_of(columns)))
        return Batch(columns.count, 0)

    def run(self, prog_fd: int, ctx: Buffer) -> int:
        self.calls.append(("run", [prog_fd, ctx.size]))
        return 0

    def runner(self, ctx: Buffer, *, packet: bool = False) -> Callable[[int], int]:
        self.calls.append(("runner", [ctx.size, packet]))
        return lambda prog_fd: self.run(prog_fd, ctx)

    def map_memory(self, map_fd: int, size: int) -> Buffer:
        self.calls.append(("map_memory", [map_fd, size]))
        return Buffer.allocate(size)

    def read_memory(self, map_fd: int, offset: int, size: int) -> memoryview:
        self.calls.append(("read_memory", [map_fd, offset, size]))
        return memoryview(bytes(size))


def keys_of(columns: Columns) -> list[int]:
    return [columns.keys.view[columns.key_offset + i * columns.key_stride] for i in range(columns.count)]


def five() -> Columns:
    return Columns(5, Buffer.of(bytes(range(5))), 1, Buffer.allocate(5), 1)


def test_without_rules_calls_pass_and_are_seen() -> None:
    recorder = Recorder()
    kernel: Kernel = (faulty := FaultyKernel(recorder))
    assert kernel.each(7, Op.UPDATE, five()) == [0] * 5
    kernel.control(FreezeMap(), [7])
    assert kernel.next_key(7, b"k", 1) == b"k"
    assert recorder.calls == [("UPDATE", [0, 1, 2, 3, 4]), ("FreezeMap", [7]), ("next_key", [7, 1])]
    assert faulty.seen == (
        Seen(UPDATE, 7, 5),
        Seen(FreezeMap, 7),
        Seen(Command.MAP_GET_NEXT_KEY, 7),
    )
    assert faulty.fired == ()


def test_nothing_seen_where_nothing_was_called() -> None:
    faulty = FaultyKernel(Recorder())
    faulty.control(FreezeMap(), [7])
    faulty.forget()
    assert faulty.seen == ()


def test_the_third_element_fails_and_the_others_are_done() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=UPDATE, nth=3, errno=errno.E2BIG))
    assert kernel.each(7, Op.UPDATE, five()) == [0, 0, errno.E2BIG, 0, 0]
    assert recorder.calls == [("UPDATE", [0, 1]), ("UPDATE", [3, 4])]


def test_elements_are_counted_over_calls() -> None:
    kernel = FaultyKernel(Recorder(), Fault(target=UPDATE, nth=7, errno=errno.E2BIG))
    assert kernel.each(7, Op.UPDATE, five()) == [0] * 5
    assert kernel.each(7, Op.UPDATE_EXIST, five()) == [0, errno.E2BIG, 0, 0, 0]
    assert kernel.each(7, Op.LOOKUP, five()) == [0] * 5


def test_a_rule_without_number_fails_each_element() -> None:
    kernel = FaultyKernel(Recorder(), Fault(target=UPDATE, errno=errno.ENOMEM))
    assert kernel.each(7, Op.UPDATE, five()) == [errno.ENOMEM] * 5


def test_each_stops_after_eperm_of_a_rule() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=UPDATE, nth=2, errno=errno.EPERM))
    assert kernel.each(7, Op.UPDATE, five()) == [0, errno.EPERM]
    assert recorder.calls == [("UPDATE", [0])]


def test_each_stops_after_eperm_of_the_kernel_inside() -> None:
    kernel = FaultyKernel(Recorder(), Fault(target=UPDATE, nth=4, errno=errno.E2BIG))
    assert kernel.each(FROZEN, Op.UPDATE, five()) == [errno.EPERM]


def test_a_fault_after_the_call_leaves_it_done() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=UPDATE, nth=2, errno=errno.EIO, after=True))
    assert kernel.each(7, Op.UPDATE, five()) == [0, errno.EIO, 0, 0, 0]
    assert [key for _, keys in recorder.calls for key in keys] == [0, 1, 2, 3, 4]


def test_a_rule_for_one_map_spares_the_others() -> None:
    kernel = FaultyKernel(Recorder(), Fault(target=FreezeMap, map_id=8, errno=errno.EBUSY))
    kernel.control(FreezeMap(), [7])
    with pytest.raises(SyscallError, match="BPF_MAP_FREEZE: EBUSY"):
        kernel.control(FreezeMap(), [8])


def test_a_control_request_fails_by_its_type_once() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=CreateMap, nth=1, errno=errno.ENOMEM))
    request = CreateMap(map_type=1, key_size=1, value_size=1, max_entries=1)
    with pytest.raises(SyscallError, match="ENOMEM"):
        kernel.control(request)
    assert recorder.calls == []
    with pytest.raises(SyscallError, match="ENOSYS"):
        kernel.control(request)
    with pytest.raises(SyscallError, match="ENOSYS"):
        kernel.control(NextMapId(map_id=0))
    assert [seen.target for seen in kernel.seen] == [CreateMap, CreateMap, NextMapId]


def test_a_short_batch_does_its_first_elements() -> None:
    recorder = Recorder()
    fault = Fault(target=Command.MAP_UPDATE_BATCH, errno=errno.E2BIG, done=2)
    kernel = FaultyKernel(recorder, fault)
    assert kernel.batch(7, BatchCommand.UPDATE, five()) == Batch(2, errno.E2BIG)
    assert kernel.batch(7, BatchCommand.DELETE, five()) == Batch(5, 0)
    assert recorder.calls == [("UPDATE", [0, 1]), ("DELETE", [0, 1, 2, 3, 4])]
    assert kernel.fired == (fault,)


def test_a_failed_batch_does_nothing() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=Command.MAP_LOOKUP_BATCH, errno=errno.ENOSPC))
    assert kernel.lookup_batch(7, Buffer.allocate(4), True, five()) == Batch(0, errno.ENOSPC)
    assert recorder.calls == []


def test_a_failpoint_may_raise_and_a_removed_rule_does_not() -> None:
    class Crash(Exception):
        pass

    def crash() -> None:
        raise Crash

    fault = Fault(target=FreezeMap, failpoint=crash, name="crash before freeze")
    kernel = FaultyKernel(Recorder())
    kernel.add(fault)
    with pytest.raises(Crash):
        kernel.control(FreezeMap(), [7])
    kernel.remove(fault)
    kernel.control(FreezeMap(), [7])
    assert [fired.name for fired in kernel.fired] == ["crash before freeze"]


def test_a_call_waits_until_it_is_let_go() -> None:
    recorder = Recorder()
    reached, let_go = threading.Event(), threading.Event()
    kernel = FaultyKernel(recorder, Fault(target=UPDATE, nth=2, reached=reached, wait=let_go))
    answers: list[list[int]] = []
    thread = threading.Thread(target=lambda: answers.append(kernel.each(7, Op.UPDATE, five())))
    thread.start()
    assert reached.wait(10)
    assert recorder.calls == [("UPDATE", [0])]
    kernel.control(FreezeMap(), [7])  # other calls are not held up
    let_go.set()
    thread.join()
    assert answers == [[0] * 5]


def test_threads_share_one_count() -> None:
    kernel = FaultyKernel(Recorder(), Fault(target=UPDATE, nth=500, errno=errno.EIO))
    failed: list[int] = []

    def work() -> None:
        for _ in range(50):
            failed.extend(number for number in kernel.each(7, Op.UPDATE, five()) if number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [errno.EIO]


def test_each_run_of_a_prepared_one_meets_the_rules() -> None:
    recorder = Recorder()
    kernel = FaultyKernel(recorder, Fault(target=Command.PROG_TEST_RUN, nth=2, errno=errno.ENOMEM))
    run = kernel.runner(Buffer.allocate(8))
    assert run(7) == 0
    with pytest.raises(SyscallError, match="ENOMEM"):
        run(7)
    assert run(9) == 0
    assert recorder.calls == [("runner", [8, False]), ("run", [7, 8]), ("run", [9, 8])]
