"""Work of one kind waits only for work of its kind: while the kernel takes its time, lookups are answered.

By order and not by time: a call stands still in the kernel until the test lets it go, and what is answered meanwhile
did not wait for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import mapd_client
from mapd.bpf import CreateMap, Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Target
from mapd.config import PoolConfig
from mapd.daemon import Ready, running
from mapd_client import U32, U64
from tests.e2e.settling import until
from tests.support.daemon import Place

THREADS = PoolConfig()
"""How many there are of each lane."""

MANY = 20_000


@dataclass
class Host:
    """A daemon in this loop on a kernel that stands still where it is told to, and a client."""

    kernel: FaultyKernel
    ready: Ready
    client: mapd_client.Client
    small: mapd_client.Map[int, int]
    large: mapd_client.Map[int, int]
    tasks: list[asyncio.Task[Any]] = field(default_factory=list[asyncio.Task[Any]])

    @contextmanager
    def standing(self, target: Target) -> Generator[None]:
        """Every such call stands still until the block ends."""
        go_on = threading.Event()
        fault = Fault(target=target, wait=go_on)
        self.kernel.add(fault)
        try:
            yield
        finally:
            self.kernel.remove(fault)
            go_on.set()

    async def begin(self, target: Target, *calls: Awaitable[Any]) -> None:
        """Begin these; as many as there are threads for have arrived in the kernel."""
        self.kernel.forget()
        self.tasks += [asyncio.ensure_future(call) for call in calls]
        assert await until(lambda: len(self.kernel.fired) >= 2)
        assert all(one.target == target for one in self.kernel.fired)

    async def work(self) -> None:
        """What is answered in microseconds, by name and by handle, in a session and by itself."""
        async with asyncio.timeout(20):
            assert await self.small.lookup(1) == 1
            await self.small.update(2, 2)
            assert await self.small.delete(2)
            assert await self.large.lookup(7) == 7
            async with self.client.open_map("small", key=U32, value=U32) as again:
                assert await again.lookup(1) == 1
            assert (await self.client.server_info()).epoch
        assert not any(task.done() for task in self.tasks)


@asynccontextmanager
async def host(place: Place) -> AsyncGenerator[Host]:
    kernel = FaultyKernel(LinuxKernel())
    async with (
        running(place.config(), kernel) as ready,
        mapd_client.connect(str(ready.socket), timeout=30) as client,
        client.create_map("small", "hash", key=U32, value=U32, max_entries=8) as small,
        client.create_map("large", "hash", key=U64, value=U64, max_entries=MANY) as large,
    ):
        await small.update(1, 1)
        numbers = np.arange(MANY, dtype=np.uint64)
        assert await large.load((numbers, numbers)) == MANY
        found = Host(kernel, ready, client, small, large)
        yield found
        await asyncio.gather(*found.tasks)


async def test_maps_that_take_long_to_be_made_hold_up_nobody_who_looks_up(place: Place) -> None:
    async with host(place) as found:

        async def make(number: int) -> None:
            async with found.client.create_map(f"made{number}", "array", key=U32, value=U32, max_entries=1):
                pass

        with found.standing(CreateMap):
            await found.begin(CreateMap, *(make(number) for number in range(THREADS.slow_threads + 3)))
            await found.work()


async def test_dumps_hold_up_nobody_who_looks_up(place: Place) -> None:
    """On the same map neither."""
    async with host(place) as found:

        async def dump() -> None:
            assert len([item async for item in found.large.items()]) == MANY

        with found.standing(Command.MAP_LOOKUP_BATCH):
            await found.begin(Command.MAP_LOOKUP_BATCH, *(dump() for _ in range(THREADS.bulk_threads + 3)))
            await found.work()
