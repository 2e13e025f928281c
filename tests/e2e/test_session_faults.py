"""Streams that break at every point of a message's life: nothing is executed twice, nothing is guessed.

Creates with NOEXIST and counters are the evidence: a create that was executed twice is refused the second time, and
an addition that was executed twice shows in the sum.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd.runtime.sessions import Conversation, Sessions, Stream
from mapd_api import limits
from mapd_client import U64, Client, Id, Incompatible, Map, NotSent, OutcomeUnknown, Reason, Unavailable
from mapd_client.errors import DeadlineExceeded
from tests.e2e.settling import until
from tests.support.counts import open_fds
from tests.support.daemon import DaemonProcess, Place, daemon_process, spawn, wait_ready
from tests.support.relay import Relay, relaying

Words = Map[int, int]


def words(client: Client, name: str = "words") -> mapd_client.Opening[Words]:
    return client.create_map(name, "hash", key=U64, value=U64, max_entries=100_000, exist_ok=True)


@asynccontextmanager
async def through(place: Place, timeout: float = 20.0) -> AsyncGenerator[tuple[Relay, Client]]:
    """A client whose connection passes a relay."""
    async with (
        relaying(place.root / "relay.sock", place.socket) as relay,
        mapd_client.connect(str(relay.path), timeout=timeout) as client,
    ):
        yield relay, client


# One message, cut at each point of its life


async def test_a_message_that_never_reached_the_daemon_is_executed_once_after_the_cut(
    place: Place, local: Ready
) -> None:
    del local
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        await relay.up.stop()
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        await relay.up.held(30)
        await relay.cut()
        await create
        assert await found.lookup(1) == 1
        assert relay.connections == 2


@pytest.mark.parametrize("part", [0, 1, 10, 40])
async def test_a_message_whose_answer_is_lost_is_answered_again_and_not_executed_again(
    place: Place, local: Ready, part: int
) -> None:
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        await relay.down.stop(after=part)
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        # The answer to a message, not only what HTTP/2 says to itself.
        assert await until(lambda: local.sessions.kept_replies == 1)
        await relay.down.held()
        await relay.cut()
        await create
        assert await found.lookup(1) == 1


async def test_a_message_that_is_being_executed_is_joined_after_the_cut(place: Place) -> None:
    kernel = FaultyKernel(LinuxKernel())
    reached, wait = threading.Event(), threading.Event()
    async with (
        running(place.config(), kernel) as ready,
        through(place) as (relay, client),
        words(client) as found,
    ):
        await found.update(0, 0)
        kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, reached=reached, wait=wait, nth=1))
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        await asyncio.to_thread(reached.wait)
        await relay.cut()
        assert await until(lambda: relay.connections == 2 and not ready.sessions.detached)
        assert not create.done()
        wait.set()
        await create
        assert await found.lookup(1) == 1


async def test_a_call_that_was_never_written_leaves_when_there_is_a_connection_again(
    place: Place, local: Ready
) -> None:
    del local
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        await relay.refuse()
        await relay.cut()
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        lookup = asyncio.create_task(found.lookup(0))
        await asyncio.sleep(0)
        await relay.listen()
        await create
        assert await lookup == 0


async def test_large_calls_that_are_cut_between_their_messages_are_executed_once(
    place: Place, local: Ready
) -> None:
    del local
    count = 3 * limits.BATCH_ELEMENTS
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        await relay.up.stop(after=200_000)
        writing = asyncio.create_task(found.update_many(((n, n) for n in range(1, count)), flags="noexist"))
        await relay.up.reached()
        await relay.cut()
        assert await writing == count - 1
        await relay.down.stop(after=100_000)
        reading = asyncio.create_task(found.lookup_many(range(count)))
        await relay.down.reached()
        await relay.cut()
        assert await reading == list(range(count))


async def test_a_reply_that_is_too_large_to_be_kept_leaves_writes_unknown_and_reads_repeated(
    place: Place, local: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    del local
    monkeypatch.setattr(limits, "SESSION_REPLY_BYTES", 0)
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 7)
        await relay.down.stop()
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        lookup = asyncio.create_task(found.lookup(0))
        await relay.down.held()
        await relay.cut()
        with pytest.raises(OutcomeUnknown, match=r"update words: .*its reply is not kept"):
            await create
        assert await lookup == 7
        assert await found.lookup(1) == 1


# Sessions that are over


async def test_a_session_that_was_away_too_long_leaves_writes_unknown_and_maps_are_opened_again(
    place: Place, local: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_RESUME_S", 0.05)
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 7)
        await relay.down.stop()
        create = asyncio.create_task(found.update(1, 1, flags="noexist"))
        lookup = asyncio.create_task(found.lookup(0))
        await relay.down.held()
        await relay.refuse()
        await relay.cut()
        assert await until(lambda: not len(local.sessions))
        with pytest.raises(OutcomeUnknown, match="update words: the session was lost"):
            await create
        unwritten = asyncio.create_task(found.update(2, 2, flags="noexist"))
        await asyncio.sleep(0)
        await relay.listen()
        await unwritten
        assert await lookup == 7
        assert await found.lookup_many([0, 1, 2]) == [7, 1, 2]


async def test_a_map_by_another_name_for_the_same_one_is_told_apart_from_one_that_took_its_name(
    place: Place, local: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_RESUME_S", 0.0)
    async with through(place) as (relay, client), mapd_client.connect(str(place.socket)) as other:
        found = await words(client)
        by_pin = await client.open_map(f"pin:{found.info.pin_path}", key=U64, value=U64)
        by_id = await client.open_map(Id(found.info.id), key=U64, value=U64)
        await found.update(1, 1)
        await relay.refuse()
        await relay.cut()
        assert await until(lambda: len(local.sessions) == 1)
        await other.unpin_map("words")
        async with words(other) as replacement:
            await replacement.update(1, 99)
            await relay.listen()
            for one in (found, by_pin):
                for call in (one.lookup(1), one.update(1, 5)):
                    with pytest.raises(Incompatible, match="is another map now") as replaced:
                        await call
                    assert replaced.value.reason is Reason.MAP_REPLACED
            with pytest.raises(mapd_client.MapNotFound):
                await by_id.lookup(1)
            assert await replacement.lookup(1) == 99


# Old streams


async def test_streams_that_are_ended_for_their_age_cost_no_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached: list[str] = []
    attach = Sessions.attach

    def counted(sessions: Sessions, conversation: Conversation, stream: Stream) -> None:
        attached.append(conversation.id)
        attach(sessions, conversation, stream)

    monkeypatch.setattr(Sessions, "attach", counted)
    extra = "[server]\nmax_connection_age_s = 0.1\nmax_connection_age_grace_s = 0.1"
    async with (
        running(place.config(extra=extra)),
        mapd_client.connect(str(place.socket)) as client,
        words(client) as found,
    ):

        async def work(worker: int) -> int:
            done = 0
            while len(attached) < 10:
                key = worker * 10_000 + done
                await found.update(key, done, flags="noexist")
                assert await found.lookup(key) == done
                done += 1
            return done

        counts = await asyncio.gather(*(work(worker) for worker in range(1, 9)))
        assert (await found.count()).entries == sum(counts)
    assert len(set(attached)) == 1, "the session was resumed each time"


# Restarts


async def test_a_daemon_that_is_killed_and_started_again_loses_no_read_and_says_which_writes_are_unknown(
    place: Place,
) -> None:
    outcomes: dict[int, str] = {}
    with daemon_process(place) as first:
        async with mapd_client.connect(str(place.socket), timeout=20) as client, words(client) as found:
            await found.update(0, 7)
            stop = asyncio.Event()

            async def write(worker: int) -> None:
                number = worker
                while not stop.is_set():
                    number += 16
                    try:
                        await found.update(number, number, flags="noexist")
                    except OutcomeUnknown:
                        outcomes[number] = "unknown"
                    else:
                        outcomes[number] = "done"

            async def read() -> int:
                reads = 0
                while not stop.is_set():
                    assert await found.lookup(0) == 7
                    reads += 1
                return reads

            async with asyncio.TaskGroup() as group:
                for worker in range(1, 9):
                    group.create_task(write(worker))
                readers = [group.create_task(read()) for _ in range(4)]
                assert await until(lambda: len(outcomes) > 500)
                first.process.kill()
                await asyncio.to_thread(first.process.wait)
                before = len(outcomes)
                second = spawn(place)
                try:
                    await asyncio.to_thread(wait_ready, second)
                    assert await until(lambda: len(outcomes) > before + 500)
                    stop.set()
                    await asyncio.gather(*readers)
                    there = {key async for key in found.keys()}  # noqa: SIM118 - a Map is no dict
                finally:
                    second.stop()
    done = {number for number, outcome in outcomes.items() if outcome == "done"}
    unknown = outcomes.keys() - done
    assert done <= there
    assert there - done <= unknown | {0}
    assert len(unknown) <= 8


async def test_without_a_daemon_calls_end_with_their_time_and_say_that_nobody_is_there(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with mapd_client.connect(str(place.socket), timeout=0.5) as client, words(client) as found:
            await found.update(0, 7)
            daemon.process.kill()
            await asyncio.to_thread(daemon.process.wait)
            with pytest.raises(DeadlineExceeded, match=r"lookup words: .* within 0\.5 s: .*no daemon at"):
                await found.lookup(0)
            with pytest.raises(NotSent, match=r"update words: not sent within 0\.5 s"):
                await found.update(0, 8)
            with pytest.raises(Unavailable, match="no daemon at"):
                await client.server_info()


# At random


async def test_connections_that_break_at_any_byte_execute_every_call_exactly_once(
    place: Place, local: Ready
) -> None:
    generator = random.Random(4)  # noqa: S311 - no secret
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        created: list[int] = []

        async def work(worker: int) -> None:
            for number in range(150):
                key = worker * 1_000 + number
                await found.update(key, key, flags="noexist")
                assert await found.fetch_add(0, 1) is not None
                assert await found.lookup(key) == key
                created.append(key)

        async def cut() -> None:
            while True:
                way = generator.choice((relay.up, relay.down))
                await way.stop(after=generator.randrange(3_000))
                await way.reached()
                await relay.cut()

        cutting = asyncio.create_task(cut())
        try:
            await asyncio.gather(*(work(worker) for worker in range(1, 17)))
        finally:
            cutting.cancel()
            await asyncio.wait({cutting})
            await relay.cut()
        assert await found.lookup(0) == 16 * 150
        assert (await found.count()).entries == 16 * 150 + 1 == len(created) + 1
        assert relay.connections > 10
        assert len(local.sessions) == 1


# What is left


async def test_cut_streams_leave_no_task_and_no_descriptor(place: Place, local: Ready) -> None:
    del local
    async with through(place) as (relay, client), words(client) as found:
        await found.update(0, 0)
        tasks, fds = running_tasks(), open_fds().total()
        for _ in range(20):
            await relay.cut()
            assert await found.lookup(0) == 0
        assert await until(lambda: running_tasks() <= tasks), running_tasks() - tasks
        assert await until(lambda: open_fds().total() <= fds)


def running_tasks() -> Counter[str]:
    """How many there are of each kind; those that nobody named are grpc's and this test's."""
    return Counter(re.sub("[0-9a-f]{16}|[0-9]+", "", task.get_name()) for task in asyncio.all_tasks())


async def test_a_closed_client_leaves_no_connection_to_the_garbage_collector(daemon: DaemonProcess) -> None:
    async def use() -> None:
        async with mapd_client.connect(str(daemon.place.socket)) as client, words(client) as found:
            await found.update(1, 1)
            assert await found.lookup(1) == 1

    await use()
    fds = open_fds().total()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await use()
        assert await until(lambda: open_fds().total() <= fds)
    finally:
        gc.enable()
