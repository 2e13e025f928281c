"""Starting, stopping and dying: what is refused, what is finished, what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.config import Config
from mapd.daemon import Ready, running
from mapd_client import U32, U64, Bytes, Client, Map, NotSent, OutcomeUnknown, Reason, Unavailable
from tests.e2e import stuck_daemon
from tests.e2e.settling import until
from tests.support.counts import thread_names
from tests.support.daemon import (
    NOBODY,
    DaemonProcess,
    Place,
    client_sources,
    daemon_process,
    spawn,
    spawn_unprivileged,
)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

GRACE_S = 1.0
GRACE = f"grace_s = {GRACE_S}"

Words = Map[int, int]


def words(client: Client, name: str = "flows") -> mapd_client.Opening[Words]:
    """A map of numbers, made if it is not there."""
    return client.create_map(name, "hash", key=U64, value=U64, max_entries=64, exist_ok=True)


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[Words]:
    async with mapd_client.connect(str(place.socket)) as client, words(client) as found:
        yield found


def exit_of(daemon: DaemonProcess) -> tuple[int, str]:
    """Its exit status and what it said, of one that ends by itself."""
    status = daemon.process.wait(15)
    return status, daemon.log.read_text()[daemon.log_begin :]


async def ended(daemon: DaemonProcess) -> int:
    return await asyncio.to_thread(daemon.process.wait, 15)


@contextlib.asynccontextmanager
async def health(path: Path) -> AsyncGenerator[AsyncIterator[int]]:
    """The states of the daemon, as they change."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub: Any = health_pb2_grpc.HealthStub
        watch = stub(channel).Watch(health_pb2.HealthCheckRequest())
        yield (message.status async for message in watch)
        watch.cancel()


# One daemon in a place


async def test_a_second_daemon_is_refused_with_the_pid_of_the_first(daemon: DaemonProcess) -> None:
    async with opened(daemon.place) as found:
        status, said = exit_of(spawn(daemon.place))
        assert status == 1
        assert f"another mapd serves here (pid {daemon.pid})" in said
        await found.update(1, 2)
    async with opened(daemon.place) as found:
        assert await found.lookup(1) == 2


async def test_after_kill_9_the_socket_is_replaced_and_the_map_is_as_it_was(place: Place) -> None:
    with daemon_process(place) as first:
        async with opened(place) as found:
            await found.update(1, 2)
            map_id = found.info.id
            first.process.kill()
            first.process.wait()
    stale = place.socket.stat()
    with daemon_process(place):
        async with opened(place) as found:
            assert found.info.id == map_id
            assert await found.lookup(1) == 2
        assert place.socket.stat().st_ino != stale.st_ino or place.socket.stat().st_ctime > stale.st_ctime


async def test_a_stopped_daemon_takes_its_socket_away_and_leaves_the_pins(place: Place) -> None:
    with daemon_process(place) as first:
        async with opened(place) as found:
            await found.update(1, 2)
            map_id = found.info.id
            assert found.info.pin_path == str(place.names / "admin" / "flows")
        assert first.stop() == 0
    assert not place.socket.exists()
    assert list((place.runtime_dir / ".staging").iterdir()) == []
    assert (place.names / "admin" / "flows").exists()
    with daemon_process(place):
        async with opened(place) as found:
            assert found.info.id == map_id
            assert await found.lookup(1) == 2


async def test_a_socket_that_somebody_else_put_there_is_not_removed(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        async with running(place.config()):
            place.socket.unlink()
            other.bind(str(place.socket))
        assert stat.S_ISSOCK(place.socket.stat().st_mode)


# Draining


async def test_sigterm_ends_new_calls_and_lets_a_running_dump_and_updates_end(place: Place) -> None:
    with daemon_process(place, extra="grace_s = 10.0") as daemon:
        async with (
            mapd_client.connect(str(place.socket)) as client,
            mapd_client.connect(str(place.socket), timeout=1) as hasty,
            health(place.socket) as states,
        ):
            assert await anext(states) == SERVING
            big = client.create_map("big", "hash", key=U64, value=Bytes(128), max_entries=150_000)
            async with big as filled, words(hasty) as found:
                assert await filled.load((n, bytes(128)) for n in range(100_000)) == 100_000
                async with filled.chunks() as dump:
                    elements = (await anext(dump)).count
                    await found.update(0, 1)
                    writer = asyncio.create_task(write_until_refused(found))
                    daemon.process.send_signal(signal.SIGTERM)
                    assert await anext(states) == NOT_SERVING
                    written = await writer
                    with pytest.raises(Unavailable) as refused:
                        await hasty.server_info()
                    assert refused.value.reason is Reason.DRAINING
                    assert refused.value.retry_after is not None
                    assert daemon.process.poll() is None, "it did not wait for the dump"
                    elements += sum([chunk.count async for chunk in dump])
                assert elements == 100_000
                assert await ended(daemon) == 0
    with daemon_process(place):
        async with opened(place) as found:
            assert await found.lookup(0) == written


async def write_until_refused(found: Words) -> int:
    """Count up in element 0 until no daemon takes an update in time; the last number that was acknowledged."""
    number = 1
    with contextlib.suppress(NotSent):
        while True:
            await found.update(0, number + 1)
            number += 1
    return number


async def test_a_reader_who_stands_still_does_not_hold_the_daemon_beyond_its_grace(place: Place) -> None:
    with daemon_process(place, extra=GRACE) as daemon:
        async with mapd_client.connect(str(place.socket)) as client:
            big = client.create_map("big", "hash", key=U64, value=Bytes(128), max_entries=150_000)
            async with big as filled:
                assert await filled.load((n, bytes(128)) for n in range(100_000)) == 100_000
                async with filled.chunks() as dump:
                    await anext(dump)
                    began = time.monotonic()
                    daemon.process.send_signal(signal.SIGTERM)
                    # 0: within the grace and its margin by the daemon's own clock, which ends it with 1 otherwise.
                    assert await ended(daemon) == 0
                    assert time.monotonic() - began >= GRACE_S


async def test_a_syscall_that_never_returns_does_not_hold_the_process(place: Place) -> None:
    with daemon_process(place, extra=GRACE, program=[stuck_daemon.__file__]) as daemon:
        async with opened(place) as found:
            update = asyncio.create_task(found.update(1, 2))
            assert await until(lambda: stuck_daemon.WORD in daemon.log.read_text())
            daemon.process.send_signal(signal.SIGTERM)
            status = await ended(daemon)
            # Which of the two is first is the machine's to say: both are bounded by the daemon's own clock.
            how = {0: "a thread is still inside a syscall", 1: "did not stop in time, ending the process"}
            assert how[status] in daemon.log.read_text()
            with pytest.raises(OutcomeUnknown):
                await update


@contextlib.asynccontextmanager
async def stopping(config: Config, kernel: FaultyKernel) -> AsyncGenerator[tuple[Ready, asyncio.Task[None]]]:
    """A daemon in this process, and a task that ends when it has: cancel it to stop the daemon."""
    ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with running(config, kernel) as found:
            ready.set_result(found)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    yield await ready, task
    await task


async def test_a_point_call_that_runs_when_the_drain_begins_is_finished(place: Place) -> None:
    reached, wait = threading.Event(), threading.Event()
    kernel = FaultyKernel(LinuxKernel())
    async with (
        stopping(place.config(), kernel) as (ready, stopped),
        mapd_client.connect(str(ready.socket)) as client,
        words(client) as found,
        health(ready.socket) as states,
    ):
        assert await anext(states) == SERVING
        kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, reached=reached, wait=wait))
        update = asyncio.create_task(found.update(1, 2))
        await asyncio.to_thread(reached.wait)
        stopped.cancel()
        assert await anext(states) == NOT_SERVING
        with pytest.raises(Unavailable) as refused:
            await client.server_info()
        assert refused.value.reason is Reason.DRAINING
        assert not update.done()
        wait.set()
        await update
        await stopped
    with daemon_process(place):
        async with opened(place) as found:
            assert await found.lookup(1) == 2


async def test_a_daemon_with_a_stuck_thread_ends_and_its_caller_learns_that_the_outcome_is_unknown(
    place: Place,
) -> None:
    reached, wait = threading.Event(), threading.Event()
    kernel = FaultyKernel(LinuxKernel())
    async with (
        stopping(place.config(extra="grace_s = 0.1"), kernel) as (ready, stopped),
        mapd_client.connect(str(ready.socket)) as client,
        words(client) as found,
    ):
        kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, reached=reached, wait=wait))
        update = asyncio.create_task(found.update(1, 2))
        await asyncio.to_thread(reached.wait)
        stopped.cancel()
        await stopped
        assert not wait.is_set()
        with pytest.raises(OutcomeUnknown):
            await update
    wait.set()
    assert await until(lambda: not any(name.startswith("mapd-") for name in thread_names()))


# Starts that are refused


def test_without_a_bpffs_the_start_is_refused_with_the_line_that_mounts_one(place: Place) -> None:
    folder = place.root / "plain"
    folder.mkdir()
    status, said = exit_of(spawn(Place(place.root, folder)))
    assert status == 1
    assert f"mount -t bpf bpf {folder}" in said
    assert not place.socket.exists()


def test_a_key_that_no_configuration_has_refuses_the_start(place: Place) -> None:
    status, said = exit_of(spawn(place, extra="shoe_size = 44"))
    assert status == 2
    assert "shoe_size" in said
    assert str(place.root / "mapd.toml") in said


# Who may connect

LOOK = """
import asyncio, sys, mapd_client
async def main():
    try:
        async with mapd_client.connect(sys.argv[1]) as client:
            print((await client.server_info()).principal)
    except mapd_client.Unavailable as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("admitted", "says"),
    [
        ("users = []", "Unavailable"),
        ("users = [1]", "Unavailable"),
        (f"users = [{NOBODY}]", "admin"),
        (f"groups = [{NOBODY}]", "admin"),
    ],
)
async def test_the_socket_admits_exactly_who_is_configured(place: Place, admitted: str, says: str) -> None:
    config = place.config(policy=f"[principals.admin]\n{admitted}\n")
    async with running(config) as ready:
        with client_sources() as sources, spawn_unprivileged(sources, LOOK, str(ready.socket)) as process:
            out, errors = await asyncio.to_thread(process.communicate)
    assert errors == b""
    assert out.decode().split()[0] == says
    if says == "Unavailable":
        assert b"may not open it" in out


def test_the_kernel_refuses_a_stranger_at_connect(daemon: DaemonProcess) -> None:
    """EACCES from connect(2) itself: the daemon never hears of it."""
    code = "import socket, sys; print(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]))"
    with (
        client_sources() as sources,
        spawn_unprivileged(sources, code, str(daemon.place.socket)) as process,
    ):
        out, _ = process.communicate()
    assert int(out) == 13


# ---- where threads run ------------------------------------------------------------------------


def allowed(pid: int) -> list[tuple[str, set[int]]]:
    """The names of threads, and the CPUs that each may use."""
    return [
        ((task / "comm").read_text().strip(), os.sched_getaffinity(int(task.name)))
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


async def test_short_calls_stay_on_the_cpu_that_is_named_and_others_use_all(place: Place) -> None:
    usable = os.sched_getaffinity(0)
    cpu = max(usable)
    with daemon_process(place, extra=f"[pool]\ncpu = {cpu}") as daemon:
        async with mapd_client.connect(str(place.socket)) as client:
            flows = await client.create_map("flows", "hash", key=U32, value=U64, max_entries=4)
            await flows.update(1, 10)
            assert await flows.lookup(1) == 10
            threads = allowed(daemon.pid)
        assert os.sched_getaffinity(daemon.pid) == {cpu}  # the loop's own thread
    assert all(cpus == {cpu} for name, cpus in threads if name == "event_engine")
    # The loop and two for short calls; two for large groups and two for slow calls.
    assert sum(cpus == {cpu} for name, cpus in threads if name != "event_engine") >= 3
    assert sum(cpus == usable for _, cpus in threads) >= 4


def test_a_cpu_that_is_not_there_is_refused_with_those_that_are(place: Place) -> None:
    status, said = exit_of(spawn(place, extra="[pool]\ncpu = 8191"))
    assert status == 1
    assert "cpu = 8191" in said
    assert ", ".join(map(str, sorted(os.sched_getaffinity(0)))) in said


def test_a_user_that_is_named_and_missing_is_told_with_the_line_that_makes_it(place: Place) -> None:
    daemon = spawn(place, extra="user = 'no-such-front'\n[opener]\nuser = 'no-such-opener'\n")
    assert daemon.process.wait(30) == 1
    said = daemon.log.read_text()
    assert "no user no-such-front and no user no-such-opener" in said
    assert "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-front" in said
