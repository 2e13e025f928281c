"""Elements that went through the daemon, by map."""

from __future__ import annotations

from mapd.maps.groups import Group, Plan
from mapd.maps.widths import Widths
from mapd.runtime.traffic import Flow, Traffic, elements
from mapd_api.ops import Op


def checked(count: int, ops: bytes) -> Plan:
    group = Group(count=count, ops=ops, keys=b"")
    return Plan(group, frozenset(Op(one) for one in ops), Widths(0), 0)


def test_a_group_of_one_operation_counts_all_its_elements_as_that() -> None:
    assert elements(checked(7, bytes([Op.LOOKUP]))) == (7, 0)
    assert elements(checked(7, bytes([Op.DELETE]))) == (0, 7)


def test_a_group_of_several_counts_each_and_what_reads_and_writes_writes() -> None:
    ops = bytes([Op.LOOKUP, Op.UPDATE, Op.FETCH_ADD, Op.PEEK, Op.POP])
    assert elements(checked(5, ops)) == (2, 3)


def test_what_is_taken_back_was_never_there() -> None:
    traffic = Traffic()
    traffic.add(1, 5, 3)
    traffic.add(1, -5, -3)
    assert traffic.of([1]) == [Flow(0, 0)]
    traffic.add(1, -1, -1)  # of a map that was forgotten meanwhile
    assert traffic.of([1]) == [Flow(0, 0)]


def test_the_map_that_was_not_used_for_longest_is_forgotten() -> None:
    traffic = Traffic(most=2)
    for map_id in (1, 2, 1, 3):
        traffic.add(map_id, 1, 0)
    assert traffic.of([1, 2, 3, 4]) == [Flow(2, 0), Flow(0, 0), Flow(1, 0), Flow(0, 0)]


def test_what_was_told_does_not_change_any_more() -> None:
    traffic = Traffic()
    traffic.add(1, 1, 1)
    (told,) = traffic.of([1])
    traffic.add(1, 1, 1)
    assert told == Flow(1, 1)
