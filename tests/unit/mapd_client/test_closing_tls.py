"""Closing a client over TCP while its certificates are being looked at: nothing is opened afterwards."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc import aio

from mapd_api.v1 import elements_pb2
from mapd_client import Misuse, Tls, tls
from mapd_client.channel import Transport
from mapd_client.failures import Asked
from mapd_client.link import Links
from mapd_client.methods import LOAD
from tests.support.pki import Authority, uri

NOBODY_LISTENS = "127.0.0.1:1"


@pytest.fixture
def files(tmp_path: Path) -> Tls:
    ca = Authority()
    written = ca.issue(uri("spiffe://example.org/web")).write(tmp_path, ca.pem)
    return Tls(ca=written.ca, certificate=written.certificate, key=written.key)


def channels() -> int:
    gc.collect()
    return sum(isinstance(each, aio.Channel) for each in gc.get_objects())


async def test_a_client_that_is_closed_while_its_certificates_are_read_connects_to_nobody(files: Tls) -> None:
    before = channels()
    links = Links(NOBODY_LISTENS, 1.0, files)
    waits = asyncio.create_task(links.current())
    await asyncio.sleep(0)
    await links.aclose()
    with pytest.raises(Misuse, match="the client is closed"):
        await waits
    assert channels() == before


async def test_a_load_that_finds_its_client_closed_after_a_look_at_the_files_says_so(files: Tls) -> None:
    transport = Transport(NOBODY_LISTENS, tls.read(files))

    def messages() -> Iterator[elements_pb2.LoadRequest]:
        yield elements_pb2.LoadRequest()

    load = asyncio.create_task(transport.upload(LOAD, messages(), Asked("load", mutates=True), 1.0))
    await asyncio.sleep(0)
    await transport.aclose()
    with pytest.raises(Misuse, match="the client is closed"):
        await load


async def test_a_call_that_finds_its_client_closed_after_a_look_at_the_files_says_so(files: Tls) -> None:
    transport = Transport(NOBODY_LISTENS, tls.read(files))
    call = asyncio.create_task(
        transport.unary(LOAD, elements_pb2.LoadRequest(), Asked("load", mutates=True), 1.0)
    )
    await asyncio.sleep(0)
    await transport.aclose()
    with pytest.raises(Misuse, match="the client is closed"):
        await call
