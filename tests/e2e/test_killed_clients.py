"""Clients that are killed in the middle of things leave nothing behind in the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd.daemon import Ready
from mapd_client import U64, Bytes
from tests.e2e import clients
from tests.e2e.settling import until
from tests.reliability.kit.history import OK, History
from tests.support.counts import kernel_maps, map_fds, open_fds, thread_names
from tests.support.daemon import environment

KILLS = 100
AT_ONCE = 4

VALUE = 128
ENTRIES = 64_000
"""Elements of the map: with VALUE more bytes than gRPC carries ahead of a reader who stands still."""

MAP = f"k{os.getpid():x}"
"""Of a name that no other run has, so that its maps can be counted in the kernel."""


@dataclass(frozen=True, slots=True)
class Counts:
    """All that a client could leave behind."""

    fds: Counter[str]
    tasks: Counter[str]
    threads: Counter[str]
    handles: int
    sessions: int
    calls: int
    kernel_maps: int


def fds_by_kind() -> Counter[str]:
    """Open descriptors, without the numbers of inodes: every socket is as good as another."""
    kinds: Counter[str] = Counter()
    for target, number in open_fds().items():
        kinds[re.sub(r":\[\d+\]$", "", target)] += number
    return kinds


def tasks_by_kind() -> Counter[str]:
    """Tasks by the coroutine that they run."""
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    return Counter(getattr(coroutine, "__qualname__", str(coroutine)) for coroutine in coroutines)


def count(ready: Ready) -> Counts:
    return Counts(
        fds=fds_by_kind(),
        tasks=tasks_by_kind(),
        threads=thread_names(),
        handles=len(ready.host.handles),
        sessions=ready.host.handles.sessions,
        calls=ready.guard.running,
        kernel_maps=sum(name == MAP for name in kernel_maps().values()),
    )


async def at_rest(ready: Ready, idle: Counter[str]) -> Counts:
    """What there is when no client is connected any more, and nothing of one is being served or kept.

    ``idle``: the descriptors before the first client.
    """
    await ready.guard.wait_ended(10)
    # Those of clients that were killed are kept for limits.SESSION_RESUME_S.
    assert await until(lambda: len(ready.sessions) == 0), "sessions of dead clients are kept"
    # grpc closes connections in threads of its own, and drops a call's task some turns after its end.
    assert await until(lambda: fds_by_kind()["socket"] == idle["socket"]), (
        "connections of dead clients are open"
    )
    assert await until(lambda: tasks_by_kind()["_schedule_rpc_coro"] == 0), "calls of dead clients are served"
    # A page that was being read for a cancelled dump is read to its end.
    own = idle["anon_inode:bpf-map"]
    assert await until(lambda: map_fds() == own + len(ready.host.handles)), "maps of dead clients are open"
    return count(ready)


@dataclass(slots=True)
class Clients:
    """The process that forks clients, and what they say.

    Attributes:
        served: how many calls the daemon was serving when each was killed.
    """

    process: asyncio.subprocess.Process
    ready: Ready
    served: list[int] = field(default_factory=list[int])
    history: History = field(default_factory=History)
    _said: dict[int, asyncio.Queue[dict[str, Any]]] = field(
        default_factory=dict[int, asyncio.Queue[dict[str, Any]]]
    )

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event = json.loads(line)
            self.history.event(event)
            self._said[event["client"]].put_nowait(event)

    async def start(self, client: int, task: str) -> asyncio.Queue[dict[str, Any]]:
        """Fork one; the queue of its events."""
        self._said[client] = asyncio.Queue()
        assert self.process.stdin is not None
        wanted = {"client": client, "task": task, "map": MAP}
        self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
        return self._said[client]

    async def kill_in_the_middle(self, client: int, task: str, nth: int) -> None:
        """Start one, and kill it when it has said for the ``nth`` time that it is in the middle."""
        said = await self.start(client, task)
        async with asyncio.timeout(60):
            started = await said.get()
        assert started["event"] == "started"
        pidfd = os.pidfd_open(started["pid"])
        try:
            async with asyncio.timeout(60):
                while nth:
                    event = await said.get()
                    assert event["event"] != "ended", f"client {client}, {task}: {event}"
                    nth -= event["event"] in ("middle", "invoke")
            self.served.append(self.ready.guard.running)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await readable(pidfd)
        finally:
            os.close(pidfd)


async def readable(fd: int) -> None:
    """Wait for it; a pidfd is when its process has ended."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


@contextlib.asynccontextmanager
async def launcher(ready: Ready) -> AsyncGenerator[Clients]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        clients.__file__,
        str(ready.socket),
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    found = Clients(process, ready)
    listening = asyncio.create_task(found.listen())
    try:
        with found.history.kept():
            yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        # A test that fails has clients left, and what they say would never end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        await listening


async def fill(socket: Path) -> None:
    """The map on which the clients work."""
    async with mapd_client.connect(str(socket)) as client:
        made = client.create_map(MAP, "hash", key=U64, value=Bytes(VALUE), max_entries=2 * ENTRIES)
        async with made as opened:
            # Clients' own keys are below 1,000.
            pairs = ((1_000 + number, bytes(VALUE)) for number in range(ENTRIES))
            assert await opened.load(pairs) == ENTRIES


async def kill_all(launched: Clients, tasks: Sequence[str], first: int) -> None:
    """One client for each task, some at once, killed at moments that differ from run to run of a task."""
    chance = random.Random(first)  # noqa: S311 - of moments, not of secrets
    waiting = list(enumerate(tasks, first))

    async def one_after_the_other() -> None:
        while waiting:
            client, task = waiting.pop()
            standing = task == "dump_standing_still"
            await launched.kill_in_the_middle(client, task, 1 if standing else chance.randint(1, 6))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())


async def check_updates(socket: Path, history: History, numbers: Sequence[int]) -> None:
    """What was acknowledged is in the map, and nothing that was never sent."""
    async with (
        mapd_client.connect(str(socket)) as client,
        client.open_map(MAP, key=U64, value=Bytes(VALUE)) as opened,
    ):
        for number in numbers:
            operations = history.of(number)
            acknowledged = [operation.args[0] for operation in operations if operation.outcome == OK]
            found = await opened.lookup(number)
            value = 0 if found is None else int.from_bytes(found[:8], "little")
            assert len(acknowledged) <= value <= len(operations), f"client {number}: {operations}"


@pytest.mark.parametrize(
    ("tasks", "served"),
    [
        (["dump_standing_still", "dump_reading"] * (KILLS // 2), KILLS),
        # An update that is on its way may not have been met by the daemon yet, or be done.
        (["update", "load", "update", "update_many"] * (KILLS // 4), KILLS // 4),
    ],
    ids=["in mid-dump", "in mid-update"],
)
async def test_a_hundred_killed_clients_leave_nothing_behind(
    local: Ready, tasks: list[str], served: int
) -> None:
    async with launcher(local) as launched:
        idle = fds_by_kind()
        await fill(local.socket)
        # What grpc and asyncio make once and keep is made before the count.
        await kill_all(launched, tasks[:AT_ONCE], first=900)
        before = await at_rest(local, idle)
        launched.served.clear()
        await kill_all(launched, tasks, first=0)
        assert len(launched.served) == KILLS
        assert sum(map(bool, launched.served)) >= served, "the daemon was in the middle of too few calls"
        updaters = [at for at, task in enumerate(tasks) if task == "update"]
        await check_updates(local.socket, launched.history, updaters)
        assert await at_rest(local, idle) == before
    assert before.kernel_maps == 1
    assert (before.handles, before.sessions, before.calls) == (0, 0, 0)


async def fail_while_one_lives(ready: Ready) -> None:
    async with launcher(ready) as launched:
        await fill(ready.socket)
        said = await launched.start(0, "update")
        while (await said.get())["event"] != "return":
            pass
        raise ZeroDivisionError


async def test_a_failure_is_told_while_clients_live(local: Ready) -> None:
    """The canary: the tests of this file once hung where they should have failed."""
    with pytest.raises(ZeroDivisionError) as caught:
        await fail_while_one_lives(local)
    (note,) = caught.value.__notes__
    os.unlink(note.rpartition(" ")[2])  # noqa: PTH108 - the history that it left for whoever has to explain it


async def test_a_handle_that_belongs_to_no_session_is_seen_in_the_count(local: Ready) -> None:
    """The canary: the count of the test above shows what a client leaves behind."""
    async with launcher(local) as launched:
        idle = fds_by_kind()
        await fill(local.socket)
        await kill_all(launched, ["dump_reading"], first=900)
        before = await at_rest(local, idle)
        await launched.kill_in_the_middle(0, "leak", 1)
        after = await at_rest(local, idle)
    assert after.handles == before.handles + 1
    assert after.fds["anon_inode:bpf-map"] == before.fds["anon_inode:bpf-map"] + 1
