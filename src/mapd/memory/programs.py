"""What mapd's own programs do, done here: over a map in memory, in a slot of an array that is shared.

The kernel's rules that its verifier checks at loading are checked at loading here too; ``MemoryKernel`` runs them.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from mapd.bpf import atomic, compare
from mapd.bpf.atomic import AtomicLayout, atomic_layout
from mapd.bpf.buffer import Buffer
from mapd.bpf.compare import LOCK_BYTES, CompareLayout, compare_layout
from mapd.bpf.kernel import LoadTemplate
from mapd.bpf.scratch import CONTEXT, NO_SLOT
from mapd.bpf.templates import COUNTED, ONE_CPU_HEAD, Template
from mapd.memory.memorymap import MemoryMap
from mapd_api.layout import round_up8
from mapd_api.ops import Op
from mapd_api.uapi import PER_CPU_TYPES, MapFlag, MapType

IN_SCRATCH: Final = frozenset({Template.ATOMIC, Template.ATOMIC_AT, Template.COMPARE_UPDATE})
"""Programs that take a scratch beside the map."""

_KNOWN: Final = IN_SCRATCH | {Template.COUNT_ENTRIES, Template.WRITE_ONE_CPU}
_ATOMIC_TYPES: Final = frozenset({MapType.HASH, MapType.LRU_HASH, MapType.ARRAY})
_SLEEPABLE: Final = _ATOMIC_TYPES | PER_CPU_TYPES | {MapType.QUEUE, MapType.STACK}
"""Of what can be made here, the types that a sleepable program may use (kernel/bpf/verifier.c)."""

_CHANGES: Final[Mapping[int, Callable[[int, int], int]]] = MappingProxyType(
    {
        Op.FETCH_ADD: int.__add__,
        Op.FETCH_AND: int.__and__,
        Op.FETCH_OR: int.__or__,
        Op.FETCH_XOR: int.__xor__,
        Op.EXCHANGE: lambda _, operand: operand,
    }
)


def refusal(request: LoadTemplate, over: MemoryMap, scratch: MemoryMap | None) -> int:
    """What BPF_PROG_LOAD of a template answers: 0, or an errno."""
    template, shape, flags = Template(request.template), over.table.shape, over.info().map_flags
    if template not in _KNOWN or shape.map_type not in _SLEEPABLE:
        return errno.EINVAL
    if template is Template.COUNT_ENTRIES:
        return 0
    if template is Template.WRITE_ONE_CPU:
        if shape.map_type not in PER_CPU_TYPES:
            return errno.EINVAL
        return errno.EACCES if flags & MapFlag.RDONLY_PROG else 0
    if scratch is None or shape.map_type not in _ATOMIC_TYPES:
        return errno.EINVAL
    if flags & (MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG):
        return errno.EACCES
    if template is Template.COMPARE_UPDATE:
        found = compare_layout(request.key_size, request.value_size, request.slot_bytes)
        return errno.EINVAL if found is None or shape.lock is None else 0
    if atomic_layout(request.key_size, request.value_size, request.field_size, request.slot_bytes) is None:
        return errno.EINVAL
    if template is Template.ATOMIC:
        return 0 if shape.lock is None else errno.EACCES
    return _fixed_field_refusal(request, shape.lock)


def _fixed_field_refusal(request: LoadTemplate, lock: int | None) -> int:
    begin, end = request.field_offset, request.field_offset + request.field_size
    on_lock = lock is not None and begin < lock + LOCK_BYTES and lock < end
    return errno.EACCES if on_lock or begin % request.field_size or end > request.value_size else 0


def run(request: LoadTemplate, over: MemoryMap, scratch: MemoryMap | None, ctx: Buffer) -> int:
    """BPF_PROG_RUN: R0."""
    template = Template(request.template)
    if template is Template.COUNT_ENTRIES:
        COUNTED.pack_into(ctx.view, 0, over.count())
        return 0
    if template is Template.WRITE_ONE_CPU:
        (cpu,) = ONE_CPU_HEAD.unpack_from(ctx.view)
        key = ctx.take(request.key_size, ONE_CPU_HEAD.size)
        value = ctx.take(request.value_size, ONE_CPU_HEAD.size + round_up8(request.key_size))
        return over.write_one_cpu(key, value, cpu)
    (number,) = CONTEXT.unpack_from(ctx.view)
    slot = None if scratch is None else scratch.slot(number)
    if slot is None:
        return NO_SLOT
    if template is Template.COMPARE_UPDATE:
        _compare(request, over, slot)
    else:
        _atomic(request, over, slot)
    return 0


def _atomic(request: LoadTemplate, over: MemoryMap, slot: memoryview) -> None:
    layout = atomic_layout(request.key_size, request.value_size, request.field_size, request.slot_bytes)
    assert layout is not None  # it was loaded
    count, offset, create = atomic.HEAD.unpack_from(slot)
    if request.template == Template.ATOMIC_AT:
        offset = request.field_offset
    for row in range(min(count, layout.rows)):
        number = _atomic_row(
            layout, over, slot, row, offset, create=bool(create) and layout.blank is not None
        )
        slot[layout.errnos + row] = number


def _atomic_row(
    layout: AtomicLayout, over: MemoryMap, slot: memoryview, row: int, offset: int, *, create: bool
) -> int:
    size, op = layout.field_size, slot[layout.ops + row]

    def number(column: int) -> int:
        return int.from_bytes(slot[column + row * size :][:size], sys.byteorder)

    def change(value: bytes) -> bytes | int:
        if offset > layout.value_size - size or op not in (*_CHANGES, Op.COMPARE_EXCHANGE):
            return errno.EINVAL
        at = offset & -size
        old = int.from_bytes(value[at : at + size], sys.byteorder)
        operand = number(layout.operands)
        if op == Op.COMPARE_EXCHANGE:
            new = operand if old == number(layout.expected) else old
        else:
            new = _CHANGES[op](old, operand) % (1 << 8 * size)
        return value[:at] + new.to_bytes(size, sys.byteorder) + value[at + size :]

    key = bytes(slot[layout.keys + row * layout.key_size :][: layout.key_size])
    found = over.change(key, change, create=create and op != Op.COMPARE_EXCHANGE)
    if isinstance(found, int):
        return found
    at = offset & -size
    slot[layout.old + row * size :][:size] = found[at : at + size]
    return 0


def _compare(request: LoadTemplate, over: MemoryMap, slot: memoryview) -> None:
    layout = compare_layout(request.key_size, request.value_size, request.slot_bytes)
    assert layout is not None  # it was loaded
    (count,) = compare.HEAD.unpack_from(slot)
    for row in range(min(count, layout.rows)):
        number = _compare_row(layout, over, slot, row)
        slot[layout.errnos + row] = number


def _compare_row(layout: CompareLayout, over: MemoryMap, slot: memoryview, row: int) -> int:
    room, size, lock = layout.value_room, layout.value_size, over.table.shape.lock
    assert lock is not None  # it was loaded
    expected = bytes(slot[layout.pairs + row * 2 * room :][:size])
    new = bytes(slot[layout.pairs + (row * 2 + 1) * room :][:size])

    def locked(value: bytes) -> bytes:
        return value[:lock] + expected[lock : lock + LOCK_BYTES] + value[lock + LOCK_BYTES :]

    key = bytes(slot[layout.keys + row * layout.key_size :][: layout.key_size])
    found = over.change(key, lambda value: new if locked(value) == expected else value, create=False)
    if isinstance(found, int):
        return found
    slot[layout.old + row * room :][:size] = locked(found)
    return 0
