"""Dumps of real maps under real writers: complete, exact, resumable, bounded, and in nobody's way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import mapd_client
from mapd.bpf import LinuxKernel, possible_cpus
from mapd.daemon import Ready
from mapd_api import limits
from mapd_api.uapi import MapFlag
from mapd_client import (
    U64,
    Bytes,
    Chunk,
    Client,
    Dump,
    Map,
    MapdError,
    MapType,
    PerCpu,
    Reason,
    Unavailable,
)
from tests.e2e import churner
from tests.e2e.churner import Board
from tests.e2e.settling import until
from tests.support.counts import map_fds
from tests.support.daemon import DaemonProcess, Place, daemon_process

STABLE = 100_000
OTHERS = 8 * churner.RUN
VALUE = 128
"""Bytes of a value of all CPUs: with it a map is several times what gRPC carries ahead of a reader."""

Numbers = npt.NDArray[np.uint64]


def two_cpus() -> tuple[int, int]:
    """One for the daemon and its client, one for who writes: on one CPU they would take turns."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU: nothing can be written during a read")
    return cpus[0], cpus[1]


@contextlib.contextmanager
def pinned_to(cpu: int) -> Generator[None]:
    """Every thread of this process on one CPU."""
    threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    before = os.sched_getaffinity(0)
    for thread in threads:
        os.sched_setaffinity(thread, {cpu})
    try:
        yield
    finally:
        for entry in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(entry.name), before)


@dataclass(slots=True)
class Churn:
    """The writing process, seen from here."""

    board: Board
    process: subprocess.Popen[bytes]
    said: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def words(self) -> int:
        """The pipe on which it says that what was wanted is written."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def listen(self) -> None:
        os.read(self.words, 1)
        self.said.set()

    async def writes(self, more: int) -> int:
        """Wait until so many more were made; how many there are then."""
        self.said.clear()
        self.board.wanted = self.board.writes + more
        await self.said.wait()
        assert self.process.poll() is None, "the writer ended"
        return self.board.writes


def rows(column: memoryview, stride: int) -> Numbers:
    return np.frombuffer(column, np.uint64).reshape(-1, stride // 8)


def numbers_in(chunks: list[Chunk]) -> Numbers:
    """The keys; every word of a value must tell its key, or elements were mixed up."""
    for chunk in chunks:
        keys, values = rows(chunk.keys, 8), rows(chunk.values, chunk.value_stride)
        assert bool((values == keys).all()), "a value that is not its key's"
    return np.concatenate([rows(chunk.keys, 8)[:, 0] for chunk in chunks])


def flaws(keys: Numbers) -> tuple[int, int]:
    """Stable keys that are missing, and keys that are there more than once."""
    distinct, counts = np.unique(keys, return_counts=True)
    missed = STABLE - int((distinct < STABLE).sum())
    return missed, int((counts > 1).sum())


async def create(client: Client, map_type: MapType, *, room: int) -> None:
    """A map named "stable" of that type; keys of 8 bytes, values of VALUE bytes in all."""
    if map_type is MapType.PERCPU_HASH:
        slots = PerCpu(Bytes(8 * max(1, VALUE // 8 // possible_cpus())))
        async with client.create_map("stable", map_type, key=U64, value=slots, max_entries=room):
            return
    async with client.create_map("stable", map_type, key=U64, value=Bytes(VALUE), max_entries=room):
        return


@contextlib.asynccontextmanager
async def filled(
    place: Place, map_type: MapType = MapType.HASH, count: int = STABLE
) -> AsyncGenerator[Map[bytes, bytes]]:
    """A map of ``count`` elements whose values repeat their key, through a client of the daemon there."""
    async with mapd_client.connect(str(place.socket)) as client:
        # LRU evicts once a CPU finds no free element; with so much room it always finds one.
        await create(client, map_type, room=(4 if map_type is MapType.LRU_HASH else 2) * (count + OTHERS))
        async with client.open_map("stable") as found:
            width = found.info.value_stride // 8
            pairs = ((n.to_bytes(8, "little"), n.to_bytes(8, "little") * width) for n in range(count))
            assert await found.load(pairs) == count
            yield found


def walk_is_flawed(kernel: LinuxKernel, map_fd: int) -> bool:
    """Whether one get_next_key walk, from the first key to the last, repeats a key or misses a stable one."""
    seen: set[bytes] = set()
    key = kernel.next_key(map_fd, None, 8)
    while key is not None:
        if key in seen:
            return True
        seen.add(key)
        key = kernel.next_key(map_fd, key, 8)
    missed, _ = flaws(np.frombuffer(b"".join(seen), np.uint64))
    return missed > 0


async def test_a_dump_left_early_frees_its_scan(local: Ready, place: Place) -> None:
    async with filled(place) as found:
        held, tasks = map_fds(), len(asyncio.all_tasks())
        for _ in range(3 * limits.DUMP_BYTES // limits.CHUNK_MAX_BYTES):
            async with found.chunks() as dump:
                await anext(dump)
                assert local.guard.running == 1
            assert await local.guard.wait_idle(10)
        # More dumps than the budget has room for were begun: each has given back what it held.
        assert await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert map_fds() == held
        assert await found.lookup(bytes(8)) is not None


async def test_a_dump_goes_on_in_a_new_daemon_with_exactly_the_rest(place: Place) -> None:
    with daemon_process(place) as first:
        async with filled(place) as found:
            dump = found.chunks()
            chunks = [await anext(dump) for _ in range(4)]
            token = dump.token
            assert token == chunks[-1].token
            first.process.kill()
            first.process.wait()
            with daemon_process(place):
                rest = [chunk async for chunk in dump]
                assert dump.trailer is not None
                assert (dump.trailer.complete, dump.trailer.resumed) == (True, 1)
                assert dump.trailer.entries == STABLE
                async with (
                    mapd_client.connect(str(place.socket)) as client,
                    client.open_map("stable") as again,
                    again.chunks(resume=token) as resumed,
                ):
                    by_token = [chunk async for chunk in resumed]
    assert sorted(numbers_in([*chunks, *rest])) == list(range(STABLE))
    assert sorted(numbers_in([*chunks, *by_token])) == list(range(STABLE))


async def test_a_trie_resumed_behind_a_key_that_has_gone_is_told_from_a_whole_one(
    local: Ready, place: Place
) -> None:
    del local
    prefixes = [(32).to_bytes(4, "little") + number.to_bytes(4, "big") for number in range(20_000)]
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.create_map(
            "trie", "lpm_trie", key=Bytes(8), value=U64, max_entries=20_000, flags=MapFlag.NO_PREALLOC
        ) as found,
    ):
        await found.update_many((prefix, 1) for prefix in prefixes)
        async with found.chunks() as dump:
            first = await anext(aiter(dump))
        last = bytes(first.keys[-8:])

        async with found.chunks(resume=first.token) as dump:
            rest = [chunk async for chunk in dump]
        assert dump.trailer is not None
        assert dump.trailer.complete
        assert first.count + sum(chunk.count for chunk in rest) == 20_000

        await found.delete(last)
        async with found.chunks(resume=first.token, partial_ok=True) as dump:
            again = [chunk async for chunk in dump]
        assert dump.trailer is not None
        assert (dump.trailer.complete, dump.trailer.restarts) == (False, 1)
        assert sum(chunk.count for chunk in again) == 19_999


async def test_a_reader_who_stands_still_delays_no_lookup(daemon: DaemonProcess) -> None:
    """Counted, not timed: a thousand lookups end while the dump has not."""
    async with filled(daemon.place) as found, found.chunks() as dump:
        chunks = [await anext(dump)]
        async with (
            mapd_client.connect(str(daemon.place.socket)) as client,
            client.open_map("stable") as other,
        ):
            for number in range(1_000):
                for opened in (found, other) if number % 10 == 0 else (other,):
                    assert await opened.lookup(number.to_bytes(8, "little")) is not None
            stood_still_until = time.time()
        chunks.extend([chunk async for chunk in dump])
        assert flaws(numbers_in(chunks)) == (0, 0)
        assert dump.trailer is not None
        assert dump.trailer.ended_at.timestamp() > stood_still_until, "the dump was over before: no proof"


async def test_dumps_beyond_the_byte_budget_are_refused_until_one_ends(local: Ready, place: Place) -> None:
    """All dumps together hold DUMP_BYTES at most, whatever their readers do; each at least 3 small chunks."""
    least = 3 * limits.CHUNK_MIN_BYTES
    async with filled(place) as found, contextlib.AsyncExitStack() as stack:
        running: list[Dump[Chunk]] = []
        refused: MapdError | None = None
        while refused is None:
            assert len(running) * least <= limits.DUMP_BYTES, "no bound on what dumps hold"
            dump = await stack.enter_async_context(found.chunks())
            try:
                await anext(dump)
                running.append(dump)
            except Unavailable as error:
                refused = error
        assert refused.reason is Reason.BUSY
        assert refused.retry_after is not None
        assert await until(lambda: local.guard.running == len(running))
        for dump in running:
            await dump.aclose()
        assert await local.guard.wait_idle(10)
        async with found.chunks() as dump:
            assert flaws(numbers_in([chunk async for chunk in dump])) == (0, 0)
