"""R13: after a million element operations and 200,000 calls of all kinds everything is as it was before."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio

import mapd_client
from mapd.daemon import Ready
from mapd_client import U32
from tests.e2e.settling import until
from tests.reliability.everymethod import METHODS, Names, Rounds, left_out
from tests.reliability.figures import Canaries, Figures, Size
from tests.reliability.processes import resident_kib
from tests.support.counts import kernel_maps
from tests.support.daemon import DaemonProcess, Place, daemon_process, fds_of, threads_of

CLIENTS = 4

OWN = f"r13-{os.getpid()}"
"""What the names of this process' maps begin with: others of these tests may run beside it."""

BENIGN = {
    *(
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
    ),
    *(grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE),
}
"""What calls may be told in a round of which some were given up: what they need is missing, or is there already."""


def pins_of(place: Place) -> Path:
    folder = place.bpffs / "others"
    folder.mkdir(exist_ok=True)
    return folder


async def rounds(
    place: Place, calls: int, seed: int, *, cancels: float, between: int = 0
) -> Counter[tuple[str, grpc.StatusCode]]:
    """Several clients going round side by side until they have made so many calls; what they were told."""
    told: Counter[tuple[str, grpc.StatusCode]] = Counter()
    folder = pins_of(place)

    async def one(number: int) -> None:
        async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
            going = Rounds(channel, random.Random(f"{seed} {number}"), cancels, between)  # noqa: S311
            names = Names(f"{OWN}-{number}", str(folder))
            while going.calls < calls // CLIENTS:
                await going.go(names)
            told.update(going.answered)

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(one(number))
    gc.collect()  # grpc keeps a closed channel's connection for as long as a call of it is part of a cycle
    return told


def kept_maps() -> int:
    """Maps of this process' rounds that the kernel has."""
    return sum(name.startswith(OWN.replace("-", "_")) for name in kernel_maps().values())


async def prepare(place: Place) -> None:
    async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
        await Rounds(channel, random.Random(0)).prepare()  # noqa: S311


async def elements(place: Place, count: int) -> None:
    """So many elements written, read and removed, in batches and one by one."""
    async with (
        mapd_client.connect(str(place.socket)) as client,
        client.create_map("bulk", "hash", key=U32, value=U32, max_entries=20_000, exist_ok=True) as opened,
    ):
        batch = min(10_000, count // 4)
        for _ in range(max(1, count // (4 * batch))):
            keys = list(range(batch))
            assert await opened.update_many(zip(keys, keys, strict=True)) == batch
            assert await opened.lookup_many(keys) == keys
            assert await opened.delete_many(keys) == batch
            await asyncio.gather(*(opened.update(key, key) for key in keys))
            assert (await opened.count()).entries == batch


def held(daemon: DaemonProcess) -> Counter[str]:
    """What the descriptors of both processes are, but for which socket each is."""
    return sum((held_by(pid) for pid in (daemon.pid, daemon.opener())), Counter[str]())


def held_by(pid: int) -> Counter[str]:
    return Counter(one.partition(":[")[0] if one.startswith("socket") else one for one in fds_of(pid))


def threads(daemon: DaemonProcess) -> int:
    """Of both processes."""
    return daemon.threads() + threads_of(daemon.opener())


def memory_kib(daemon: DaemonProcess) -> Sequence[int]:
    """Of the front and of the opener."""
    return resident_kib(daemon.pid), resident_kib(daemon.opener())


def test_every_method_has_a_call() -> None:
    assert left_out() == set()


async def test_a_daemon_is_after_many_calls_as_it_was_before(
    place: Place, size: Size, figure: Figures
) -> None:
    calls, operations = size.pick(quick=1_000, full=200_000), size.pick(quick=20_000, full=1_000_000)
    with daemon_process(place) as daemon:
        listening = held(daemon)["socket"]
        await prepare(place)
        between = size.pick(quick=32, full=320)
        warm_up = size.pick(quick=200, full=20_000)
        told = await rounds(place, warm_up, 1, cancels=0)
        assert {name for name, code in told if code is grpc.StatusCode.OK} >= METHODS.keys() - {"GetBtf"}
        await rounds(place, warm_up, 2, cancels=0.3, between=between)
        await elements(place, operations // 10)
        assert await until(lambda: held(daemon)["socket"] == listening), held(daemon)
        before, many, maps, memory = held(daemon), threads(daemon), kept_maps(), memory_kib(daemon)
        told = await rounds(place, calls, 3, cancels=0.3, between=between)
        await elements(place, operations)
        made = sum(told.values())
        more_fds: Counter[str] = Counter()

        def as_before() -> bool:
            # Looked at once: both processes open pins for a moment each second.
            nonlocal more_fds
            more_fds = held(daemon) - before
            return not more_fds and threads(daemon) <= many

        settled = await until(as_before)
        # One of a round's is still an element of the map of maps, as one was before.
        await until(lambda: kept_maps() <= maps)
        more_maps = max(0, kept_maps() - maps)
        growth = [
            (now - then) / 1_024 / (made / 100_000)
            for now, then in zip(memory_kib(daemon), memory, strict=True)
        ]
        strange = {key: count for key, count in told.items() if key[1] not in BENIGN}
        assert not strange, strange
        figure("R13", "calls of all methods, 3 in 10 given up", made, at_least=calls)
        print("descriptors more:", dict(more_fds))  # which, should it fail
        figure("R13", "descriptors more", sum(more_fds.values()), at_most=0, of=made)
        figure("R13", "threads more", max(0, threads(daemon) - many), at_most=0)
        figure("R13", "maps more in the kernel", more_maps, at_most=0)
        bar = None if size.quick else 1.0
        for name, more in zip(("front", "opener"), growth, strict=True):
            figure("R13", f"memory of the {name} for 100,000 calls more", more, at_most=bar, unit="MiB")
        assert settled


async def test_tasks_and_handles_are_back_at_the_start(place: Place, local: Ready, figure: Figures) -> None:
    """In one process, where tasks can be counted."""
    await prepare(place)
    await rounds(place, 100, 4, cancels=0.5)
    gc.collect()
    assert await until(lambda: not local.guard.running)
    tasks = {task.get_name().partition("-")[0] for task in asyncio.all_tasks()}
    many = len(asyncio.all_tasks())
    told = await rounds(place, 500, 5, cancels=0.5)
    await until(lambda: len(asyncio.all_tasks()) <= many)
    gc.collect()
    more = [task for task in asyncio.all_tasks() if task.get_name().partition("-")[0] not in tasks]
    figure(
        "R13", "tasks more", max(len(more), len(asyncio.all_tasks()) - many), at_most=0, of=sum(told.values())
    )
    figure("R13", "sessions more", len(local.sessions) - local.sessions.detached, at_most=0)


async def leaks(place: Place, every: int) -> bool:
    """Whether a daemon that keeps each so many-th descriptor is found out."""
    program = ("-m", "tests.reliability.leaking", str(every))
    with daemon_process(place, program=program) as daemon:
        await prepare(place)
        await rounds(place, 120, 6, cancels=0)
        before = held(daemon)
        await rounds(place, 480, 7, cancels=0)
        return not await until(lambda: held(daemon) <= before, within_s=2)


async def test_one_leak_in_three_hundred_is_seen(place: Place, canary: Canaries) -> None:
    """A daemon that keeps one descriptor of three hundred is told from one that does not."""
    assert not await leaks(place, 0)
    for name in ("standing", "outer"):
        (place.names / "admin" / name).unlink()
    canary("R13", "one descriptor in 300 is kept", caught=int(await leaks(place, 300)), of=1)
