"""Groups of element operations on one open map: checked whole, before any syscall."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from mapd.bpf.templates import MAX_CONTEXT_BYTES, MAX_KEY_BYTES, fits_one_cpu
from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd.maps.traits import Value
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag

ONE_CPU_OPS: Final = frozenset({Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})
"""What can be done to one CPU's slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations on one map as they arrived (elements.proto, OpGroup). Columns are packed bytes.

    ``asked`` is the caller's word for it ("load"); "" where the operations say it. ``cpu``: of a per-CPU map,
    this CPU's slot alone; values are value_size bytes then.
    """

    count: int
    ops: bytes
    keys: bytes
    values: bytes = b""
    flags: int = 0
    asked: str = ""
    cpu: int | None = None

    @property
    def operation(self) -> str:
        """For messages: what was asked, the one operation of the group, or "apply" where it has several."""
        words = {operation_of(op) for op in Op if op in self.ops}
        return self.asked or (words.pop() if len(words) == 1 else "apply")


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
    """A group that has been checked: its runs, what one value takes in its columns, and all values answered."""

    group: Group
    runs: Sequence[Run]
    value_stride: int
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
    _check_flags(group, facts)
    stride = value_stride(group, facts)
    runs = tuple(_runs(group))
    return Plan(group, runs, stride, _check_columns(group, runs, facts, stride))


def value_stride(group: Group, facts: MapFacts) -> int:
    """Bytes of one value in the columns of a group.

    Raises:
        MapError: it names a CPU, and the map has no slots, or not so many (BAD_SPEC, with both numbers), or an
            operation cannot be done to one slot.
    """
    if group.cpu is None:
        return facts.value_stride
    operation = group.operation
    if facts.traits is None or facts.traits.value is not Value.PER_CPU:
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{operation} {facts.label}: cpu={group.cpu}; {facts.type_name} maps have one value per key, and no slot "
            "per CPU",
            **facts.about(operation),
        )
    cpus = facts.value_stride // facts.slot_stride
    if group.cpu >= cpus:
        raise MapError(
            Reason.BAD_SPEC,
            f"{operation} {facts.label}: cpu={group.cpu}; this host has {cpus} possible CPUs, 0 to {cpus - 1}",
            **facts.about(operation),
            given=group.cpu,
            possible_cpus=cpus,
        )
    _check_one_cpu(group, facts)
    return facts.info.value_size


def _check_one_cpu(group: Group, facts: MapFacts) -> None:
    operation, info = group.operation, facts.info
    ops = distinct_ops(group.ops)
    if not ops <= ONE_CPU_OPS:
        why = f"can be {', '.join(op.name.lower() for op in sorted(ONE_CPU_OPS))} only"
    elif ops != frozenset({Op.LOOKUP}) and not fits_one_cpu(info.key_size, info.value_size):
        why = (
            f"cannot be written: key_size={info.key_size} value_size={info.value_size}, and a program takes keys of "
            f"{MAX_KEY_BYTES} bytes and {MAX_CONTEXT_BYTES} of both"
        )
    else:
        return
    raise MapError(
        Reason.OPERATION_UNSUPPORTED,
        f"{operation} {facts.label}: one CPU's slot {why}; name no CPU and it is done to all slots",
        **facts.about(operation),
    )


def _check_flags(group: Group, facts: MapFacts) -> None:
    operation = group.operation
    if group.flags & ~int(ElementFlag.LOCK):
        why = "BPF_F_LOCK (4) or 0 is taken here, and ANY, NOEXIST or EXIST is said by the operation"
    elif group.flags and Op.DELETE in group.ops:
        # MAP_DELETE_ELEM takes no flags, and MAP_DELETE_BATCH would not look at them.
        why = "BPF_F_LOCK is for lookups and updates; send deletes in a group without it"
    elif group.flags and not facts.has_lock:
        why = "BPF_F_LOCK needs a bpf_spin_lock in the value's BTF, and this map has none"
    else:
        return
    raise MapError(
        Reason.BAD_FLAGS,
        f"{operation} {facts.label}: flags {group.flags:#x}; {why}",
        **facts.about(operation),
        flags=hex(group.flags),
    )


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


def _check_columns(group: Group, runs: Sequence[Run], facts: MapFacts, value_bytes: int) -> int:
    """Compare columns with what the operations need; the bytes of the answer's value column."""
    operation = group.operation
    taken = sum(run.count for run in runs if run.op in TAKES_VALUE)
    answered = sum(run.count for run in runs if run.op in ANSWERS_VALUE)
    for reason, what, got, elements, stride in (
        (Reason.KEY_SIZE_MISMATCH, "key", len(group.keys), group.count, facts.key_stride),
        (Reason.VALUE_SIZE_MISMATCH, "value", len(group.values), taken, value_bytes),
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
            f"have {stride} bytes" + _per_cpu_hint(group, facts, what),
            **facts.about(operation),
            given=got // elements,
            expected=stride,
        )
    answer = answered * value_bytes
    if answer > limits.COLUMN_BYTES:
        raise _columns(
            facts,
            operation,
            f"{answered} values of {value_bytes} bytes would be answered; a message holds "
            f"{limits.COLUMN_BYTES}: ask for at most {limits.COLUMN_BYTES // value_bytes} at once",
            given=answer,
            limit=limits.COLUMN_BYTES,
        )
    return answer


def _per_cpu_hint(group: Group, facts: MapFacts, what: str) -> str:
    if what == "value" and group.cpu is not None:
        return f" (the slot of CPU {group.cpu} alone)"
    if what == "value" and facts.value_stride != facts.info.value_size:
        return f" (a slot of {facts.info.value_size}, padded to a multiple of 8, for each possible CPU)"
    return ""


def _columns(facts: MapFacts, operation: str, what: str, **numbers: int) -> MapError:
    return MapError(
        Reason.BAD_COLUMNS, f"{operation} {facts.label}: {what}", **facts.about(operation), **numbers
    )
