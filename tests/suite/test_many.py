"""Many elements at once: in order, each with an outcome of its own."""

from __future__ import annotations

import pytest

from mapd_api import limits
from mapd_api.reasons import Reason
from tests.suite.backend import HASH, INDEXED, KEYED, LPM_TRIE, PERCPU_HASH, SHAPES, Refused, Shape
from tests.suite.conftest import Make

DONE = Reason.DONE
COUNTS = [1, 3, 4, 30]
"""Around the number from which a batch syscall is made."""


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_many_are_written_and_looked_up_in_order(make: Make, shape: Shape, count: int) -> None:
    found = await make(shape)
    numbers = list(range(count))
    assert await found.update_many(shape.pairs(numbers)) == [DONE] * count
    backwards = numbers[::-1]
    assert await found.lookup_many(shape.keys(backwards)) == [shape.value(number) for number in backwards]


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_a_key_that_is_absent_among_many_is_none_in_its_place(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs([1, 3]))
    assert await found.lookup_many(shape.keys([1, 2, 3, 4, 1])) == [
        shape.value(1),
        None,
        shape.value(3),
        None,
        shape.value(1),
    ]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_of_two_values_for_a_key_the_later_one_stays(make: Make, shape: Shape, count: int) -> None:
    found = await make(shape)
    pairs = [shape.pair(number, value) for value in (1, 2) for number in range(count)]
    assert await found.update_many(pairs) == [DONE] * len(pairs)
    assert await found.lookup_many(shape.keys(range(count))) == [shape.value(2)] * count


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_noexist_of_many_creates_those_that_were_missing(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many([shape.pair(number, 1) for number in (0, 2, 4)])
    pairs = [shape.pair(number, 2) for number in range(6)]
    assert await found.update_many(pairs, "noexist") == [Reason.KEY_EXISTS, DONE] * 3
    assert await found.lookup_many(shape.keys(range(6))) == [shape.value(1), shape.value(2)] * 3


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_exist_of_many_replaces_those_that_were_there(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many([shape.pair(number, 1) for number in (0, 2, 4)])
    pairs = [shape.pair(number, 2) for number in range(6)]
    assert await found.update_many(pairs, "exist") == [DONE, Reason.KEY_MISSING] * 3
    assert await found.lookup_many(shape.keys(range(6))) == [shape.value(2), None] * 3


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_noexist_of_many_writes_nothing_to_an_array(make: Make, shape: Shape) -> None:
    found = await make(shape)
    assert await found.update_many(shape.pairs(range(5)), "noexist") == [Reason.KEY_EXISTS] * 5
    assert await found.update_many(shape.pairs(range(5)), "exist") == [DONE] * 5


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_indexes_past_the_end_among_many_do_not_stop_the_others(make: Make, shape: Shape) -> None:
    found = await make(shape)
    numbers = [0, 64, 1, 999, 2, 63]
    reasons = [Reason.INDEX_OUT_OF_RANGE if number > 63 else DONE for number in numbers]
    assert await found.update_many([shape.pair(number, 1) for number in numbers]) == reasons
    assert await found.lookup_many(shape.keys([0, 1, 2, 63])) == [shape.value(1)] * 4
    with pytest.raises(Refused) as caught:
        await found.lookup_many(shape.keys(numbers))
    assert caught.value.reason is Reason.INDEX_OUT_OF_RANGE


@pytest.mark.parametrize(
    "shape",
    [Shape(shape.type, shape.key_size, max_entries=4) for shape in (HASH, PERCPU_HASH, LPM_TRIE)],
    ids=str,
)
async def test_a_map_that_fills_up_takes_new_values_for_what_it_has(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(range(3)))
    reasons = await found.update_many([shape.pair(number, 9) for number in (7, 8, 0, 9, 1, 8, 2)])
    full = Reason.MAP_FULL
    assert reasons == [DONE, full, DONE, full, DONE, full, DONE]
    assert dict(await found.items()) == dict(shape.pair(number, 9) for number in (0, 1, 2, 7))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_deleting_many_counts_those_that_were_there(make: Make, shape: Shape, count: int) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(range(40)))
    absent = range(50, 50 + count)
    keys = shape.keys([number for pair in zip(range(count), absent, strict=True) for number in pair])
    assert await found.delete_many([*keys, shape.key(0)]) == count
    assert {key for key, _ in await found.items()} == set(shape.keys(range(count, 40)))


async def test_more_than_a_message_holds_is_written_read_and_removed(make: Make) -> None:
    count = limits.BATCH_ELEMENTS + 1_000
    shape = Shape(HASH.type, 8, max_entries=count)
    found = await make(shape)
    numbers = range(count)
    assert await found.update_many(shape.pairs(numbers)) == [DONE] * count
    assert await found.lookup_many(shape.keys(numbers)) == [shape.value(number) for number in numbers]
    assert await found.delete_many(shape.keys(numbers)) == count
    assert await found.items() == []
