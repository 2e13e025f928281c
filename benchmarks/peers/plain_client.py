"""``plain_client SOCKET ENTRIES``: measures plain_server; commands ``flight`` and ``one``."""

from __future__ import annotations

import asyncio
import sys

import grpc.aio
from google.protobuf.wrappers_pb2 import BytesValue

from benchmarks.commands import flight, one, serve


async def main(socket: str, entries: int) -> None:
    """Answer commands."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(
            "/plain.Peer/Lookup",
            request_serializer=BytesValue.SerializeToString,
            response_deserializer=BytesValue.FromString,
        )

        async def lookup(key: int) -> int:
            answer = await call(BytesValue(value=key.to_bytes(8, sys.byteorder)))
            return int.from_bytes(answer.value, sys.byteorder)

        await serve({"flight": flight(lookup, entries), "one": one(lookup, entries)})


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
