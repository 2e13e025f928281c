"""numpy arrays in and out, through a real daemon on the real kernel: as lists, in other clothes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from ipaddress import IPv4Network
from typing import Any, assert_type

import numpy as np
import pytest
from numpy.typing import NDArray

import mapd_client
from mapd.daemon import Ready
from mapd_client import (
    I32,
    U32,
    U64,
    BatchFailed,
    Bytes,
    Cidr4,
    Client,
    Found,
    IndexOutOfRange,
    Map,
    PerCpu,
    SizeMismatch,
    Struct,
    TypeMismatch,
    Unsupported,
)

MANY = 40_000
"""More than two messages carry."""


@pytest.fixture
async def client(local: Ready) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(local.socket)) as found:
        yield found


@pytest.fixture
async def flows(client: Client) -> AsyncGenerator[Map[int, int]]:
    async with client.create_map("flows", "hash", key=U64, value=U64, max_entries=MANY) as made:
        yield made


def squares() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    keys = np.arange(MANY, dtype=np.uint64)
    return keys, keys * keys


async def test_what_was_written_as_arrays_is_read_as_lists_and_back(flows: Map[int, int]) -> None:
    keys, values = squares()
    assert await flows.update_many((keys, values)) == MANY
    assert {key: value async for key, value in flows.items()} == {n: n * n for n in range(MANY)}
    listed = await flows.lookup_many([3, MANY, 5])
    assert assert_type(listed, list[int | None]) == [9, None, 25]


async def test_values_come_in_the_order_of_the_keys_and_zeros_for_absent_ones(flows: Map[int, int]) -> None:
    keys, values = squares()
    await flows.update_many((keys[::2], values[::2]))
    wanted = np.random.default_rng(4).permutation(keys)
    found = await flows.lookup_many(wanted)
    assert isinstance(assert_type(found, Found), Found)
    assert found.values.dtype == np.uint64
    assert (found.present == (wanted % 2 == 0)).all()
    assert (found.values == np.where(wanted % 2 == 0, wanted * wanted, 0)).all()
    numbers: list[int] = wanted.tolist()
    as_list = await flows.lookup_many(numbers)
    assert as_list == [int(v) if p else None for v, p in zip(found.values, found.present, strict=True)]
    found.values[0] = 1  # the caller's own


async def test_a_load_takes_columns(flows: Map[int, int]) -> None:
    keys, values = squares()
    assert await flows.load((keys, values)) == MANY
    assert (await flows.lookup_many(keys)).values.tolist() == values.tolist()


async def test_a_delete_by_an_array_counts_what_was_there(flows: Map[int, int]) -> None:
    keys, values = squares()
    await flows.update_many((keys[::2], values[::2]))
    assert await flows.delete_many(keys) == MANY // 2
    assert (await flows.count()).entries == 0


async def test_chunks_are_arrays_over_what_came(flows: Map[int, int]) -> None:
    keys, values = squares()
    await flows.update_many((keys, values))
    parts = [chunk async for chunk in flows.chunks()]
    seen = np.concatenate([part.keys_array for part in parts])
    assert (np.sort(seen) == keys).all()
    assert all((part.values_array == part.keys_array**2).all() for part in parts)
    for part in parts:
        assert np.shares_memory(part.values_array, np.frombuffer(part.values, np.uint8))


async def test_an_element_that_the_kernel_refuses_is_named_by_its_place(flows: Map[int, int]) -> None:
    keys, values = squares()
    more = np.arange(MANY, MANY + 3, dtype=np.uint64)
    with pytest.raises(BatchFailed) as caught:
        await flows.update_many((np.concatenate([keys, more]), np.concatenate([values, more])))
    assert caught.value.applied == MANY
    assert sorted(caught.value.errors) == [MANY, MANY + 1, MANY + 2]


async def test_nothing_is_sent_of_arrays_with_a_number_that_does_not_fit(flows: Map[int, int]) -> None:
    keys = np.arange(MANY)
    keys[MANY - 1] = -7
    with pytest.raises(SizeMismatch, match=f"update flows: key of element {MANY - 1}: -7 is outside U64"):
        await flows.update_many((keys, keys))
    with pytest.raises(SizeMismatch, match="update flows: 40000 keys and 3 values: as many of both are due"):
        await flows.update_many((np.arange(MANY), np.arange(3)))
    with pytest.raises(
        TypeMismatch, match=r"load flows: \(keys, values\): an array and a list; give both as numpy"
    ):
        await flows.load((np.arange(2), [1, 2]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        TypeMismatch, match="lookup flows: keys: U64 takes integers, not an array of dtype float64"
    ):
        await flows.lookup_many(np.zeros(3))
    with pytest.raises(SizeMismatch, match=r"lookup flows: keys: an array of shape \(\), U64 takes \(n,\)"):
        await flows.lookup_many(np.array(3))
    assert (await flows.count()).entries == 0


async def test_an_index_beyond_an_array_map_is_told_by_its_place(client: Client) -> None:
    async with client.create_map("slots", "array", key=U32, value=I32, max_entries=8) as slots:
        await slots.update_many((np.arange(8), -np.arange(8)))
        assert (await slots.lookup_many(np.arange(8))).values.tolist() == [-n for n in range(8)]
        with pytest.raises(IndexOutOfRange, match="element 2"):
            await slots.lookup_many(np.array([1, 2, 8]))


async def test_per_cpu_values_have_an_axis_of_cpus(client: Client) -> None:
    cpus = (await client.server_info()).possible_cpus
    keys = np.arange(100, dtype=np.uint32)
    values = np.arange(100 * cpus, dtype=np.uint32).reshape(100, cpus)
    async with client.create_map("hits", "percpu_hash", key=U32, value=PerCpu(U32), max_entries=100) as hits:
        assert await hits.update_many((keys, values)) == 100
        assert (await hits.lookup_many(keys)).values.tolist() == values.tolist()
        assert await hits.lookup_many([3]) == [values[3].tolist()]
        (part,) = [chunk async for chunk in hits.chunks()]
        assert part.values_array.shape == (100, cpus)
        assert (part.values_array == values[part.keys_array]).all()
    async with client.open_map("hits", key=U32, value=PerCpu(U32).sum()) as sums:
        with pytest.raises(Unsupported, match="is no array"):
            await sums.lookup_many(keys)


async def test_records_with_padding_are_found_whatever_the_padding_held(client: Client) -> None:
    key = Struct("BI")
    async with client.create_map("padded", "hash", key=key, value=U64, max_entries=10) as padded:
        await padded.update_many([((1, 2), 3)])
        keys: NDArray[Any] = np.full(key.size, 0xEE, np.uint8).view(np.dtype(key.dtype))
        keys["f0"], keys["f1"] = 1, 2
        assert (await padded.lookup_many(keys)).values.tolist() == [3]


async def test_prefixes_and_bytes_are_rows(client: Client) -> None:
    async with client.create_map(
        "routes", "lpm_trie", key=Cidr4, value=U32, max_entries=10, flags=1
    ) as routes:
        await routes.update_many({IPv4Network("10.0.0.0/8"): 1, IPv4Network("10.1.0.0/16"): 2})
        keys = np.array([(32, (10, 1, 2, 3)), (32, (10, 2, 2, 3)), (32, (9, 0, 0, 1))], Cidr4.dtype)
        found = await routes.lookup_many(keys)
        assert (found.values.tolist(), found.present.tolist()) == ([2, 1, 0], [True, True, False])
    async with client.create_map("raw", "hash", key=Bytes(4), value=Bytes(2), max_entries=10) as raw:
        await raw.update_many((np.arange(3, dtype=np.uint32), np.array([[1, 2], [3, 4], [5, 6]], np.uint8)))
        assert await raw.lookup(bytes((2, 0, 0, 0))) == bytes((5, 6))
