"""A daemon that was told to stop: what it answers until it has, to each kind of call, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2

import mapd_client
from mapd.bpf import Fault, FaultyKernel, LinuxKernel
from mapd.bpf.abi import Command
from mapd.daemon import Ready, running
from mapd_api import reasons
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.v1 import errors_pb2
from mapd_api.v1.types_pb2 import MapRef
from mapd_client import U32, U64, Bytes
from tests.e2e.settling import until
from tests.reliability.everymethod import METHODS, begin
from tests.support.daemon import DaemonProcess, Place, daemon_process
from tests.support.rawsession import RawSession, group

SESSION = "Session"
ELEMENTS = 100_000


@contextlib.asynccontextmanager
async def draining(place: Place) -> AsyncGenerator[tuple[Ready, grpc.aio.Channel, RawSession]]:
    """A daemon that drains until the end of the block, with a connection and a session from before.

    It waits for an update that stands in the kernel until then, and is finished after it.
    """
    reached, wait = threading.Event(), threading.Event()
    kernel, stop = FaultyKernel(LinuxKernel()), asyncio.Event()
    up: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with running(place.config(extra="grace_s = 60.0"), kernel) as ready:
            up.set_result(ready)
            await stop.wait()

    task = asyncio.create_task(serve())
    ready = await up
    try:
        async with (
            mapd_client.connect(str(ready.socket)) as client,
            client.create_map("held", "hash", key=U32, value=U64, max_entries=4) as held,
            grpc.aio.insecure_channel(f"unix:{ready.socket}") as channel,
        ):
            session = await RawSession.open(channel)
            kernel.add(Fault(target=Command.MAP_UPDATE_ELEM, reached=reached, wait=wait))
            update = asyncio.create_task(held.update(1, 2))
            await asyncio.to_thread(reached.wait)
            stop.set()
            await ready.guard.draining.wait()
            try:
                yield ready, channel, session
                assert not update.done()
            finally:
                wait.set()
            await update
    finally:
        wait.set()
        stop.set()
        await task


async def refusal(channel: grpc.aio.Channel, name: str) -> tuple[Reason | None, float | None]:
    """Why a call of that method is refused, and after which time it may be made again."""
    method = METHODS[name]
    request: Any = GetMessageClass(method.input_type)
    call = begin(channel, method, [request()])
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                status = status_pb2.Status.FromString(value)
                found = reasons.decode(status)
                return (None if found is None else found.reason), reasons.retry_delay_s(status)
    return None, None


async def test_every_method_is_refused_with_a_time_to_wait_and_nothing_is_begun(place: Place) -> None:
    async with draining(place) as (_, channel, _):
        told = {name: await refusal(channel, name) for name in METHODS}
    wrong = {name: found for name, found in told.items() if found != (Reason.DRAINING, 0.5)}
    assert not wrong
    assert sorted(path.name for path in (place.names / "admin").iterdir()) == ["held"]


async def test_before_it_was_told_to_no_method_says_that_it_stops(place: Place) -> None:
    async with running(place.config()) as ready, grpc.aio.insecure_channel(f"unix:{ready.socket}") as channel:
        told = {name: await refusal(channel, name) for name in METHODS.keys() - {SESSION}}
    assert Reason.DRAINING not in {reason for reason, _ in told.values()}


async def test_a_session_is_told_goodbye_and_what_it_sends_then_is_not_executed(place: Place) -> None:
    async with draining(place) as (_, _, session):
        goodbye = await session.read()
        assert goodbye.goodbye.reason == errors_pb2.REASON_DRAINING
        one = group(MapRef(name="held"), Op.UPDATE, (2).to_bytes(4, "little"), value=bytes(8))
        await session.send(0, 1, one)
        answer = await session.answer()
        assert answer.error.reason == errors_pb2.REASON_DRAINING
        assert answer.error.retry_after.ToNanoseconds() == 500_000_000
    async with (
        running(place.config()) as ready,
        mapd_client.connect(str(ready.socket)) as client,
        client.open_map("held", key=U32, value=U64) as held,
    ):
        assert await held.lookup(1) == 2, "it was under way"
        assert await held.lookup(2) is None


# ---- processes


async def ended(daemon: DaemonProcess) -> int:
    return await asyncio.to_thread(daemon.process.wait, 20)


def openers_of(pid: int) -> list[int]:
    """Pidfds of its children."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [os.pidfd_open(int(one)) for one in path.read_text().split()]


async def test_a_reader_that_was_too_slow_for_the_grace_goes_on_with_the_next_daemon(place: Place) -> None:
    with daemon_process(place, extra="grace_s = 0.2\n") as daemon:
        async with (
            mapd_client.connect(str(place.socket), timeout=20) as client,
            client.create_map("big", "hash", key=U32, value=Bytes(128), max_entries=2 * ELEMENTS) as big,
        ):
            await big.load((key, bytes(128)) for key in range(ELEMENTS))
            async with big.items() as dump:
                keys = [(await anext(dump))[0]]
                daemon.process.send_signal(signal.SIGTERM)
                assert await ended(daemon) == 0
                with daemon_process(place):
                    keys += [key async for key, _ in dump]
                    assert sorted(keys) == list(range(ELEMENTS))
                    assert dump.trailer is not None
                    assert dump.trailer.complete
                    assert dump.trailer.resumed == 1


async def test_a_second_signal_ends_it_at_once(place: Place) -> None:
    with daemon_process(place, extra="grace_s = 60.0\n") as daemon:
        (opener,) = openers_of(daemon.pid)
        async with (
            mapd_client.connect(str(place.socket), timeout=2) as client,
            client.create_map("big", "hash", key=U32, value=U64, max_entries=2 * ELEMENTS) as big,
        ):
            await big.load((key, key) for key in range(ELEMENTS))
            async with big.chunks() as dump:
                await anext(dump)  # and no further: it is waited for
                began = time.monotonic()
                daemon.process.send_signal(signal.SIGTERM)
                assert await until(lambda: '"event": "draining"' in daemon.log.read_text())
                assert daemon.process.poll() is None
                daemon.process.send_signal(signal.SIGTERM)
                assert await ended(daemon) == 130
                assert time.monotonic() - began < 30
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(opener, gone.set)
        await asyncio.wait_for(gone.wait(), 20)
        asyncio.get_running_loop().remove_reader(opener)
        os.close(opener)
    with daemon_process(place):
        async with (
            mapd_client.connect(str(place.socket)) as client,
            client.open_map("big", key=U32, value=U64) as big,
        ):
            assert (await big.count()).entries == ELEMENTS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(place: Place, number: signal.Signals) -> None:
    with daemon_process(place, extra="grace_s = 60.0\n") as daemon:
        daemon.process.send_signal(number)
        assert daemon.process.wait(20) == 0
