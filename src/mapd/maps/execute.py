"""Running a group that has been checked: in order, and each element accounted for."""

from __future__ import annotations

import errno
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import BatchCommand, Columns, Elements, Kernel, SyscallError
from mapd.bpf.vector_columns import LOST_ERRNO
from mapd.maps import atomics, lpm, one_cpu
from mapd.maps.answers import map_refusal
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.groups import Group, Plan
from mapd.maps.job import Job, Late, Outcome, Refused, part
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd.maps.vector import check_touch
from mapd.maps.vector_run import LOOKUPS, Broken, Program, pieces, run_piece, whole
from mapd.maps.widths import Kind, Run, Segment
from mapd_api.ops import TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType

_BATCHES: Final = {Op.UPDATE: BatchCommand.UPDATE, Op.DELETE: BatchCommand.DELETE}
"""NOEXIST and EXIST are EINVAL in UPDATE_BATCH (kernel/bpf/syscall.c, generic_map_update_batch())."""

_NONE: Final[frozenset[Op]] = frozenset()

_OF_THE_MAP: Final = UNSUPPORTED | {errno.EPERM}
"""Errnos that speak of the map and not of an element."""

BATCH_FROM: Final = 4
"""Elements from which one batch syscall is cheaper than one syscall each."""


def execute(
    kernel: Kernel, map_fd: int, opened: OpenMap, plan: Plan, expires: float | None = None
) -> Outcome:
    """Run a checked group in order. Blocks.

    Args:
        expires: time.monotonic() after which it is not gone on with: what is left has the status EXPIRED. A syscall
            that runs, and a run of a program, is not interrupted, and the first is made in any case.

    Raises:
        MapError: the map refuses as a whole (MAP_FROZEN, ...) and nothing of the group was executed. Where it
            begins to refuse in the middle (frozen meanwhile), the rest has that status.
    """
    group, vector = plan.group, opened.vector
    keys = _keys(group, plan, opened.facts)
    served = plan.ops & vector.serves(group) if vector is not None else _NONE
    if vector is not None and served:
        writes = served != LOOKUPS
        lease = vector.program(kernel, map_fd, group, writes=writes)
        if lease is not None:
            with lease as prog_fd:
                program = Program(vector, prog_fd, writes, served)
                return _execute(kernel, map_fd, opened, plan, keys, program, expires)
    check_touch(group, plan, opened.facts)
    return _execute(kernel, map_fd, opened, plan, keys, None, expires)


def _execute(
    kernel: Kernel,
    map_fd: int,
    opened: OpenMap,
    plan: Plan,
    keys: bytes,
    program: Program | None,
    expires: float | None,
) -> Outcome:
    group = plan.group
    if program is not None and plan.ops == program.ops and group.count <= program.vector.layout.capacity:
        outcome, ran = whole(kernel, map_fd, program, plan, keys)
        if ran.refused:
            job = Job(kernel, map_fd, opened, plan, Buffer.of(keys), Buffer.of(group.values), outcome)
            _refuse(job, len(ran.errnos), ran.refused)
        return outcome
    of_programs = not plan.ops.isdisjoint(atomics.OPS)
    ended = atomics.whole(kernel, map_fd, opened, plan, keys) if of_programs else None
    if isinstance(ended, Outcome):
        return ended
    outcome = Outcome(bytearray(group.count), Buffer.allocate(plan.answer_bytes))
    job = Job(kernel, map_fd, opened, plan, Buffer.of(keys), Buffer.of(group.values), outcome, expires)
    if ended is not None:
        _refuse(job, 0, ended)
    if group.cpu is not None:
        one_cpu.prepare(job)
    if not of_programs:
        _segments(job, program, {})
    else:
        with atomics.leased(job) as leased:
            _segments(job, program, leased)
    return outcome


def _segments(job: Job, program: Program | None, leased: atomics.Leased) -> None:
    for segment in job.plan.segments():
        try:
            if segment.kind is Kind.PLAIN:
                refused = _segment(job, segment, program)
            else:
                refused = atomics.run(job, segment, leased[segment.kind])
        except Broken as broken:
            # For want of memory a run is not begun; of any other failure nobody knows when it came.
            reason = Reason.KERNEL_MEMORY if broken.number == errno.ENOMEM else Reason.OUTCOME_UNKNOWN
            job.outcome.refuse(broken.at, reason, broken.number)
            return
        except Late as late:
            job.outcome.refuse(late.at, Reason.EXPIRED, 0)
            return
        if refused is not None:
            _refuse(job, *refused)
            return


def _refuse(job: Job, start: int, number: int) -> None:
    """The map itself refuses element ``start``: nothing from there on was executed.

    Raises:
        MapError: nothing before it was either.
    """
    group = job.plan.group
    op = Op(group.ops[start if len(group.ops) > 1 else 0])
    asked = group.asked or operation_of(op)
    error = map_refusal(job.kernel, job.map_fd, job.facts, op, number, asked)
    if start == 0:
        raise error
    job.outcome.refuse(start, error.reason, number)


def _segment(job: Job, segment: Segment, program: Program | None) -> Refused | None:
    """One segment; the element that the map itself refused and the errno, None otherwise."""
    served = program.ops if program is not None else _NONE
    for mine, piece in pieces(job.plan, segment, served):
        if mine and program is not None:
            refused = run_piece(job, program, piece)
            if refused is not None:
                return piece.start + refused[0], refused[1]
            continue
        for run in job.plan.runs(piece):
            for part_of_it in job.timely(run):
                refused = _run(job, part_of_it)
                if refused is not None:
                    return part_of_it.start + refused[0], refused[1]
    return None


def next_key(elements: Elements, map_fd: int, facts: MapFacts, key: bytes | None) -> bytes | None:
    """The key after ``key`` (None: the first), None after the last. Blocks.

    Raises:
        MapError: OPERATION_UNSUPPORTED; KEY_SIZE_MISMATCH with both numbers.
    """
    operation = "get_next_key"
    facts.iterable(operation)
    if key is not None and len(key) != facts.key_stride:
        raise MapError(
            Reason.KEY_SIZE_MISMATCH,
            f"{operation} {facts.label}: a key of {len(key)} bytes; this {facts.type_name} map's keys "
            f"have {facts.key_stride} bytes",
            **facts.about(operation),
            given=len(key),
            expected=facts.key_stride,
        )
    try:
        return elements.next_key(map_fd, key, facts.key_stride)
    except SyscallError as error:
        if error.errno == errno.EPERM:
            raise facts.access_refusal(operation, writes=False) from error
        raise


def _keys(group: Group, plan: Plan, facts: MapFacts) -> bytes:
    """The key column for the kernel; what is written into an LPM trie has no bits beyond its prefix."""
    if facts.info.map_type == MapType.LPM_TRIE and not plan.ops.isdisjoint(TAKES_VALUE):
        return lpm.canonical(group.keys, facts.key_stride)
    return group.keys


def _run(job: Job, run: Run) -> Refused | None:
    """One run; how far it came where the map itself refused, None otherwise."""
    columns = job.columns(run)
    if job.plan.group.cpu is not None:
        return one_cpu.run(job, run, columns, job.plan.group.cpu)
    if run.op is Op.LOOKUP_EXACT:
        return lpm.run_exact(job, run, columns)
    command = _BATCHES.get(run.op)
    traits = job.facts.supports(run.op, operation_of(run.op))
    has_batch = traits.batch_update if run.op is Op.UPDATE else traits.batch_delete
    if command is not None and has_batch and run.count >= BATCH_FROM:
        return _run_batch(job, run, command, columns)
    return _run_each(job, run, columns)


def _run_each(job: Job, run: Run, columns: Columns, first: int = 0) -> Refused | None:
    errnos = job.each(run.op, part(columns, first))
    if not any(errnos):
        return None
    refusal = next((at for at, number in enumerate(errnos) if number in _OF_THE_MAP), None)
    done = errnos[:refusal]
    traits = job.facts.traits
    if (
        job.plan.group.flags or traits is None or traits.sparse
    ):  # what an errno means hangs on flags or the key
        for at, number in enumerate(done, first):
            if number:
                job.fail(run, at, number)
    elif done:
        low = bytes(min(number, LOST_ERRNO) for number in done)
        job.outcome.record(job.facts, run.start + first, bytes([run.op]), low)
    return None if refusal is None else (first + refusal, errnos[refusal])


def _run_batch(job: Job, run: Run, command: BatchCommand, columns: Columns) -> Refused | None:
    """The kernel stops at the first element it refuses: note that one and go on behind it."""
    done = 0
    while done < run.count:
        batch = job.kernel.batch(job.map_fd, command, part(columns, done), job.plan.group.flags)
        if batch.errno in UNSUPPORTED:
            return _run_each(job, run, columns, done)
        done += batch.count
        number = batch.errno
        if number in PASSING:
            # A batch is made once; a single syscall is tried again until it goes through or three times.
            (number,) = job.each(run.op, part(columns, done, 1))
            done += number == 0
            if number == 0:
                continue
        if number == errno.EPERM:
            return done, number
        if number:
            job.fail(run, done, number)
            done += 1
            if command is BatchCommand.DELETE and done < run.count:
                # Where one key is absent others are, and each would cost two syscalls (5 us, and 0.7 so).
                return _run_each(job, run, columns, done)
        elif batch.count == 0:
            raise MapError(Reason.INTERNAL, f"{command} {job.facts.label}: did nothing and gave no reason")
    return None
