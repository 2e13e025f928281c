"""Answers that nobody reads: of calls outside of sessions too, the daemon holds no more than it says."""

from __future__ import annotations

import os
import signal
import time

import mapd_client
from mapd_api import limits
from mapd_client import U32, Bytes
from tests.e2e.settling import until
from tests.e2e.test_stalled_readers import Still, begin_anew, memory
from tests.reliability.telling import telling
from tests.reliability.unread import VALUE
from tests.support.daemon import DaemonProcess

CALLS = 60
MORE = limits.UNSENT_BYTES + (16 << 20)


async def test_who_stops_with_many_calls_under_way_is_told_that_the_daemon_was_busy(
    daemon: DaemonProcess,
) -> None:
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("big", "array", key=U32, value=Bytes(VALUE), max_entries=1) as big,
    ):
        begin_anew(daemon)
        before = memory(daemon, "VmRSS")
        async with telling("tests.reliability.unread", str(daemon.place.socket), "big", str(CALLS)) as told:
            pid = told.process.pid
            assert await until(
                lambda: os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
            )
            stopped = time.monotonic()
            assert await until(Still(daemon))
            assert await until(lambda: time.monotonic() > stopped + limits.UNSENT_WAIT_S + 1)
            assert len(await big[0]) == VALUE  # in a session, and of the same principal
            os.kill(pid, signal.SIGCONT)
            said = await told.line()
        assert said["answered"] + said["refused"] == CALLS
        assert said["refused"] > CALLS / 2
        assert memory(daemon, "VmHWM") - before < MORE


async def test_who_reads_is_answered_however_many_calls_are_under_way(daemon: DaemonProcess) -> None:
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("big", "array", key=U32, value=Bytes(VALUE), max_entries=1),
    ):
        begin_anew(daemon)
        before = memory(daemon, "VmRSS")
        address = str(daemon.place.socket)
        async with telling("tests.reliability.unread", address, "big", str(CALLS), "reads") as told:
            assert await told.line() == {"answered": CALLS}
        assert memory(daemon, "VmHWM") - before < MORE
