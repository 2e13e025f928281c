"""An opener that somebody else starts may die alone: the front goes on with the next one, and holds its maps."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

import mapd_client
from mapd_api.reasons import Reason
from mapd_client import U32
from tests.e2e.settling import until
from tests.support.activation import activated_openers, front_at, openers_at
from tests.support.daemon import DaemonProcess, Place


@pytest.fixture
def path(place: Place) -> Generator[Path]:
    with activated_openers(place) as found:
        yield found


def lines(daemon: DaemonProcess, event: str) -> list[dict[str, object]]:
    """What the front logged so."""
    told = [line for line in daemon.log.read_text().splitlines() if line.startswith("{")]
    return [found for found in map(json.loads, told) if str(found["event"]).startswith(event)]


async def kill(path: Path) -> int:
    """Kill the opener, whichever it is, and wait until it is gone."""
    (opener,) = openers_at(path)
    pidfd, ended, loop = os.pidfd_open(opener), asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        os.kill(opener, signal.SIGKILL)
        await asyncio.wait_for(ended.wait(), 20)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return opener


async def test_a_front_goes_on_with_the_next_opener_and_holds_its_maps(place: Place, path: Path) -> None:
    with front_at(place, path) as daemon:
        async with (
            mapd_client.connect(str(place.socket), timeout=20) as client,
            client.create_map("kept", "hash", key=U32, value=U32, max_entries=64) as kept,
            client.create_map(None, "hash", key=U32, value=U32, max_entries=64, lease=2.0) as leased,
        ):
            await leased.update(1, 1)
            epoch, killed = (await client.server_info()).epoch, set[int]()
            for number in range(3):
                killed.add(await kill(path))
                await kept.update(1, number)  # needs no opener
                assert await kept.lookup(1) == number
                async with (
                    client.create_map(f"new{number}", "hash", key=U32, value=U32, max_entries=4) as new,
                    client.open_map("kept", key=U32, value=U32) as again,
                ):
                    await new.update(2, 3)
                    assert await again.lookup(1) == number
                assert len(lines(daemon, "connected to another opener")) == number + 1
            assert len(killed) == 3
            assert await leased.lookup(1) == 1
            assert (await client.server_info()).epoch == epoch, "the same front, all the time"
            async with client.open_map(f"pin:{leased.info.pin_path}") as found:
                assert found.info.id == leased.info.id
        assert daemon.stop() == 0
    assert not lines(daemon, "fault")
    assert await until(lambda: not openers_at(path))


def take_away(path: Path) -> None:
    """Nobody can connect there any more."""
    path.unlink()


async def refusal(opened: mapd_client.Map[int, int]) -> Reason | None:
    """Why a change is refused, once it is."""
    while True:
        try:
            await opened.update(1, 1)
        except mapd_client.MapdError as error:
            return error.reason


async def test_pins_are_watched_by_the_next_opener_too(place: Place, path: Path) -> None:
    with front_at(place, path):
        async with (
            mapd_client.connect(str(place.socket), timeout=20) as client,
            client.create_map("kept", "hash", key=U32, value=U32, max_entries=64) as kept,
            client.create_map("other", "hash", key=U32, value=U32, max_entries=64),
        ):
            await kill(path)
            folder = place.names / "admin"
            (folder / "other").rename(folder / "kept")
            async with asyncio.timeout(20):
                assert await refusal(kept) is Reason.MAP_REPLACED


async def test_where_no_other_opener_comes_the_front_stops_and_says_why(place: Place, path: Path) -> None:
    with front_at(place, path) as daemon:
        async with (
            mapd_client.connect(str(place.socket), timeout=4) as client,
            client.create_map("kept", "hash", key=U32, value=U32, max_entries=64) as kept,
        ):
            take_away(path)
            await kill(path)
            await kept.update(1, 1)  # what is open is served meanwhile
            with pytest.raises(mapd_client.Unavailable) as refused:
                async with client.open_map("kept", key=U32, value=U32):
                    pass
            assert "nothing was done: mapd's opener has ended" in str(refused.value)
            assert refused.value.retry_after is not None
            assert daemon.process.poll() is None
        assert await asyncio.to_thread(daemon.process.wait, 30) == 3
        (line,) = lines(daemon, "the opener has ended")
        assert line["why"] == f"the opener's socket {path}: No such file or directory"


async def test_an_opener_with_other_rights_is_not_gone_on_with(place: Place, path: Path) -> None:
    with front_at(place, path) as daemon:
        file = place.root / "opener.toml"
        file.write_text(file.read_text() + "[opener]\nprofile = 'minimal'\n")
        await kill(path)
        assert await asyncio.to_thread(daemon.process.wait, 30) == 3
        (line,) = lines(daemon, "the opener has ended")
        assert "is another than before: capabilities was" in str(line["why"])


async def test_a_front_that_is_told_to_stop_waits_for_no_opener(place: Place, path: Path) -> None:
    with front_at(place, path) as daemon:
        take_away(path)
        await kill(path)
        assert await until(lambda: bool(lines(daemon, "an opener has ended")))
        assert daemon.stop() == 0
