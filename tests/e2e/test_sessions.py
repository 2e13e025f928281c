"""Sessions against real daemons, as a foreign client speaks them: streams are cut at every point of a slot's life.

The evidence is the kernel's: each push that is executed leaves one element more in a queue.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_api.v1 import elements_pb2 as elements
from mapd_api.v1 import errors_pb2 as errors
from mapd_api.v1 import maps_pb2 as maps
from mapd_api.v1.types_pb2 import MapRef
from tests.e2e.settling import until
from tests.support.counts import map_fds
from tests.support.daemon import Place, daemon_process
from tests.support.rawsession import RawSession, group

WAIT_S = 10.0
CREATE, OPEN = (f"/mapd_api.v1.MapService/{name}" for name in ("CreateMap", "OpenMap"))


def channel(place: Place) -> grpc.aio.Channel:
    """A connection of its own to the daemon of a place."""
    return grpc.aio.insecure_channel(f"unix:{place.socket}", options=[("grpc.use_local_subchannel_pool", 1)])


async def create(over: grpc.aio.Channel, session: str, name: str = "jobs", **shape: int) -> MapRef:
    """A queue of 8 bytes each, or another map; its handle."""
    wanted = {"type": MapType.QUEUE, "value_size": 8, "max_entries": 4_096, **shape}
    request = maps.CreateMapRequest(session=session, exist_ok=True)
    for field, value in wanted.items():
        setattr(request, field, value)
    request.named.name = name
    anything: Any = over
    made = anything.unary_unary(
        CREATE,
        request_serializer=maps.CreateMapRequest.SerializeToString,
        response_deserializer=maps.CreateMapResponse.FromString,
    )
    return MapRef(handle=(await made(request, timeout=WAIT_S)).handle)


def push(ref: MapRef, value: int) -> elements.OpGroup:
    return elements.OpGroup(map=ref, count=1, ops=bytes([Op.PUSH]), values=value.to_bytes(8, "little"))


async def pushed(place: Place, name: str = "jobs") -> Counter[int]:
    """What is in the queue, and how often; takes it out."""
    async with channel(place) as over:
        talk = await RawSession.open(over)
        found: Counter[int] = Counter()
        ref = MapRef(name=name)
        for sequence in range(1, 1_000):
            many = elements.OpGroup(map=ref, count=256, ops=bytes([Op.POP]))
            (result,) = (await talk.ask(0, sequence, many)).results
            done = result.statuses.count(0)
            found.update(
                int.from_bytes(result.values[8 * at : 8 * at + 8], "little")
                for at in range(256)
                if result.statuses[at] == 0
            )
            if done < 256:
                break
        await talk.end()
        return found


@asynccontextmanager
async def faulty_daemon(place: Place) -> AsyncGenerator[tuple[Ready, FaultyKernel]]:
    kernel = FaultyKernel(LinuxKernel())
    async with running(place.config(), kernel) as ready:
        yield ready, kernel


class Point:
    """Holds the first push: before the kernel has done it, or after."""

    def __init__(self, kernel: FaultyKernel, *, after: bool) -> None:
        self._reached, self._let_go = threading.Event(), threading.Event()
        kernel.add(
            Fault(
                target=Command.MAP_UPDATE_ELEM, nth=1, after=after, reached=self._reached, wait=self._let_go
            )
        )

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, WAIT_S)

    def let_go(self) -> None:
        self._let_go.set()


# ---- one message, cut at a point --------------------------------------------------------------


@pytest.mark.parametrize("point", ["not written", "written", "executed", "answered", "read"])
async def test_a_push_that_is_sent_again_after_a_cut_is_executed_once(place: Place, point: str) -> None:
    async with faulty_daemon(place) as (ready, kernel), channel(place) as over, channel(place) as another:
        talk = await RawSession.open(over)
        ref = await create(over, talk.opened.session)
        held = Point(kernel, after=point == "executed") if point in ("written", "executed") else None
        if point != "not written":
            await talk.send(0, 1, push(ref, 7))
        if held is not None:
            await held.reached()
        elif point == "answered":
            assert await until(lambda: ready.sessions.kept_replies == 1)
        elif point == "read":
            assert (await talk.answer()).results[0].statuses == b"\0"
        talk.cut()
        await over.close()
        assert await until(lambda: ready.sessions.detached == 1)
        again = await RawSession.open(another, talk.opened)
        assert again.opened.resumed
        await again.send(0, 1, push(ref, 7))
        if held is not None:
            held.let_go()
        assert (await again.answer()).results[0].statuses == b"\0"
        assert await again.end() is grpc.StatusCode.OK
        assert await pushed(place) == {7: 1}


async def test_sent_again_as_another_message_it_would_be_executed_twice(place: Place) -> None:
    """The canary: the queue shows what is executed a second time."""
    async with faulty_daemon(place) as (ready, _), channel(place) as over:
        talk = await RawSession.open(over)
        ref = await create(over, talk.opened.session)
        await talk.send(0, 1, push(ref, 7))
        assert await until(lambda: ready.sessions.kept_replies == 1)
        talk.cut()
        again = await RawSession.open(over, talk.opened)
        await again.ask(0, 2, push(ref, 7))
        await again.end()
        assert await pushed(place) == {7: 2}


async def test_without_its_reply_a_message_is_unknown_and_what_it_took_was_taken_once(place: Place) -> None:
    async with running(place.config()) as ready, channel(place) as over:
        talk = await RawSession.open(over)
        size = 64 << 10
        ref = await create(
            over, talk.opened.session, "big", type=MapType.HASH, key_size=4, value_size=size, max_entries=8
        )
        keys = [number.to_bytes(4, "little") for number in range(6)]
        await talk.ask(0, 1, group(ref, Op.UPDATE, *keys, value=bytes(size)))
        taken = group(
            ref, Op.LOOKUP_AND_DELETE, *keys[:5]
        )  # its answer is larger than what is kept of a session
        assert 5 * size > limits.SESSION_REPLY_BYTES
        await talk.send(0, 2, taken, acknowledged=1)
        assert await until(lambda: ready.guard.messages.count == 1)
        assert await until(lambda: ready.guard.messages.count == 0)
        talk.cut()
        again = await RawSession.open(over, talk.opened)
        assert (await again.ask(0, 2, taken)).error.reason == errors.REASON_OUTCOME_UNKNOWN
        (left,) = (await again.ask(0, 3, group(ref, Op.LOOKUP, *keys))).results
        assert left.statuses == bytes([Reason.KEY_ABSENT] * 5 + [0])
        await again.end()


async def test_another_start_of_the_daemon_executes_nothing_of_an_earlier_session(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with channel(place) as over:
            talk = await RawSession.open(over)
            ref = await create(over, talk.opened.session)
            assert (await talk.ask(0, 1, push(ref, 1))).results[0].statuses == b"\0"
            daemon.process.kill()
            daemon.process.wait()
    with daemon_process(place):
        async with channel(place) as over:
            again = await RawSession.open(over, talk.opened)
            assert not again.opened.resumed
            assert again.opened.epoch != talk.opened.epoch
            named = push(MapRef(name="jobs"), 1)
            late = await again.ask(0, 1, named, session=talk.opened.session, epoch=talk.opened.epoch)
            assert late.error.reason == errors.REASON_EPOCH_CHANGED
            stale = await again.ask(0, 1, push(ref, 1))
            assert stale.results[0].error.reason == errors.REASON_STALE_HANDLE
            await again.end()
        assert await pushed(place) == {1: 1}


# ---- many messages, cut anywhere --------------------------------------------------------------


class Pusher:
    """Pushes numbers over one session, in all its slots, through whatever happens to its stream."""

    def __init__(self, place: Place, count: int) -> None:
        self.place = place
        self.waiting = list(range(count, 0, -1))
        self.under_way: dict[int, tuple[int, int]] = {}  # slot: sequence, number
        self.sequences = [0] * limits.SLOTS
        self.streams = 0
        self.ref = MapRef()

    async def send(self, talk: RawSession, slot: int) -> None:
        sequence, number = self.under_way[slot]
        await talk.send(slot, sequence, push(self.ref, number), acknowledged=sequence - 1)

    async def fill(self, talk: RawSession) -> None:
        for slot in range(limits.SLOTS):
            if self.waiting and slot not in self.under_way:
                self.sequences[slot] += 1
                self.under_way[slot] = self.sequences[slot], self.waiting.pop()
                await self.send(talk, slot)

    def take(self, message: elements.SessionResponse) -> None:
        if not message.HasField("apply"):
            assert message.HasField("goodbye"), message
            return
        stamp, answer = message.apply.stamp, message.apply
        assert not answer.HasField("error"), answer.error.message
        assert answer.results[0].statuses == b"\0"
        if self.under_way.get(stamp.slot, (0, 0))[0] == stamp.sequence:  # else: told a second time
            del self.under_way[stamp.slot]

    async def converse(self, talk: RawSession, stop: asyncio.Event) -> None:
        """Until all is pushed, the stream ends, or it is told to stop."""
        for slot in list(self.under_way):
            await self.send(talk, slot)
        while (self.waiting or self.under_way) and not stop.is_set():
            await self.fill(talk)
            message = await talk.stream.read()
            if message is grpc.aio.EOF:
                return
            self.take(message)

    async def push_all(self, cut_after: list[float]) -> None:
        """Cut each stream after so long, the last one never."""
        opened: elements.SessionOpened | None = None
        while self.waiting or self.under_way:
            async with channel(self.place) as over:
                talk = await RawSession.open(over, opened)
                if opened is None:
                    self.ref = await create(over, talk.opened.session)
                assert opened is None or talk.opened.resumed
                opened = talk.opened
                self.streams += 1
                stop = asyncio.Event()
                conversing = asyncio.create_task(self.converse(talk, stop))
                await asyncio.wait({conversing}, timeout=cut_after.pop() if cut_after else None)
                stop.set()
                talk.cut()
                for failed in await asyncio.gather(conversing, return_exceptions=True):
                    assert failed is None or isinstance(
                        failed, grpc.aio.AioRpcError | asyncio.CancelledError | asyncio.InvalidStateError
                    ), repr(failed)


@pytest.mark.parametrize("extra", ["", "[pool]\ninline_elements = 64"], ids=["by threads", "in the loop"])
async def test_numbers_pushed_through_streams_that_are_cut_anywhere_are_all_there_once(
    place: Place, extra: str
) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")  # shown where it fails
    chance = random.Random(seed)  # noqa: S311 - of moments, not of secrets
    with daemon_process(place, extra=extra):
        pusher = Pusher(place, 3_000)
        await pusher.push_all([chance.uniform(0.001, 0.03) for _ in range(40)])
        assert pusher.streams > 10
        assert await pushed(place) == dict.fromkeys(range(1, 3_001), 1)


async def test_numbers_pushed_through_streams_that_grow_old_are_all_there_once(place: Place) -> None:
    extra = "[server]\nmax_connection_age_s = 0.05\nmax_connection_age_grace_s = 0.02"
    with daemon_process(place, extra=extra):
        pusher = Pusher(place, 3_000)
        await pusher.push_all([])
        assert pusher.streams > 2
    with daemon_process(place):  # one whose streams grow old enough to be read by
        assert await pushed(place) == dict.fromkeys(range(1, 3_001), 1)


# ---- nothing is left --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["ended", "cut and resumed", "cut and not resumed", "cut with messages under way"]
)
async def test_nothing_of_a_session_is_left_when_it_is_over(
    place: Place, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_RESUME_S", 0.1)
    async with faulty_daemon(place) as (ready, kernel), channel(place) as over:
        first = await RawSession.open(over)
        await first.end()
        tasks, fds = len(asyncio.all_tasks()), map_fds()
        talk = await RawSession.open(over)
        ref = await create(over, talk.opened.session)
        await talk.ask(0, 1, push(ref, 1))
        assert (len(ready.host.handles), ready.sessions.kept_replies, map_fds()) == (1, 1, fds + 1)
        if how == "ended":
            await talk.end()
        elif how == "cut with messages under way":
            held = Point(kernel, after=False)
            await talk.send(1, 1, push(ref, 2), push(MapRef(name="jobs"), 3))
            await held.reached()
            talk.cut()
            assert await until(lambda: len(ready.sessions) == 0)
            held.let_go()
        else:
            talk.cut()
            if how == "cut and resumed":
                again = await RawSession.open(over, talk.opened)
                assert again.opened.resumed
                await again.end()
        assert await until(lambda: len(ready.sessions) == 0)
        assert await until(lambda: ready.guard.running == 0)
        assert await until(lambda: map_fds() == fds)
        assert (len(ready.host.handles), ready.sessions.kept_replies) == (0, 0)
        # grpc drops a call's own tasks some turns after its end.
        assert await until(lambda: len(asyncio.all_tasks()) <= tasks)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("session ")]
