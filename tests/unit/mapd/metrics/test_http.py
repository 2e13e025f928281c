"""The metrics' port: one bounded request to a connection, answered by what the library writes, whoever else asks."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

import pytest
from prometheus_client.core import GaugeMetricFamily

from mapd.metrics import http
from mapd.metrics.http import Page, answer_of, serving

WAIT_S = 10.0
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


def page(lacking: str = "", names: Sequence[str] = ("mapd_one",)) -> Page:
    return Page([GaugeMetricFamily(name, "About it.", 1) for name in names], lacking)


def split(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


def test_a_scrape_is_answered_in_the_text_format() -> None:
    status, headers, body = split(answer_of(GET, page()))
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert body == b"# HELP mapd_one About it.\n# TYPE mapd_one gauge\nmapd_one 1.0\n"


def test_who_asks_for_openmetrics_gets_it_and_gzip_as_prometheus_asks_for() -> None:
    accept = b"Accept: application/openmetrics-text;version=1.0.0\r\nAccept-Encoding: gzip"
    request = b"GET /metrics HTTP/1.1\r\n" + accept + b"\r\n\r\n"
    status, headers, body = split(answer_of(request, page()))
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert gzip.decompress(body).endswith(b"mapd_one 1.0\n# EOF\n")


def test_families_may_be_asked_for_by_name() -> None:
    request = b"GET /metrics?name[]=mapd_two HTTP/1.1\r\n\r\n"
    _, _, body = split(answer_of(request, page(names=("mapd_one", "mapd_two"))))
    assert b"mapd_two 1.0" in body
    assert b"mapd_one" not in body


@pytest.mark.parametrize(
    ("lacking", "status", "said"), [("", 200, "serving"), ("opener: gone", 503, "opener: gone")]
)
def test_health_is_told_by_its_status(lacking: str, status: int, said: str) -> None:
    found, _, body = split(answer_of(b"GET /healthz HTTP/1.1\r\n\r\n", page(lacking)))
    assert (found, body.decode().strip()) == (status, said)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1", 404),
        (b"POST /metrics HTTP/1.1", 501),
        (b"DELETE /metrics HTTP/1.1", 501),
        (b"GET /metrics HTTP/9.9", 505),
        (b"nonsense", 400),
        (b"\x16\x03\x01\x02\x00", 400),
    ],
)
def test_anything_else_is_refused(request_line: bytes, status: int) -> None:
    answer = answer_of(request_line + b"\r\n\r\n", page())
    assert f"{status}".encode() in answer[:200]
    assert b"mapd_one" not in answer


class Asked:
    """For which requests families were wanted; ``by`` serves the last of them."""

    def __init__(self) -> None:
        self.wanted: list[bool] = []
        self.by: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    def note(self, *, families: bool) -> None:
        self.wanted.append(families)
        if not self.by.done():
            self.by.set_result(cast("asyncio.Task[None]", asyncio.current_task()))


@asynccontextmanager
async def listening(told: Sequence[str] = ("mapd_one",)) -> AsyncGenerator[tuple[int, Asked]]:
    """The port, and what was asked there."""
    asked = Asked()

    async def tell(*, families: bool) -> Page:
        asked.note(families=families)
        return page(names=told)

    with socket.create_server(("127.0.0.1", 0)) as sock, ThreadPoolExecutor(1) as thread:
        async with serving(sock, tell, thread):
            yield sock.getsockname()[1], asked


@asynccontextmanager
async def connected(port: int) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All that is still said until the other end closes, in whatever way."""
    async with asyncio.timeout(WAIT_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def ask(port: int, request: bytes) -> bytes:
    async with connected(port) as (reader, writer):
        writer.write(request)
        return await rest(reader)


async def test_an_answer_of_any_size_arrives_whole() -> None:
    names = [f"mapd_{number}" for number in range(20_000)]
    async with listening(names) as (port, _):
        body = (await ask(port, GET)).partition(b"\r\n\r\n")[2]
    assert body.count(b"\n") == 3 * len(names)


async def test_health_makes_nobody_look_at_maps() -> None:
    async with listening() as (port, asked):
        await ask(port, b"GET /healthz HTTP/1.1\r\n\r\n")
        await ask(port, GET)
    assert asked.wanted == [False, True]


async def test_one_connection_too_many_is_closed_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "CONNECTIONS", 3)
    async with listening() as (port, _):
        async with AsyncExitStack() as stack:
            held = [await stack.enter_async_context(connected(port)) for _ in range(3)]
            assert await ask(port, GET) == b""
            for reader, writer in held:
                writer.write(GET)
                assert b"mapd_one" in await rest(reader)
        assert b"mapd_one" in await ask(port, GET)


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nX: "], ids=["nothing", "half a request"])
async def test_who_says_too_little_is_closed_in_time(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_S", 0.05)
    async with listening() as (port, asked):
        assert await ask(port, said) == b""
    assert asked.wanted == []


async def test_who_says_too_much_is_closed() -> None:
    async with listening() as (port, asked):
        assert await ask(port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * (4 * http.REQUEST_BYTES)) == b""
    assert asked.wanted == []


async def test_who_takes_no_answer_is_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an answer that no socket holds."""
    names = [f"mapd_{number}_{'x' * 90}" for number in range(60_000)]
    monkeypatch.setattr(http, "REQUEST_S", 0.2)
    async with listening(names) as (port, asked):
        with socket.create_connection(("127.0.0.1", port)) as stalled:
            stalled.send(GET)
            async with asyncio.timeout(WAIT_S):
                await asyncio.wait({await asked.by})


async def test_connections_end_with_the_daemon() -> None:
    before = asyncio.all_tasks()
    async with listening() as (port, _), AsyncExitStack() as stack:
        reader, writer = await stack.enter_async_context(connected(port))
        writer.write(b"GET ")
        await writer.drain()
        still = stack.pop_all()
    async with still:
        assert await rest(reader) == b""
    assert asyncio.all_tasks() == before
