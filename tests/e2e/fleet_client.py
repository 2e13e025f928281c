"""Asks a fleet, in a namespace that reaches its hosts: ``fleet_client HOSTS_FILE TIMEOUT``; prints one JSON object."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from mapd_client import U32, U64, Fleet


async def main(path: str, timeout: float) -> None:
    async with (
        Fleet.from_toml(path, timeout=timeout) as fleet,
        fleet.open_map("admin/flows", key=U32, value=U64) as flows,
    ):
        opened = sorted(flows.maps)
        count, total = await flows.count(), await flows.sum()
        async with flows.items() as items:
            by_host = Counter([host async for host, _, _ in items])
        print(
            json.dumps(
                {
                    "open": opened,
                    "entries": count.entries,
                    "exact": count.exact,
                    "total": total.total,
                    "sums": dict(total.by_host),
                    "items": dict(by_host),
                    "unreachable": {
                        host: [type(error).__name__, str(error)] for host, error in total.unreachable.items()
                    },
                }
            )
        )


asyncio.run(main(sys.argv[1], float(sys.argv[2])))
