"""R12: maps that fill the memory cgroup they are charged to: creations are refused, and no process of mapd is killed.

A process in a cgroup that is full is ended at the next page that it needs itself: so the opener keeps its share free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing, suppress
from itertools import islice, repeat
from typing import Any

import pytest

import mapd_client
from mapd.launch.cgroup import RESERVE
from mapd_api.reasons import Reason
from mapd_client import Bytes
from tests.reliability.figures import Canaries, Figures, Size
from tests.support.daemon import Place, daemon_process
from tests.support.memorycgroup import kills, memory_cgroup, processes

LIMIT = 64 << 20
VALUE = 1_024

KINDS = (("hash", 1), ("lpm_trie", 1), ("array", 0), ("hash", 0), ("percpu_array", 0), ("lru_hash", 0))
"""Types and flags; with BPF_F_NO_PREALLOC (1) elements take memory one by one, else it is taken at once."""

GROWING = {"hash", "lpm_trie"}


def keys(kind: str, count: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(count):
        key = number.to_bytes(4, "big")
        yield ((32).to_bytes(4, "little") + key if kind == "lpm_trie" else key), bytes(VALUE)


async def create(client: mapd_client.Client, name: str, kind: str, flags: int, entries: int) -> Any:
    """A map with values of 1 KiB."""
    key = Bytes(8) if kind == "lpm_trie" else Bytes(4)
    slots = (await client.server_info()).possible_cpus if kind.startswith("percpu") else 1
    value: Any = mapd_client.PerCpu(Bytes(VALUE)) if slots > 1 else Bytes(VALUE)
    return await client.create_map(name, kind, key=key, value=value, max_entries=entries, flags=flags)


async def made_and_filled(client: mapd_client.Client, name: str, kind: str, flags: int) -> bool:
    """Whether there was room for one map more; it has all its elements then."""
    try:
        opened = await create(client, name, kind, flags, 2_048)
    except mapd_client.MapdError as error:
        if error.reason is not Reason.KERNEL_MEMORY:
            raise
        return False
    async with aclosing(opened):
        if kind in GROWING:
            assert await opened.update_many(keys(kind, 2_048)) == 2_048
    return True


async def fill(client: mapd_client.Client) -> tuple[int, int]:
    """Maps of every kind until none fits any more, each with all its elements; how many, and how many did not."""
    made, refused, fitted = 0, 0, True
    while fitted:
        fitted = False
        for kind, flags in KINDS:
            fits = await made_and_filled(client, f"m{made}", kind, flags)
            made, refused, fitted = made + fits, refused + (not fits), fitted or fits
    return made, refused


async def test_no_process_is_killed_however_much_is_asked_for(
    place: Place, size: Size, figure: Figures
) -> None:
    with memory_cgroup(LIMIT) as cgroup:
        extra = f"[opener]\ncgroup = '{cgroup}'\nbytes_per_s = {1 << 40}\n"
        with daemon_process(place, extra=extra) as daemon:
            (opener,) = processes(cgroup)
            async with mapd_client.connect(str(place.socket)) as client:
                made, refused = await fill(client)
                kept = await create(client, "kept", "hash", 1, 16)
                rounds = size.pick(quick=200, full=2_000)
                for number in range(
                    rounds
                ):  # each makes the opener's process ask the kernel for pages of its own
                    async with client.open_map("kept") as opened:
                        await opened.update(
                            number.to_bytes(4, "big")[-4:] if number < 16 else bytes(4), bytes(VALUE)
                        )
                with pytest.raises(
                    mapd_client.MapdError, match="cgroup of mapd's opener leaves them"
                ) as large:
                    await create(client, "large", "hash", 1, 1 << 20)
                assert large.value.reason is Reason.KERNEL_MEMORY
                await kept.aclose()
                await asyncio.gather(
                    *[unpin(client, pin.name) for pin in sorted((place.names / "admin").iterdir())]
                )
                again, _ = await fill(client)
            alive = [daemon.process.poll() is None, processes(cgroup) == [opener]]
        figure(
            "R12", "processes of mapd killed", kills(cgroup) + alive.count(False), at_most=0, of=made + again
        )
        figure("R12", "maps made and filled in 64 MiB", made, at_least=8)
        figure("R12", "creations refused, each with the sums", refused, at_least=6)
        figure("R12", "maps made again once the others were gone", again, at_least=made)


async def unpin(client: mapd_client.Client, name: str) -> None:
    await client.unpin_map(name)


async def test_an_opener_that_keeps_nothing_free_is_killed(place: Place, canary: Canaries) -> None:
    """The same without the bound: the opener is moved into the cgroup behind its back."""
    with memory_cgroup(LIMIT) as cgroup, daemon_process(place) as daemon:
        (cgroup / "cgroup.procs").write_text(str(daemon.opener()))
        async with mapd_client.connect(str(place.socket), timeout=5) as client, AsyncExitStack() as stack:
            opened = await create(client, "h", "hash", 1, 200_000)
            elements = keys("hash", 200_000)
            for many in (80_000, *repeat(64, 200)):
                with suppress(mapd_client.MapdError):  # what has become free since is filled again
                    await opened.update_many(islice(elements, many))
                with suppress(mapd_client.MapdError):
                    await stack.enter_async_context(client.open_map("h", read_only=True))
                if kills(cgroup):
                    break
        canary("R12", "an opener without a reserve", caught=kills(cgroup), of=1)


def test_a_cgroup_that_leaves_nothing_for_maps_is_refused_at_the_start(place: Place) -> None:
    with (
        memory_cgroup(RESERVE) as cgroup,
        pytest.raises(
            AssertionError, match=r"admits \d+ bytes, and of these 16777216 are its own: raise memory.max"
        ),
        daemon_process(place, extra=f"[opener]\ncgroup = '{cgroup}'\n"),
    ):
        pass


def test_a_cgroup_that_is_none_is_refused_at_the_start(place: Place) -> None:
    with (
        pytest.raises(AssertionError, match=r"\[opener\] cgroup: .*No such file or directory"),
        daemon_process(place, extra=f"[opener]\ncgroup = '{place.root}/none'\n"),
    ):
        pass
