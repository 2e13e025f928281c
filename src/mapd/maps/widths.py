"""How wide elements are in the value columns, by operation; and an op column cut where it changes. Pure.

Alternating operations make as many runs as elements, so runs are made where a thread of the pool needs them,
never on the event loop.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from mapd_api.ops import ANSWERS_VALUE, ATOMICS, TAKES_VALUE, Op

OPS: Final = frozenset(Op)


class Kind(IntEnum):
    """What runs an operation."""

    PLAIN = 0  # a syscall has it
    ATOMIC = 1  # a program, on a field
    COMPARE = 2  # a program, on a whole value under its lock


_KINDS: Final = bytes(
    Kind.ATOMIC if byte in ATOMICS else Kind.COMPARE if byte == Op.COMPARE_UPDATE else Kind.PLAIN
    for byte in range(256)
)
"""The kind of each op byte."""


@dataclass(frozen=True, slots=True)
class Widths:
    """Bytes per element: ``stride`` of a value, ``field`` of what atomics work on (0: the group has none)."""

    stride: int
    field: int = 0

    def taken(self, op: int) -> int:
        """Of the request's value column."""
        if op not in TAKES_VALUE:
            return 0
        if op in ATOMICS:
            return 2 * self.field if op == Op.COMPARE_EXCHANGE else self.field
        return 2 * self.stride if op == Op.COMPARE_UPDATE else self.stride

    def answered(self, op: int) -> int:
        """Of the answer's value column."""
        if op not in ANSWERS_VALUE:
            return 0
        return self.field if op in ATOMICS else self.stride


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive elements of one operation, and the bytes at which their values begin in either column."""

    op: Op
    start: int
    count: int
    value_in: int
    value_out: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive elements of one kind, and the bytes at which their values begin in either column."""

    kind: Kind
    start: int
    count: int
    value_in: int
    value_out: int


def runs(ops: bytes, count: int, widths: Widths, within: Segment | None = None) -> Iterator[Run]:
    """An op column (one byte stands for ``count``), or a part of it, cut where the operation changes."""
    part = within or Segment(Kind.PLAIN, 0, count, 0, 0)
    value_in, value_out = part.value_in, part.value_out
    for start, end in _changes(
        ops[part.start : part.start + part.count] if len(ops) > 1 else ops, part.count
    ):
        op = Op(ops[part.start + start] if len(ops) > 1 else ops[0])
        yield Run(op, part.start + start, end - start, value_in, value_out)
        value_in += (end - start) * widths.taken(op)
        value_out += (end - start) * widths.answered(op)


def segments(ops: bytes, count: int, widths: Widths) -> Iterator[Segment]:
    """An op column cut where the kind of its operations changes; without a kind of its own, in one piece."""
    kinds = ops.translate(_KINDS)
    if len(kinds) == 1 or kinds.count(kinds[0]) == count:
        yield Segment(Kind(kinds[0]), 0, count, 0, 0)
        return
    taken, answered = (offsets(ops, widths.taken), offsets(ops, widths.answered))
    for start, end in _changes(kinds, count):
        yield Segment(Kind(kinds[start]), start, end - start, int(taken[start]), int(answered[start]))


def offsets(ops: bytes, width: Callable[[int], int]) -> npt.NDArray[np.int64]:
    """Where each element of an op column begins in a value column, and behind the last where it ends."""
    table = np.array([width(byte) if byte in OPS else 0 for byte in range(256)], np.int64)
    found = np.zeros(len(ops) + 1, np.int64)
    np.cumsum(table[np.frombuffer(ops, np.uint8)], out=found[1:])
    return found


def _changes(column: bytes, count: int) -> Iterable[tuple[int, int]]:
    """(start, end) of the pieces of a column in which all bytes are equal."""
    if len(column) == 1:
        return ((0, count),)
    starts = np.flatnonzero(np.diff(np.frombuffer(column, np.uint8))) + 1
    return itertools.pairwise([0, *starts.tolist(), count])
