"""What a dump leaves out and reduces, from the client's arguments to the kernel's values and back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

import mapd_client
from mapd.bpf import possible_cpus
from mapd.daemon import Ready
from mapd_client import (
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bytes,
    Client,
    Codec,
    Dump,
    Map,
    MapdError,
    MapFlag,
    PerCpu,
    Reason,
    Reduce,
    Unsupported,
)
from mapd_client.codec import Int

CPUS = possible_cpus()
T = TypeVar("T")
COMBINE: dict[str, Callable[[list[int]], int]] = {"sum": sum, "min": min, "max": max}


@asynccontextmanager
async def percpu_map(
    local: Ready, inner: Codec[int], values: Mapping[int, list[int]]
) -> AsyncGenerator[tuple[Client, Map[int, list[int]]]]:
    async with (
        mapd_client.connect(f"unix:{local.socket}") as client,
        client.create_map("hits", "percpu_hash", key=U32, value=PerCpu(inner), max_entries=2_000) as made,
    ):
        await made.update_many(values)
        yield client, made


async def all_of(dump: Dump[T]) -> list[T]:
    return [entry async for entry in dump]


def spread(number: int, low: int, high: int) -> list[int]:
    """A number for each CPU, from both ends of a range."""
    return [(low + number * (cpu + 3)) if (number + cpu) % 2 else (high - number) for cpu in range(CPUS)]


@pytest.mark.parametrize("kind", ["sum", "min", "max"])
@pytest.mark.parametrize("inner", [U8, U16, U32, U64, I32, I64], ids=str)
async def test_lookups_and_dumps_agree_on_what_all_cpus_come_to(
    local: Ready, inner: Codec[int], kind: str
) -> None:
    assert isinstance(inner, Int)
    bits = 8 * inner.size - inner.signed
    low, high = -(1 << bits) if inner.signed else 0, (1 << bits) - 1
    values = {number: spread(number, low, high) for number in range(50)}
    async with percpu_map(local, inner, values) as (client, _):
        codec: Codec[int] = getattr(PerCpu(inner), kind)()
        async with client.open_map("hits", key=U32, value=codec) as reduced:
            looked_up = dict(zip(values, await reduced.lookup_many([*values]), strict=True))
            assert dict(await all_of(reduced.items())) == looked_up
            assert sorted(await all_of(reduced.values())) == sorted(one or 0 for one in looked_up.values())
            assert dict(await all_of(reduced.items(prefix=b"\x07"))) == {7: looked_up[7]}
    exact = {number: COMBINE[kind](slots) for number, slots in values.items()}
    assert {number: (one or 0) % (1 << 64) for number, one in looked_up.items()} == {
        number: one % (1 << 64) for number, one in exact.items()
    }


async def test_one_value_per_key_travels(local: Ready) -> None:
    values = {number: [number + cpu for cpu in range(CPUS)] for number in range(100)}
    async with percpu_map(local, U64, values) as (_, hits):
        chunks = await all_of(hits.chunks(reduce=[Reduce("max")]))
        assert {chunk.value_stride for chunk in chunks} == {8}
        found = {
            key: value
            for chunk in chunks
            for key, value in zip(chunk.keys_array.tolist(), chunk.values_array.tolist(), strict=True)
        }
        assert found == {number: number + CPUS - 1 for number in values}


async def test_fields_of_a_structure_are_reduced_one_by_one(local: Ready) -> None:
    """{u32 packets; u8 flags; u64 bytes} without padding: nothing is aligned."""
    slots = [
        (10 + cpu).to_bytes(4, "little") + bytes([cpu]) + (1 << 40 | cpu).to_bytes(8, "little")
        for cpu in range(CPUS)
    ]
    async with (
        mapd_client.connect(f"unix:{local.socket}") as client,
        client.create_map("stats", "percpu_array", key=U32, value=PerCpu(Bytes(13)), max_entries=3) as stats,
    ):
        await stats.update(1, slots)
        reduce = [Reduce("sum", 0, 4), Reduce("max", 4, 1), Reduce("min", 5, 8)]
        (chunk,) = await all_of(stats.chunks(reduce=reduce, nonzero=True))
        packets = sum(10 + cpu for cpu in range(CPUS)).to_bytes(4, "little")
        assert chunk.values.tobytes() == packets + bytes([CPUS - 1]) + (1 << 40).to_bytes(8, "little")
        (part,) = await all_of(stats.chunks(reduce=reduce, nonzero=True, value_range=(4, 1)))
        assert (part.value_stride, part.values.tobytes()) == (1, bytes([CPUS - 1]))
        assert part.keys.tobytes() == (1).to_bytes(4, "little")


@pytest.mark.parametrize("map_type", ["hash", "array", "lru_hash"])
@pytest.mark.parametrize("flags", [MapFlag(0), MapFlag.MMAPABLE], ids=["plain", "mmapable"])
async def test_only_what_is_not_zero_comes_and_only_the_bytes_that_are_asked_for(
    local: Ready, map_type: str, flags: MapFlag
) -> None:
    if flags and map_type != "array":
        return
    async with (
        mapd_client.connect(f"unix:{local.socket}") as client,
        client.create_map(
            "flows",
            map_type,
            key=U32,
            value=U64,
            max_entries=3_000 if map_type == "array" else 9_000,
            flags=flags,
        ) as flows,
    ):
        await flows.update_many({number: number << 32 if number % 3 == 0 else 0 for number in range(3_000)})
        wanted = {number: number << 32 for number in range(3, 3_000, 3)}
        dump = flows.items(nonzero=True)
        assert dict(await all_of(dump)) == wanted
        assert dump.trailer is not None
        assert dump.trailer.entries == len(wanted)
        assert dump.trailer.method == ("mmap" if flags else "lookup_batch")
        assert sorted(await all_of(flows.keys(nonzero=True))) == sorted(wanted)
        some = await all_of(flows.values(nonzero=True, limit=10))
        assert len(some) == 10
        assert set(some) <= set(wanted.values())
        chunks = await all_of(flows.chunks(nonzero=True, value_range=(4, 2)))
        assert {chunk.value_stride for chunk in chunks} == {2}
        keys = b"".join(chunk.keys for chunk in chunks)
        values = b"".join(chunk.values for chunk in chunks)
        found = dict(zip(U32.decode_many(keys), U16.decode_many(values), strict=True))
        assert found == {number: number & 0xFFFF for number in wanted}


@pytest.mark.parametrize(
    ("arguments", "reason", "said"),
    [
        (
            {"reduce": [Reduce("sum", 4, 8)]},
            Reason.BAD_SPEC,
            "bytes 4 to 12 are to be reduced; values have 8",
        ),
        ({"reduce": [Reduce("sum"), Reduce("min", 7, 1)]}, Reason.BAD_SPEC, "overlap"),
        (
            {"value_range": (8 * CPUS, 1)},
            Reason.BAD_SPEC,
            f"from byte {8 * CPUS}; values have {8 * CPUS} bytes",
        ),
        ({"keys_only": True, "value_range": (0, 1)}, Reason.BAD_SPEC, "keys alone"),
    ],
)
async def test_what_the_values_have_no_room_for_is_refused(
    local: Ready, arguments: dict[str, Any], reason: Reason, said: str
) -> None:
    async with percpu_map(local, U64, {1: [1] * CPUS}) as (_, hits):
        with pytest.raises(MapdError, match=said) as caught:
            await all_of(hits.chunks(**arguments))
        assert caught.value.reason is reason


async def test_a_type_without_slots_has_nothing_to_reduce(local: Ready) -> None:
    async with (
        mapd_client.connect(f"unix:{local.socket}") as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=8) as flows,
    ):
        with pytest.raises(Unsupported, match="hash maps have one value per key"):
            await all_of(flows.chunks(reduce=[Reduce("sum")]))
