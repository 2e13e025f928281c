"""A dump of many hosts that is closed while somebody waits for its next element."""

from __future__ import annotations

import asyncio
import os
import signal

from mapd_client import U32, U64, connect
from mapd_client.fleet import Fleet
from tests.support.daemon import Place, daemon_process


async def test_who_waits_for_an_element_is_told_that_the_dump_was_closed(place: Place) -> None:
    with daemon_process(place) as daemon:
        address = str(place.socket)
        async with connect(address) as client:
            async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=4) as flows:
                await flows.update(1, 1)
            async with (
                Fleet({"here": address}, timeout=30) as fleet,
                fleet.open_map("flows", key=U32, value=U64) as everywhere,
            ):
                os.kill(daemon.pid, signal.SIGSTOP)
                try:
                    async with everywhere.items() as items:
                        waiting = asyncio.ensure_future(anext(items, None))
                        await asyncio.sleep(0)
                    async with asyncio.timeout(5):
                        assert await waiting is None
                        assert await anext(items, None) is None
                finally:
                    os.kill(daemon.pid, signal.SIGCONT)
            await client.unpin_map("flows")
