"""The keys of two hosts, piped from mapctl into a real NATS server: a subscriber gets every one, and none twice."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import nats
import pytest
from nats.aio.msg import Msg

from mapd_client import U32, U64, connect
from tests.repo.sources import ROOT
from tests.support.daemon import DaemonProcess, daemon_process, environment, private_place

pytestmark = pytest.mark.nats

KEYS = 5000
SUBJECT = "maps.flows.keys"


@contextmanager
def _served(folder: Path) -> Generator[str]:
    """A server on loopback, on a port that it chose; its URL."""
    program = shutil.which("nats-server")
    if program is None:
        pytest.skip("no nats-server: apt-get install nats-server")
    command = [program, "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", str(folder)]
    with subprocess.Popen([*command, "--log", str(folder / "log")]) as process:
        try:
            yield _url(folder, process)
        finally:
            process.terminate()


def _url(folder: Path, process: subprocess.Popen[bytes]) -> str:
    while not (found := list(folder.glob("*.ports"))) or not found[0].read_text().endswith("}"):
        assert process.poll() is None, (folder / "log").read_text()
    url: str = json.loads(found[0].read_text())["nats"][0]
    return url


@pytest.fixture(scope="module")
def two() -> Generator[tuple[DaemonProcess, DaemonProcess]]:
    """Two hosts' daemons."""
    with private_place() as a, private_place() as b, daemon_process(a) as one, daemon_process(b) as other:
        yield one, other


async def _filled(daemon: DaemonProcess, first: int) -> None:
    async with (
        connect(str(daemon.place.socket)) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=KEYS, btf=True) as flows,
    ):
        await flows.load((key, 0) for key in range(first, first + KEYS))


async def test_every_key_of_both_hosts_arrives_once(
    two: tuple[DaemonProcess, DaemonProcess], tmp_path: Path
) -> None:
    addresses = [str(daemon.place.socket) for daemon in two]
    for at, daemon in enumerate(two):
        await _filled(daemon, at * 1000)  # most keys are on both
    with _served(tmp_path) as url:
        subscriber: Any = await cast("Any", nats).connect(url)  # its callbacks have no types
        got: list[dict[str, object]] = []
        whole = asyncio.Event()

        async def take(message: Msg) -> None:
            got.append(json.loads(message.data))
            if len(got) >= 2 * KEYS:
                whole.set()

        await subscriber.subscribe(SUBJECT, cb=take, pending_msgs_limit=4 * KEYS)
        await subscriber.flush()
        await asyncio.to_thread(_piped, addresses, url)
        async with asyncio.timeout(30):
            await whole.wait()
        await subscriber.drain()
    seen = Counter((one["host"], one["key"]) for one in got)
    assert set(seen.values()) == {1}, "none twice"
    assert seen.keys() == {
        (host, key) for at, host in enumerate(addresses) for key in range(at * 1000, at * 1000 + KEYS)
    }


def _piped(addresses: list[str], url: str) -> None:
    """``mapctl -H one -H other dump flows --keys-only -o ndjson | publisher``."""
    hosts = [word for address in addresses for word in ("-H", address)]
    main = "from mapd_client.cli import main; main()"
    dump = [sys.executable, "-c", main, *hosts, "dump", "flows", "--keys-only", "-o", "ndjson"]
    publish = [sys.executable, "-m", "tests.e2e.nats_publisher", url, SUBJECT]
    with (
        subprocess.Popen(dump, stdout=subprocess.PIPE, env=environment(), cwd=ROOT) as mapctl,
        subprocess.Popen(publish, stdin=mapctl.stdout, env=environment(), cwd=ROOT) as publisher,
    ):
        assert mapctl.stdout is not None
        mapctl.stdout.close()  # the publisher's alone: mapctl would hear of its end
        assert publisher.wait() == 0
        assert mapctl.wait() == 0
