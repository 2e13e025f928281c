"""The canaries of R1 and R2: faults planted into a daemon or a client, which the recorded histories must show.

The load, the recorder and the checker are those of the figures; the daemon runs in this process, and nothing is killed.
"""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel, LoadTemplate
from mapd.bpf.abi import Command
from mapd.bpf.faulty import Target
from mapd.bpf.kernel import Batch, BatchCommand, Columns
from mapd.daemon import running
from mapd.runtime.sessions import Arrival, Slots
from mapd_api.ops import Op
from mapd_client import U64, Map
from tests.reliability.figures import Canaries
from tests.reliability.kit.checker import check
from tests.reliability.kit.doers import Doer, Element, InSession
from tests.reliability.kit.history import OK, End, History, Recorder
from tests.reliability.kit.model import MUTATIONS
from tests.reliability.kit.outcome import NAME, make, sweep
from tests.reliability.kit.worker import Chooser, Settings, work
from tests.support.daemon import Place
from tests.support.relay import Relay, relaying

CLIENTS = 4
TIMES = 3
SINGLE = Settings(
    socket="", name=NAME, clients=CLIENTS, unary=0, seed=0, began=0, window_s=1e9, keys=64, old=0.0
)
BATCHED = replace(SINGLE, keys=512, batches=0.5, batch=64)
"""On many keys: a write that is dropped beside another of the same key is none that anybody could miss."""
PLENTY = 60.0
DISTURBED = 30
"""Changes between two disturbances."""

Making = Callable[[Map[int, int]], Doer]
Disturb = Callable[[Relay], Awaitable[None]]


async def still(_: Relay) -> None:
    """Disturb nobody."""


async def recorded(
    place: Place,
    settings: Settings,
    mutations: int,
    *,
    kernel: FaultyKernel | None = None,
    making: Making = InSession,
    disturb: Disturb = still,
) -> History:
    """What clients saw who changed something so many times, and what was there at the end.

    They are disturbed after every thirtieth change, but for the last.
    """
    history, enough, due = History(), asyncio.Event(), asyncio.Event()
    done, next_due = 0, DISTURBED

    def write(line: bytes) -> None:
        nonlocal done, next_due
        returned = history.event(json.loads(line))
        done += sum(each.outcome == OK and each.op in MUTATIONS for each in returned)
        if done >= mutations:
            enough.set()
        if done >= next_due:
            next_due += DISTURBED
            due.set()

    async with (
        running(place.config(), kernel) as ready,
        relaying(place.root / "relay", ready.socket) as relay,
        AsyncExitStack() as stack,
    ):
        await make(ready.socket)
        atomics = "atomics" in ready.facts.features
        async with asyncio.timeout(PLENTY), asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                client = await stack.enter_async_context(mapd_client.connect(str(relay.path)))
                opened = await stack.enter_async_context(client.open_map(NAME, key=U64, value=U64))
                chooser = Chooser(settings, number, atomics=atomics)
                group.create_task(work(making(opened), Recorder(number, write), chooser, enough))
            while done < mutations - DISTURBED:
                await due.wait()
                due.clear()
                if done < mutations - DISTURBED:
                    await disturb(relay)
        await sweep(ready.socket, history)
        async with mapd_client.connect(str(ready.socket)) as client:
            await client.unpin_map(NAME)
    return history


async def times_caught(
    canary: Canaries, id: str, planted: str, history: Callable[[int], Awaitable[History]]
) -> None:
    """The fault shows each time."""
    found = [bool(check(await history(seed))) for seed in range(TIMES)]
    canary(id, planted, caught=sum(found), of=TIMES)


class WithoutPrograms(FaultyKernel):
    """A kernel that loads none, so that every element is one of ``each`` or ``batch``. Counts those of UPDATE.

    Attributes:
        updates: elements so far.
    """

    def __init__(self) -> None:
        super().__init__(LinuxKernel(), Fault(target=LoadTemplate, errno=errno.EPERM))
        self.updates = 0

    def dropped(self, count: int) -> int | None:
        """The place of the element among ``count`` that is the thousandth, if one is."""
        first, self.updates = self.updates, self.updates + count
        place = 999 - first % 1_000
        return place if place < count else None


class Dropping(WithoutPrograms):
    """Says of every thousandth update that it is done, and does not do it."""

    def each(self, map_fd: int, op: Op, columns: Columns, flags: int = 0) -> list[int]:
        place = self.dropped(columns.count) if op is Op.UPDATE else None
        if place is None:
            return super().each(map_fd, op, columns, flags)
        errnos = super().each(map_fd, op, _part(columns, 0, place), flags)
        return [*errnos, 0, *super().each(map_fd, op, _part(columns, place + 1, columns.count), flags)]

    def batch(self, map_fd: int, command: BatchCommand, columns: Columns, flags: int = 0) -> Batch:
        place = self.dropped(columns.count) if command is BatchCommand.UPDATE else None
        if place is None:
            return super().batch(map_fd, command, columns, flags)
        before = super().batch(map_fd, command, _part(columns, 0, place), flags) if place else Batch(0, 0)
        return Batch(before.count + 1, before.errno)


def _part(columns: Columns, begin: int, end: int) -> Columns:
    return replace(
        columns,
        count=end - begin,
        key_offset=columns.key_offset + begin * columns.key_stride,
        value_offset=columns.value_offset + begin * columns.value_stride,
    )


class Reading(InSession):
    """A client that reads twice as often as it writes."""

    batches: Sequence[str] = ("update", "lookup", "lookup")


async def test_a_daemon_that_drops_one_write_in_a_thousand_is_caught(place: Place, canary: Canaries) -> None:
    async def history(seed: int) -> History:
        kernel = Dropping()
        found = await recorded(place, replace(BATCHED, seed=seed), 10_000, kernel=kernel, making=Reading)
        assert kernel.updates >= 9_000
        return found

    await times_caught(canary, "R1", "one write in 1,000 is dropped", history)


class Lying(WithoutPrograms):
    """Says of every twentieth update that there was no memory for it, when it is done."""

    def __init__(self) -> None:
        super().__init__()
        self._updates = 0

    def _claim(self, target: Target, map_id: int | None, count: int) -> tuple[int, Fault | None]:
        self._updates += (target is Command.MAP_UPDATE_ELEM) * count
        if target is not Command.MAP_UPDATE_ELEM or count > 1 or self._updates % 20:
            return super()._claim(target, map_id, count)
        return 0, Fault(target=target, errno=errno.ENOMEM, after=True)


async def test_a_write_that_was_refused_and_made_is_caught(place: Place, canary: Canaries) -> None:
    async def history(seed: int) -> History:
        return await recorded(place, replace(SINGLE, seed=seed, batches=0.0), 600, kernel=Lying())

    await times_caught(canary, "R1", "one write in 20 is refused when it is done", history)


class Caching(InSession):
    """A client that answers every eighth lookup with what it read there before."""

    def __init__(self, opened: Map[int, int]) -> None:
        super().__init__(opened)
        self._read: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._lookups = 0

    async def one(self, element: Element) -> End:
        end = await super().one(element)
        op, key, _ = element
        if op != "lookup" or end.result is None:
            return end
        self._lookups += 1
        if self._read.get(key, end.result) != end.result:
            self._before[key] = self._read[key]
        self._read[key] = end.result
        if self._lookups >= 8 and key in self._before:
            self._lookups = 0
            return replace(end, result=self._before[key])
        return end


async def test_a_client_that_answers_a_stale_value_is_caught(place: Place, canary: Canaries) -> None:
    async def history(seed: int) -> History:
        settings = replace(SINGLE, seed=seed, batches=0.0, keys=16)
        return await recorded(place, settings, 600, making=Caching)

    await times_caught(canary, "R2", "one lookup in 8 is stale", history)


async def cut(relay: Relay) -> None:
    """Lose what is answered now: the messages were executed, and come again in another stream."""
    await relay.down.stop()
    await relay.down.held(30)  # an answer, not only what HTTP/2 says to itself
    await relay.cut()


async def retried(place: Place, seed: int) -> History:
    return await recorded(place, replace(SINGLE, seed=seed, batches=0.0), 500, disturb=cut)


async def test_a_daemon_that_executes_a_retry_twice_is_caught(
    place: Place, canary: Canaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive = Slots.arrive

    def forgetful(
        self: Slots, slot: int, sequence: int, acknowledged: int, *, reads: bool
    ) -> Arrival | bytes:
        found = arrive(self, slot, sequence, acknowledged, reads=reads)
        return Arrival.RUN if isinstance(found, bytes) else found

    assert not check(await retried(place, seed=9)), "without the fault"
    monkeypatch.setattr(Slots, "arrive", forgetful)
    await times_caught(canary, "R2", "a retry is executed again", lambda seed: retried(place, seed))


async def test_the_same_without_a_fault_is_right(place: Place) -> None:
    settings: Sequence[Settings] = (replace(BATCHED, seed=7), replace(SINGLE, seed=7))
    for each in settings:
        history = await recorded(place, each, 1_000)
        assert not check(history)
        assert history.count(OK) > 1_000
