"""R3: a dump has every key that was there throughout, once, whoever writes meanwhile and however often its stream ends.

The daemon and its reader have one CPU, two processes that write the other: one by system calls, one by a BPF program.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mapd_client
from mapd.bpf import LinuxKernel, OpenPin
from mapd_api.uapi import MapFlag, MapType
from mapd_client import U64, Bytes, Chunk, Map
from mapd_client.resuming import Source
from tests.e2e import churner
from tests.e2e.churner import Board
from tests.e2e.test_dump import (
    OTHERS,
    STABLE,
    Churn,
    Numbers,
    create,
    flaws,
    pinned_to,
    rows,
    two_cpus,
    walk_is_flawed,
)
from tests.reliability import kernel_churner
from tests.reliability.figures import Canaries, Figures, Size
from tests.support.daemon import DaemonProcess, Place, environment, spawn, wait_ready
from tests.support.relay import Relay, relaying

ROOT = Path(__file__).parents[2]
HOLD = 4_096
"""Writes of each writer for which a dump stands still."""

KINDS = (MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH)


@dataclass
class Ground:
    """A daemon that is killed and started again, a relay before it, a map, and who writes to it."""

    place: Place
    cpu: int
    relay: Relay
    found: Map[bytes, bytes]
    daemon: DaemonProcess
    writers: list[Churn] = field(default_factory=list[Churn])

    async def hold(self) -> None:
        """Until each writer has written more."""
        for one in self.writers:
            await one.writes(HOLD)

    async def cut(self) -> None:
        """The connection breaks."""
        await self.relay.cut()

    async def restart(self) -> None:
        """SIGKILL, and another start."""
        self.daemon.process.kill()
        await asyncio.to_thread(self.daemon.process.wait)
        self.daemon = pinned_daemon(self.place, self.cpu)
        await asyncio.to_thread(wait_ready, self.daemon)


def pinned_daemon(place: Place, cpu: int) -> DaemonProcess:
    return spawn(place, prefix=("taskset", "-c", str(cpu)))


@contextlib.asynccontextmanager
async def ground(place: Place, cpu: int, map_type: MapType = MapType.HASH) -> AsyncGenerator[Ground]:
    """A daemon, and a client through a relay with a map of STABLE elements that repeat their key."""
    daemon, made = pinned_daemon(place, cpu), None
    try:
        await asyncio.to_thread(wait_ready, daemon)
        async with (
            relaying(place.root / "relay.sock", place.socket) as relay,
            mapd_client.connect(str(relay.path), timeout=60) as client,
        ):
            # LRU evicts once a CPU finds no free element; with so much room it always finds one.
            await create(
                client, map_type, room=(4 if map_type is MapType.LRU_HASH else 2) * (STABLE + 2 * OTHERS)
            )
            async with client.open_map("stable") as found:
                width = found.info.value_stride // 8
                pairs = ((n.to_bytes(8, "little"), n.to_bytes(8, "little") * width) for n in range(STABLE))
                assert await found.load(pairs) == STABLE
                made = Ground(place, cpu, relay, found, daemon)
                yield made
    finally:
        last = daemon if made is None else made.daemon
        last.process.kill()
        last.process.wait()


def started(cpu: int, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["taskset", "-c", str(cpu), sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**environment(), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def writing(of: Ground, cpu: int) -> AsyncGenerator[None]:
    """Both writers, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        for module, first in ((churner, ()), (kernel_churner, (STABLE + OTHERS,))):
            board = stack.enter_context(Board.create(of.place.root / module.__name__))
            arguments = [of.place.bpffs, of.found.info.pin_path, board.path, STABLE, *first, OTHERS]
            process = stack.enter_context(started(cpu, module.__name__, *map(str, arguments)))
            stack.callback(process.kill)
            churn = Churn(board, process)
            loop = asyncio.get_running_loop()
            loop.add_reader(churn.words, churn.listen)
            stack.callback(loop.remove_reader, churn.words)
            of.writers.append(churn)
        await of.hold()
        yield
        for one in of.writers:
            one.board.stop = True
        for one in of.writers:
            assert await asyncio.to_thread(one.process.wait, 10) == 0


async def dump(of: Ground, happens: Callable[[], Awaitable[None]]) -> tuple[Numbers, int]:
    """The keys of one dump, in the midst of which something happens; and how often it went on."""
    chunks: list[Chunk] = []
    async with of.found.chunks() as found:
        async for chunk in found:
            chunks.append(chunk)
            if len(chunks) == 3:
                await happens()
        assert found.trailer is not None
        assert found.trailer.complete
        assert found.trailer.method == "lookup_batch"
        assert found.trailer.entries == sum(chunk.count for chunk in chunks)
        resumed = found.trailer.resumed
    return keys_of(chunks), resumed


def keys_of(chunks: list[Chunk]) -> Numbers:
    """The keys; the values of those that stay tell their key."""
    for chunk in chunks:
        keys, values = rows(chunk.keys, 8), rows(chunk.values, chunk.value_stride)
        stay = keys[:, 0] < STABLE
        assert bool((values[stay] == keys[stay]).all()), "a value that is not its key's"
    return np.concatenate([rows(chunk.keys, 8)[:, 0] for chunk in chunks])


@pytest.mark.timeout(180)
@pytest.mark.parametrize("map_type", KINDS, ids=lambda one: one.name)
async def test_a_dump_has_what_stays_exactly_once_under_two_writers_across_cuts_and_restarts(
    place: Place, size: Size, figure: Figures, map_type: MapType
) -> None:
    here, there = two_cpus()
    dumps = size.pick(quick=5, full=50)
    missed = twice = resumed = 0
    with pinned_to(here):
        async with ground(place, here, map_type) as of, writing(of, there):
            for number in range(dumps):
                happens = (of.hold, of.cut, of.hold, of.restart, of.hold)[number % 5]
                keys, parts = await dump(of, happens)
                found = flaws(keys)
                missed, twice, resumed = missed + found[0], twice + found[1], resumed + parts
    kind = map_type.name.lower()
    figure("R3", f"{kind}: stable keys missed", missed, at_most=0, of=dumps * STABLE)
    figure("R3", f"{kind}: keys twice", twice, at_most=0, of=dumps * STABLE)
    figure("R3", f"{kind}: resumed after cuts and kills", resumed, at_least=2 * (dumps // 5), of=dumps)


@pytest.mark.timeout(120)
async def test_a_dump_of_a_trie_says_that_it_is_best_effort(
    place: Place, size: Size, figure: Figures
) -> None:
    """Prefixes are removed and added while it is walked: the kernel begins again where its cursor was."""
    here, _ = two_cpus()
    dumps, flagged = size.pick(quick=3, full=50), 0
    prefixes = [(32).to_bytes(4, "little") + number.to_bytes(4, "big") for number in range(20_000)]
    daemon = pinned_daemon(place, here)
    try:
        await asyncio.to_thread(wait_ready, daemon)
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.create_map(
                "trie", "lpm_trie", key=Bytes(8), value=U64, max_entries=20_000, flags=MapFlag.NO_PREALLOC
            ) as found,
        ):
            await found.load((prefix, 1) for prefix in prefixes)
            for _ in range(dumps):
                async with found.chunks(partial_ok=True) as chunks:
                    last = (await anext(chunks)).keys[-8:].tobytes()
                    await found.delete(last)
                    seen = [chunk async for chunk in chunks]
                await found.update(last, 1)
                assert seen
                assert chunks.trailer is not None
                flagged += found.info.iteration == "best_effort"
    finally:
        daemon.stop()
    figure("R3", "lpm_trie: dumps flagged best effort", flagged, at_least=dumps, of=dumps)


@pytest.mark.timeout(120)
async def test_what_the_figure_does_not_find_is_there_to_be_found(
    place: Place, canary: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Walks by get_next_key under the same writers; dumps that go on a chunk before, and behind, where they were."""
    here, there = two_cpus()
    kernel = LinuxKernel()
    planted: Any = Source
    noted = planted._noted
    with pinned_to(here):
        async with ground(place, here) as of, writing(of, there):
            with (
                kernel.control(OpenPin(root=str(place.bpffs), path=of.found.info.pin_path)) as owned,
                owned.lease() as map_fd,
            ):
                walks = sum(any(walk_is_flawed(kernel, map_fd) for _ in range(40)) for _ in range(3))

            def late(source: Any, chunk: Chunk) -> bool:
                before = source._known
                wanted: bool = noted(source, chunk)
                source._known = before
                return wanted

            monkeypatch.setattr(Source, "_noted", late)
            again = 0
            for _ in range(3):
                keys, _ = await dump(of, of.cut)
                again += flaws(keys)[1] > 0

            def lost(source: Any, chunk: Chunk) -> bool:
                # A chunk is dropped where the second stream begins.
                first_of_next: bool = source._resumed > 0 and not source._taken
                wanted: bool = noted(source, chunk)
                return wanted and not first_of_next

            monkeypatch.setattr(Source, "_noted", lost)
            dropped = 0
            for _ in range(3):
                with contextlib.suppress(AssertionError):  # the trailer's count
                    keys, _ = await dump(of, of.cut)
                    dropped += flaws(keys)[0] > 0
                    continue
                dropped += 1
    canary("R3", "a dump by get_next_key", caught=walks, of=3)
    canary("R3", "a dump that goes on a chunk before where it was", caught=again, of=3)
    canary("R3", "a dump that loses a chunk where it goes on", caught=dropped, of=3)
