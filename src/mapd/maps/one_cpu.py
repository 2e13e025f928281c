"""One CPU's slot of a per-CPU value: read by leaving the others out, written without touching them.

The kernel of today reads and writes all slots at once, and to write back what was read would undo what
BPF programs have counted meanwhile. So a program writes the one slot (``mapd.bpf.templates``).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import BatchCommand, Columns, LoadTemplate, SyscallError
from mapd.bpf.templates import ONE_CPU_HEAD, Template, one_cpu_context
from mapd.maps.answers import map_refusal
from mapd.maps.errors import UNSUPPORTED, MapError
from mapd.maps.job import Job, Refused, part
from mapd.maps.opened import operation_of
from mapd.maps.programs import Loaded, WritesRefused
from mapd.maps.widths import Run
from mapd_api import limits
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.reasons import Reason

_TRIES: Final = 3
"""How often an update goes round where others create and remove its key meanwhile."""


def run(job: Job, run: Run, columns: Columns, cpu: int) -> Refused | None:
    """One run of a group that names a CPU. Values are value_size bytes.

    UPDATE_NOEXIST, and UPDATE where the key is absent, create the element with zeros for the other CPUs.

    Raises:
        MapError: OPERATION_UNSUPPORTED, this daemon may load no program.
    """
    if run.op is Op.LOOKUP:
        return _lookup(job, run, columns, cpu)
    if run.op is Op.UPDATE_NOEXIST:
        return _each(job, run, columns, _Slot(job, cpu, None))
    with _load(job, run.op).lease() as prog_fd, job.opened.programs.writing:
        # Programs ignore that a map is frozen, or this descriptor read-only: a batch of nothing asks (0.4 us).
        wide = replace(columns, count=0, value_stride=job.facts.value_stride)
        number = job.kernel.batch(job.map_fd, BatchCommand.UPDATE, wide).errno
        if number == errno.EPERM or number in UNSUPPORTED:
            return 0, number
        return _each(job, run, columns, _Slot(job, cpu, prog_fd))


def prepare(job: Job) -> None:
    """Before anything of a group is executed: have the program that its updates need.

    Raises:
        MapError: OPERATION_UNSUPPORTED, it cannot be loaded.
    """
    for op in (Op.UPDATE, Op.UPDATE_EXIST):
        if op in job.plan.ops:
            _load(job, op)


def _lookup(job: Job, run: Run, columns: Columns, cpu: int) -> Refused | None:
    """All slots into a buffer of its own, a part of the run at a time, and the one slot out of it."""
    facts = job.facts
    size, wide = facts.info.value_size, facts.value_stride
    start = cpu * facts.slot_stride
    answers = np.frombuffer(job.outcome.values.view, np.uint8)
    step = max(1, limits.COLUMN_BYTES // wide)
    for done in range(0, run.count, step):
        narrow = part(columns, done, min(step, run.count - done))
        room = Buffer.allocate(narrow.count * wide)
        errnos = job.each(Op.LOOKUP, replace(narrow, values=room, value_stride=wide, value_offset=0))
        for at, number in enumerate(errnos, done):
            if number == errno.EPERM or number in UNSUPPORTED:
                return at, number
            if number:
                job.fail(run, at, number)
        table = np.frombuffer(room.view, np.uint8).reshape(-1, wide)
        end = narrow.value_offset + narrow.count * size
        answers[narrow.value_offset : end].reshape(-1, size)[:] = table[:, start : start + size]
    return None


def _load(job: Job, op: Op) -> Loaded:
    info, facts = job.facts.info, job.facts
    request = LoadTemplate(
        template=Template.WRITE_ONE_CPU, key_size=info.key_size, value_size=info.value_size
    )
    try:
        return job.opened.programs.load(job.kernel, request, job.map_fd)
    except WritesRefused as error:
        raise map_refusal(job.kernel, job.map_fd, facts, op, errno.EPERM, operation_of(op)) from error
    except SyscallError as error:
        operation = operation_of(op)
        name = errno_name(error.errno or 0)
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{operation} {facts.label}: one CPU's slot is written by a BPF program, and the kernel refuses to load "
            "it (the daemon needs CAP_BPF, the kernel Linux 5.19, and the map must not be BPF_F_RDONLY_PROG, "
            f"BPF_F_WRONLY_PROG or another program's alone); write all CPUs' slots instead [{name}]",
            **facts.about(operation),
            errno=name,
        ) from error


@dataclass(slots=True)
class _Slot:
    """Writes one CPU's slot. ``prog_fd`` is None where elements are only created."""

    job: Job
    cpu: int
    prog_fd: int | None

    def write(self, op: Op, key: bytes, value: bytes) -> int:
        """The errno of one element."""
        number = errno.EAGAIN
        for _ in range(_TRIES):
            if self.prog_fd is not None:
                number = self._replace(self.prog_fd, key, value)
                if number != errno.ENOENT or op is Op.UPDATE_EXIST:
                    return number
            number = self._create(key, value)
            if number != errno.EEXIST or op is Op.UPDATE_NOEXIST:
                return number
        return errno.EBUSY

    def _replace(self, prog_fd: int, key: bytes, value: bytes) -> int:
        ctx = Buffer.allocate(one_cpu_context(len(key), len(value)))
        ONE_CPU_HEAD.pack_into(ctx.view, 0, self.cpu)
        at = ONE_CPU_HEAD.size
        ctx.view[at : at + len(key)] = key
        at += round_up8(len(key))
        ctx.view[at : at + len(value)] = value
        return self.job.kernel.run(prog_fd, ctx)

    def _create(self, key: bytes, value: bytes) -> int:
        facts = self.job.facts
        column = Buffer.allocate(facts.value_stride)
        at = self.cpu * facts.slot_stride
        column.view[at : at + len(value)] = value
        columns = Columns(1, Buffer.of(key), len(key), column, facts.value_stride)
        (number,) = self.job.kernel.each(self.job.map_fd, Op.UPDATE_NOEXIST, columns)
        return number


def _each(job: Job, run: Run, columns: Columns, slot: _Slot) -> Refused | None:
    values = columns.values
    assert values is not None  # every update has a value column
    for at in range(run.count):
        key = columns.keys.take(columns.key_stride, columns.key_offset + at * columns.key_stride)
        value = values.take(columns.value_stride, columns.value_offset + at * columns.value_stride)
        number = slot.write(run.op, key, value)
        if number == errno.EPERM or number in UNSUPPORTED:
            return at, number
        if number:
            job.fail(run, at, number)
    return None
