"""A relay between a client and a daemon that breaks a connection at one moment of one HTTP/2 stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER: Final = 9
DATA: Final = 0


@dataclass(frozen=True)
class Cut:
    """When the first connection is cut: at so many messages of its first stream (DATA frames, from 1).

    Attributes:
        sender: who sent the message.
        arrives: whether it is still delivered.
    """

    sender: Literal["client", "daemon"]
    message: int
    arrives: bool

    def __str__(self) -> str:
        return f"{self.sender}'s message {self.message}, {'delivered' if self.arrives else 'lost'}"


@dataclass(frozen=True)
class Twice:
    """One message of the daemon, of the first connection's first stream, that comes twice; nothing is cut."""

    message: int


@dataclass
class Relay:
    """Connections that came, whether one was cut, and the tasks that serve them."""

    cut: Cut | Twice
    connections: int = 0
    was_cut: bool = False
    serving: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])


async def frames(reader: asyncio.StreamReader) -> AsyncGenerator[tuple[bytes, bool]]:
    """Whole frames, and whether each is a message of stream 1."""
    while True:
        header = await reader.readexactly(HEADER)
        body = await reader.readexactly(int.from_bytes(header[:3], "big"))
        stream = int.from_bytes(header[5:], "big") & 0x7FFF_FFFF
        yield header + body, header[3] == DATA and stream == 1 and bool(body)


async def forward(
    relay: Relay, sender: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bool
) -> None:
    """One direction, until it ends or is cut."""
    seen = 0
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        if sender == "client":
            writer.write(await reader.readexactly(len(PREFACE)))
        async with contextlib.aclosing(frames(reader)) as found:
            async for frame, message in found:
                seen += message
                if isinstance(relay.cut, Twice):
                    again = first and message and (sender, seen) == ("daemon", relay.cut.message)
                    writer.write(frame * (2 if again else 1))
                    await writer.drain()
                    continue
                reached = first and message and (sender, seen) == (relay.cut.sender, relay.cut.message)
                if not reached or relay.cut.arrives:
                    writer.write(frame)
                    await writer.drain()
                if reached:
                    relay.was_cut = True
                    return


@contextlib.asynccontextmanager
async def relaying(path: Path, daemon: Path, cut: Cut | Twice) -> AsyncGenerator[Relay]:
    """Listen at ``path`` for clients of ``daemon``; nothing of it is left."""
    relay = Relay(cut)

    async def serve(ours: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        relay.connections += 1
        first = relay.connections == 1
        theirs, requests = await asyncio.open_unix_connection(daemon)
        directions = {
            asyncio.create_task(forward(relay, "client", ours, requests, first), name="to the daemon"),
            asyncio.create_task(forward(relay, "daemon", theirs, answers, first), name="to the client"),
        }
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        for direction in directions:
            direction.cancel()
        await asyncio.wait(directions)
        for writer in (answers, requests):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay.serving.add(asyncio.create_task(serve(reader, writer), name="relay"))

    async with await asyncio.start_unix_server(connected, path) as server:
        yield relay
        server.close()
        await asyncio.gather(*relay.serving)  # they end with their clients
