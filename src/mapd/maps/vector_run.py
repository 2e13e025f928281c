"""Runs of vector programs: columns into a slot, a run, columns out of it, and what could not be done tried again.

The order of a group's elements is kept. Where the kernel refuses an element for the moment (EBUSY, EAGAIN), the
program ends its run there; the element gets its three tries by syscall, and the program goes on behind it.
"""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import BatchCommand, Columns, Kernel, SyscallError
from mapd.bpf.scratch import Slot
from mapd.bpf.vector_columns import COUNT_AT, HEAD, LOST_ERRNO, NEXT_AT, TAKEN_AT, UPDATE_OPS
from mapd.maps import statuses
from mapd.maps.errors import MapError
from mapd.maps.groups import Plan
from mapd.maps.job import Job, Outcome
from mapd.maps.vector import NO_ELEMENTS, Vector
from mapd.maps.widths import Segment, offsets
from mapd_api.ops import Op
from mapd_api.reasons import Reason

LOOKUPS: Final = frozenset({Op.LOOKUP})

_ONE_OP, _OP_EACH = 0, (1 << 64) - 1
_U32: Final = struct.Struct("=I")
_WRITES: Final = bytes(byte != Op.LOOKUP for byte in range(256))


class Program(NamedTuple):
    """A loaded vector program, leased: its descriptor, whether it is the one that writes, and what it does."""

    vector: Vector
    prog_fd: int
    writes: bool
    ops: frozenset[Op]


class Broken(Exception):
    """A run in the middle of a group failed: elements before ``at`` were executed, it and those behind it unknown."""

    def __init__(self, at: int, number: int) -> None:
        super().__init__(at, number)
        self.at = at
        self.number = number


class Ran(NamedTuple):
    """What a run did.

    Attributes:
        errnos: of each element that was executed, a byte.
        answers: the values of those that were looked up.
        refused: the errno of the map itself where it refuses to go on; 0 where all was executed.
    """

    errnos: bytes
    answers: bytes
    refused: int


@dataclass(frozen=True, slots=True)
class Work:
    """Elements for one run: an op for each or one for all, their keys, and the values that they take."""

    ops: bytes
    keys: bytes | memoryview
    values: bytes | memoryview
    count: int


def whole(kernel: Kernel, map_fd: int, program: Program, plan: Plan, keys: bytes) -> tuple[Outcome, Ran]:
    """A group that fits into one run, all of whose operations the program does. Blocks for less than a millisecond."""
    group = plan.group
    ran = run(kernel, map_fd, program, Work(group.ops, keys, group.values, group.count))
    if not ran.refused and ran.errnos.count(0) == group.count:
        return Outcome(bytearray(group.count), Buffer.of(ran.answers)), ran
    found = statuses.reasons(program.vector.facts, group.ops, ran.errnos)
    failed = statuses.failures(found, ran.errnos, 0)
    # What was not executed has neither: its bytes are zeros.
    answers = ran.answers.ljust(plan.answer_bytes, b"\0")
    return Outcome(bytearray(found.ljust(group.count, b"\0")), Buffer.of(answers), failed), ran


def run_piece(job: Job, program: Program, piece: Segment) -> tuple[int, int] | None:
    """Consecutive elements that the program does, in as many runs as it takes.

    Returns how many were executed and the errno where the map itself refused, None otherwise.

    Raises:
        SyscallError: the group's first run failed.
        Broken: a later one did.
    """
    ops, where, stride = job.plan.group.ops, program.vector.layout, job.plan.value_stride
    value_in, value_out = piece.value_in, piece.value_out
    for start in range(piece.start, piece.start + piece.count, where.capacity):
        count = min(where.capacity, piece.start + piece.count - start)
        part = ops if len(ops) == 1 else ops[start : start + count]
        taken = sum(part.count(op) for op in UPDATE_OPS) * (count if len(part) == 1 else 1)
        work = Work(
            part,
            job.keys.view[start * where.key_size : (start + count) * where.key_size],
            job.values.view[value_in : value_in + taken * stride],
            count,
        )
        try:
            ran = run(job.kernel, job.map_fd, program, work)
        except SyscallError as error:
            if start == 0:
                raise
            raise Broken(start, error.errno or 0) from error
        job.outcome.record(job.facts, start, part, ran.errnos)
        job.outcome.values.view[value_out : value_out + len(ran.answers)] = ran.answers
        value_in += taken * stride
        value_out += len(ran.answers)
        if ran.refused:
            return start - piece.start + len(ran.errnos), ran.refused
    return None


def run(kernel: Kernel, map_fd: int, program: Program, work: Work) -> Ran:
    """One run, in a slot of its own."""
    vector = program.vector
    where = vector.layout
    with vector.scratch.slot() as slot:
        view = slot.memory.view
        view[where.keys : where.keys + len(work.keys)] = work.keys
        go = slot.run_packet if vector.packet else slot.run
        if not program.writes:
            HEAD.pack_into(view, 0, 0, work.count, 0, 0, _ONE_OP)
            go(program.prog_fd)
            (done,) = _U32.unpack_from(view, NEXT_AT)
            if done != work.count:
                raise MapError(Reason.INTERNAL, f"lookup {vector.facts.label}: the program stopped at {done}")
            answers = bytes(view[where.values : where.values + done * where.stride])
            return Ran(bytes(view[where.statuses : where.statuses + done]), answers, 0)
        view[where.ops : where.ops + len(work.ops)] = work.ops
        view[where.values : where.values + len(work.values)] = work.values
        taken = len(work.values) // where.stride
        HEAD.pack_into(view, 0, 0, work.count, 0, taken, _ONE_OP if len(work.ops) == 1 else _OP_EACH)
        refused = _write(kernel, map_fd, program, work, slot)
        done, _, _, answered, _ = HEAD.unpack_from(view)
        begin, end = where.values + taken * where.stride, where.values + answered * where.stride
        return Ran(bytes(view[where.statuses : where.statuses + done]), bytes(view[begin:end]), refused)


def _write(kernel: Kernel, map_fd: int, program: Program, work: Work, slot: Slot) -> int:
    """Run the program that writes until all is done; the errno of the map where it refuses, 0 otherwise."""
    vector, view = program.vector, slot.memory.view
    go = slot.run_packet if vector.packet else slot.run
    while True:
        with vector.writing:
            # A program does not ask whether the map is frozen, or this descriptor read-only: 0.4 us.
            number = kernel.batch(map_fd, BatchCommand.UPDATE, NO_ELEMENTS).errno
            if number and not _only_look_up(work, view):
                number = 0
            go(program.prog_fd)
            if number:
                return number
        (done,) = _U32.unpack_from(view, NEXT_AT)
        if done == work.count:
            return 0
        number = _again(kernel, map_fd, program, work, slot, done)
        if number == errno.EPERM:
            return number
        view[vector.layout.statuses + done] = min(number, LOST_ERRNO)
        _U32.pack_into(view, NEXT_AT, done + 1)
        if done + 1 == work.count:
            return 0


def _only_look_up(work: Work, view: memoryview) -> bool:
    """End the run before the next element that writes: those before it are answered, as syscalls would.

    False where all that is left looks up.
    """
    (at,) = _U32.unpack_from(view, NEXT_AT)
    writes = work.ops.translate(_WRITES)
    end = (at if writes[0] else -1) if len(writes) == 1 else writes.find(1, at)
    if end >= 0:
        _U32.pack_into(view, COUNT_AT, end)
    return end >= 0


def _again(kernel: Kernel, map_fd: int, program: Program, work: Work, slot: Slot, at: int) -> int:
    """The element at which the program stopped, by syscall; its errno."""
    where, view = program.vector.layout, slot.memory.view
    op = Op(work.ops[at if len(work.ops) > 1 else 0])
    key = Buffer.of(bytes(work.keys[at * where.key_size : (at + 1) * where.key_size]))
    if op is Op.DELETE:
        (number,) = kernel.each(map_fd, op, Columns(1, key, where.key_size))
        return number
    if op not in UPDATE_OPS:
        raise MapError(
            Reason.INTERNAL, f"{op.name.lower()} {program.vector.facts.label}: the program stopped at {at}"
        )
    (taken,) = _U32.unpack_from(view, TAKEN_AT)
    end = where.values + taken * where.stride
    value = Buffer.of(bytes(view[end - where.stride : end]))
    (number,) = kernel.each(map_fd, op, Columns(1, key, where.key_size, value, where.stride))
    return number


def pieces(plan: Plan, within: Segment, served: frozenset[Op]) -> Iterator[tuple[bool, Segment]]:
    """A segment cut where a program's work and the syscalls' meet: whether it is the program's, and the piece."""
    if plan.ops <= served or plan.ops.isdisjoint(served):
        yield plan.ops <= served, within
        return
    ops, widths = plan.group.ops[within.start : within.start + within.count], plan.widths
    mine = np.isin(np.frombuffer(ops, np.uint8), list(served))
    taken, answered = offsets(ops, widths.taken), offsets(ops, widths.answered)
    edges = (np.flatnonzero(np.diff(mine)) + 1).tolist()
    for start, end in itertools.pairwise([0, *edges, within.count]):
        yield (
            bool(mine[start]),
            Segment(
                within.kind,
                within.start + start,
                end - start,
                within.value_in + int(taken[start]),
                within.value_out + int(answered[start]),
            ),
        )
