"""Running a group that has been checked: in order, and each element accounted for."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Final

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import BatchCommand, Columns, Elements, SyscallError
from mapd.maps.answers import ElementFailure, element_reason, map_refusal
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.groups import Plan, Run
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason

_BATCHES: Final = {Op.UPDATE: BatchCommand.UPDATE, Op.DELETE: BatchCommand.DELETE}
"""NOEXIST and EXIST are EINVAL in UPDATE_BATCH (kernel/bpf/syscall.c, generic_map_update_batch())."""

BATCH_FROM: Final = 4
"""Elements from which one batch syscall is cheaper than one syscall each."""


@dataclass(slots=True)
class Outcome:
    """What became of a group: one Reason a byte, the values answered, the first failures."""

    statuses: bytearray
    values: Buffer
    errors: list[ElementFailure] = field(default_factory=list[ElementFailure])

    def fail(self, index: int, reason: Reason, number: int) -> None:
        """Record one element that was not done."""
        self.statuses[index] = reason
        if reason is not Reason.KEY_ABSENT and len(self.errors) < limits.ERROR_DETAILS:
            self.errors.append(ElementFailure(index, reason, number))


def execute(elements: Elements, map_fd: int, opened: OpenMap, plan: Plan) -> Outcome:
    """Run a checked group in order. Blocks.

    Raises:
        MapError: the map refuses as a whole (MAP_FROZEN, ...) and nothing of the group was executed. Where it
            begins to refuse in the middle (frozen meanwhile), the rest has that status.
    """
    group, facts = plan.group, opened.facts
    outcome = Outcome(bytearray(group.count), Buffer.allocate(plan.answer_bytes))
    keys, values = Buffer.of(group.keys), Buffer.of(group.values)
    for run in plan.runs:
        takes = run.op in TAKES_VALUE
        columns = Columns(
            count=run.count,
            keys=keys,
            key_stride=facts.key_stride,
            key_offset=run.start * facts.key_stride,
            values=values if takes else (outcome.values if run.op in ANSWERS_VALUE else None),
            value_stride=facts.value_stride,
            value_offset=(run.value_in if takes else run.value_out) * facts.value_stride,
        )
        refused = _run(elements, map_fd, facts, run, columns, group.flags, outcome)
        if refused is None:
            continue
        done, number = refused
        asked = group.asked or operation_of(run.op)
        error = map_refusal(elements, map_fd, facts, run.op, number, asked)
        if done == 0 and run.start == 0:
            raise error
        for index in range(run.start + done, group.count):
            outcome.fail(index, error.reason, number)
        break
    return outcome


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


def _run(
    elements: Elements, map_fd: int, facts: MapFacts, run: Run, columns: Columns, flags: int, outcome: Outcome
) -> tuple[int, int] | None:
    """One run; (elements done, errno) where the map itself refused, None otherwise."""
    command = _BATCHES.get(run.op)
    traits = facts.supports(run.op, operation_of(run.op))
    has_batch = traits.batch_update if run.op is Op.UPDATE else traits.batch_delete
    if command is not None and has_batch and run.count >= BATCH_FROM:
        return _run_batch(elements, map_fd, facts, run, command, columns, flags, outcome)
    return _run_each(elements, map_fd, facts, run, columns, flags, outcome)


def _run_each(
    elements: Elements,
    map_fd: int,
    facts: MapFacts,
    run: Run,
    columns: Columns,
    flags: int,
    outcome: Outcome,
    first: int = 0,
) -> tuple[int, int] | None:
    errnos = elements.each(map_fd, run.op, _rest(columns, first), flags)
    if not any(errnos):
        return None
    for index, number in enumerate(errnos, first):
        if number == errno.EPERM or number in UNSUPPORTED:
            return index, number
        if number:
            outcome.fail(run.start + index, element_reason(facts, run.op, number), number)
    return None


def _run_batch(
    elements: Elements,
    map_fd: int,
    facts: MapFacts,
    run: Run,
    command: BatchCommand,
    columns: Columns,
    flags: int,
    outcome: Outcome,
) -> tuple[int, int] | None:
    """The kernel stops at the first element it refuses: note that one and go on behind it."""
    done = 0
    while done < run.count:
        batch = elements.batch(map_fd, command, _rest(columns, done), flags)
        if batch.errno in UNSUPPORTED:
            return _run_each(elements, map_fd, facts, run, columns, flags, outcome, done)
        done += batch.count
        number = batch.errno
        if number in PASSING:
            # A batch is made once; a single syscall is tried again until it goes through or three times.
            (number,) = elements.each(map_fd, run.op, _rest(columns, done, 1), flags)
            done += number == 0
            if number == 0:
                continue
        if number == errno.EPERM:
            return done, number
        if number:
            outcome.fail(run.start + done, element_reason(facts, run.op, number), number)
            done += 1
        elif batch.count == 0:
            raise MapError(Reason.INTERNAL, f"{command} {facts.label}: did nothing and gave no reason")
    return None


def _rest(columns: Columns, done: int, count: int | None = None) -> Columns:
    """The columns behind the first ``done`` elements: all that are left, or ``count``."""
    if done == 0 and count is None:
        return columns
    return Columns(
        count=columns.count - done if count is None else count,
        keys=columns.keys,
        key_stride=columns.key_stride,
        key_offset=columns.key_offset + done * columns.key_stride,
        values=columns.values,
        value_stride=columns.value_stride,
        value_offset=columns.value_offset + done * columns.value_stride,
    )
