"""What connect(), open_map() and create_map() return."""

from __future__ import annotations

import gc

import pytest

import mapd_client
from mapd_client import U32, Client, Misuse
from tests.unit.mapd_client.daemon import Daemon, map_info


@pytest.mark.parametrize(
    ("verb", "label"),
    [("connect", r"connect\(\)"), ("open", r"open_map\('flows'\)"), ("create", r"create_map\('flows'\)")],
)
def test_what_is_never_awaited_warns(verb: str, label: str) -> None:
    client = Client("/nowhere/mapd.sock")
    with pytest.warns(RuntimeWarning, match=f"{label} was never awaited: 'await' it"):
        forget(client, verb)


def forget(client: Client, verb: str) -> None:
    if verb == "connect":
        mapd_client.connect("/nowhere/mapd.sock")  # type: ignore[unused-awaitable]  # the point
    elif verb == "open":
        client.open_map("flows")  # type: ignore[unused-awaitable]  # the point
    else:
        client.create_map("flows", "hash", key=U32, value=U32, max_entries=1)  # type: ignore[unused-awaitable]  # the point
    gc.collect()


async def test_what_is_awaited_does_not_and_is_awaited_once(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    opening = mapd_client.connect(daemon.target)
    client = await opening
    with pytest.raises(Misuse, match="opened already"):
        await opening
    with pytest.raises(Misuse):
        client.open_map("flows", value=U32)  # type: ignore[call-overload]  # a key codec is missing: the point
    await client.aclose()
    del opening
    gc.collect()
