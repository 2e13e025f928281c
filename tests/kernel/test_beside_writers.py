"""One CPU's slot and exact prefixes while others write the same map, each with the way that would go wrong."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from mapd.bpf import Buffer, OwnedFd, ProgramType, counter_program, load_program, possible_cpus, run_program
from mapd.maps.execute import execute
from mapd.maps.groups import Group, plan
from mapd.maps.opened import OpenMap, facts
from mapd.maps.programs import Programs
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL, Maps, TestMap

RUNS = 20_000


@pytest.fixture
def cpus() -> tuple[int, int]:
    """One to count on, one to write from."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU: nothing is written during a write")
    return usable[0], usable[1]


@contextmanager
def opening(made: TestMap) -> Generator[tuple[OpenMap, Callable[[Group], list[int]]]]:
    """The map as mapd opens it, and what runs a group on it: its statuses."""
    fd, info = OwnedFd(os.dup(made.fd)), KERNEL.info(made.fd)
    programs = Programs().enter(info.id, fd)
    opened = OpenMap(fd=fd, facts=facts(info, possible_cpus()), programs=programs)

    def run(group: Group) -> list[int]:
        with opened.lease() as map_fd:
            return list(execute(KERNEL, map_fd, opened, plan(group, opened)).statuses)

    try:
        yield opened, run
    finally:
        opened.fd.close()


@contextmanager
def busy(cpu: int, work: Callable[[], bool]) -> Generator[threading.Thread]:
    """``work`` over and over on one CPU, until it says that it is done or the block ends."""
    stop = threading.Event()

    def loop() -> None:
        os.sched_setaffinity(0, {cpu})
        while not stop.is_set() and work():
            pass

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join()


def counted_beside(
    maps: Maps, cpus: tuple[int, int], write: Callable[[TestMap, Callable[[Group], list[int]], int], None]
) -> int:
    """How many of RUNS that a program counts on one CPU are left, while the slot of another is written."""
    made = maps.create(MapType.PERCPU_ARRAY, max_entries=1)
    counting, writing = cpus
    left = iter(range(RUNS))
    code = counter_program(made.fd, made.key_size, made.value_size)
    with (
        load_program(code, ProgramType.SYSCALL) as program,
        program.lease() as prog_fd,
        opening(made) as (_, run),
    ):

        def count() -> bool:
            run_program(prog_fd, Buffer.allocate(8))
            return next(left, None) is not None

        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {writing})
        try:
            with busy(counting, count) as thread:
                while thread.is_alive():
                    write(made, run, writing)
        finally:
            os.sched_setaffinity(0, before)
    (value,) = made.lookup([made.key(0)])
    assert isinstance(value, bytes)
    return int(struct.unpack_from("=Q", value, 8 * counting)[0])


def by_program(made: TestMap, run: Callable[[Group], list[int]], cpu: int) -> None:
    group = Group(count=1, ops=bytes([Op.UPDATE]), keys=made.key(0), values=bytes(8), cpu=cpu)
    assert run(group) == [Reason.DONE]


def by_reading_and_writing(made: TestMap, _: Callable[[Group], list[int]], cpu: int) -> None:
    (value,) = made.lookup([made.key(0)])
    assert isinstance(value, bytes)
    column = value[: 8 * cpu] + bytes(8) + value[8 * cpu + 8 :]
    assert made.each(Op.UPDATE, [made.key(0)], [column]) == [0]


def test_writing_one_cpus_slot_loses_nothing_of_the_others(maps: Maps, cpus: tuple[int, int]) -> None:
    assert counted_beside(maps, cpus, by_program) == RUNS + 1


def test_reading_all_slots_and_writing_them_back_does(maps: Maps, cpus: tuple[int, int]) -> None:
    """The canary: what the program is there for."""
    assert counted_beside(maps, cpus, by_reading_and_writing) < RUNS + 1


def prefix(length: int, address: int) -> bytes:
    return struct.pack("=I", length) + address.to_bytes(4, "big")


def test_exact_prefixes_are_right_while_the_trie_changes(maps: Maps, cpus: tuple[int, int]) -> None:
    """Others come and go, the trie's first key among them: what stays is told apart, or the answer is BUSY."""
    made = maps.create(MapType.LPM_TRIE, max_entries=4_096)
    there = [prefix(length, 0x0A000000) for length in (0, 8, 16)] + [
        prefix(24, 0x0A000000 | n << 8) for n in range(1, 40)
    ]
    # None of them before the first key that stays, 10.0.1.0/24: such a one may be misjudged (guarantees.md).
    absent = [prefix(12, 0x0A000000), prefix(24, 0x0A000000 | 77 << 8)]
    made.each(Op.UPDATE, there, [made.value(at) for at in range(len(there))])
    passing = [prefix(32, number) for number in (1, 2, 0x0A000001, 0x0A000202, 0xFFFFFFFF)]
    values = [made.value(9)] * len(passing)

    def churn() -> bool:
        made.each(Op.UPDATE, passing, values)
        made.each(Op.DELETE, passing)
        return True

    wanted = [Reason.DONE] * len(there) + [Reason.KEY_ABSENT] * len(absent)
    answered = unanswered = 0
    group = Group(count=len(wanted), ops=bytes([Op.LOOKUP_EXACT]), keys=b"".join(there + absent))
    with opening(made) as (opened, _), busy(cpus[0], churn):
        for _ in range(200):
            with opened.lease() as map_fd:
                outcome = execute(KERNEL, map_fd, opened, plan(group, opened))
            for at, (status, right) in enumerate(zip(outcome.statuses, wanted, strict=True)):
                unanswered += status == Reason.BUSY
                answered += status == right
                assert status in (right, Reason.BUSY)
                if status == Reason.DONE:
                    assert outcome.values.take(8, 8 * at) == made.value(at)
    assert answered > unanswered
