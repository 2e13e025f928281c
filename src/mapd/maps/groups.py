"""Groups of element operations on one open map: checked whole, before any syscall.

``plan`` runs on the event loop for every message: no element of a column is looked at in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mapd.bpf.templates import MAX_CONTEXT_BYTES, MAX_KEY_BYTES, fits_one_cpu
from mapd.maps import widths
from mapd.maps.errors import MapError
from mapd.maps.opened import MapFacts, OpenMap, operation_of
from mapd.maps.traits import Value
from mapd.maps.widths import Run, Segment, Widths
from mapd_api import limits
from mapd_api.ops import ATOMICS, MUTATES, TAKES_VALUE, Op
from mapd_api.reasons import Reason
from mapd_api.uapi import ElementFlag

ONE_CPU_OPS: Final = frozenset({Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST})
"""What can be done to one CPU's slot."""

CREATING: Final = ATOMICS - {Op.COMPARE_EXCHANGE}
"""Operations that ``create`` is for."""

FIELD_SIZES: Final = (4, 8)
"""Bytes that a CPU changes in one instruction."""

_NEVER_CREATING: Final = frozenset({Op.COMPARE_EXCHANGE, Op.COMPARE_UPDATE})
_WHERE_CREATED: Final = f"say it with {', '.join(op.name.lower() for op in sorted(CREATING))} only"


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """What atomics work on: ``size`` bytes of a value, at ``offset``."""

    offset: int
    size: int

    def __str__(self) -> str:
        return f"field offset={self.offset} size={self.size}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Operations on one map as they arrived (elements.proto, OpGroup). Columns are packed bytes.

    ``asked`` is the caller's word for it ("load"); "" where the operations say it. ``cpu``: of a per-CPU map,
    this CPU's slot alone; values are value_size bytes then. ``touch``: of an LRU map, lookups count as uses.
    ``field`` and ``create`` are for atomics: what they work on, and whether they make what is absent.
    """

    count: int
    ops: bytes
    keys: bytes
    values: bytes = b""
    flags: int = 0
    asked: str = ""
    cpu: int | None = None
    touch: bool = False
    field: FieldSpec | None = None
    create: bool = False

    @property
    def operation(self) -> str:
        """For messages: what was asked, the one operation of the group, or "apply" where it has several."""
        words = {operation_of(op) for op in Op if op in self.ops}
        return self.asked or (words.pop() if len(words) == 1 else "apply")

    def count_of(self, op: Op) -> int:
        """How many elements have this operation, for one that is in the op column."""
        return self.count if len(self.ops) == 1 else self.ops.count(op)


@dataclass(frozen=True, slots=True)
class Plan:
    """A group that has been checked.

    Attributes:
        ops: the operations in it.
        widths: of its elements in either value column.
        answer_bytes: all values answered.
    """

    group: Group
    ops: frozenset[Op]
    widths: Widths
    answer_bytes: int

    @property
    def value_stride(self) -> int:
        """Bytes of one value, of operations on whole values."""
        return self.widths.stride

    def runs(self, within: Segment | None = None) -> Iterator[Run]:
        """Consecutive elements of one operation, in order. For a thread of the pool: there may be ``count``."""
        return widths.runs(self.group.ops, self.group.count, self.widths, within)

    def segments(self) -> Iterator[Segment]:
        """Consecutive elements that one thing runs, in order; mostly one."""
        return widths.segments(self.group.ops, self.group.count, self.widths)


@lru_cache(maxsize=256)
def _one_op(byte: int) -> frozenset[Op]:
    if byte not in widths.OPS:
        raise MapError(
            Reason.BAD_FLAGS,
            f"apply: {byte} is no operation; this daemon knows "
            + ", ".join(f"{op.value} {op.name}" for op in Op)
            + " (a newer client asks ServerInfo.features first)",
            operation="apply",
        )
    return frozenset({Op(byte)})


def distinct_ops(ops: bytes) -> frozenset[Op]:
    """The operations of an op column.

    Raises:
        MapError: BAD_FLAGS, a byte that is no operation; BAD_COLUMNS, no byte at all.
    """
    if len(ops) == 1:
        return _one_op(ops[0])
    if not ops:
        raise MapError(Reason.BAD_COLUMNS, "apply: the op column is empty", operation="apply")
    found: frozenset[Op] = frozenset()
    # Each round takes all of one operation out; a byte that is none ends it, so there are few rounds.
    while ops:
        found |= _one_op(ops[0])
        ops = ops.replace(ops[:1], b"")
    return found


def plan(group: Group, opened: OpenMap) -> Plan:
    """Check a group against its map, before any syscall.

    Raises:
        MapError: BAD_COLUMNS, KEY_SIZE_MISMATCH, VALUE_SIZE_MISMATCH, BAD_FLAGS, BAD_SPEC, OPERATION_UNSUPPORTED
            or READ_ONLY, with the numbers that disagree.
    """
    facts, count = opened.facts, group.count
    if facts.key_stride + facts.value_stride > limits.COLUMN_BYTES:
        facts.check_message(group.operation)
    if not 1 <= count <= limits.BATCH_ELEMENTS:
        raise _columns(group, facts, f"count is {count}; a group has 1 to {limits.BATCH_ELEMENTS} elements")
    if len(group.ops) not in (1, count):
        raise _columns(
            group,
            facts,
            f"the op column has {len(group.ops)} bytes for {count} elements; it has one byte or one each",
        )
    ops = distinct_ops(group.ops)
    _check_ops(group, opened, ops)
    if group.flags:
        _check_flags(group, facts, ops)
    if group.create and not ops.isdisjoint(_NEVER_CREATING):
        raise _spec(group, facts, f"create, and it never creates; {_WHERE_CREATED}", ops & _NEVER_CREATING)
    if not ops.isdisjoint(ATOMICS):
        _check_field(group, facts, ops)
    found = _widths(group, facts)
    return Plan(group, ops, found, _check_columns(group, facts, ops, found))


def answer_bytes(group: Group, facts: MapFacts) -> int:
    """Bytes of the values that a group would be answered; a group that ``plan`` refuses may have any number.

    Raises:
        MapError: as ``distinct_ops``; the CPU that it names cannot be.
    """
    found = _widths(group, facts)
    return sum(group.count_of(op) * found.answered(op) for op in distinct_ops(group.ops))


def _check_ops(group: Group, opened: OpenMap, ops: frozenset[Op]) -> None:
    facts = opened.facts
    if Op.COMPARE_UPDATE in ops and not facts.has_lock:
        operation = group.asked or operation_of(Op.COMPARE_UPDATE)
        raise MapError(
            Reason.OPERATION_UNSUPPORTED,
            f"{operation} {facts.label}: {facts.type_name} maps: values over 8 bytes can be compared and updated only "
            "under a bpf_spin_lock, and this map's have none (MapInfo.has_lock); compare_exchange is for a field of 4 "
            "or 8 bytes",
            **facts.about(operation),
        )
    if facts.traits is not None and ops <= facts.traits.ops:
        if opened.read_only:
            for op in sorted(ops & MUTATES):
                opened.check_writable(op, group.asked or operation_of(op))
        return
    for op in sorted(ops):
        operation = group.asked or operation_of(op)
        if op in ATOMICS and facts.traits is not None and facts.traits.value is Value.PER_CPU:
            raise MapError(
                Reason.OPERATION_UNSUPPORTED,
                f"{operation} {facts.label}: {facts.type_name} maps have no atomics: a program counts in the slot of "
                "the CPU that it runs on, so no two CPUs share a number; update one CPU's slot (cpu=...)",
                **facts.about(operation),
            )
        facts.supports(op, operation)
        opened.check_writable(op, operation)


def _widths(group: Group, facts: MapFacts) -> Widths:
    """What one element takes in the columns of a group.

    Raises:
        MapError: it names a CPU, and the map has no slots, or not so many (BAD_SPEC, with both numbers), or an
            operation cannot be done to one slot.
    """
    # A field that plan() refuses answers nothing.
    field = group.field.size if group.field is not None and group.field.size in FIELD_SIZES else 0
    if group.cpu is None:
        return Widths(facts.value_stride, field)
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
    return Widths(facts.info.value_size, field)


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


def _check_flags(group: Group, facts: MapFacts, ops: frozenset[Op]) -> None:
    operation = group.operation
    if group.flags & ~int(ElementFlag.LOCK):
        why = "BPF_F_LOCK (4) or 0 is taken here, and ANY, NOEXIST or EXIST is said by the operation"
    elif Op.DELETE in ops:
        # MAP_DELETE_ELEM takes no flags, and MAP_DELETE_BATCH would not look at them.
        why = "BPF_F_LOCK is for lookups and updates; send deletes in a group without it"
    elif not ops.isdisjoint(ATOMICS):
        why = "BPF_F_LOCK is for lookups and updates; an atomic holds no lock: send atomics in a group without it"
    elif not facts.has_lock:
        why = "BPF_F_LOCK needs a bpf_spin_lock in the value's BTF, and this map has none"
    else:
        return
    raise MapError(
        Reason.BAD_FLAGS,
        f"{operation} {facts.label}: flags {group.flags:#x}; {why}",
        **facts.about(operation),
        flags=hex(group.flags),
    )


def _check_field(group: Group, facts: MapFacts, ops: frozenset[Op]) -> None:
    field, size = group.field, facts.info.value_size
    if field is None:
        why = f"no field: say which 4 or 8 of the value's {size} bytes (OpGroup.field)"
    elif field.size not in FIELD_SIZES:
        why = f"{field}; an atomic takes 4 or 8 bytes"
    elif field.offset % field.size:
        why = f"{field}; the offset of an atomic is a multiple of its size"
    elif field.offset + field.size > size:
        why = f"{field} ends at byte {field.offset + field.size}; this map's values have {size} bytes"
    else:
        return
    raise _spec(group, facts, why, ops & ATOMICS)


def _check_columns(group: Group, facts: MapFacts, ops: frozenset[Op], found: Widths) -> int:
    """Compare columns with what the operations need; the bytes of the answer's value column."""
    due = group.count * facts.info.key_size
    if len(group.keys) != due:
        raise _mismatch(group, facts, "key", len(group.keys), group.count, facts.key_stride)
    taken = answered = 0
    for op in ops:
        count = group.count_of(op)
        taken += count * found.taken(op)
        answered += count * found.answered(op)
    if len(group.values) != taken:
        raise _value_mismatch(group, facts, ops, found, taken)
    if answered > limits.COLUMN_BYTES:
        width = max(map(found.answered, ops))
        values = sum(group.count_of(op) for op in ops if found.answered(op))
        raise _columns(
            group,
            facts,
            f"{values} values of {width} bytes would be answered; a message holds "
            f"{limits.COLUMN_BYTES}: ask for at most {limits.COLUMN_BYTES // width} at once",
            given=answered,
            limit=limits.COLUMN_BYTES,
        )
    return answered


def _value_mismatch(group: Group, facts: MapFacts, ops: frozenset[Op], found: Widths, due: int) -> MapError:
    got = len(group.values)
    taking = sorted(ops & TAKES_VALUE)
    if {found.taken(op) for op in taking} <= {found.stride}:
        elements = sum(map(group.count_of, taking))
        return _mismatch(group, facts, "value", got, elements, found.stride, _per_cpu_hint(group, facts))
    parts = " and ".join(
        f"{group.count_of(op)} {op.name.lower()} of {found.taken(op)} bytes" for op in taking
    )
    return _columns(
        group,
        facts,
        f"the value column has {got} bytes; {due} are due: {parts} each",
        given=got,
        expected=due,
    )


def _mismatch(
    group: Group, facts: MapFacts, what: str, got: int, elements: int, stride: int, hint: str = ""
) -> MapError:
    if elements == 0 or got % elements:
        return _columns(
            group,
            facts,
            f"the {what} column has {got} bytes; {elements} {what}s of {stride} bytes each are due",
            given=got,
            expected=elements * stride,
        )
    operation = group.operation
    return MapError(
        Reason.KEY_SIZE_MISMATCH if what == "key" else Reason.VALUE_SIZE_MISMATCH,
        f"{operation} {facts.label}: {what}s of {got // elements} bytes; this {facts.type_name} map's {what}s "
        f"have {stride} bytes{hint}",
        **facts.about(operation),
        given=got // elements,
        expected=stride,
    )


def _per_cpu_hint(group: Group, facts: MapFacts) -> str:
    if group.cpu is not None:
        return f" (the slot of CPU {group.cpu} alone)"
    if facts.value_stride != facts.info.value_size:
        return f" (a slot of {facts.info.value_size}, padded to a multiple of 8, for each possible CPU)"
    return ""


def _columns(group: Group, facts: MapFacts, what: str, **numbers: int) -> MapError:
    operation = group.operation
    return MapError(
        Reason.BAD_COLUMNS, f"{operation} {facts.label}: {what}", **facts.about(operation), **numbers
    )


def _spec(group: Group, facts: MapFacts, what: str, ops: frozenset[Op]) -> MapError:
    operation = group.asked or operation_of(min(ops))
    return MapError(Reason.BAD_SPEC, f"{operation} {facts.label}: {what}", **facts.about(operation))
