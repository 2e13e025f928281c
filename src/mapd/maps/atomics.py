"""Atomics on fields, and compare-and-update of whole values: elements that only a program can serve.

Programs ignore that a map is frozen, or that a descriptor only reads: before each run an UPDATE_BATCH of no elements
asks the kernel (EPERM), and mapd's own freeze waits for the run. Columns go into a slot of the daemon's scratch and
come out of it whole; no element is looked at in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

import numpy as np

from mapd.bpf import atomic, compare
from mapd.bpf.atomic import AtomicLayout
from mapd.bpf.buffer import Buffer
from mapd.bpf.compare import CompareLayout
from mapd.bpf.kernel import BatchCommand, Kernel, SyscallError
from mapd.bpf.scratch import NO_SLOT
from mapd.maps import statuses
from mapd.maps.atomic_programs import Program, atomic_program, compare_program
from mapd.maps.errors import MapError
from mapd.maps.groups import Group, Plan
from mapd.maps.job import Job, Outcome, Refused
from mapd.maps.opened import OpenMap
from mapd.maps.vector import NO_ELEMENTS
from mapd.maps.vector_run import Broken
from mapd.maps.widths import Kind, Segment, offsets
from mapd_api.ops import ATOMICS, Op
from mapd_api.reasons import Reason

OPS: Final = ATOMICS | {Op.COMPARE_UPDATE}
"""What is done here."""


Leased = Mapping[Kind, Program[Any]]


class Ran(NamedTuple):
    """What a run did: an errno a byte for each element, old values; or the errno of the map, and nothing was done."""

    refused: int
    errnos: bytes = b""
    answers: bytes = b""


class Work(NamedTuple):
    """Elements of one kind for one run: an op for each or one for all, their keys, and what they take."""

    group: Group
    ops: bytes
    elements: int
    keys: bytes | memoryview
    values: bytes | memoryview


def whole(kernel: Kernel, map_fd: int, opened: OpenMap, plan: Plan, keys: bytes) -> Outcome | int | None:
    """A group of nothing but atomics that fits into one run; or the errno of the map that refuses it. Blocks.

    None where it is neither.

    Raises:
        MapError: as ``leased``.
    """
    group = plan.group
    if not plan.ops <= ATOMICS:
        return None
    program = atomic_program(kernel, map_fd, opened, group, min(plan.ops))
    with program.lease as prog_fd:
        if group.count > program.layout.rows:
            return None
        work = Work(group, group.ops, group.count, keys, group.values)
        ran = _atomics(kernel, map_fd, opened, program, prog_fd, work)
    if ran.refused:
        return ran.refused
    answers = Buffer.of(ran.answers)
    if ran.errnos.count(0) == group.count:
        return Outcome(bytearray(group.count), answers)
    found = statuses.reasons(opened.facts, group.ops, ran.errnos)
    return Outcome(bytearray(found), answers, statuses.failures(found, ran.errnos, 0))


@contextmanager
def leased(job: Job) -> Generator[Leased]:
    """The programs that a group needs, by the kind of its elements; not closed inside the block.

    Raises:
        MapError: before anything was executed, as ``atomic_program`` and ``compare_program``.
    """
    found: dict[Kind, Program[Any]] = {}
    about, ops = (job.kernel, job.map_fd, job.opened), job.plan.ops
    with ExitStack() as stack:
        if not ops.isdisjoint(ATOMICS):
            found[Kind.ATOMIC] = atomic_program(*about, job.plan.group, min(ops & ATOMICS))
            stack.enter_context(found[Kind.ATOMIC].lease)
        if Op.COMPARE_UPDATE in ops:
            found[Kind.COMPARE] = compare_program(*about)
            stack.enter_context(found[Kind.COMPARE].lease)
        yield found


def run(job: Job, segment: Segment, program: Program[Any]) -> Refused | None:
    """The elements of a segment, in order, in as many runs as it takes. Blocks.

    Returns the element at which the map itself refuses and the errno, None otherwise.

    Raises:
        SyscallError: the group's first run failed.
        Broken: a later one did.
    """
    group, widths, size = job.plan.group, job.plan.widths, job.facts.key_stride
    execute = _compares if segment.kind is Kind.COMPARE else _atomics
    value_in, value_out, end = segment.value_in, segment.value_out, segment.start + segment.count
    for start in range(segment.start, end, program.layout.rows):
        count = min(program.layout.rows, end - start)
        ops = group.ops if len(group.ops) == 1 else group.ops[start : start + count]
        taken = widths.taken(ops[0]) * count if len(ops) == 1 else sum(map(widths.taken, ops))
        keys = job.keys.view[start * size : (start + count) * size]
        work = Work(group, ops, count, keys, job.values.view[value_in : value_in + taken])
        try:
            ran = execute(job.kernel, job.map_fd, job.opened, program, program.lease.fd, work)
        except SyscallError as error:
            if start == 0:
                raise
            raise Broken(start, error.errno or 0) from error
        if ran.refused:
            return start, ran.refused
        job.outcome.values.view[value_out : value_out + len(ran.answers)] = ran.answers
        _note(job, start, ops, ran.errnos)
        value_in += taken
        value_out += len(ran.answers)
    return None


def _note(job: Job, start: int, ops: bytes, errnos: bytes) -> None:
    """What became of the elements from ``start`` on."""
    outcome = job.outcome
    found = statuses.reasons(job.facts, ops, errnos)
    outcome.statuses[start : start + len(found)] = found
    outcome.errors.extend(statuses.failures(found, errnos, start, outcome.room))


def _go(kernel: Kernel, map_fd: int, opened: OpenMap, run: Callable[[int], int], prog_fd: int) -> int:
    """One run, if the map may be written: 0, or the errno of the map."""
    with opened.programs.writing:
        number = kernel.batch(map_fd, BatchCommand.UPDATE, NO_ELEMENTS).errno
        if number:
            return number
        if run(prog_fd) == NO_SLOT:
            raise MapError(Reason.INTERNAL, f"atomics {opened.facts.label}: the program found no slot")
    return 0


def _atomics(
    kernel: Kernel, map_fd: int, opened: OpenMap, program: Program[AtomicLayout], prog_fd: int, work: Work
) -> Ran:
    layout, group, ops, count = program.layout, work.group, work.ops, work.elements
    assert group.field is not None  # plan() has seen to it
    with program.scratch.slot() as slot:
        view = slot.memory.view
        creates = group.create and layout.blank is not None
        if layout.blank is not None and creates:
            view[layout.blank : layout.blank + layout.value_size] = bytes(layout.value_size)
        atomic.HEAD.pack_into(view, 0, count, group.field.offset, creates)
        view[layout.ops : layout.ops + count] = ops if len(ops) == count else ops * count
        view[layout.keys : layout.keys + len(work.keys)] = work.keys
        if Op.COMPARE_EXCHANGE in ops:
            _put_pairs(view, layout, work)
        else:
            view[layout.operands : layout.operands + len(work.values)] = work.values
        refused = _go(kernel, map_fd, opened, slot.run, prog_fd)
        if refused:
            return Ran(refused)
        errnos = bytes(view[layout.errnos : layout.errnos + count])
        old = view[layout.old : layout.old + count * layout.field_size]
        return Ran(0, errnos, _answered(old, errnos, layout.field_size, layout.field_size))


def _put_pairs(view: memoryview, layout: AtomicLayout, work: Work) -> None:
    """Operands where some elements are COMPARE_EXCHANGE: those take what is expected, and what is new behind it."""
    size, count = layout.field_size, work.elements

    def words(op: int) -> int:
        return 2 if op == Op.COMPARE_EXCHANGE else 1

    ends = offsets(work.ops if len(work.ops) == count else work.ops * count, words)
    kind = np.dtype(f"=u{size}")
    given = np.frombuffer(work.values, kind)
    # The operand is the last of an element's words, what is expected the first; others do not look at that.
    np.frombuffer(view, kind, count, layout.operands)[:] = given[ends[1:] - 1]
    np.frombuffer(view, kind, count, layout.expected)[:] = given[ends[:-1]]


def _compares(
    kernel: Kernel, map_fd: int, opened: OpenMap, program: Program[CompareLayout], prog_fd: int, work: Work
) -> Ran:
    layout, count = program.layout, work.elements
    size, room = layout.value_size, layout.value_room
    with program.scratch.slot() as slot:
        view = slot.memory.view
        compare.HEAD.pack_into(view, 0, count)
        view[layout.keys : layout.keys + len(work.keys)] = work.keys
        pairs = np.frombuffer(view, np.uint8, count * 2 * room, layout.pairs)
        pairs.reshape(-1, room)[:, :size] = np.frombuffer(work.values, np.uint8).reshape(-1, size)
        refused = _go(kernel, map_fd, opened, slot.run, prog_fd)
        if refused:
            return Ran(refused)
        errnos = bytes(view[layout.errnos : layout.errnos + count])
        return Ran(0, errnos, _answered(view[layout.old : layout.old + count * room], errnos, room, size))


def _answered(old: memoryview, errnos: bytes, room: int, size: int) -> bytes:
    """Old values of ``size`` bytes out of ``room`` each; zeros where there is an errno."""
    refused = errnos.count(0) != len(errnos)
    if room == size and not refused:
        return bytes(old)
    table = np.frombuffer(old, np.uint8).reshape(-1, room)[:, :size].copy()
    if refused:
        table[np.frombuffer(errnos, np.uint8) != 0] = 0
    return table.tobytes()
