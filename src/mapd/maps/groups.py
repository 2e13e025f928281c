"""Groups of element operations on one open map: checked whole, then run in order."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.errnos import errno_name
from mapd.bpf.kernel import BatchCommand, Columns, Elements, SyscallError
from mapd.maps.errors import PASSING, UNSUPPORTED, MapError
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, MUTATES, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag, MapType

_BATCHES: Final = {Op.UPDATE: BatchCommand.UPDATE, Op.DELETE: BatchCommand.DELETE}
"""NOEXIST and EXIST are EINVAL in UPDATE_BATCH (kernel/bpf/syscall.c, generic_map_update_batch())."""

BATCH_FROM: Final = 4
"""Elements from which one batch syscall is cheaper than one syscall each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations on one map as they arrived (elements.proto, OpGroup). Columns are packed bytes.

    ``asked`` is the caller's word for it ("load"); "" where the operations say it.
    """

    count: int
    ops: bytes
    keys: bytes
    values: bytes = b""
    flags: int = 0
    asked: str = ""

    @property
    def operation(self) -> str:
        """For messages: what was asked, the one operation of the group, or "apply" where it has several."""
        words = {operation_of(op) for op in Op if op in self.ops}
        return self.asked or (words.pop() if len(words) == 1 else "apply")


@dataclass(frozen=True, slots=True)
class ElementFailure:
    """What the kernel said about one element; ``index`` counts from 0 in its group."""

    index: int
    reason: Reason
    errno: int


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


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive elements of one operation, and where their values begin in either column."""

    op: Op
    start: int
    count: int
    value_in: int
    value_out: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A group that has been checked: its runs, and the size of its answer in bytes."""

    group: Group
    runs: Sequence[Run]
    answer_bytes: int

    @property
    def ops(self) -> frozenset[Op]:
        """The operations in it."""
        return frozenset(run.op for run in self.runs)


def distinct_ops(ops: bytes) -> frozenset[Op]:
    """The operations of an op column.

    Raises:
        MapError: BAD_FLAGS, a byte that is no operation; BAD_COLUMNS, no byte at all.
    """
    if not ops:
        raise MapError(Reason.BAD_COLUMNS, "apply: the op column is empty", operation="apply")
    try:
        return frozenset(map(Op, set(ops)))
    except ValueError:
        bad = sorted(set(ops) - {int(op) for op in Op})
        raise MapError(
            Reason.BAD_FLAGS,
            f"apply: {bad[0]} is no operation; this daemon knows "
            + ", ".join(f"{op.value} {op.name}" for op in Op)
            + " (a newer client asks ServerInfo.features first)",
            operation="apply",
        ) from None


def plan(group: Group, opened: OpenMap) -> Plan:
    """Check a group against its map, before any syscall.

    Raises:
        MapError: BAD_COLUMNS, KEY_SIZE_MISMATCH, VALUE_SIZE_MISMATCH, BAD_FLAGS, OPERATION_UNSUPPORTED or
            READ_ONLY, with the numbers that disagree.
    """
    facts, operation = opened.facts, group.operation
    facts.check_message(operation)
    if not 1 <= group.count <= limits.BATCH_ELEMENTS:
        raise _columns(
            facts, operation, f"count is {group.count}; a group has 1 to {limits.BATCH_ELEMENTS} elements"
        )
    if len(group.ops) not in (1, group.count):
        raise _columns(
            facts,
            operation,
            f"the op column has {len(group.ops)} bytes for {group.count} elements; it has one byte or one each",
        )
    for op in sorted(distinct_ops(group.ops)):
        facts.supports(op, group.asked or operation_of(op))
        opened.check_writable(op, group.asked or operation_of(op))
    if group.flags & ~int(ElementFlag.LOCK):
        raise MapError(
            Reason.BAD_FLAGS,
            f"{operation} {facts.label}: flags {group.flags:#x}; BPF_F_LOCK (4) or 0 is taken here, and ANY, NOEXIST "
            "or EXIST is said by the operation",
            **facts.about(operation),
            flags=hex(group.flags),
        )
    if group.flags & ElementFlag.LOCK and Op.DELETE in group.ops:
        # MAP_DELETE_ELEM takes no flags, and MAP_DELETE_BATCH would not look at them.
        raise MapError(
            Reason.BAD_FLAGS,
            f"{operation} {facts.label}: BPF_F_LOCK is for lookups and updates; send deletes in a group without it",
            **facts.about(operation),
            flags=hex(group.flags),
        )
    runs = tuple(_runs(group))
    return Plan(group, runs, _check_columns(group, runs, facts))


def _runs(group: Group) -> Iterator[Run]:
    """Split an op column where the operation changes."""
    if len(group.ops) == 1:
        yield Run(Op(group.ops[0]), 0, group.count, 0, 0)
        return
    column = np.frombuffer(group.ops, np.uint8)
    starts = [0, *(np.flatnonzero(np.diff(column)) + 1).tolist(), group.count]
    value_in = value_out = 0
    for start, end in itertools.pairwise(starts):
        op = Op(group.ops[start])
        yield Run(op, start, end - start, value_in, value_out)
        value_in += (end - start) * (op in TAKES_VALUE)
        value_out += (end - start) * (op in ANSWERS_VALUE)


def _check_columns(group: Group, runs: Sequence[Run], facts: MapFacts) -> int:
    """Compare columns with what the operations need; the bytes of the answer's value column."""
    operation = group.operation
    taken = sum(run.count for run in runs if run.op in TAKES_VALUE)
    answered = sum(run.count for run in runs if run.op in ANSWERS_VALUE)
    for reason, what, got, elements, stride in (
        (Reason.KEY_SIZE_MISMATCH, "key", len(group.keys), group.count, facts.key_stride),
        (Reason.VALUE_SIZE_MISMATCH, "value", len(group.values), taken, facts.value_stride),
    ):
        if got == elements * stride:
            continue
        if elements == 0 or got % elements:
            raise _columns(
                facts,
                operation,
                f"the {what} column has {got} bytes; {elements} {what}s of {stride} bytes each are due",
                given=got,
                expected=elements * stride,
            )
        raise MapError(
            reason,
            f"{operation} {facts.label}: {what}s of {got // elements} bytes; this {facts.type_name} map's {what}s "
            f"have {stride} bytes" + _per_cpu_hint(facts, what),
            **facts.about(operation),
            given=got // elements,
            expected=stride,
        )
    answer = answered * facts.value_stride
    if answer > limits.COLUMN_BYTES:
        raise _columns(
            facts,
            operation,
            f"{answered} values of {facts.value_stride} bytes would be answered; a message holds "
            f"{limits.COLUMN_BYTES}: ask for at most {limits.COLUMN_BYTES // facts.value_stride} at once",
            given=answer,
            limit=limits.COLUMN_BYTES,
        )
    return answer


def _per_cpu_hint(facts: MapFacts, what: str) -> str:
    if what == "value" and facts.value_stride != facts.info.value_size:
        return f" (a slot of {facts.info.value_size}, padded to a multiple of 8, for each possible CPU)"
    return ""


def _columns(facts: MapFacts, operation: str, what: str, **numbers: int) -> MapError:
    return MapError(
        Reason.BAD_COLUMNS, f"{operation} {facts.label}: {what}", **facts.about(operation), **numbers
    )


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
            outcome.fail(run.start + index, element_reason(facts, run.op, number, flags), number)
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
            outcome.fail(run.start + done, element_reason(facts, run.op, number, flags), number)
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


_ELEMENT_REASONS: Final = {
    errno.EEXIST: Reason.KEY_EXISTS,
    errno.E2BIG: Reason.MAP_FULL,
    errno.ENOSPC: Reason.MAP_FULL,
    errno.ENOMEM: Reason.KERNEL_MEMORY,
    **dict.fromkeys(PASSING, Reason.BUSY),
    errno.EINVAL: Reason.BAD_COLUMNS,
}


def element_reason(facts: MapFacts, op: Op, number: int, flags: int = 0) -> Reason:
    """What an errno of an element operation with ``flags`` means for this type."""
    if number == errno.EINVAL and flags & ElementFlag.LOCK:
        return Reason.BAD_FLAGS  # no bpf_spin_lock to hold (kernel/bpf/syscall.c, bpf_map_check_op_flags())
    indexed = facts.traits is not None and facts.traits.indexed
    if number == errno.ENOENT:
        if indexed:
            return Reason.INDEX_OUT_OF_RANGE
        return Reason.KEY_MISSING if op is Op.UPDATE_EXIST else Reason.KEY_ABSENT
    if number == errno.E2BIG and indexed:
        return Reason.INDEX_OUT_OF_RANGE
    return _ELEMENT_REASONS.get(number, Reason.INTERNAL)


def map_refusal(
    elements: Elements, map_fd: int, facts: MapFacts, op: Op, number: int, operation: str
) -> MapError:
    """Why the map as a whole refuses an operation, told apart by asking the kernel."""
    what = f"{operation} {facts.label}"
    about = {**facts.about(operation), "errno": errno_name(number)}
    if number in UNSUPPORTED:
        return MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{what}: this kernel has no such operation for {facts.type_name} maps [{errno_name(number)}]",
            **about,
        )
    if op in MUTATES and elements.info(map_fd).frozen:
        return MapError(
            Reason.MAP_FROZEN,
            f"{what}: the map is frozen; user space can never write it again, only programs can: "
            "use another map [EPERM]",
            **about,
        )
    return facts.access_refusal(operation, writes=op in MUTATES)


def element_error(facts: MapFacts, op: Op, failure: ElementFailure) -> MapError:
    """The refusal of a call that had one element."""
    operation = operation_of(op)
    return MapError(
        failure.reason,
        element_message(facts, op, failure.reason, failure.errno),
        **facts.about(operation),
        errno=errno_name(failure.errno),
        max_entries=facts.info.max_entries,
    )


def element_message(facts: MapFacts, op: Op, reason: Reason, number: int) -> str:
    """One sentence about one element that was refused."""
    what = f"{operation_of(op)} {facts.label}"
    size = f"max_entries={facts.info.max_entries}"
    said = f" [{errno_name(number)}]"
    match reason:
        case Reason.MAP_FULL:
            return f"{what}: full, {facts.info.max_entries} of {size}; remove elements or create a larger map{said}"
        case Reason.INDEX_OUT_OF_RANGE:
            return f"{what}: index out of range; {size}, so indexes go from 0 to {facts.info.max_entries - 1}{said}"
        case Reason.KEY_EXISTS if facts.traits is not None and facts.traits.indexed:
            return f"{what}: an array's elements all exist from the start; update without NOEXIST{said}"
        case Reason.KEY_EXISTS:
            return f"{what}: the key is there already and NOEXIST was asked for{said}"
        case Reason.KEY_MISSING:
            return f"{what}: the key is not there and EXIST was asked for{said}"
        case Reason.KERNEL_MEMORY:
            return (
                f"{what}: the kernel has no memory for another element; free some, or give the daemon's "
                f"cgroup more{said}"
            )
        case Reason.BUSY:
            return f"{what}: the kernel was busy three times; nothing was changed, try again{said}"
        case Reason.BAD_COLUMNS if facts.info.map_type == MapType.LPM_TRIE:
            bits = (facts.info.key_size - 4) * 8
            return f"{what}: refused; a prefix length above {bits} bits?{said}"
        case Reason.BAD_COLUMNS:
            return f"{what}: the kernel refuses this key or value{said}"
        case Reason.BAD_FLAGS:
            return f"{what}: BPF_F_LOCK needs a bpf_spin_lock in the value, and its BTF{said}"
        case _:
            return f"{what}: unexpected answer of the kernel{said}"
