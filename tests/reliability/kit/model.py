"""One key of a map, as the kernel keeps it: what each operation answers, and what it leaves behind.

A state is the key's value, None where the key is absent. Keys do not know of each other, so a map is right if each of
its keys is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

State: TypeAlias = int | None
Step: TypeAlias = Callable[..., tuple[int | None, State]]

MODULUS: Final = 2**64


def update(state: State, value: int) -> tuple[int | None, State]:
    """BPF_ANY; answers nothing."""
    del state
    return None, value


def update_noexist(state: State, value: int) -> tuple[int | None, State]:
    """1 where it created the key, 0 where that was there."""
    return (1, value) if state is None else (0, state)


def update_exist(state: State, value: int) -> tuple[int | None, State]:
    """1 where it replaced the value, 0 where there was none."""
    return (0, None) if state is None else (1, value)


def delete(state: State) -> tuple[int | None, State]:
    """1 where the key was there."""
    return int(state is not None), None


def lookup(state: State) -> tuple[int | None, State]:
    """The value."""
    return state, state


def lookup_and_delete(state: State) -> tuple[int | None, State]:
    """The value, which is there no more."""
    return state, None


def fetch_add(state: State, operand: int) -> tuple[int | None, State]:
    """The value before; creates nothing."""
    return state, None if state is None else (state + operand) % MODULUS


def compare_exchange(state: State, expected: int, new: int) -> tuple[int | None, State]:
    """The value before."""
    return state, new if state == expected else state


OPERATIONS: Final[Mapping[str, Step]] = MappingProxyType(
    {
        step.__name__: step
        for step in (
            update,
            update_noexist,
            update_exist,
            delete,
            lookup,
            lookup_and_delete,
            fetch_add,
            compare_exchange,
        )
    }
)

READS: Final = frozenset({"lookup"})
MUTATIONS: Final = frozenset(OPERATIONS) - READS

ANSWERS_VALUE: Final = frozenset({"lookup", "lookup_and_delete", "fetch_add", "compare_exchange"})
"""Their results are values."""


def written(op: str, args: tuple[int, ...]) -> tuple[int, ...]:
    """The values that an operation may leave behind, as far as its arguments say."""
    if op in {"update", "update_noexist", "update_exist"}:
        return args
    return args[1:] if op == "compare_exchange" else ()
