"""``mapctl top`` before real daemons, driven by keys: what the kernel has is on the screen."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncGenerator
from typing import Final

import pytest

from mapd.daemon import Ready
from mapd_client import U32, U64, Bytes, Client, connect
from mapd_client.cli import outcomes
from mapd_client.top.app import TopApp
from mapd_client.top.browser import CHANGED, Browser, Elements
from mapd_client.top.source import ClientSource
from tests.support.daemon import DaemonProcess, Place, daemon_process, environment
from tests.support.screens import line_with, until, until_shows

pytestmark = pytest.mark.e2e

MAPCTL: Final = (sys.executable, "-c", "from mapd_client.cli import main; main()")


class Flow(ctypes.Structure):
    """A key."""

    _fields_ = (("saddr", ctypes.c_uint32), ("dport", ctypes.c_uint32))


class Seen(ctypes.Structure):
    """A value."""

    _fields_ = (("packets", ctypes.c_uint64), ("bytes", ctypes.c_uint64))


@pytest.fixture
async def client(local: Ready) -> AsyncGenerator[Client]:
    async with connect(str(local.socket)) as found:
        yield found


async def test_entries_and_what_goes_through_the_daemon_are_on_the_screen(client: Client) -> None:
    source = ClientSource(client)
    async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=100) as flows:
        await flows.update_many(dict.fromkeys(range(42), 0))
        async with TopApp(source, await source.sample(), interval=0.05).run_test(size=(120, 20)) as pilot:
            await until_shows(pilot, "admin/flows", " 42%")
            await flows.update_many(dict.fromkeys(range(96), 0))
            text = await until_shows(pilot, "96%!")
            assert line_with(text, "admin/flows").split()[2] == "96"
            async with client.create_map("more", "array", key=U32, value=U64, max_entries=7):
                await until_shows(pilot, "admin/more")


async def test_elements_are_shown_by_the_maps_own_types_page_by_page_and_changes_are_marked(
    client: Client, local: Ready
) -> None:
    source = ClientSource(client)
    async with client.create_map("flows", "hash", key=Flow, value=Seen, max_entries=1000) as flows:
        for number in range(250):
            await flows.update(Flow(number, 443), Seen(number, 7000 + number))
        handles = len(local.host.handles.held())
        app = TopApp(source, await source.sample(), interval=0.05)
        async with app.run_test(size=(120, 20)) as pilot:
            await pilot.press("enter")
            await until_shows(pilot, "key.saddr", "key.dport", "value.packets", "page 1, ")
            browser = app.screen
            assert isinstance(browser, Browser)
            seen: list[bytes] = []
            for number in (1, 2, 3):
                await until_shows(pilot, f"page {number}, ")
                assert browser.pages.page is not None
                seen += browser.pages.page.keys
                await pilot.press("n")
            assert len(seen) == len(set(seen)) == 250, "no key on two pages, wherever they end"
            await pilot.press("p")
            await pilot.press("p")
            await until_shows(pilot, "page 1, ")
            assert browser.pages.page is not None
            key = Flow.from_buffer_copy(browser.pages.page.keys[0])
            counted = 100_000

            async def marked() -> bool:
                nonlocal counted
                counted += 1
                await flows.update(key, Seen(counted, 7000 + key.saddr))
                row = browser.query_one(Elements).get_row_at(0)
                return [str(span.style) for cell in row for span in cell.spans] == [CHANGED]

            while not await marked():
                await pilot.pause()
            await pilot.press("escape")
            await until_shows(pilot, "mapctl top")
        assert len(local.host.handles.held()) == handles


async def test_a_type_that_cannot_be_walked_says_so(client: Client) -> None:
    source = ClientSource(client)
    jobs = client.create_map("jobs", "queue", key=Bytes(0), value=U64, max_entries=4)
    async with jobs, TopApp(source, interval=0.05).run_test(size=(120, 20)) as pilot:
        await until_shows(pilot, "admin/jobs")
        await pilot.press("enter")
        await until_shows(pilot, "cannot be iterated")


async def test_a_daemon_that_goes_and_comes_back_is_said_and_everything_goes_on(place: Place) -> None:
    with daemon_process(place) as daemon:
        async with connect(str(place.socket), timeout=5.0) as client:
            async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=100) as flows:
                await flows.update_many(dict.fromkeys(range(42), 7))
            source = ClientSource(client)
            app = TopApp(source, await source.sample(), interval=0.05)
            async with app.run_test(size=(150, 20)) as pilot:
                await until_shows(pilot, "42%")
                assert daemon.stop() == 0
                text = await until_shows(pilot, "daemon away for")
                assert "42%" in line_with(text, "admin/flows")
                with daemon_process(place):
                    await until(pilot, lambda text: "away" not in text)
                    await pilot.press("enter")
                    await until_shows(pilot, "page 1, 42 elements, the last")
                await until_shows(pilot, "42 elements", "no daemon at")
                with daemon_process(place):
                    await until(pilot, lambda text: "42 elements" in text and "no daemon" not in text)


def test_on_a_terminal_the_first_screen_has_the_maps_and_q_ends_it(daemon: DaemonProcess) -> None:
    async def prepare() -> None:
        async with (
            connect(str(daemon.place.socket)) as client,
            client.create_map("flows", "hash", key=U32, value=U64, max_entries=100),
        ):
            pass

    asyncio.run(prepare())
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    more = {"MAPD_ADDRESS": str(daemon.place.socket), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*MAPCTL, "top"], stdin=terminal, stdout=terminal, stderr=terminal, env=environment(**more)
    ) as process:
        os.close(terminal)
        said = b""
        while b"admin/flows" not in said:
            said += os.read(master, 65_536)
        os.write(master, b"q")
        with contextlib.suppress(OSError):  # EIO: the terminal was closed by its last user
            while os.read(master, 65_536):
                pass
        assert process.wait(20) == 0
    os.close(master)


def test_without_a_terminal_it_is_refused(daemon: DaemonProcess) -> None:
    more = {"MAPD_ADDRESS": str(daemon.place.socket)}
    done = subprocess.run(
        [*MAPCTL, "top"], env=environment(**more), capture_output=True, text=True, check=False
    )
    assert done.returncode == outcomes.USAGE
    assert "no terminal" in done.stderr
    assert done.stdout == ""
