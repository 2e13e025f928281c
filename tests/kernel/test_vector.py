"""Vector programs beside syscalls: the same groups on twin maps come to the same."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.bpf import FaultyKernel
from mapd.bpf.abi import Command
from mapd.bpf.vector_columns import TYPES
from mapd.maps.vector import LOAD_FROM
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.kernel.maps import KERNEL
from tests.kernel.vectors import KINDS, Kind, served, vectors

pytestmark = pytest.mark.usefixtures("one_cpu")

KEYS = 14
"""Of which eight fit into a map: it is full, or evicts; an array ends before the last."""


def elements(kind: Kind) -> st.SearchStrategy[list[tuple[Op, int, int]]]:
    one = st.tuples(st.sampled_from(kind.ops), st.integers(0, KEYS - 1), st.integers(0, 255))
    of_one_op = [
        st.lists(
            st.tuples(st.just(op), st.integers(0, KEYS - 1), st.integers(0, 255)), min_size=1, max_size=20
        )
        for op in kind.ops
    ]
    return st.one_of(st.lists(one, min_size=1, max_size=40), *of_one_op)


def test_every_type_with_programs_is_tried() -> None:
    assert {kind.map_type for kind in KINDS} == TYPES


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_operations_come_to_the_same(kind: Kind, data: st.DataObject) -> None:
    groups = data.draw(st.lists(elements(kind), min_size=1, max_size=6))
    with vectors() as programs, served(kind.create, programs) as fast, served(kind.create) as slow:
        assert fast.opened.vector is not None
        assert slow.opened.vector is None
        for group in map(kind.group, groups):
            assert fast.told(group) == slow.told(group)
        assert fast.content() == slow.content()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_groups_larger_than_a_run_come_to_the_same(kind: Kind) -> None:
    """Several runs of a program, cut by what only syscalls do; the program is what serves it."""
    large = Kind(kind.map_type, kind.key_size, kind.value_size, kind.flags, max_entries=200)
    chosen = random.Random(4)  # noqa: S311 - the same operations in every run
    rows = [
        (chosen.choice(large.ops[:5]), chosen.randrange(240), chosen.randrange(256))
        for _ in range(6_000 if kind.value_size < 100 else 3_000)
    ]
    rows[1_000] = (large.ops[-1], 5, 5)
    watched = FaultyKernel(KERNEL)
    with vectors(watched) as programs, served(large.create, programs) as fast, served(large.create) as slow:
        group = large.group(rows)
        assert fast.told(group) == slow.told(group)
        assert fast.content() == slow.content()
    runs = [seen for seen in watched.seen if seen.target is Command.PROG_TEST_RUN]
    assert runs


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_most_elements_of_a_group_come_to_the_same(kind: Kind) -> None:
    large = Kind(kind.map_type, kind.key_size, kind.value_size, kind.flags, max_entries=256)
    if kind.map_type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        keys = [number % 300 for number in range(limits.BATCH_ELEMENTS)]
    else:
        keys = [(number * 7) % 250 for number in range(limits.BATCH_ELEMENTS)]
    count = min(limits.BATCH_ELEMENTS, limits.COLUMN_BYTES // (len(large.value(0)) + large.key_size))
    with vectors() as programs, served(large.create, programs) as fast, served(large.create) as slow:
        for op in (Op.UPDATE, Op.LOOKUP, large.ops[-1], Op.LOOKUP):
            group = large.group([(op, key, at & 0xFF) for at, key in enumerate(keys[:count])])
            assert len(group.ops) == 1
            assert fast.told(group) == slow.told(group)
        assert fast.content() == slow.content()


def test_operations_on_one_key_keep_their_order() -> None:
    kind = Kind(MapType.HASH)
    cycle = [Op.UPDATE_NOEXIST, Op.LOOKUP, Op.UPDATE_EXIST, Op.LOOKUP, Op.DELETE, Op.LOOKUP]
    rows = [(op, 3, at % 256) for at, op in enumerate(cycle * 1_000)]
    with vectors() as programs, served(kind.create, programs) as fast:
        outcome = fast.run(kind.group(rows))
        assert set(outcome.statuses[0::6] + outcome.statuses[2::6] + outcome.statuses[4::6]) == {0}
        assert set(outcome.statuses[5::6]) == {1}
        found = [outcome.values.take(8, at * 8) for at in range(3_000)]
        wanted = [kind.value(at % 256) for at, op in enumerate(cycle * 1_000) if op.name.startswith("UPDATE")]
        assert [value for at, value in enumerate(found) if at % 3 != 2] == wanted
        assert {value for at, value in enumerate(found) if at % 3 == 2} == {bytes(8)}


def test_few_elements_are_no_reason_to_load_a_program() -> None:
    kind = Kind(MapType.HASH, max_entries=1_024)
    lookups = kind.group([(Op.LOOKUP, key, 0) for key in range(100)])
    with vectors() as programs, served(kind.create, programs, load=False) as fast:
        for _ in range(LOAD_FROM // lookups.count):
            fast.run(lookups)
            assert programs.loaded == 0
        fast.run(lookups)
        assert programs.loaded == 1
        fast.run(kind.group([(Op.UPDATE, 1, 1)]))
        assert programs.loaded == 2
