"""An unprivileged client that creates maps from objects: ``object_client.py SOCKET``, a JSON object a line.

``{"path": ..., "options": {...}}`` creates and closes; ``{"cancel": true}`` meanwhile cancels that. For each creation a
line: ``maps`` (name, pin, created, id, whether frozen, first element of data maps) with ``convention``, ``rule`` and
``left_out``; or ``error`` (the class) and ``message``; or ``cancelled``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import mapd_client
from mapd_client import Client, MapdError, ObjectMaps


def tell(**fields: object) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


async def told(maps: ObjectMaps) -> dict[str, Any]:
    async with maps:
        found = [
            {
                "declared": one.declared,
                "index": one.index,
                "name": one.name,
                "pin": one.pin,
                "created": one.created,
                "btf_refused": one.btf_refused,
                "id": maps[one.declared].info.id,
                "kernel_name": maps[one.declared].info.kernel_name,
                "btf_id": maps[one.declared].info.btf_id,
                "frozen": maps[one.declared].info.frozen,
            }
            for one in maps.declared
        ]
    return {
        "uid": os.getuid(),
        "maps": found,
        "convention": maps.convention,
        "rule": maps.rule,
        "left_out": list(maps.left_out),
    }


async def create(client: Client, path: str, options: dict[str, Any]) -> None:
    try:
        tell(**await told(await client.create_from_object(path, **options)))
    except (MapdError, OSError) as error:
        tell(error=type(error).__name__, message=str(error))
    except asyncio.CancelledError:
        tell(cancelled=True)


async def main(socket: str) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with mapd_client.connect(socket) as client:
        tell(ready=True)
        running: asyncio.Task[None] | None = None
        while line := await lines.readline():
            wanted = json.loads(line)
            if "cancel" in wanted and running is not None:
                running.cancel()
            elif "path" in wanted:
                running = asyncio.create_task(create(client, wanted["path"], wanted.get("options", {})))
        if running is not None:
            await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
