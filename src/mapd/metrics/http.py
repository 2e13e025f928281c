"""GET /metrics and /healthz over TCP: one small request to a connection, all of it bounded.

What is read is parsed by the standard library and answered by prometheus-client, in a thread of its own: a page of
thousands of lines takes milliseconds, which the event loop has not.
"""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_log = structlog.stdlib.get_logger("mapd.metrics")

CONNECTIONS: Final = 16
"""At once; one more is closed. A scraper needs one for some milliseconds."""

REQUEST_BYTES: Final = 8 << 10
REQUEST_S: Final = 5.0
"""Until the whole request is there, and again until the whole answer was taken."""

BACKLOG: Final = 16

HEALTH: Final = b"GET /healthz"


@dataclass(frozen=True, slots=True)
class Page:
    """What is told: families, and what services lack ("": nothing)."""

    families: Iterable[Metric]
    lacking: str


class Tell(Protocol):
    """Makes a page."""

    async def __call__(self, *, families: bool) -> Page:
        """``families``: whether they are wanted; looking at maps may take its time."""
        ...


@asynccontextmanager
async def serving(sock: socket.socket, page: Tell, thread: Executor) -> AsyncGenerator[None]:
    """Answer on ``sock``, which listens, inside the block; every connection has ended after it.

    Args:
        page: is awaited for each request.
        thread: where answers are written.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(tasks) >= CONNECTIONS:
            writer.transport.abort()
            return
        tasks.add(task)
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await _answer(reader, writer, page, thread)
        except Exception:
            _log.exception("metrics were not told")
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(answer, sock=sock, limit=REQUEST_BYTES, backlog=BACKLOG)
    try:
        yield
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(list(tasks))


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    page: Tell,
    thread: Executor,
) -> None:
    async with asyncio.timeout(REQUEST_S):
        request = await reader.readuntil(b"\r\n\r\n")
    told = await page(families=not request.startswith(HEALTH))
    made = await asyncio.get_running_loop().run_in_executor(thread, partial(answer_of, request, told))
    async with asyncio.timeout(REQUEST_S):
        writer.write(made)
        writer.write_eof()
        await writer.drain()
        # The other end closes when it has read all; an abort before that could take it from it.
        await reader.read(1)


def answer_of(request: bytes, page: Page) -> bytes:
    """The whole answer to one request. Blocks; pure."""
    answer = io.BytesIO()
    _Handler(io.BytesIO(request), answer, page)
    return answer.getvalue()


class _Told(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


class _Handler(MetricsHandler):
    """One request that is there, of bytes that are there; nothing is read from or written to a socket."""

    def __init__(self, request: io.BytesIO, answer: io.BytesIO, page: Page) -> None:
        registry = CollectorRegistry(auto_describe=True)
        registry.register(_Told(page.families))
        self.registry = registry
        self._page = page
        self.rfile: Any = request
        self.wfile: Any = answer
        self.client_address = ("", 0)
        self.close_connection = True
        self.handle_one_request()

    def version_string(self) -> str:
        return "mapd"

    def do_GET(self) -> None:  # noqa: N802 - http.server calls it so
        path = self.path.partition("?")[0]
        if path == "/metrics":
            super().do_GET()
        elif path == "/healthz":
            lacking = self._page.lacking
            self._say(HTTPStatus.SERVICE_UNAVAILABLE if lacking else HTTPStatus.OK, lacking or "serving")
        else:
            self._say(HTTPStatus.NOT_FOUND, "there is /metrics, and /healthz")

    def _say(self, status: HTTPStatus, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
