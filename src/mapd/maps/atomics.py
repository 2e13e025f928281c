"""Atomics on fields, and compare-and-update of whole values: elements that only a program can serve.

Programs ignore that a map is frozen, or that a descriptor only reads: before each run an UPDATE_BATCH of no elements
asks the kernel (EPERM), and mapd's own freeze waits for the run. Columns go into a slot of the daemon's scratch and
come out of it whole; no element is looked at in Python.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

import numpy as np

from mapd.bpf import atomic, compare
from mapd.bpf.atomic import AtomicLayout, atomic_layout
from mapd.bpf.compare import MAX_VALUE_BYTES, CompareLayout, compare_layout
from mapd.bpf.errnos import errno_name
from mapd.bpf.fd import FdLease
from mapd.bpf.kernel import BatchCommand, LoadTemplate, SyscallError
from mapd.bpf.scratch import Scratch, Slot
from mapd.bpf.templates import Template
from mapd.maps import statuses
from mapd.maps.errors import MapError, scarcity
from mapd.maps.groups import FieldSpec
from mapd.maps.job import Job, Refused
from mapd.maps.opened import MapFacts, operation_of
from mapd.maps.vector import NO_ELEMENTS
from mapd.maps.widths import Kind, Segment, offsets
from mapd_api.ops import ATOMICS, Op
from mapd_api.reasons import Reason

_TRIES: Final = 3
"""How often a program is asked for that is closed to make room for others meanwhile."""


OPS: Final = ATOMICS | {Op.COMPARE_UPDATE}
"""What is done here."""


@contextmanager
def leased(job: Job) -> Generator[Mapping[Kind, int]]:
    """The programs that a group needs, by the kind of its elements; not closed inside the block.

    Raises:
        MapError: before anything was executed: OPERATION_UNSUPPORTED, a program cannot be loaded, or the elements are
            too large for it; BUSY, programs come and go too fast.
    """
    found: dict[Kind, int] = {}
    with ExitStack() as stack:
        if not job.plan.ops.isdisjoint(ATOMICS):
            found[Kind.ATOMIC] = stack.enter_context(_atomic_program(job))
        if Op.COMPARE_UPDATE in job.plan.ops:
            found[Kind.COMPARE] = stack.enter_context(_compare_program(job))
        yield found


def run(job: Job, segment: Segment, prog_fd: int) -> Refused | None:
    """The elements of a segment, in order, in as many runs as it takes. Blocks.

    Returns the element at which the map itself refuses and the errno, None otherwise.
    """
    return _compare(job, segment, prog_fd) if segment.kind is Kind.COMPARE else _atomic(job, segment, prog_fd)


# ---- programs --------------------------------------------------------------------------------------


def _scratch(job: Job, op: Op) -> Scratch:
    scratch = job.opened.programs.owner.scratch
    if scratch is None:
        raise _unsupported(
            job.facts,
            op,
            "it is done by a BPF program, and this daemon can run none (it needs CAP_BPF, and the kernel Linux 5.17)",
        )
    return scratch


def _field(job: Job) -> FieldSpec:
    field = job.plan.group.field
    assert field is not None  # plan() has seen to it
    return field


def _atomic_layout(job: Job) -> AtomicLayout:
    op = min(job.plan.ops & ATOMICS)
    info, scratch = job.facts.info, _scratch(job, op)
    layout = atomic_layout(info.key_size, info.value_size, _field(job).size, scratch.slot_bytes)
    sizes = f"key_size={info.key_size} value_size={info.value_size}"
    if layout is None:
        raise _unsupported(
            job.facts,
            op,
            f"{sizes}: too large for a program, which has {scratch.slot_bytes} bytes for its columns",
        )
    if job.plan.group.create and layout.blank is None:
        raise _unsupported(
            job.facts,
            op,
            f"create, and {sizes}: a new value does not fit the {scratch.slot_bytes} bytes that a program has; "
            "create the element with an update",
        )
    return layout


def _compare_layout(job: Job) -> CompareLayout:
    info, op = job.facts.info, Op.COMPARE_UPDATE
    layout = compare_layout(info.key_size, info.value_size, _scratch(job, op).slot_bytes)
    if layout is None:
        raise _unsupported(
            job.facts,
            op,
            f"key_size={info.key_size} value_size={info.value_size}: values of up to {MAX_VALUE_BYTES} bytes are "
            "compared while their lock is held",
        )
    return layout


def _atomic_program(job: Job) -> FdLease:
    _atomic_layout(job)
    op, info, field = min(job.plan.ops & ATOMICS), job.facts.info, _field(job)
    request = LoadTemplate(
        template=Template.ATOMIC,
        key_size=info.key_size,
        value_size=info.value_size,
        slot_bytes=_scratch(job, op).slot_bytes,
        field_size=field.size,
    )
    try:
        return _lease(job, request)
    except SyscallError as error:
        if error.errno != errno.EACCES or not info.btf_value_type_id:
            raise _refused(job.facts, op, error) from error
    # Parts of the value may be the kernel's own: then the program works at one place, which the verifier looks at.
    try:
        return _lease(job, replace(request, template=Template.ATOMIC_AT, field_offset=field.offset))
    except SyscallError as error:
        raise _refused(
            job.facts, op, error, f"; or {field} is not the caller's: a bpf_spin_lock, a timer"
        ) from error


def _compare_program(job: Job) -> FdLease:
    _compare_layout(job)
    info, op = job.facts.info, Op.COMPARE_UPDATE
    request = LoadTemplate(
        template=Template.COMPARE_UPDATE,
        key_size=info.key_size,
        value_size=info.value_size,
        slot_bytes=_scratch(job, op).slot_bytes,
    )
    try:
        return _lease(job, request)
    except SyscallError as error:
        raise _refused(
            job.facts, op, error, "; or a value has more of the kernel's own than its lock"
        ) from error


def _lease(job: Job, request: LoadTemplate) -> FdLease:
    """A program for a run; loaded where it is not.

    Raises:
        SyscallError: the kernel refuses it.
        MapError: BUSY.
    """
    for _ in range(_TRIES):
        loaded = job.opened.programs.load(job.kernel, request, job.map_fd, scratch=True)
        try:
            return loaded.lease()
        except OSError:  # closed to make room for others
            continue
    raise MapError(
        Reason.BUSY,
        f"{job.plan.group.operation} {job.facts.label}: its program was closed for others' {_TRIES} times; try again",
        **job.facts.about(job.plan.group.operation),
    )


def _refused(facts: MapFacts, op: Op, error: SyscallError, more: str = "") -> MapError:
    number = errno_name(error.errno or 0)
    scarce = scarcity(error, f"{operation_of(op)} {facts.label}", **facts.about(operation_of(op)))
    return scarce or _unsupported(
        facts,
        op,
        "it is done by a BPF program, and the kernel refuses to load it (the daemon needs CAP_BPF, the kernel Linux "
        "5.17, and the map must not be BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG or another program's alone"
        f"{more}) [{number}]",
        errno=number,
    )


def _unsupported(facts: MapFacts, op: Op, why: str, **metadata: object) -> MapError:
    operation = operation_of(op)
    return MapError(
        Reason.OPERATION_UNSUPPORTED,
        f"{operation} {facts.label}: {why}",
        **facts.about(operation),
        **metadata,
    )


# ---- runs ------------------------------------------------------------------------------------------


def _go(job: Job, slot: Slot, prog_fd: int) -> int:
    """One run, if the map may be written: 0, or the errno of the map."""
    with job.opened.programs.writing:
        number = job.kernel.batch(job.map_fd, BatchCommand.UPDATE, NO_ELEMENTS).errno
        if number:
            return number
        slot.run(prog_fd)
    return 0


def _atomic(job: Job, segment: Segment, prog_fd: int) -> Refused | None:
    layout = _atomic_layout(job)
    ops, size, field = job.plan.group.ops, layout.field_size, _field(job)
    value_in, value_out, end = segment.value_in, segment.value_out, segment.start + segment.count
    for start in range(segment.start, end, layout.rows):
        count = min(layout.rows, end - start)
        part = ops if len(ops) == 1 else ops[start : start + count]
        with _scratch(job, Op(part[0])).slot() as slot:
            view = slot.memory.view
            creates = layout.blank is not None and job.plan.group.create
            if layout.blank is not None and creates:
                view[layout.blank : layout.blank + layout.value_size] = bytes(layout.value_size)
            atomic.HEAD.pack_into(view, 0, count, field.offset, creates)
            view[layout.ops : layout.ops + count] = part if len(part) == count else part * count
            _put_keys(job, view, layout.keys, start, count)
            taken = _put_operands(job, view, layout, part, count, value_in)
            view[layout.old : layout.old + count * size] = bytes(
                count * size
            )  # what is refused answers zeros
            number = _go(job, slot, prog_fd)
            if number:
                return start, number
            job.outcome.values.view[value_out : value_out + count * size] = view[
                layout.old : layout.old + count * size
            ]
            _note(job, start, part, view[layout.errnos : layout.errnos + 4 * count])
        value_in += taken
        value_out += count * size
    return None


def _put_operands(
    job: Job, view: memoryview, layout: AtomicLayout, ops: bytes, count: int, value_in: int
) -> int:
    """Operands, and what is expected beside those of COMPARE_EXCHANGE; the bytes that they took."""
    size = layout.field_size
    if Op.COMPARE_EXCHANGE not in ops:
        taken = count * size
        view[layout.operands : layout.operands + taken] = job.values.view[value_in : value_in + taken]
        return taken
    ends = offsets(ops if len(ops) == count else ops * count, job.plan.widths.taken) // size
    taken = int(ends[-1])
    kind = np.dtype(f"=u{size}")
    given = np.frombuffer(job.values.view, kind, taken, value_in)
    # The new value is the last of an element's words, the expected one the first; of others both are the operand.
    np.frombuffer(view, kind, count, layout.operands)[:] = given[ends[1:] - 1]
    np.frombuffer(view, kind, count, layout.expected)[:] = given[ends[:-1]]
    return taken * size


def _compare(job: Job, segment: Segment, prog_fd: int) -> Refused | None:
    layout = _compare_layout(job)
    size, room, end = layout.value_size, layout.value_room, segment.start + segment.count
    value_in, value_out = segment.value_in, segment.value_out
    for start in range(segment.start, end, layout.rows):
        count = min(layout.rows, end - start)
        with _scratch(job, Op.COMPARE_UPDATE).slot() as slot:
            view = slot.memory.view
            compare.HEAD.pack_into(view, 0, count)
            _put_keys(job, view, layout.keys, start, count)
            given = np.frombuffer(job.values.view, np.uint8, count * 2 * size, value_in)
            pairs = np.frombuffer(view, np.uint8, count * 2 * room, layout.pairs)
            pairs.reshape(-1, room)[:, :size] = given.reshape(-1, size)
            old = np.frombuffer(view, np.uint8, count * room, layout.old)
            old[:] = 0
            number = _go(job, slot, prog_fd)
            if number:
                return start, number
            answers = np.frombuffer(job.outcome.values.view, np.uint8, count * size, value_out)
            answers.reshape(-1, size)[:] = old.reshape(-1, room)[:, :size]
            _note(job, start, bytes([Op.COMPARE_UPDATE]), view[layout.errnos : layout.errnos + 4 * count])
        value_in += count * 2 * size
        value_out += count * size
    return None


def _put_keys(job: Job, view: memoryview, column: int, start: int, count: int) -> None:
    size = job.facts.key_stride
    view[column : column + count * size] = job.keys.view[start * size : (start + count) * size]


def _note(job: Job, start: int, ops: bytes, errnos: memoryview) -> None:
    """What became of the elements from ``start`` on; ``errnos`` are u32 each, and none is above 255."""
    outcome = job.outcome
    narrow = np.frombuffer(errnos, np.uint32).astype(np.uint8).tobytes()
    found = statuses.reasons(job.facts, ops, narrow)
    outcome.statuses[start : start + len(found)] = found
    outcome.errors.extend(statuses.failures(found, narrow, start, outcome.room))
