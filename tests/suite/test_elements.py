"""One element at a time: what is there, what is written, what is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.suite.backend import HASH, INDEXED, KEYED, LPM_TRIE, PERCPU_HASH, SHAPES, Backend, Refused, Shape
from tests.suite.conftest import Make
from tests.support.pinned import read_pin

TAKES_OUT = [shape for shape in KEYED if shape is not LPM_TRIE]


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_an_absent_key_is_none(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1))
    assert await found.lookup(shape.key(2)) is None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_an_update_is_read_back_and_replaces(make: Make, shape: Shape) -> None:
    found = await make(shape)
    for value in (1, 2):
        await found.update(*shape.pair(3, value))
        assert await found.lookup(shape.key(3)) == shape.value(value)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_the_kernel_has_what_was_written(make: Make, backend: Backend, shape: Shape) -> None:
    """Seen by its pin, past the backend."""
    found = await make(shape)
    await found.update(*shape.pair(3, 7))
    elements = read_pin(backend.path_of("flows"), backend.kernel).elements
    assert {key: value for key, value in elements.items() if any(value)} == {shape.key(3): shape.value(7)}


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_noexist_only_creates(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1, 5), "noexist")
    with pytest.raises(Refused) as caught:
        await found.update(*shape.pair(1, 6), "noexist")
    assert caught.value.reason is Reason.KEY_EXISTS
    assert await found.lookup(shape.key(1)) == shape.value(5)


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_exist_only_replaces(make: Make, shape: Shape) -> None:
    found = await make(shape)
    with pytest.raises(Refused) as caught:
        await found.update(*shape.pair(1, 5), "exist")
    assert caught.value.reason is Reason.KEY_MISSING
    assert await found.lookup(shape.key(1)) is None
    await found.update(*shape.pair(1, 5))
    await found.update(*shape.pair(1, 6), "exist")
    assert await found.lookup(shape.key(1)) == shape.value(6)


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_delete_removes_and_says_whether_it_was_there(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1))
    assert await found.delete(shape.key(1)) is True
    assert await found.lookup(shape.key(1)) is None
    assert await found.delete(shape.key(1)) is False
    assert await found.items() == []


@pytest.mark.parametrize("shape", TAKES_OUT, ids=str)
async def test_lookup_and_delete_takes_an_element_out_once(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1, 5))
    assert await found.lookup_and_delete(shape.key(1)) == shape.value(5)
    assert await found.lookup_and_delete(shape.key(1)) is None
    assert await found.items() == []


@pytest.mark.parametrize(
    "shape",
    [Shape(shape.type, shape.key_size, max_entries=4) for shape in (HASH, PERCPU_HASH, LPM_TRIE)],
    ids=str,
)
async def test_a_full_map_takes_no_new_key_but_new_values(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(range(4)))
    with pytest.raises(Refused) as caught:
        await found.update(*shape.pair(4))
    assert caught.value.reason is Reason.MAP_FULL
    await found.update(*shape.pair(0, 9))
    assert await found.lookup(shape.key(0)) == shape.value(9)
    await found.delete(shape.key(1))
    await found.update(*shape.pair(4))
    assert {key for key, _ in await found.items()} == set(shape.keys([0, 2, 3, 4]))


async def test_a_full_lru_map_makes_room(make: Make) -> None:
    """It never says that it is full; the newest element is there."""
    shape = Shape(MapType.LRU_HASH, 8, max_entries=64)
    found = await make(shape)
    for number in range(300):
        await found.update(*shape.pair(number))
        assert await found.lookup(shape.key(number)) == shape.value(number)
    assert len(await found.items()) <= 64


# ---- arrays ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [64, (1 << 32) - 1])
@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_an_index_past_the_end_is_out_of_range(make: Make, shape: Shape, index: int) -> None:
    found = await make(shape)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: found.lookup(shape.key(index)),
        lambda: found.update(*shape.pair(index, 1)),
        lambda: found.update(*shape.pair(index, 1), "exist"),
    ]
    for call in calls:
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.reason is Reason.INDEX_OUT_OF_RANGE
    assert await found.items() == [shape.pair(number, 0) for number in range(shape.max_entries)]


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_every_index_of_an_array_exists(make: Make, shape: Shape) -> None:
    """So that creating fails and replacing works, from the start."""
    found = await make(shape)
    with pytest.raises(Refused) as caught:
        await found.update(*shape.pair(1), "noexist")
    assert caught.value.reason is Reason.KEY_EXISTS
    await found.update(*shape.pair(1, 5), "exist")
    assert await found.lookup(shape.key(1)) == shape.value(5)


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_an_array_loses_no_element(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1, 5))
    for call in (
        lambda: found.delete(shape.key(1)),
        lambda: found.delete_many(shape.keys([1, 2])),
        lambda: found.lookup_and_delete(shape.key(1)),
    ):
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.reason is Reason.OPERATION_UNSUPPORTED
    assert await found.lookup(shape.key(1)) == shape.value(5)


# ---- per-CPU values --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.per_cpu], ids=str)
@pytest.mark.parametrize("size", [1, 3, 7, 8, 9, 64])
async def test_each_cpu_has_its_own_value(make: Make, shape: Shape, size: int) -> None:
    shape = Shape(shape.type, shape.key_size, size)
    found = await make(shape)
    cpus = found.facts.value_stride // (-(-size // 8) * 8)
    first, second = range(1, cpus + 1), range(101, cpus + 101)
    await found.update(shape.key(1), shape.slots(first))
    assert await found.lookup(shape.key(1)) == shape.slots(first)
    assert await found.update_many([(shape.key(2), shape.slots(second))] * 5) == [Reason.DONE] * 5
    assert await found.lookup_many(shape.keys([1, 2])) == [shape.slots(first), shape.slots(second)]
    assert {shape.slots(first), shape.slots(second)} <= set(await found.values())


# ---- longest prefixes ------------------------------------------------------------------------------


def prefix(bits: int, *address: int) -> bytes:
    return bits.to_bytes(4, "little") + bytes(address)


async def test_a_trie_finds_the_longest_prefix(make: Make) -> None:
    found = await make(LPM_TRIE)
    routes = {
        prefix(0, 0, 0, 0, 0): 1,
        prefix(8, 10, 0, 0, 0): 2,
        prefix(16, 10, 1, 0, 0): 3,
        prefix(24, 10, 1, 2, 0): 4,
        prefix(32, 10, 1, 2, 3): 5,
    }
    await found.update_many([(key, LPM_TRIE.value(number)) for key, number in routes.items()])
    for address, number in (
        ((10, 1, 2, 3), 5),
        ((10, 1, 2, 4), 4),
        ((10, 1, 3, 3), 3),
        ((10, 2, 2, 3), 2),
        ((11, 1, 2, 3), 1),
    ):
        assert await found.lookup(prefix(32, *address)) == LPM_TRIE.value(number)
    # A shorter key matches prefixes that are at most as long.
    assert await found.lookup(prefix(16, 10, 1, 2, 3)) == LPM_TRIE.value(3)


async def test_a_trie_without_a_match_has_none(make: Make) -> None:
    found = await make(LPM_TRIE)
    await found.update(prefix(8, 10, 0, 0, 0), LPM_TRIE.value(1))
    assert await found.lookup(prefix(32, 11, 0, 0, 1)) is None
    assert await found.lookup_many([prefix(32, 10, 9, 9, 9), prefix(32, 9, 9, 9, 9)]) == [
        LPM_TRIE.value(1),
        None,
    ]


async def test_a_trie_deletes_exactly_the_prefix_that_is_named(make: Make) -> None:
    found = await make(LPM_TRIE)
    await found.update_many(
        [(prefix(8, 10, 0, 0, 0), LPM_TRIE.value(1)), (prefix(16, 10, 1, 0, 0), LPM_TRIE.value(2))]
    )
    assert await found.delete(prefix(32, 10, 1, 0, 0)) is False
    assert await found.delete(prefix(16, 10, 1, 0, 0)) is True
    assert await found.lookup(prefix(32, 10, 1, 0, 0)) == LPM_TRIE.value(1)


async def test_a_trie_tells_a_prefix_from_those_that_match_it(make: Make) -> None:
    found = await make(LPM_TRIE)
    assert await found.lookup_exact(prefix(8, 10, 0, 0, 0)) is None
    await found.update_many(
        [(prefix(8, 10, 0, 0, 0), LPM_TRIE.value(1)), (prefix(16, 10, 1, 0, 0), LPM_TRIE.value(2))]
    )
    for key, number in (
        (prefix(8, 10, 0, 0, 0), 1),
        (prefix(8, 10, 9, 9, 9), 1),
        (prefix(16, 10, 1, 0, 0), 2),
        (prefix(32, 10, 1, 0, 0), None),
        (prefix(16, 10, 2, 0, 0), None),
        (prefix(0, 0, 0, 0, 0), None),
        (prefix(8, 11, 0, 0, 0), None),
    ):
        assert await found.lookup_exact(key) == (None if number is None else LPM_TRIE.value(number))


async def test_host_bits_do_not_make_another_prefix(make: Make) -> None:
    found = await make(LPM_TRIE)
    await found.update(prefix(24, 10, 1, 9, 77), LPM_TRIE.value(1))
    await found.update(prefix(24, 10, 1, 9, 0), LPM_TRIE.value(2))
    assert [value for _, value in await found.items()] == [LPM_TRIE.value(2)]
    assert await found.delete(prefix(24, 10, 1, 9, 5)) is True


async def test_a_prefix_longer_than_the_address_is_not_written(make: Make) -> None:
    found = await make(LPM_TRIE)
    with pytest.raises(Refused) as caught:
        await found.update(prefix(33, 10, 0, 0, 0), LPM_TRIE.value(1))
    assert caught.value.reason is Reason.BAD_COLUMNS
    assert await found.lookup(prefix(33, 10, 0, 0, 0)) is None
    assert await found.items() == []
