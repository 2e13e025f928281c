"""A dump that is read ahead of who writes it, from a server of the tests' own."""

from __future__ import annotations

import pytest

from mapd_client import DumpIncomplete, Map, connect
from mapd_client.cli.ahead import AHEAD, ahead
from tests.unit.mapd_client.daemon import Daemon, map_info

ELEMENTS = 100


async def opened(daemon: Daemon, chunk: int) -> None:
    found = daemon.add(map_info("ns/flows"))
    found.data = {n.to_bytes(4, "little"): bytes(8) for n in range(ELEMENTS)}
    daemon.chunk_elements = chunk


async def seen(made: Map[bytes, bytes], counts: list[int]) -> None:
    async with ahead(made.chunks()) as chunks:
        async for chunk in chunks:
            counts.append(chunk.count)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize("chunk", [1, 7, ELEMENTS, 2 * ELEMENTS])
async def test_every_chunk_comes_once_and_in_order(daemon: Daemon, chunk: int) -> None:
    await opened(daemon, chunk)
    async with connect(daemon.target) as client, client.open_map("flows") as made:
        dump = made.chunks()
        keys = b""
        async with ahead(dump) as chunks:
            async for one in chunks:
                keys += bytes(one.keys)
        assert keys == b"".join(n.to_bytes(4, "little") for n in range(ELEMENTS))
        assert dump.trailer is not None
        assert dump.trailer.entries == ELEMENTS


async def test_what_the_dump_raises_is_raised_behind_its_elements(daemon: Daemon) -> None:
    daemon.dump_complete = False
    await opened(daemon, 10)
    async with connect(daemon.target) as client, client.open_map("flows") as made:
        counts: list[int] = []
        with pytest.raises(DumpIncomplete):
            await seen(made, counts)
        assert sum(counts) == ELEMENTS


async def test_who_leaves_early_ends_the_dump(daemon: Daemon) -> None:
    assert ELEMENTS > AHEAD + 1, "else all of it fits into what waits"
    await opened(daemon, 1)
    async with connect(daemon.target) as client, client.open_map("flows") as made:
        dump = made.chunks()
        async with ahead(dump) as chunks:
            async for _ in chunks:
                break
        assert dump.trailer is None
        counts: list[int] = []
        await seen(made, counts)
        assert sum(counts) == ELEMENTS
