"""A relay between a client and a daemon's socket that stands still, or breaks, where a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Way:
    """The bytes of all connections in one direction.

    Attributes:
        passed: bytes that went through so far.
        until: nothing beyond so many goes through; None: all does.
        arrived: bytes that came so far, whether they went through or not.
    """

    def __init__(self) -> None:
        self.passed = 0
        self.arrived = 0
        self.until: int | None = None
        self._changed = asyncio.Condition()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def stop(self, after: int = 0) -> None:
        """Let ``after`` more bytes through, and nothing behind them."""
        self.until = self.passed + after
        await self._notify()

    async def go_on(self) -> None:
        """Let everything through again."""
        self.until = None
        await self._notify()

    async def held(self, least: int = 1) -> None:
        """Wait until at least so many bytes stand at the gate."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.arrived - self.passed >= least)

    async def reached(self) -> None:
        """Wait until all went through that ``stop`` lets through."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.until is not None and self.passed >= self.until)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.arrived += len(data)
            try:
                while data:
                    await self._notify()
                    async with self._changed:
                        await self._changed.wait_for(lambda: self.until is None or self.until > self.passed)
                    room = len(data) if self.until is None else self.until - self.passed
                    part, data = data[:room], data[room:]
                    writer.write(part)
                    await writer.drain()
                    self.passed += len(part)
            finally:
                self.arrived -= len(data)  # they went down with their connection


class Relay:
    """Connections from ``path`` to ``target``.

    Attributes:
        up: from clients to the daemon.
        down: from the daemon to clients.
        connections: how many were made so far.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self.up = Way()
        self.down = Way()
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def refuse(self) -> None:
        """Take none: whoever connects is told that nobody listens. Those there are stay."""
        assert self._server is not None
        self._server.close()
        self.path.unlink(missing_ok=True)

    async def cut(self) -> None:
        """Break all connections, with whatever they held, and let everything through in later ones."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for way in (self.up, self.down):
            way.arrived = way.passed
            await way.go_on()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        writers = [writer]
        try:
            with suppress(ConnectionError, FileNotFoundError):
                there_reader, there = await asyncio.open_unix_connection(self.target)
                writers.append(there)
                async with asyncio.TaskGroup() as group:
                    ways = (
                        group.create_task(self.up.carry(reader, there)),
                        group.create_task(self.down.carry(there_reader, writer)),
                    )
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                    for way in ways:
                        way.cancel()
        except (asyncio.CancelledError, BaseExceptionGroup):
            pass  # cut() is done with it, whatever it was about
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()


@asynccontextmanager
async def relaying(path: Path, target: Path) -> AsyncGenerator[Relay]:
    """A relay that listens; nothing of it is left afterwards."""
    relay = Relay(path, target)
    await relay.listen()
    try:
        yield relay
    finally:
        await relay.refuse()
        await relay.cut()
