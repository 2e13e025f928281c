"""Fleet: how many hosts are asked at a time, and what becomes of those that fail, wherever they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mapd_client import U32, U64, Client, Fleet, MapNotFound
from mapd_client.errors import DeadlineExceeded, MapdError, Unreachable
from tests.unit.mapd_client.daemon import Daemon, map_info, serving

HOSTS = 5


@pytest.fixture
async def daemons(short_folder: Path) -> AsyncIterator[dict[str, Daemon]]:
    """Five daemons, each with ten elements in "ns/flows"."""
    async with AsyncExitStack() as stack:
        found: dict[str, Daemon] = {}
        for number in range(HOSTS):
            folder = short_folder / str(number)
            folder.mkdir()
            one = found[f"h{number}"] = await stack.enter_async_context(serving(folder))
            flows = one.add(map_info("ns/flows"))
            flows.data = {key.to_bytes(4, "little"): number.to_bytes(8, "little") for key in range(10)}
        yield found


def fleet_of(daemons: dict[str, Daemon], **more: Any) -> Fleet:
    return Fleet({name: one.target for name, one in daemons.items()}, **more)


class Together:
    """How many were inside at the same time, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    async def __aexit__(self, *_: object) -> None:
        self.now -= 1


async def test_as_many_hosts_are_asked_at_a_time_as_it_was_told(daemons: dict[str, Daemon]) -> None:
    together, full = Together(), asyncio.Event()

    async def work(client: Client, _: str) -> str:
        async with together:
            if together.now == 2:
                full.set()
            await full.wait()
            return (await client.server_info()).node

    async with fleet_of(daemons, concurrency=2) as fleet:
        assert await fleet.each(work) == dict.fromkeys(daemons, "host")
    assert together.most == 2


async def test_as_many_dumps_are_read_at_a_time_and_every_element_comes(daemons: dict[str, Daemon]) -> None:
    """A dump holds a connection and a chunk of memory on its host until it is read."""
    together, full = Together(), asyncio.Event()
    for one in daemons.values():
        plain = one.Dump

        async def counted(request: Any, context: Any, plain: Any = plain) -> None:
            async with together:
                if together.now == 2:
                    full.set()
                await full.wait()
                await plain(request, context)

        one.hooks["Dump"] = counted
    async with (
        fleet_of(daemons, concurrency=2) as fleet,
        fleet.open_map("flows", key=U32, value=U64) as flows,
        flows.items() as items,
    ):
        found = [item async for item in items]
    assert sorted(found) == [(f"h{host}", key, host) for host in range(HOSTS) for key in range(10)]
    assert together.most == 2


async def test_who_reads_all_hosts_may_ask_the_fleet_meanwhile(daemons: dict[str, Daemon]) -> None:
    """With one turn for everything the question would wait for the dump, and the dump for who asked."""
    async with (
        fleet_of(daemons, concurrency=1) as fleet,
        fleet.open_map("flows", key=U32, value=U64) as flows,
        flows.items() as items,
    ):
        first = await anext(items)
        looked_up = await flows.lookup(3)
        assert looked_up == {f"h{host}": host for host in range(HOSTS)}
        assert len([first, *[item async for item in items]]) == 10 * HOSTS


async def test_a_host_that_fails_in_the_middle_of_its_dump_is_named_and_the_others_are_whole(
    daemons: dict[str, Daemon],
) -> None:
    daemons["h2"].dump_trailer = False  # its stream just ends
    async with (
        fleet_of(daemons) as fleet,
        fleet.open_map("flows", key=U32, value=U64) as flows,
        flows.items() as items,
    ):
        found = [item async for item in items]
        assert list(flows.unreachable) == ["h2"]
        assert isinstance(flows.unreachable["h2"], MapdError)
    assert sorted(item for item in found if item[0] != "h2") == [
        (f"h{host}", key, host) for host in (0, 1, 3, 4) for key in range(10)
    ]


async def test_a_sum_counts_nothing_of_a_host_whose_dump_does_not_end(daemons: dict[str, Daemon]) -> None:
    daemons["h4"].dump_complete = False
    async with fleet_of(daemons) as fleet, fleet.open_map("flows", key=U32, value=U64) as flows:
        found = await flows.sum()
    assert found.by_host == {"h0": 0, "h1": 10, "h2": 20, "h3": 30}
    assert list(found.unreachable) == ["h4"]


async def test_a_host_without_the_map_is_named_and_is_back_once_it_has_it(daemons: dict[str, Daemon]) -> None:
    kept = daemons["h1"].maps.pop("ns/flows")
    async with fleet_of(daemons) as fleet:
        async with fleet.open_map("flows") as flows:
            assert list(flows.maps) == ["h0", "h2", "h3", "h4"]
            assert isinstance(flows.unreachable["h1"], MapNotFound)
        daemons["h1"].maps["ns/flows"] = kept
        async with fleet.open_map("flows") as flows:
            assert list(flows.maps) == list(daemons)
            assert fleet.unreachable == {}


async def test_a_host_that_is_silent_costs_its_own_time_alone(daemons: dict[str, Daemon]) -> None:
    asked = asyncio.Event()

    async def silent(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    daemons["h0"].hooks["GetServerInfo"] = silent

    async def work(client: Client, name: str) -> str:
        await client.server_info()
        return name

    async with fleet_of(daemons, timeout=3) as fleet:  # of which the others need a hundredth
        assert list(await fleet.each(work)) == ["h1", "h2", "h3", "h4"]
        assert isinstance(fleet.unreachable["h0"], (DeadlineExceeded, Unreachable))
    assert asked.is_set()


async def test_what_the_work_itself_raises_is_raised_as_it_is_and_ends_the_rest(
    daemons: dict[str, Daemon],
) -> None:
    """No group of one exception around a typing error."""
    ended: list[str] = []

    async def work(_: Client, name: str) -> None:
        try:
            if name == "h3":
                raise ZeroDivisionError
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async with fleet_of(daemons) as fleet:
        with pytest.raises(ZeroDivisionError):
            await fleet.each(work)
    assert sorted(ended) == list(daemons)


async def test_closing_closes_every_client_where_one_cannot_be_closed(
    daemons: dict[str, Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Client] = []
    plain = Client.aclose

    async def close(self: Client) -> None:
        await plain(self)
        closed.append(self)
        if len(closed) == 2:
            raise OSError("no")

    monkeypatch.setattr(Client, "aclose", close)
    with pytest.raises(OSError, match="no"):
        await fleet_of(daemons).aclose()
    assert len(closed) == HOSTS
