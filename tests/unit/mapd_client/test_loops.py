"""One client in many event loops, one after the other and at once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any

import pytest

import mapd_client
from mapd_client import Client
from tests.unit.mapd_client.daemon import Daemon, map_info

_TWENTY_LOOPS = """
import asyncio, json, os, sys
import mapd_client
from mapd_client import U32, U64

client = mapd_client.Client(sys.argv[1])

async def use(close):
    flows = await client.open_map("flows", key=U32, value=U64)
    await flows.update(1, 1)
    async for _ in flows.items():
        break
    if close:
        await flows.aclose()

counts = []
for turn in range(20):
    asyncio.run(use(close=bool(turn % 2)))
    counts.append(len(os.listdir("/proc/self/fd")))
asyncio.run(client.aclose())
print(json.dumps(counts))
"""

_LOOPS_CLOSED_AS_THEY_ARE = """
import asyncio, sys
import mapd_client

async def ask(client):
    for _ in range(20):
        await client.server_info()

left = mapd_client.Client(sys.argv[1])
for _ in range(3):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(left.open_map("flows"))
    loop.close()
    other = mapd_client.Client(sys.argv[1])
    for client in (other, left, other):
        asyncio.run(ask(client))
    asyncio.run(other.aclose())
asyncio.run(left.aclose())
"""


async def run(program: str, target: str) -> tuple[str, str]:
    """What it prints and what it logs, in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, target, stdout=pipe, stderr=pipe, env=environ
    )
    out, err = await process.communicate()
    return out.decode(), err.decode()


async def test_twenty_loops_leave_one_connection_and_no_traceback(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    out, err = await run(_TWENTY_LOOPS, daemon.target)
    assert err == ""
    counts = json.loads(out)
    # A connection that is being closed may be counted once more.
    assert max(counts[10:]) <= counts[0] + 2
    assert daemon.sessions_opened == 20


async def test_a_loop_that_was_closed_with_calls_in_it_has_no_traceback_in_the_next(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    assert await run(_LOOPS_CLOSED_AS_THEY_ARE, daemon.target) == ("", "")


async def test_a_closed_loop_refuses_all_others_as_before(daemon: Daemon) -> None:
    closed = asyncio.new_event_loop()
    client = Client(daemon.target)
    await asyncio.to_thread(closed.run_until_complete, client.server_info())
    closed.close()
    await client.server_info()
    await client.aclose()
    others: list[Any] = [print, closed.create_future().set_result, str.upper]
    for callback in others:
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            closed.call_soon_threadsafe(callback, None)


async def test_closing_closes_the_links_of_loops_that_run_elsewhere(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    client = Client(daemon.target)
    elsewhere = asyncio.new_event_loop()
    thread = threading.Thread(target=elsewhere.run_forever)
    thread.start()
    try:

        async def opened() -> mapd_client.Map[bytes, bytes]:
            return await client.open_map("flows")

        await client.open_map("flows")
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(opened(), elsewhere))
        assert len(daemon.sessions) == 2
        await client.aclose()
        assert not daemon.sessions
        assert not daemon.handles
    finally:
        elsewhere.call_soon_threadsafe(elsewhere.stop)
        thread.join()
        elsewhere.close()


async def test_a_loop_that_does_not_run_is_not_waited_for(daemon: Daemon) -> None:
    client = Client(daemon.target)
    stopped = asyncio.new_event_loop()
    try:
        await asyncio.to_thread(stopped.run_until_complete, client.server_info())
        await client.server_info()
        await client.aclose()
    finally:
        stopped.close()
