"""Reading a whole map: everything once, a part of it, and on from where a reader stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.bpf import (
    Buffer,
    LinuxKernel,
    OpenPin,
    ProgramType,
    counter_program,
    load_program,
    run_program,
)
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.suite.backend import CPUS, HASH, INDEXED, KEYED, LPM_TRIE, SHAPES, Backend, Refused, Shape
from tests.suite.conftest import BACKENDS, REAL, Make

NUMBERS = range(40)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_every_element_comes_exactly_once(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(NUMBERS))
    pairs = await found.items()
    expected = shape.pairs(NUMBERS)
    if shape.indexed:
        expected += [shape.pair(number, 0) for number in range(len(NUMBERS), shape.max_entries)]
    assert sorted(pairs) == sorted(expected)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_keys_and_values_are_those_of_the_items_in_their_order(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(NUMBERS))
    pairs = await found.items()
    assert await found.keys() == [key for key, _ in pairs]
    assert await found.values() == [value for _, value in pairs]


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_an_array_comes_in_the_order_of_its_indexes(make: Make, shape: Shape) -> None:
    found = await make(shape)
    assert await found.keys() == shape.keys(range(shape.max_entries))


async def test_a_trie_comes_most_specific_first(make: Make) -> None:
    found = await make(LPM_TRIE)
    keys = [bits.to_bytes(4, "little") + b"\x0a\x01\x02\x03" for bits in (8, 32, 16, 24)]
    await found.update_many([(key, LPM_TRIE.value(1)) for key in keys])
    assert [key[0] for key in await found.keys()] == [32, 24, 16, 8]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_prefix_picks_the_keys_that_begin_so(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(NUMBERS))
    everything = await found.items()
    first = shape.key(7)
    for prefix in (first, first[:1], first[: shape.key_size - 1], b""):
        expected = [pair for pair in everything if pair[0].startswith(prefix)]
        assert await found.items(prefix=prefix) == expected
        assert await found.keys(prefix=prefix) == [key for key, _ in expected]
    assert await found.items(prefix=b"\xee\xee") == []


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_prefix_longer_than_the_keys_is_refused(make: Make, shape: Shape) -> None:
    found = await make(shape)
    with pytest.raises(Refused) as caught:
        await found.items(prefix=bytes(shape.key_size + 1))
    assert caught.value.reason is Reason.KEY_SIZE_MISMATCH


@pytest.mark.parametrize("limit", [1, 7, 40, 10_000])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_a_limit_is_the_most_that_comes(make: Make, shape: Shape, limit: int) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(NUMBERS))
    everything = await found.items()
    assert await found.items(limit=limit) == everything[:limit]
    assert await found.keys(limit=limit) == [key for key, _ in everything[:limit]]
    assert await found.values(limit=limit) == [value for _, value in everything[:limit]]


async def test_a_limit_counts_what_the_prefix_lets_through(make: Make) -> None:
    found = await make(HASH)
    await found.update_many(HASH.pairs([1, 257, 513, 2, 3]))
    picked = await found.items(prefix=b"\x01", limit=2)
    assert len(picked) == 2
    assert all(key.startswith(b"\x01") for key, _ in picked)


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_what_was_removed_does_not_come(make: Make, shape: Shape) -> None:
    found = await make(shape)
    await found.update_many(shape.pairs(NUMBERS))
    await found.delete_many(shape.keys(range(0, 40, 2)))
    assert set(await found.keys()) == set(shape.keys(range(1, 40, 2)))


@pytest.mark.parametrize("shape", KEYED, ids=str)
async def test_a_count_is_of_what_is_there(make: Make, shape: Shape) -> None:
    found = await make(shape)
    assert (await found.count()).entries == 0
    await found.update_many(shape.pairs(NUMBERS))
    await found.update_many(shape.pairs(range(5)))
    assert (await found.count()).entries == len(NUMBERS)
    await found.delete_many(shape.keys(range(35, 45)))
    counted = await found.count()
    assert counted.entries == len(await found.items()) == 35
    # The kernel keeps no count of a trie.
    assert (counted.method, counted.exact) == (
        ("scan", False) if shape is LPM_TRIE else ("sum_elem_count", True)
    )


@pytest.mark.parametrize("shape", INDEXED, ids=str)
async def test_an_array_counts_all_its_indexes(make: Make, shape: Shape) -> None:
    found = await make(shape)
    counted = await found.count()
    assert (counted.entries, counted.method, counted.exact) == (shape.max_entries, "max_entries", True)


LARGE = [Shape(shape.type, shape.key_size, 56, max_entries=5_000) for shape in (HASH, INDEXED[0], LPM_TRIE)]
"""About 320 KB, where parts begin at 64 KiB."""


@pytest.mark.parametrize("shape", LARGE, ids=str)
async def test_a_dump_goes_on_behind_any_of_its_parts(make: Make, shape: Shape) -> None:
    """Nothing twice, nothing left out, also through another opening of the map."""
    found = await make(shape)
    await found.update_many(shape.pairs(range(shape.max_entries)))
    parts = await found.parts()
    assert len(parts) > 1
    everything = [key for part in parts for key in part.keys]
    assert sorted(everything) == sorted(shape.keys(range(shape.max_entries)))
    behind = 0
    for part in parts:
        behind += len(part.keys)
        rest = await found.parts(resume=part.token)
        assert [key for part in rest for key in part.keys] == everything[behind:]


async def test_a_token_is_of_one_map(make: Make) -> None:
    found, other = await make(HASH), await make(HASH, "other")
    await found.update_many(HASH.pairs(NUMBERS))
    token = (await found.parts())[-1].token
    with pytest.raises(Refused) as caught:
        await other.parts(resume=token)
    assert caught.value.reason is Reason.MAP_REPLACED


async def test_a_token_that_is_none_is_refused(make: Make) -> None:
    found = await make(HASH)
    with pytest.raises(Refused) as caught:
        await found.parts(resume=b"none")
    assert caught.value.reason is Reason.BAD_SPEC


PENDING = 128 * CPUS
"""Elements that a CPU may hold apart from the list that the kernel takes the least recent from (LOCAL_FREE_TARGET)."""

LRU = Shape(MapType.LRU_HASH, 8, max_entries=8 * PENDING)
OLD = range(4 * PENDING)
NEW = range(100_000, 100_000 + LRU.max_entries)


def used_by_a_program(pin: Path, keys: list[bytes]) -> None:
    """A BPF program that looks these keys up, which counts as a use of them."""
    kernel = LinuxKernel()
    with kernel.control(OpenPin(root=str(pin.parent), path=str(pin))) as owned, owned.lease() as map_fd:
        code = counter_program(map_fd, LRU.key_size, LRU.value_size)
        with load_program(code, ProgramType.SYSCALL) as program, program.lease() as prog_fd:
            for key in keys:
                assert run_program(prog_fd, Buffer.of(key)) == 0


@pytest.mark.parametrize(
    ("backend", "used"),
    [
        *(pytest.param(name, False, id=f"{name}-read") for name in BACKENDS),
        *(pytest.param(name, True, id=f"{name}-used-by-a-program") for name in REAL),
    ],
    indirect=["backend"],
)
async def test_reading_an_lru_map_is_no_use_of_its_elements(make: Make, backend: Backend, used: bool) -> None:
    """A dump that counted as one would throw out what the map's own programs use; theirs does count."""
    found = await make(LRU)
    await found.update_many(LRU.pairs(OLD))
    before = await found.keys()
    assert set(before) == set(LRU.keys(OLD))
    assert set(await found.keys()) == set(before)
    await found.lookup_many(before)
    if used:
        used_by_a_program(backend.path_of("flows"), before)
    await found.update_many(LRU.pairs(NEW))
    left = len(set(await found.keys()) & set(before))
    assert left >= len(OLD) - PENDING if used else left <= PENDING
