"""Ctrl-C ends a command at once, also where it comes in the moment in which the event loop falls asleep."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASLEEP_S = 2.0

PROGRAM = f"""
import asyncio, ctypes, operator, os, selectors, signal, sys, time
from functools import partial
from mapd_client.cli import interrupts

LIBC = ctypes.CDLL(None)

class LastMoment(selectors.EpollSelector):
    '''SIGINT arrives between the last bytecode and epoll_wait(): both are called from C.'''
    armed = False

    def select(self, timeout=None):
        if not self.armed:
            return super().select(timeout)
        self.armed = False
        calls = [partial(LIBC.kill, os.getpid(), signal.SIGINT), partial(self._selector.poll, {ASLEEP_S})]
        woken = bool(list(map(operator.call, calls))[1])
        print("woken" if woken else "slept")
        return super().select(0)

SELECTOR = LastMoment()
asyncio.set_event_loop_policy(None)
policy = asyncio.get_event_loop_policy()
policy._loop_factory = lambda: asyncio.SelectorEventLoop(SELECTOR)

async def work():
    SELECTOR.armed = True
    await asyncio.Event().wait()

try:
    {{run}}(work())
except KeyboardInterrupt:
    print("interrupted")
"""


def said(run: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("{run}", run)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ("interrupts.run", ["woken", "interrupted"]),
        ("asyncio.run", ["slept", "interrupted"]),  # the canary: why there is a module for this
    ],
)
def test_a_signal_in_the_last_moment_wakes_the_loop(run: str, expected: list[str]) -> None:
    assert said(run) == expected


def test_a_second_one_ends_what_does_not_heed_the_first() -> None:
    program = """
import asyncio, os, signal
from mapd_client.cli import interrupts

async def stubborn():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("first")
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass

try:
    interrupts.run(stubborn())
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["first", "interrupted"]
