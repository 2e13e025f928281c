"""A group under way: what runs it, on what, and what has become of its elements so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from mapd.bpf.buffer import Buffer
from mapd.bpf.kernel import Columns, Kernel
from mapd.maps import statuses
from mapd.maps.answers import ElementFailure, element_reason
from mapd.maps.groups import Plan
from mapd.maps.opened import MapFacts, OpenMap
from mapd.maps.widths import Run
from mapd_api import limits
from mapd_api.ops import ANSWERS_VALUE, TAKES_VALUE, Op
from mapd_api.reasons import Reason

Refused = tuple[int, int]
"""The map itself refuses: how many elements of the run were done, and the errno."""


@dataclass(slots=True)
class Outcome:
    """What became of a group: one Reason a byte, the values answered, the first failures."""

    statuses: bytearray
    values: Buffer
    errors: list[ElementFailure] = field(default_factory=list[ElementFailure])

    @property
    def room(self) -> int:
        """How many failures more are told with their errno."""
        return limits.ERROR_DETAILS - len(self.errors)

    def fail(self, index: int, reason: Reason, number: int) -> None:
        """Record one element that was not done."""
        self.statuses[index] = reason
        if reason is not Reason.KEY_ABSENT and self.room > 0:
            self.errors.append(ElementFailure(index, reason, number))

    def record(self, facts: MapFacts, start: int, ops: bytes, errnos: bytes) -> None:
        """Record what became of the elements from ``start`` on, by tables: see ``statuses.reasons``."""
        found = statuses.reasons(facts, ops, errnos)
        self.statuses[start : start + len(found)] = found
        self.errors.extend(statuses.failures(found, errnos, start, self.room))

    def refuse(self, start: int, reason: Reason, number: int) -> None:
        """Record that nothing from element ``start`` on was done."""
        rest = len(self.statuses) - start
        self.statuses[start:] = bytes([reason]) * rest
        told = range(start, start + min(rest, self.room))
        self.errors.extend(ElementFailure(index, reason, number) for index in told)


class Late(Exception):
    """The time was over: nothing from element ``at`` on was done."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


BETWEEN_LOOKS: Final = 4_096
BETWEEN_LOOKS_SLOW: Final = 16
"""Elements that are done before the clock is looked at again: 1 to 8 ms of syscalls, and with those that wait for the
programs of all CPUs (synchronize_rcu, kernel/bpf/syscall.c, maybe_wait_bpf_programs()) some ten."""


@dataclass(frozen=True, slots=True)
class Job:
    """One group on one map.

    Attributes:
        keys, values: its columns as the kernel reads them.
        expires: time.monotonic() after which no further syscall is begun; None: never.
    """

    kernel: Kernel
    map_fd: int
    opened: OpenMap
    plan: Plan
    keys: Buffer
    values: Buffer
    outcome: Outcome
    expires: float | None = None

    def timely(self, run: Run) -> Iterator[Run]:
        """A run in parts, as long as there is time.

        Raises:
            Late: there is none, and something was done.
        """
        if self.expires is None:
            yield run
            return
        widths, traits = self.plan.widths, self.facts.traits
        most = BETWEEN_LOOKS_SLOW if traits is not None and traits.slow else BETWEEN_LOOKS
        taken, answered = widths.taken(run.op), widths.answered(run.op)
        for done in range(0, run.count, most):
            if run.start + done and time.monotonic() >= self.expires:
                raise Late(run.start + done)
            yield Run(
                run.op,
                run.start + done,
                min(most, run.count - done),
                run.value_in + done * taken,
                run.value_out + done * answered,
            )

    @property
    def facts(self) -> MapFacts:
        """The map's."""
        return self.opened.facts

    def columns(self, run: Run) -> Columns:
        """Where the elements of a run lie, in the request and in the answer."""
        facts, stride = self.facts, self.plan.value_stride
        takes = run.op in TAKES_VALUE
        return Columns(
            count=run.count,
            keys=self.keys,
            key_stride=facts.key_stride,
            key_offset=run.start * facts.key_stride,
            values=self.values if takes else (self.outcome.values if run.op in ANSWERS_VALUE else None),
            value_stride=stride,
            value_offset=run.value_in if takes else run.value_out,
        )

    def each(self, op: Op, columns: Columns) -> list[int]:
        """One syscall for each element; see ``Elements.each``."""
        return self.kernel.each(self.map_fd, op, columns, self.plan.group.flags)

    def fail(self, run: Run, at: int, number: int) -> None:
        """Record that element ``at`` of a run was refused with an errno."""
        size = self.facts.key_stride
        key = self.keys.take(size, (run.start + at) * size)
        reason = element_reason(self.facts, run.op, number, key, self.plan.group.flags)
        self.outcome.fail(run.start + at, reason, number)

    def blank(self, run: Run, at: int) -> None:
        """Answer zeros for element ``at`` of a run, whatever the kernel has written there meanwhile."""
        stride = self.plan.value_stride
        start = run.value_out + at * stride
        np.frombuffer(self.outcome.values.view, np.uint8)[start : start + stride] = 0


def part(columns: Columns, done: int, count: int | None = None) -> Columns:
    """The columns behind the first ``done`` elements: all that are left, or ``count``."""
    if done == 0 and count is None:
        return columns
    return replace(
        columns,
        count=columns.count - done if count is None else count,
        key_offset=columns.key_offset + done * columns.key_stride,
        value_offset=columns.value_offset + done * columns.value_stride,
    )
