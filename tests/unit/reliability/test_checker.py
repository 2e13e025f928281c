"""The checker of histories: what can have happened passes, and what cannot is named."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Sequence

import pytest

from tests.reliability.kit.checker import Undecided, check, check_key
from tests.reliability.kit.history import OK, REFUSED, UNKNOWN, History, Operation
from tests.reliability.kit.model import OPERATIONS, State

KEY = 1


def op(
    name: str, *args: int, at: tuple[float, float | None], result: int | None = None, outcome: str = ""
) -> Operation:
    """One operation between two times; without a second one its outcome is unknown."""
    ended = outcome or (UNKNOWN if at[1] is None else OK)
    return Operation(0, 0, name, KEY, args, at[0], at[1], ended, result)


def holds(*operations: Operation, initial: State = None) -> bool:
    return check_key(KEY, operations, initial) is None


def test_what_one_client_did_after_the_other_passes() -> None:
    assert holds(
        op("lookup", at=(0, 1), result=None),
        op("update_noexist", 7, at=(2, 3), result=1),
        op("update_noexist", 8, at=(4, 5), result=0),
        op("lookup", at=(6, 7), result=7),
        op("fetch_add", 3, at=(8, 9), result=7),
        op("compare_exchange", 10, 20, at=(10, 11), result=10),
        op("update_exist", 21, at=(12, 13), result=1),
        op("lookup_and_delete", at=(14, 15), result=21),
        op("delete", at=(16, 17), result=0),
        op("update_exist", 22, at=(18, 19), result=0),
    )


@pytest.mark.parametrize("seen", [None, 5, 6])
def test_a_read_beside_a_write_may_see_either(seen: int | None) -> None:
    found = holds(op("update", 6, at=(1, 4)), op("lookup", at=(2, 3), result=seen), initial=5)
    assert found == (seen in (5, 6))


def test_two_reads_one_after_the_other_beside_a_write_never_go_back() -> None:
    write = op("update", 6, at=(0, 9))
    new, old = op("lookup", at=(1, 2), result=6), op("lookup", at=(3, 4), result=5)
    assert not holds(write, new, old, initial=5)


def test_an_acknowledged_write_that_is_not_there_is_lost() -> None:
    violation = check_key(KEY, [op("update", 6, at=(0, 1)), op("lookup", at=(2, 3), result=5)], 5)
    assert violation is not None
    assert violation.operation.op == "lookup"
    assert violation.possible == {6}
    assert "can have been ['6']" in str(violation)


def test_a_value_that_nobody_wrote_is_a_ghost() -> None:
    violation = check_key(KEY, [op("update", 6, at=(0, 1)), op("lookup", at=(2, 3), result=9)])
    assert violation is not None
    assert violation.ghost
    assert "nobody wrote" in str(violation)


def test_a_write_that_was_refused_and_is_seen_is_a_ghost() -> None:
    refused = op("update", 6, at=(0, 1), outcome=REFUSED)
    violation = check_key(KEY, [refused, op("lookup", at=(2, 3), result=6)])
    assert violation is not None
    assert violation.ghost


def test_a_write_of_unknown_outcome_takes_effect_at_any_time_or_never() -> None:
    unknown = op("update", 6, at=(0, None))
    old, new = op("lookup", at=(1, 2), result=5), op("lookup", at=(30, 40), result=6)
    assert holds(unknown, old, initial=5)
    assert holds(unknown, old, new, initial=5)


def test_a_write_of_unknown_outcome_takes_effect_once() -> None:
    unknown = op("fetch_add", 1, at=(0, None))
    reads = [op("lookup", at=(at, at + 0.5), result=result) for at, result in enumerate((5, 6, 7), 1)]
    assert holds(unknown, *reads[:2], initial=5)
    assert not holds(unknown, *reads, initial=5)


def test_a_write_of_unknown_outcome_is_not_seen_before_it_was_invoked() -> None:
    early = op("lookup", at=(0, 1), result=6)
    assert not holds(early, op("update", 6, at=(2, None)), initial=5)


def test_a_create_that_was_executed_twice_shows() -> None:
    assert not holds(op("update_noexist", 6, at=(0, 9), result=0), op("lookup", at=(10, 11), result=6))


def test_keys_are_checked_by_themselves() -> None:
    history = History()
    for key, seen in ((1, 5), (2, 6)):
        history.operations += [
            Operation(0, 0, "update", key, (5,), 0, 1, OK),
            Operation(0, 0, "lookup", key, (), 2, 3, OK, seen),
        ]
    assert [violation.key for violation in check(history)] == [2]


def test_many_unknown_outcomes_of_one_key_are_still_searched() -> None:
    unknown = [op("update", 100 + at, at=(at, None)) for at in range(40)]
    removals = [op("delete", at=(at, None)) for at in range(10)]
    reads = [op("lookup", at=(50 + at, 50.5 + at), result=100 + at) for at in range(40)]
    assert holds(*unknown, *removals, *reads)
    assert not holds(*unknown, *removals, *reads, op("lookup", at=(99, 100), result=100))


def test_too_much_at_once_is_said_and_not_taken_for_right() -> None:
    adds = [op("fetch_add", 1 << at, at=(0, 90), result=1 << 50) for at in range(1)]
    adds += [op("fetch_add", 1 << at, at=(0, None)) for at in range(30)]
    with pytest.raises(Undecided):
        holds(*adds, initial=0)


# ---- histories made by the model ----------------------------------------------------------------

CLIENTS = 4
UNKNOWN_SHARE = 0.02
VALUES = itertools.count(1)


def arguments(chance: random.Random, name: str, state: State) -> tuple[int, ...]:
    if name == "compare_exchange":
        return (state if state is not None and chance.random() < 0.7 else 0, next(VALUES))
    return (next(VALUES),) if name.startswith("update") or name == "fetch_add" else ()


def made_by_the_model(seed: int, count: int = 150, *, fault: str = "", at: int = 0) -> Sequence[Operation]:
    """What clients see of a key that is right, but for one fault from operation ``at`` on, as soon as it shows.

    Each operation takes effect at one moment of its own; one in fifty is never answered.
    """
    chance = random.Random(seed)  # noqa: S311 - of operations, not of secrets
    made: list[Operation] = []
    moments: list[tuple[float, int, Operation]] = []
    clients = [0.0] * CLIENTS
    for number in range(count):
        client = chance.randrange(CLIENTS)
        invoked = clients[client] + chance.random()
        moment, returned = sorted(invoked + chance.random() for _ in range(2))
        name = "lookup" if chance.random() < 0.4 else chance.choice(list(OPERATIONS))
        operation = Operation(client, number, name, KEY, (), invoked, returned, OK)
        if chance.random() < UNKNOWN_SHARE:
            operation.returned, operation.outcome = None, UNKNOWN
            moment = invoked + chance.random() * 50 if chance.random() < 0.6 else float("inf")
        clients[client] = returned
        made.append(operation)
        heapq.heappush(moments, (moment, number, operation))
    state: State = None
    earlier: list[State] = []
    left = 1 if fault else 0
    while moments:
        moment, number, operation = heapq.heappop(moments)
        if moment == float("inf"):
            operation.args = arguments(chance, operation.op, state)
            continue
        operation.args = arguments(chance, operation.op, state)
        result, after = OPERATIONS[operation.op](state, *operation.args)
        due = left and number >= at and operation.outcome == OK
        if due and fault == "dropped" and operation.op == "update":
            after, left = state, 0
        elif due and fault == "stale" and operation.op == "lookup" and earlier and earlier[-1] != state:
            result, left = earlier[-1], 0
        elif due and fault == "twice" and operation.op == "fetch_add" and state is not None:
            _, after = OPERATIONS[operation.op](after, *operation.args)
            left = 0
        operation.result = result
        if after != state:
            earlier.append(state)
        state = after
    last = max(clients) + 100
    made.append(Operation(0, count, "lookup", KEY, (), last, last + 1, OK, state))
    return made


@pytest.mark.parametrize("seed", range(30))
def test_every_history_that_the_model_made_passes(seed: int) -> None:
    assert check_key(KEY, made_by_the_model(seed)) is None


@pytest.mark.parametrize("fault", ["dropped", "stale", "twice"])
def test_one_fault_in_a_history_is_found(fault: str) -> None:
    """One may be hidden: a write that is lost and at once overwritten, a stale read beside the write."""
    tries = 30
    found = sum(
        check_key(KEY, made_by_the_model(seed, fault=fault, at=50)) is not None for seed in range(tries)
    )
    assert found >= tries // 2, f"{found} of {tries}"


# ---- against all orders, tried one by one --------------------------------------------------------


def can_be(operations: Sequence[Operation], initial: State) -> bool:
    """The definition itself: some order, with any of the unanswered ones left out."""
    unknown = [each for each in operations if each.returned is None]
    known = [each for each in operations if each.returned is not None]
    for size in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, size):
            if any(explains(order, initial) for order in itertools.permutations([*known, *some])):
                return True
    return False


def explains(order: Sequence[Operation], initial: State) -> bool:
    state = initial
    for at, each in enumerate(order):
        if any(later.returned is not None and later.returned < each.invoked for later in order[at + 1 :]):
            return False
        result, state = OPERATIONS[each.op](state, *each.args)
        if each.outcome == OK and result != each.result:
            return False
    return True


def any_history(chance: random.Random) -> Sequence[Operation]:
    """Few operations on few values, so that about half of the histories can be."""
    made: list[Operation] = []
    for _ in range(chance.randint(2, 5)):
        name = chance.choice(["update", "lookup", "lookup", "delete", "update_noexist", "fetch_add"])
        args = (chance.randint(1, 2),) if name.startswith("update") or name == "fetch_add" else ()
        invoked = chance.random() * 4
        returned = None if chance.random() < 0.25 else invoked + chance.random() * 2
        results: Sequence[State] = (None, 0, 1, 2, 3) if name in {"lookup", "fetch_add"} else (0, 1)
        result = None if name == "update" else chance.choice(results)
        made.append(op(name, *args, at=(invoked, returned), result=result))
    return made


def test_the_search_says_what_trying_all_orders_says() -> None:
    chance = random.Random(8)  # noqa: S311 - of operations, not of secrets
    said = {True: 0, False: 0}
    for _ in range(1_500):
        history = any_history(chance)
        initial = chance.choice([None, 1])
        expected = can_be(history, initial)
        assert (check_key(KEY, history, initial) is None) == expected, history
        said[expected] += 1
    assert min(said.values()) > 300, said
