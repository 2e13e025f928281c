"""Answers that nobody reads: of calls outside of sessions too, the daemon holds no more than it says."""

from __future__ import annotations

import os
import signal

import pytest

import mapd_client
from mapd.daemon import Ready
from mapd_api import limits
from mapd_client import U32, Bytes
from tests.e2e.settling import until
from tests.e2e.test_stalled_readers import begin_anew, memory
from tests.reliability.telling import telling
from tests.reliability.unread import VALUE
from tests.support.daemon import DaemonProcess

CALLS = 60
MORE = limits.UNSENT_BYTES + (16 << 20)


async def test_who_stops_with_many_calls_under_way_is_told_that_the_daemon_was_busy(
    monkeypatch: pytest.MonkeyPatch, local: Ready
) -> None:
    monkeypatch.setattr(limits, "UNSENT_WAIT_S", 0.3)
    unsent, groups = local.guard.unsent, local.guard.counts.groups
    async with (
        mapd_client.connect(str(local.socket)) as client,
        client.create_map("big", "array", key=U32, value=Bytes(VALUE), max_entries=1) as big,
    ):
        async with telling("tests.reliability.unread", str(local.socket), "big", str(CALLS)) as told:
            assert await until(lambda: groups["BUSY"] > CALLS / 2)
            assert 0 < unsent.held <= limits.UNSENT_BYTES / 2
            assert len(await big[0]) == VALUE  # in a session, and of the same principal
            os.kill(told.process.pid, signal.SIGCONT)
            assert await told.line() == {"answered": CALLS - groups["BUSY"], "refused": groups["BUSY"]}
        assert unsent.held == 0


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
