"""A client that asks and never reads: ``python -m tests.reliability.unread SOCKET MAP COUNT [reads]``.

COUNT lookups at once, each with an answer of 3 MiB. When the first is answered the process stops itself, unless it
``reads``. When it is let go on it says in a line of JSON how many were answered, and how many were refused.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from typing import Any

import grpc.aio

from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2, elements_pb2_grpc, types_pb2

VALUE = 1 << 20
KEYS = 3
"""Values of one answer."""


async def main(address: str, name: str, count: int, *, reads: bool) -> None:
    """Ask, stop, read."""
    group = elements_pb2.OpGroup(
        map=types_pb2.MapRef(name=name), count=KEYS, ops=bytes([Op.LOOKUP]), keys=bytes(4 * KEYS)
    )
    found: Counter[str] = Counter()
    options = (("grpc.max_receive_message_length", 8 << 20),)
    async with grpc.aio.insecure_channel(f"unix:{address}", options=options) as channel:
        make: Any = elements_pb2_grpc.ElementServiceStub
        stub = make(channel)
        await channel.channel_ready()

        async def ask() -> None:
            answer = await stub.Apply(elements_pb2.ApplyRequest(groups=[group]), timeout=120)
            (result,) = answer.results
            found["refused" if result.HasField("error") else "answered"] += 1

        asked = [asyncio.create_task(ask()) for _ in range(count)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        if not reads:
            os.kill(os.getpid(), signal.SIGSTOP)
        await asyncio.wait(asked)
        for task in asked:
            if (error := task.exception()) is not None:
                found[error.code().name if isinstance(error, grpc.aio.AioRpcError) else repr(error)] += 1
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), reads="reads" in sys.argv))
