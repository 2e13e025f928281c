"""Whether a history can have happened on one map: linearizability, key by key.

There must be an order of the operations in which each answers what the model answers, and in which one that had
returned before another was invoked comes before it. An operation of unknown outcome may stand anywhere behind its
invocation, or nowhere.

The search goes through the invocations and returns in the order of time and keeps all configurations that the past
allows: the key's value, and which of the operations under way have taken effect. Operations take effect as late as
possible, at somebody's return (Lowe, "Testing for linearizability", 2017), and a configuration is kept once. Of two
that differ only in operations of unknown outcome, the one in which fewer have taken effect can do all that the other
can, and is kept alone: that is what makes histories of many kills cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tests.reliability.kit.history import OK, REFUSED, UNKNOWN, History, Operation
from tests.reliability.kit.model import ANSWERS_VALUE, OPERATIONS, READS, State, written

MOST: Final = 200_000
"""Configurations of one key at one moment. More say nothing of the map: the load was too much for the check."""

Taken: TypeAlias = tuple[State, int]
"""The key's value, and a bit for each operation of known outcome that is under way and has taken effect."""


class Undecided(Exception):
    """More configurations than can be searched: too many operations on one key under way at once."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A key whose operations cannot have happened.

    Attributes:
        operation: the first that no order explains; all before it have one.
        possible: the values that the key can have had then.
        ghost: it answered a value that nobody can have written.
    """

    key: int
    operation: Operation
    possible: frozenset[State]
    ghost: bool

    def __str__(self) -> str:
        said = self.operation
        what = (
            "which nobody wrote"
            if self.ghost
            else f"and the key can have been {sorted(map(str, self.possible))}"
        )
        return (
            f"key {self.key}: {said.op}{said.args} of client {said.client} (call {said.call}) answered "
            f"{said.result}, {what}"
        )


def check(history: History, initial: Mapping[int, State] | None = None) -> list[Violation]:
    """The keys that cannot have been so, one violation each.

    Args:
        initial: what the keys were before; absent ones were absent.

    Raises:
        Undecided: it would take for ever.
    """
    before = initial or {}
    found = (check_key(key, each, before.get(key)) for key, each in history.by_key().items())
    return [violation for violation in found if violation is not None]


def check_key(key: int, operations: Iterable[Operation], initial: State = None) -> Violation | None:
    """The first operation on one key that nothing explains. Raises as ``check``."""
    # What was refused, and reads that nobody was answered, leave nothing behind.
    kept = [
        each
        for each in operations
        if each.outcome != REFUSED and not (each.outcome == UNKNOWN and each.op in READS)
    ]
    search = _Search(kept, initial)
    for at, returns in _events(kept):
        if not returns:
            search.invoke(at)
        elif not search.returned(at):
            bad = kept[at]
            return Violation(key, bad, search.values, _is_ghost(bad, kept, initial))
    return None


def _events(operations: Sequence[Operation]) -> list[tuple[int, bool]]:
    """Which operation is invoked, or returns, in the order of time; at one moment invocations come first."""
    times = [(each.invoked, False, at) for at, each in enumerate(operations)]
    times += [(each.returned, True, at) for at, each in enumerate(operations) if each.returned is not None]
    return [(at, returns) for _, returns, at in sorted(times)]


def _is_ghost(bad: Operation, operations: Sequence[Operation], initial: State) -> bool:
    if bad.op not in ANSWERS_VALUE or bad.result is None or bad.result == initial:
        return False
    if any(each.op == "fetch_add" for each in operations):
        return False  # sums: the arguments do not say which values there may be
    return all(bad.result not in written(each.op, each.args) for each in operations)


class _Search:
    """The configurations of one key at one moment."""

    def __init__(self, operations: Sequence[Operation], initial: State) -> None:
        self._operations = operations
        # For each configuration, the sets of unknown operations (as bits) that it takes at least.
        self._found: dict[Taken, list[int]] = {(initial, 0): [0]}
        self._known: list[int] = []
        self._unknown: list[int] = []

    @property
    def values(self) -> frozenset[State]:
        """What the key can have been."""
        return frozenset(state for state, _ in self._found)

    def invoke(self, at: int) -> None:
        """An operation is under way."""
        (self._known if self._operations[at].outcome == OK else self._unknown).append(at)

    def returned(self, at: int) -> bool:
        """It had taken effect by now; False if that cannot be, and ``values`` is as it was."""
        bit = 1 << at
        done: dict[Taken, list[int]] = {}
        todo: dict[Taken, list[int]] = {}
        for (state, taken), sets in self._found.items():
            into, left = (done, taken & ~bit) if taken & bit else (todo, taken)
            for unknown in sets:
                _keep(into, (state, left), unknown)
        self._explore(at, todo, done)
        if not done:
            return False
        self._known.remove(at)
        self._found = done
        return True

    def _explore(self, at: int, seen: dict[Taken, list[int]], done: dict[Taken, list[int]]) -> None:
        """Let what is under way take effect in every order that ends with the operation that returns."""
        waiting = [(*taken, unknown) for taken, sets in seen.items() for unknown in sets]
        for state, taken, unknown in waiting:  # it grows
            if len(waiting) > MOST:
                raise Undecided(f"{len(waiting)} configurations with {len(self._unknown)} unknown outcomes")
            if unknown not in seen.get((state, taken), ()):
                continue  # one that takes fewer has been found meanwhile
            for other in self._known:
                if taken >> other & 1:
                    continue
                operation = self._operations[other]
                result, after = OPERATIONS[operation.op](state, *operation.args)
                if result != operation.result:
                    continue
                if other == at:
                    _keep(done, (after, taken), unknown)
                elif _keep(seen, (after, taken | 1 << other), unknown):
                    waiting.append((after, taken | 1 << other, unknown))
            for other in self._unknown:
                if unknown >> other & 1:
                    continue
                operation = self._operations[other]
                _, after = OPERATIONS[operation.op](state, *operation.args)
                if after != state and _keep(seen, (after, taken), unknown | 1 << other):
                    waiting.append((after, taken, unknown | 1 << other))


def _keep(into: dict[Taken, list[int]], taken: Taken, unknown: int) -> bool:
    """Add a configuration, unless one that takes no more unknown operations is there; drop those that take more."""
    sets = into.setdefault(taken, [])
    if any(other & unknown == other for other in sets):
        return False
    sets[:] = [other for other in sets if other & unknown != unknown]
    sets.append(unknown)
    return True
