"""Making maps, finding them again, and giving their names away."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from mapd_api.ops import ATOMICS
from mapd_api.reasons import Reason
from mapd_api.uapi import MapFlag
from tests.suite.backend import (
    HASH,
    INDEXED,
    KEYED,
    LPM_TRIE,
    LRU_HASH,
    PERCPU_HASH,
    SHAPES,
    SIZES,
    AnyMap,
    Backend,
    Refused,
    Shape,
)
from tests.suite.conftest import Make
from tests.support.pinned import read_pin

ALL_SIZES = [
    *(Shape(shape.type, size, 8) for shape in (HASH, LRU_HASH, PERCPU_HASH) for size in SIZES),
    *(Shape(shape.type, 8, size) for shape in KEYED for size in SIZES if size != 8),
    *(Shape(shape.type, 4, size) for shape in INDEXED for size in SIZES),
    *(Shape(LPM_TRIE.type, 4 + size) for size in (1, 3, 16, 256)),
]


async def contents(found: AnyMap) -> dict[bytes, bytes]:
    return dict(await found.items())


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_a_new_map_is_empty(make: Make, shape: Shape) -> None:
    assert await (await make(shape)).items() == []


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_a_new_array_has_every_index_and_zeros(make: Make, shape: Shape) -> None:
    assert await contents(await make(shape)) == dict(shape.pair(n, 0) for n in range(shape.max_entries))


@pytest.mark.parametrize("shape", ALL_SIZES, ids=str)
async def test_a_map_of_any_sizes_is_as_asked_for_and_holds_such_elements(make: Make, shape: Shape) -> None:
    """Sizes around the eight bytes that the kernel rounds to, and one past 4 KiB with its key."""
    found = await make(shape)
    facts = found.facts
    assert (facts.type, facts.key_size, facts.value_size) == (shape.type, shape.key_size, shape.value_size)
    assert facts.max_entries == shape.max_entries
    assert facts.value_stride == shape.stride
    pairs = shape.pairs(range(3))
    assert await found.update_many(pairs) == [Reason.DONE] * 3
    assert [await found.lookup(key) for key, _ in pairs] == [value for _, value in pairs]
    assert await found.lookup_many([key for key, _ in pairs]) == [value for _, value in pairs]
    assert dict(pairs).items() <= (await contents(found)).items()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_map_that_exists_is_not_made_again(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1))
    before = await contents(found)
    with pytest.raises(Refused) as caught:
        await make(shape)
    assert caught.value.reason is Reason.MAP_EXISTS
    assert await contents(found) == before


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_exist_ok_opens_the_map_that_is_there(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update(*shape.pair(1, 5))
    again = await make(shape, exist_ok=True)
    assert again.facts.id == found.facts.id
    assert await again.lookup(shape.key(1)) == shape.value(5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_exist_ok_makes_the_map_that_is_not_there(make: Make, shape: Shape) -> None:
    assert (await make(shape, exist_ok=True)).facts.type == shape.type


@pytest.mark.parametrize("max_entries", [1, 1_000, 1_001])
async def test_what_the_kernel_rounds_is_the_same_shape(make: Make, max_entries: int) -> None:
    """Each CPU's list of an LRU map without a common one is as long: 1,001 entries are made 1,002 on two."""
    given: dict[str, Any] = {"flags": int(MapFlag.NO_COMMON_LRU), "max_entries": max_entries}
    made = await make(LRU_HASH, **given)
    assert (await make(LRU_HASH, exist_ok=True, **given)).facts.id == made.facts.id


@pytest.mark.parametrize(
    "other", [{"value_size": 16}, {"max_entries": 65}, {"flags": 1}, {"key_size": 12}], ids=str
)
async def test_exist_ok_refuses_a_map_of_another_shape_and_leaves_it(
    make: Make, other: dict[str, Any]
) -> None:
    found = await make(HASH)
    await found.update(*HASH.pair(1))
    with pytest.raises(Refused) as caught:
        await make(HASH, exist_ok=True, **other)
    assert caught.value.reason is Reason.INCOMPATIBLE
    assert await contents(found) == dict([HASH.pair(1)])


@pytest.mark.parametrize(
    ("shape", "other", "reason"),
    [
        (HASH, {"max_entries": 0}, Reason.BAD_SPEC),
        (HASH, {"flags": 1 << 10}, Reason.BAD_FLAGS),
        (LPM_TRIE, {"flags": 0}, Reason.BAD_FLAGS),
        (LPM_TRIE, {"key_size": 4}, Reason.BAD_SPEC),
        (INDEXED[0], {"key_size": 8}, Reason.BAD_SPEC),
        (INDEXED[1], {"value_size": 32_769}, Reason.BAD_SPEC),
    ],
)
async def test_a_map_that_cannot_be_is_refused_and_nothing_is_named(
    backend: Backend, make: Make, shape: Shape, other: dict[str, Any], reason: Reason
) -> None:
    with pytest.raises(Refused) as caught:
        await make(shape, **other)
    assert caught.value.reason is reason
    assert await backend.names() == []


async def test_a_name_is_a_pin_and_a_map_is_found_by_name_pin_and_id(backend: Backend, make: Make) -> None:
    found = await make(HASH)
    path = backend.path_of("flows")
    assert read_pin(path, backend.kernel).info.id == found.facts.id
    assert found.facts.pin_path == str(path)
    assert found.facts.name == f"{path.parent.name}/flows"
    await found.update(*HASH.pair(1, 5))
    for ref in ("flows", f"pin:{path}", f"id:{found.facts.id}"):
        again = await backend.open(ref)
        assert again.facts.id == found.facts.id
        assert await again.lookup(HASH.key(1)) == HASH.value(5)
    assert await backend.names() == [found.facts.name]


@pytest.mark.parametrize("ref", ["nosuch", "pin:{pins}/nosuch", "id:4000000000"])
async def test_a_map_that_is_not_there_is_not_found(backend: Backend, ref: str) -> None:
    with pytest.raises(Refused) as caught:
        await backend.open(ref.format(pins=backend.pins))
    assert caught.value.reason is Reason.MAP_NOT_FOUND


async def test_a_named_map_outlives_who_made_it(backend: Backend, make: Make) -> None:
    found = await make(HASH)
    await found.update(*HASH.pair(1, 5))
    await found.close()
    again = await backend.open("flows")
    assert await again.lookup(HASH.key(1)) == HASH.value(5)


async def test_one_more_pin_is_one_more_name_for_the_same_map(backend: Backend, make: Make) -> None:
    found = await make(HASH)
    path = backend.pins / "another"
    await found.pin(path)
    again = await backend.open(f"pin:{path}")
    assert again.facts.id == found.facts.id
    await again.update(*HASH.pair(2))
    assert await found.lookup(HASH.key(2)) == HASH.value(2)


async def test_a_pin_is_never_overwritten(backend: Backend, make: Make) -> None:
    first, second = await make(HASH, "first"), await make(HASH, "second")
    with pytest.raises(Refused) as caught:
        await second.pin(backend.path_of("first"))
    assert caught.value.reason is Reason.MAP_EXISTS
    assert (await backend.open("first")).facts.id == first.facts.id


async def test_an_unpinned_map_has_no_name_and_lives_while_it_is_held(backend: Backend, make: Make) -> None:
    found = await make(HASH)
    await found.update(*HASH.pair(1))
    await backend.unpin("flows")
    with pytest.raises(Refused) as caught:
        await backend.open("flows")
    assert caught.value.reason is Reason.MAP_NOT_FOUND
    assert await backend.names() == []
    assert await found.lookup(HASH.key(1)) == HASH.value(1)
    other = await make(HASH)
    assert other.facts.id != found.facts.id
    assert await other.items() == []


async def test_a_name_that_is_not_there_cannot_be_unpinned(backend: Backend) -> None:
    for ref in ("nosuch", f"pin:{backend.pins}/nosuch"):
        with pytest.raises(Refused) as caught:
            await backend.unpin(ref)
        assert caught.value.reason is Reason.MAP_NOT_FOUND


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_what_a_map_says_it_can_do_is_what_it_does(make: Make, shape: Shape) -> None:
    found = await make(shape)
    key, value = shape.pair(1)
    calls: dict[str, Any] = {
        "lookup": lambda: found.lookup(key),
        "update": lambda: found.update(key, value),
        "update_noexist": lambda: found.update_many([(key, value)], "noexist"),
        "update_exist": lambda: found.update_many([(key, value)], "exist"),
        "delete": lambda: found.delete(key),
        "lookup_and_delete": lambda: found.lookup_and_delete(key),
        "dump": found.items,
        "load": None,
        "lookup_exact": lambda: found.lookup_exact(key),
        "count": found.count,
        **{op.name.lower(): partial(found.atomic, op, key, 1, (0, 8)) for op in sorted(ATOMICS)},
        "compare_update": None,  # for values with a lock, which these have not
        "freeze": found.freeze,
    }
    assert found.facts.operations <= set(calls)
    for operation, call in calls.items():
        if call is None:
            continue
        if operation in found.facts.operations:
            await call()
            continue
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.reason is Reason.OPERATION_UNSUPPORTED, operation
