"""Client processes to be killed: ``clients.py SOCKET`` forks one for each line on its standard input.

A line is a JSON object with ``client`` (a number), ``task`` and ``map``. The clients write JSON lines to
the standard output they share: ``started`` with their pid, ``invoke`` and ``return`` around operations,
``middle`` when they are in the middle of one that takes long, ``ended`` if they did by themselves.

Forked, since a Python that has to import everything takes 0.3 s; nothing of grpc runs before the fork.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

import grpc.aio

import mapd_client
from mapd_api.v1 import maps_pb2, maps_pb2_grpc, types_pb2
from mapd_client import MapdError

MIDDLE = 20_000
"""Elements that are more than one message carries."""

Opened = mapd_client.Map[bytes, bytes]


class Told:
    """One client's lines: each is written in one piece, so that those of several do not mix."""

    def __init__(self, client: int) -> None:
        self._client = client
        self._calls = 0

    def __call__(self, event: str, **fields: object) -> None:
        line = json.dumps({"client": self._client, "event": event, "time": time.monotonic(), **fields})
        os.write(1, line.encode() + b"\n")

    async def operation(self, op: str, key: int, value: int, awaitable: Awaitable[object]) -> None:
        self._calls += 1
        self("invoke", call=self._calls, op=op, keys=[key], args=[[value]])
        try:
            await awaitable
        except MapdError as error:
            self("return", call=self._calls, ends=[["unknown", None, type(error).__name__]])
        else:
            self("return", call=self._calls, ends=[["ok", None, ""]])


def word(number: int) -> bytes:
    return number.to_bytes(8, "little")


async def dump_standing_still(opened: Opened, _client: int, told: Told) -> None:
    """In the middle: one chunk taken, the daemon has more and cannot get rid of it."""
    dump = opened.chunks()
    await anext(dump)
    told("middle")
    await asyncio.Event().wait()


async def dump_reading(opened: Opened, _client: int, told: Told) -> None:
    """In the middle of being read, again and again."""
    while True:
        async for _ in opened.chunks():
            told("middle")


async def update(opened: Opened, client: int, told: Told) -> None:
    """One element after the other, of rising values."""
    number = 0
    while True:
        number += 1
        value = word(number).ljust(opened.info.value_stride, b"\0")
        await told.operation("update", client, number, opened.update(word(client), value))


def endless(opened: Opened, client: int, told: Told) -> Generator[tuple[bytes, bytes]]:
    """Elements of one key; says that it is in the middle when more than a message has been taken."""
    value = word(client).ljust(opened.info.value_stride, b"\0")
    number = 0
    while True:
        number += 1
        if number % MIDDLE == 0:
            told("middle")
        yield word(client), value


async def load(opened: Opened, client: int, told: Told) -> None:
    await opened.load(endless(opened, client, told))


async def update_many(opened: Opened, client: int, told: Told) -> None:
    await opened.update_many(endless(opened, client, told))


TASKS: Mapping[str, Callable[[Opened, int, Told], Awaitable[None]]] = {
    task.__name__: task for task in (dump_standing_still, dump_reading, update, load, update_many)
}


async def leak(socket: str, name: str, told: Told) -> None:
    """What this library does not do: a handle without a session."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub: Any = maps_pb2_grpc.MapServiceStub
        await stub(channel).OpenMap(maps_pb2.OpenMapRequest(map=types_pb2.MapRef(name=name)))
        told("middle")
        await asyncio.Event().wait()


async def live(socket: str, client: int, task: str, name: str) -> None:
    told = Told(client)
    told("started", pid=os.getpid())
    try:
        if task == "leak":
            await leak(socket, name, told)
        async with mapd_client.connect(socket) as connected, connected.open_map(name) as opened:
            await TASKS[task](opened, client, told)
    except Exception as error:
        told("ended", why=repr(error))


def main(socket: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them
    for line in sys.stdin:
        wanted = json.loads(line)
        if os.fork() == 0:
            asyncio.run(live(socket, wanted["client"], wanted["task"], wanted["map"]))
            os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
