"""What no write gets past: a frozen map, a read-only opening."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from mapd_api.reasons import Reason
from tests.suite.backend import HASH, SHAPES, AnyMap, Backend, Refused, Shape
from tests.suite.conftest import Make


def writes(found: AnyMap, shape: Shape) -> list[Callable[[], Awaitable[object]]]:
    """Every way to change an element that the type has."""
    key, value = shape.pair(1, 9)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: found.update(key, value),
        lambda: found.update(key, value, "exist"),
        lambda: found.update_many([(key, value)]),
        lambda: found.update_many([shape.pair(number, 9) for number in range(8)]),
    ]
    if "delete" in found.facts.operations:
        calls += [lambda: found.delete(key), lambda: found.delete_many(shape.keys(range(8)))]
    if "lookup_and_delete" in found.facts.operations:
        calls += [lambda: found.lookup_and_delete(key)]
    return calls


async def check_refused(found: AnyMap, shape: Shape, reason: Reason) -> None:
    for call in writes(found, shape):
        with pytest.raises(Refused) as caught:
            await call()
        assert caught.value.reason is reason


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_frozen_map_is_read_and_never_written(make: Make, backend: Backend, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(range(3)))
    before = await found.items()
    other = await backend.open("flows")
    assert not found.facts.frozen
    await found.freeze()
    for one in (found, other, await backend.open("flows")):
        await check_refused(one, shape, Reason.MAP_FROZEN)
        assert await one.lookup(shape.key(1)) == shape.value(1)
        assert await one.items() == before
    assert found.facts.frozen
    assert (await backend.open("flows")).facts.frozen


async def test_freezing_what_is_frozen_is_no_error(make: Make, backend: Backend) -> None:
    found = await make(HASH)
    await found.freeze()
    await found.freeze()
    await (await backend.open("flows")).freeze()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_read_only_opening_reads_and_never_writes(make: Make, backend: Backend, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(range(3)))
    before = await found.items()
    refs = ("flows", f"pin:{backend.path_of('flows')}", f"id:{found.facts.id}")
    readers = [await backend.open(ref, read_only=True) for ref in refs]
    for reader in readers:
        await check_refused(reader, shape, Reason.READ_ONLY)
        assert await reader.lookup(shape.key(1)) == shape.value(1)
        assert await reader.lookup_many(shape.keys([1, 2])) == [shape.value(1), shape.value(2)]
        assert await reader.items() == before
    await found.update(*shape.pair(1, 5))
    assert [await reader.lookup(shape.key(1)) for reader in readers] == [shape.value(5)] * 3


async def test_a_read_only_opening_does_not_freeze(make: Make, backend: Backend) -> None:
    found = await make(HASH)
    reader = await backend.open("flows", read_only=True)
    with pytest.raises(Refused) as caught:
        await reader.freeze()
    assert caught.value.reason is Reason.READ_ONLY
    await found.update(*HASH.pair(1))


async def test_openings_of_one_map_see_each_others_writes(make: Make, backend: Backend) -> None:
    found = await make(HASH)
    others = [await backend.open("flows") for _ in range(3)]
    for number, one in enumerate(others):
        await one.update(*HASH.pair(number))
    assert sorted(await found.items()) == sorted(HASH.pairs(range(3)))
    await others[0].close()
    assert await others[1].lookup(HASH.key(0)) == HASH.value(0)
