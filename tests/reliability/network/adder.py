"""Adds one again and again over a bad network: ``adder.py ADDRESS TLS_FOLDER WORKERS CAREFUL|NAIVE``.

Each worker has a key of its own and asks for one addition at a time; a line of JSON for each tells the worker and what
became of it: "done", "unknown", "not done", or the class of any other error. Ends with its standard input. NAIVE is
what one writes with a plain gRPC stub: the call is made again until it is answered, and that counts as done.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

import mapd_client
from mapd_api.ops import Op
from mapd_api.v1 import elements_pb2 as pb
from mapd_api.v1.types_pb2 import MapRef
from mapd_client import U32, U64, Tls

TIMEOUT_S = 1.0
MAP = "admin/sums"

AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}

BACKOFF = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]

Add = Callable[[int], Awaitable[str]]


@asynccontextmanager
async def careful(address: str, tls: Tls) -> AsyncGenerator[Add]:
    """By the client library."""
    async with (
        mapd_client.connect(address, tls=tls, timeout=TIMEOUT_S) as client,
        client.open_map(MAP, key=U32, value=U64) as opened,
    ):

        async def add(worker: int) -> str:
            try:
                async with asyncio.timeout(20):
                    await opened.fetch_add(worker, 1)
            except mapd_client.OutcomeUnknown:
                return "unknown"
            except (mapd_client.NotSent, mapd_client.DeadlineExceeded, mapd_client.Unavailable):
                return "not done"
            except mapd_client.MapdError as error:
                return f"{type(error).__name__}: {error}"
            return "done"

        yield add


@asynccontextmanager
async def naive(address: str, tls: Tls) -> AsyncGenerator[Add]:
    """By a stub, and again after every error."""
    credentials = grpc.ssl_channel_credentials(*files(tls))
    async with grpc.aio.secure_channel(address, credentials, BACKOFF) as channel:
        apply = channel.unary_unary(
            "/mapd_api.v1.ElementService/Apply",
            request_serializer=pb.ApplyRequest.SerializeToString,
            response_deserializer=pb.ApplyResponse.FromString,
        )

        async def add(worker: int) -> str:
            group = pb.OpGroup(map=MapRef(name=MAP), count=1, ops=bytes([Op.FETCH_ADD]))
            group.keys, group.values = worker.to_bytes(4, "little"), (1).to_bytes(8, "little")
            group.field.size = 8
            while True:
                try:
                    await apply(pb.ApplyRequest(groups=[group]), timeout=TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in AGAIN:
                        raise
                    continue
                return "done"

        yield add


def files(tls: Tls) -> list[bytes]:
    """Authority, key and certificate."""
    return [Path(one).read_bytes() for one in (tls.ca, tls.key, tls.certificate)]


def tell(worker: int, outcome: str) -> None:
    """A line of its own."""
    sys.stdout.write(json.dumps([worker, outcome]) + "\n")
    sys.stdout.flush()


async def main(address: str, folder: str, workers: int, how: str) -> None:
    root = Path(folder)
    tls = Tls(ca=root / "ca.pem", certificate=root / "cert.pem", key=root / "key.pem")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with (careful if how == "careful" else naive)(address, tls) as add:

        async def work(worker: int) -> None:
            while not ended.is_set():
                tell(worker, await add(worker))

        async with asyncio.TaskGroup() as group:
            for worker in range(workers):
                group.create_task(work(worker))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
