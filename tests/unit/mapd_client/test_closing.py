"""What is opened is given back, whatever is cancelled, and closing takes its time and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

import mapd_client
from mapd_api.reasons import Reason, Refusal
from mapd_client import U32, U64, Client, Map
from mapd_client.errors import (
    DeadlineExceeded,
    MapExists,
)
from tests.unit.mapd_client.clients import opened, until
from tests.unit.mapd_client.daemon import Daemon, map_info, refuse


@pytest.mark.parametrize("verb", ["open", "create"])
async def test_what_is_opened_after_a_cancellation_is_given_back(daemon: Daemon, verb: str) -> None:
    daemon.add(map_info("ns/flows"))
    name = {"open": "OpenMap", "create": "CreateMap"}[verb]
    answer = getattr(daemon, name)
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        arrived.release()
        # As in a thread: the cancellation of the call does not stop it.
        await asyncio.shield(go_on.wait())
        return await answer(request, context)

    def begun(client: Client, number: int) -> Awaitable[Map[int, int]]:
        if verb == "open":
            return client.open_map("flows", key=U32, value=U64)
        return client.create_map(f"new{number}", "hash", key=U32, value=U64, max_entries=10)

    async def one(client: Client, number: int) -> None:
        await begun(client, number)

    async with mapd_client.connect(daemon.target) as client:
        await client.open_map("flows")
        daemon.hooks[name] = slow
        tasks = [asyncio.create_task(one(client, number)) for number in range(30)]
        for _ in tasks:
            await arrived.acquire()
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(end, asyncio.CancelledError)
            for end in await asyncio.gather(*tasks, return_exceptions=True)
        )
        go_on.set()
        await until(lambda: daemon.next_handle == 32)
        await until(lambda: len(daemon.handles) == 1)


async def test_a_cancelled_close_gives_the_handle_back(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    async with mapd_client.connect(daemon.target) as client:
        flows = await client.open_map("flows")
        task = asyncio.create_task(flows.aclose())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await until(lambda: not daemon.handles)


async def test_closing_waits_for_what_is_given_back_and_not_for_ever(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    arrived = asyncio.Event()

    async def never(request: object, context: object) -> None:
        del request, context
        arrived.set()
        await asyncio.Event().wait()

    client = await mapd_client.connect(daemon.target)
    await client.open_map("flows")
    daemon.hooks["OpenMap"] = never
    task = asyncio.create_task(_opened(client))
    await arrived.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await client.aclose()
    assert task.cancelled()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("mapd ")]


async def _opened(client: Client) -> None:
    await client.open_map("flows")


async def test_a_second_try_that_finds_the_map_says_that_the_first_may_have_made_it(daemon: Daemon) -> None:
    async def create(request: object, context: Any) -> None:
        del request
        if daemon.sessions_opened == 1:
            await refuse(context, Refusal(Reason.STALE_HANDLE, "create flows: no such session"))
        await refuse(context, Refusal(Reason.MAP_EXISTS, "create flows: it exists"))

    daemon.hooks["CreateMap"] = create
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(MapExists, match=r"it exists; this was the second try, .*no such session"):
            await client.create_map("flows", "hash", key=U32, value=U64, max_entries=1)
        with pytest.raises(MapExists) as caught:
            await client.create_map("flows", "hash", key=U32, value=U64, max_entries=1)
    assert "second try" not in str(caught.value)
    assert daemon.sessions_opened == 2


async def test_the_time_of_a_call_includes_asking_what_the_daemon_is(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))

    async def never(request: object, context: object) -> None:
        del request, context
        await asyncio.Event().wait()

    async with opened(daemon) as flows:
        # Of another loop of this client, where nothing is known of the daemon yet.
        def elsewhere() -> float:
            async def late() -> float:
                began = asyncio.get_running_loop().time()
                with pytest.raises(DeadlineExceeded):
                    await flows.lookup(1, timeout=0.2)
                return asyncio.get_running_loop().time() - began

            return asyncio.run(late())

        daemon.hooks["GetServerInfo"] = never
        assert await asyncio.to_thread(elsewhere) < 5


async def test_closing_a_map_does_not_wait_for_a_daemon_that_hangs(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))

    async def never(request: object, context: object) -> None:
        del request, context
        await asyncio.Event().wait()

    async with mapd_client.connect(daemon.target) as client:
        flows = await client.open_map("flows")
        daemon.hooks["CloseMap"] = never
        async with asyncio.timeout(10):
            await flows.aclose()


async def test_whoever_opens_while_the_client_is_closed_is_told_so_and_not_cancelled(daemon: Daemon) -> None:
    """A CancelledError that nobody asked for ends a TaskGroup without a word."""
    daemon.add(map_info("ns/flows"))

    async def looked_up(client: Client) -> int | None:
        async with client.open_map("flows", key=U32, value=U64) as flows:
            return await flows.lookup(1)

    before = asyncio.all_tasks()
    for turns in range(0, 120, 3):
        client = Client(daemon.target, timeout=5)
        task = asyncio.create_task(looked_up(client))
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.aclose()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert end is None or isinstance(end, mapd_client.MapdError), (turns, repr(end))
        await until(lambda: all("mapd" not in one.get_name() for one in asyncio.all_tasks() - before))


async def test_who_closes_a_client_that_is_being_closed_waits_for_its_end(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    client = await mapd_client.connect(daemon.target)
    await client.open_map("flows")
    begun = len(daemon.sessions)
    async with asyncio.TaskGroup() as closing:
        for _ in range(3):
            task = closing.create_task(client.aclose())
            task.add_done_callback(lambda _: ended.append(len(daemon.sessions)))
        ended: list[int] = []
    assert (begun, ended) == (1, [0, 0, 0])


async def test_a_close_that_is_cancelled_leaves_the_rest_to_the_next(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    for turns in range(12):
        client = await mapd_client.connect(daemon.target)
        await client.open_map("flows")
        first, second = (asyncio.create_task(client.aclose()) for _ in range(2))
        for _ in range(turns):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(second, 10)
        assert first.done()
        with pytest.raises(mapd_client.Misuse, match="closed"):
            await client.server_info()
        await until(lambda: not [one for one in asyncio.all_tasks() if one.get_name().startswith("mapd ")])
    await until(lambda: not daemon.sessions)
