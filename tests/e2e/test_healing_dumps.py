"""Dumps of every shape that meet the end of their daemon: each goes on in the next with exactly the rest."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

import mapd_client
from mapd.bpf import possible_cpus
from mapd_client import U32, U64, Bytes, Client, Dump, Map, PerCpu, blocking
from tests.support.daemon import Place, daemon_process

COUNT = 60_000
VALUE = 192
"""With it a map is several times what gRPC carries ahead of a reader."""


async def maps(
    client: Client, stack: AsyncExitStack
) -> tuple[Map[int, bytes], Map[int, bytes], Map[int, int]]:
    """A hash, an array, and a per-CPU hash whose values are summed up."""
    table = await stack.enter_async_context(
        client.create_map("table", "hash", key=U64, value=Bytes(VALUE), max_entries=COUNT)
    )
    assert await table.load((n, n.to_bytes(8, "little") * (VALUE // 8)) for n in range(COUNT)) == COUNT
    array = await stack.enter_async_context(
        client.create_map("array", "array", key=U32, value=Bytes(VALUE), max_entries=COUNT)
    )
    slots = await stack.enter_async_context(
        client.create_map("slots", "percpu_hash", key=U64, value=PerCpu(U64), max_entries=COUNT)
    )
    cpus = possible_cpus()
    assert await slots.load((n, [n] * cpus) for n in range(COUNT)) == COUNT
    await slots.aclose()
    summed = await stack.enter_async_context(client.open_map("slots", key=U64, value=PerCpu(U64).sum()))
    return table, array, summed


def shapes(table: Map[int, bytes], array: Map[int, bytes], summed: Map[int, int]) -> dict[str, Dump[Any]]:
    return {
        "items": table.items(),
        "keys": table.keys(),
        "values": table.values(),
        "prefix": table.items(prefix=b"\x07"),
        "limit": table.items(limit=40_000),
        "nonzero": table.items(nonzero=True),
        "array": array.keys(),
        "array items": array.items(),
        "summed": summed.items(),
    }


def check(name: str, found: list[Any]) -> None:
    """Exactly what is due, once."""
    cpus = possible_cpus()
    match name:
        case "items":
            assert sorted(key for key, _ in found) == list(range(COUNT))
        case "keys" | "array":
            assert sorted(found) == list(range(COUNT))
        case "values":
            assert sorted(int.from_bytes(value[:8], "little") for value in found) == list(range(COUNT))
        case "prefix":
            assert sorted(key for key, _ in found) == list(range(7, COUNT, 256))
        case "limit":
            assert len({key for key, _ in found}) == len(found) == 40_000
        case "nonzero":
            assert sorted(key for key, _ in found) == list(range(1, COUNT))
        case "array items":
            assert [key for key, _ in found] == list(range(COUNT))
        case "summed":
            assert sorted(found) == [(n, cpus * n) for n in range(COUNT)]
        case _:
            raise AssertionError(name)


async def rest_of(dump: AsyncIterator[Any], first: Any) -> list[Any]:
    return [first, *[one async for one in dump]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=lambda one: one.name)
async def test_dumps_of_every_shape_go_on_in_the_next_daemon(place: Place, end: signal.Signals) -> None:
    async with AsyncExitStack() as stack:
        with daemon_process(place, extra="grace_s = 0.2") as first:
            client = await stack.enter_async_context(mapd_client.connect(str(place.socket), timeout=30))
            dumps = shapes(*await maps(client, stack))
            begun = {name: await anext(dump) for name, dump in dumps.items()}
            first.process.send_signal(end)
            await asyncio.to_thread(first.process.wait, 15)
            resumed: dict[str, int] = {}
            with daemon_process(place):
                for name, dump in dumps.items():
                    check(name, await rest_of(dump, begun[name]))
                    assert dump.trailer is not None
                    assert dump.trailer.complete, name
                    resumed[name] = dump.trailer.resumed
    # What gRPC had carried ahead already is not asked for again.
    assert set(resumed.values()) <= {0, 1}
    assert resumed["items"] == resumed["array items"] == 1


def test_a_blocking_dump_goes_on_in_the_next_daemon(place: Place) -> None:
    with daemon_process(place) as first:
        client = blocking.connect(str(place.socket), timeout=30)
        table = client.create_map("table", "hash", key=U64, value=Bytes(VALUE), max_entries=COUNT)
        assert table.load((n, bytes(VALUE)) for n in range(COUNT)) == COUNT
        dump = table.items()
        seen = [next(dump)[0]]
        first.process.kill()
        first.process.wait()
    with daemon_process(place):
        seen += [key for key, _ in dump]
        assert sorted(seen) == list(range(COUNT))
        assert dump.trailer is not None
        assert (dump.trailer.complete, dump.trailer.resumed, dump.trailer.entries) == (True, 1, COUNT)
        client.close()
