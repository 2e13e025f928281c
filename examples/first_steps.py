"""Create a map, write to it, read it: the program of the README.

Needs a running daemon; finds its socket by itself, or in MAPD_ADDRESS.
"""

from __future__ import annotations

import asyncio

import mapd_client
from mapd_client import U32, U64


async def main() -> None:
    """Count packets by interface index."""
    async with (
        mapd_client.connect() as client,
        client.create_map("packets", "hash", key=U32, value=U64, max_entries=1024, exist_ok=True) as packets,
    ):
        await packets.update(1, 100)
        await packets.update_many({2: 200, 3: 300})
        print(await packets.lookup(2))  # 200
        print(await packets.lookup(9))  # None: not there
        async for interface, count in packets.items():
            print(interface, count)
        print("for other programs' loaders:", packets.info.pin_path)


asyncio.run(main())
