"""What a closed client leaves at the daemon: nothing, whatever errors its caller still holds."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest

import mapd_client
from mapd_client import U32, Client
from mapd_client.errors import BatchFailed, MapNotFound, Misuse
from tests.e2e.settling import until
from tests.support.daemon import DaemonProcess, Place, daemon_process, fds_of


def sockets(daemon: DaemonProcess) -> int:
    """Of the front: its listeners, and a connection for each that a client has."""
    return sum(target.startswith("socket") for target in fds_of(daemon.pid))


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Python's collector of cycles is off, which comes when it likes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def opening_what_is_not_there(client: Client) -> None:
    await client.open_map("nothing")


async def creating_what_cannot_be(client: Client) -> None:
    await client.create_map("none", "hash", key=U32, value=U32, max_entries=0)


async def looking_up_what_is_not_there(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U32, max_entries=8) as flows:
        await flows[1]


async def loading_more_than_there_is_room_for(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U32, max_entries=8) as flows:
        await flows.load({key: key for key in range(100)})


async def dumping_from_where_nobody_was(client: Client) -> None:
    async with client.create_map("flows", "hash", key=U32, value=U32, max_entries=8) as flows:
        async for _ in flows.items(resume=b"a token"):
            pass


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (opening_what_is_not_there, MapNotFound),
        (creating_what_cannot_be, Misuse),
        (looking_up_what_is_not_there, KeyError),
        (loading_more_than_there_is_room_for, BatchFailed),
        (dumping_from_where_nobody_was, Misuse),
    ],
)
@pytest.mark.usefixtures("uncollected")
async def test_an_error_that_is_kept_keeps_no_connection(
    place: Place, act: Callable[[Client], Awaitable[None]], told: type[Exception]
) -> None:
    with daemon_process(place) as daemon:
        before = sockets(daemon)
        async with mapd_client.connect(str(place.socket)) as client:
            with pytest.raises(told) as kept:
                await act(client)
        assert await until(lambda: sockets(daemon) == before), "a connection of a closed client"
        assert kept.value.__traceback__
