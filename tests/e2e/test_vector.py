"""Vector programs through a real daemon: what it says of them, what they serve, and where syscalls do."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator

import pytest

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel, LoadTemplate
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd_client import U32, U64, BatchFailed, Client, MapFrozen, Unsupported
from tests.support.counts import no_map_left_behind, open_fds
from tests.support.daemon import Place

PROGRAMS = {
    "vector_read",
    "vector_write",
    "vector_lpm",
    "atomic",
    "compare_update",
    "write_one_cpu",
    "count_entries",
}
KEYS = range(3_000)
"""More than a program is loaded for."""


@pytest.fixture
async def client(local: Ready) -> AsyncGenerator[Client]:
    async with mapd_client.connect(str(local.socket)) as found:
        yield found


def loaded() -> int:
    return open_fds()["anon_inode:bpf-prog"]


async def test_the_daemon_says_which_programs_its_kernel_loads(client: Client) -> None:
    info = await client.server_info()
    assert info.programs >= PROGRAMS
    assert "touch" in info.features


async def test_a_daemon_that_may_load_none_says_so_and_serves_by_syscall(place: Place) -> None:
    kernel = FaultyKernel(LinuxKernel(), Fault(target=LoadTemplate, errno=errno.EPERM))
    async with (
        running(place.config(), kernel) as ready,
        mapd_client.connect(str(ready.socket)) as client,
        client.create_map("flows", "lru_hash", key=U32, value=U64, max_entries=8_192) as flows,
    ):
        info = await client.server_info()
        assert info.programs == frozenset()
        assert "touch" not in info.features
        await flows.update_many({key: key for key in KEYS})
        assert await flows.lookup_many(list(KEYS)) == list(KEYS)
        with pytest.raises(Unsupported, match="touch"):
            await flows.lookup(1, touch=True)


async def test_programs_serve_many_elements_and_end_with_their_map(place: Place) -> None:
    kernel = FaultyKernel(LinuxKernel())
    async with (
        running(place.config(), kernel) as ready,
        mapd_client.connect(str(ready.socket)) as client,
    ):
        before = loaded()
        with no_map_left_behind("e2e_vector"):
            async with client.create_map(
                "e2e_vector", "hash", key=U32, value=U64, max_entries=8_192
            ) as flows:
                kernel.forget()
                await flows.update_many({key: key * 3 for key in KEYS})
                assert await flows.lookup_many([*KEYS, 100_000]) == [*(key * 3 for key in KEYS), None]
                await flows.delete_many(list(KEYS)[::2])
                with pytest.raises(BatchFailed) as refused:
                    await flows.update_many(dict.fromkeys(KEYS, 0), flags="exist")
                assert (refused.value.applied, refused.value.failed) == (len(KEYS) // 2, len(KEYS) // 2)
                calls = {seen.target for seen in kernel.seen}
                assert Command.PROG_TEST_RUN in calls
                assert Command.MAP_LOOKUP_ELEM not in calls
                assert loaded() == before + 2
                await client.unpin_map("e2e_vector")
            assert loaded() == before


async def test_touched_keys_outlive_those_that_are_only_looked_up(client: Client) -> None:
    for touch, least, most in ((True, 900, 1_000), (False, 0, 100)):
        name = f"lru{touch:d}"
        async with client.create_map(name, "lru_hash", key=U32, value=U64, max_entries=4_096) as cache:
            await cache.update_many({key: key for key in range(4_096)})
            await cache.lookup_many(list(range(1_000)), touch=touch)
            await cache.update_many({key: key for key in range(10_000, 11_500)})
            there = sum(value is not None for value in await cache.lookup_many(list(range(1_000))))
            assert least <= there <= most


async def test_a_frozen_map_is_not_written_by_many_elements_either(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=8_192) as flows:
        await flows.update_many({key: key for key in KEYS})
        await flows.freeze()
        with pytest.raises(MapFrozen):
            await flows.update_many(dict.fromkeys(KEYS, 0))
        with pytest.raises(MapFrozen):
            await flows.delete_many(list(KEYS))
        assert await flows.lookup_many(list(KEYS)) == list(KEYS)
