"""``--print-grpcurl``: what is printed is a call that another client can make, and mapctl does not make it.

The other client is buf's, which is told what grpcurl would be: the socket, the method and the JSON.
"""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest

from mapd_api.v1 import access_pb2
from mapd_client import Map, connect
from mapd_client.cli import outcomes
from mapd_client.cli.app import run
from mapd_client.cli.grpcurl import command
from mapd_client.codec import U32, U64
from mapd_client.tls import Tls
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, mapctl

__all__ = ["mapctl"]

_BUF = Path(sys.executable).parent / "buf"


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
async def flows(served: DaemonProcess) -> AsyncGenerator[Map[int, int]]:
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("flows", "hash", key=U32, value=U64, max_entries=8, exist_ok=True) as found,
    ):
        await found.update_many({1: 10, 2: 20})
        yield found


async def _printed(served: DaemonProcess, mapctl: Mapctl, *arguments: str) -> list[str]:
    done = await mapctl("--address", str(served.place.socket), "--print-grpcurl", *arguments)
    assert (done.code, done.err) == (outcomes.OK, "")
    assert done.out.count("\n") == 1
    return shlex.split(done.out)


def _called(words: list[str]) -> list[dict[str, Any]]:
    """The answers that buf gets."""
    assert words[:6] == ["grpcurl", "-plaintext", "-unix", "-authority", "localhost", "-d"]
    data, socket, method = words[6:]
    plain = ["--protocol", "grpc", "--http2-prior-knowledge", "--emit-defaults"]
    done = subprocess.run(
        [_BUF, "curl", *plain, "--unix-socket", socket, "-d", data, f"http://localhost/{method}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    decoder, text, found = json.JSONDecoder(), done.stdout.decode().strip(), list[dict[str, Any]]()
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:].lstrip()
    return found


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


async def test_a_lookup(served: DaemonProcess, mapctl: Mapctl, flows: Map[int, int]) -> None:
    del flows
    words = await _printed(served, mapctl, "lookup", "flows", "2")
    assert words[-1] == "mapd_api.v1.ElementService/Apply"
    assert "handle" not in words[6], "another client has no handles of mapctl's"
    (answer,) = _called(words)
    assert _bytes(answer["results"][0]["values"]) == (20).to_bytes(8, sys.byteorder)


async def test_an_update_is_made_by_who_is_given_it_alone(
    served: DaemonProcess, mapctl: Mapctl, flows: Map[int, int]
) -> None:
    words = await _printed(served, mapctl, "update", "flows", "7", "70", "noexist")
    assert await flows.lookup(7) is None
    _called(words)
    assert await flows.lookup(7) == 70
    words = await _printed(served, mapctl, "delete", "flows", "7")
    assert await flows.lookup(7) == 70
    _called(words)
    assert await flows.lookup(7) is None


async def test_a_dump(served: DaemonProcess, mapctl: Mapctl, flows: Map[int, int]) -> None:
    del flows
    words = await _printed(served, mapctl, "dump", "flows")
    keys = b"".join(_bytes(one["chunk"]["columns"]["keys"]) for one in _called(words) if "chunk" in one)
    assert {keys[at : at + 4] for at in range(0, len(keys), 4)} == {
        one.to_bytes(4, sys.byteorder) for one in (1, 2)
    }


@pytest.mark.parametrize(
    ("verb", "method"),
    [
        ("list", "MapService/ListMaps"),
        ("show flows", "MapService/OpenMap"),
        ("whoami", "AccessService/WhoAmI"),
    ],
)
async def test_verbs_without_elements(
    served: DaemonProcess, mapctl: Mapctl, flows: Map[int, int], verb: str, method: str
) -> None:
    del flows
    words = await _printed(served, mapctl, *verb.split())
    assert words[-1] == f"mapd_api.v1.{method}"
    assert len(_called(words)) == 1


async def test_a_map_that_is_not_there_is_no_call(served: DaemonProcess, mapctl: Mapctl) -> None:
    done = await mapctl("--address", str(served.place.socket), "--print-grpcurl", "lookup", "nothing", "1")
    assert (done.code, done.out) == (outcomes.NOT_FOUND, "")


@pytest.mark.parametrize("verb", ["completion bash", "diff a b", "top", "context list"])
def test_a_verb_without_one_call_says_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--print-grpcurl", *verb.split()]) == outcomes.USAGE
    said = capsys.readouterr()
    assert not said.out
    assert f"{verb.split(maxsplit=1)[0]}: --print-grpcurl: no one call" in said.err


def test_over_tcp_the_certificates_are_named() -> None:
    tls = Tls(ca="/ca.pem", certificate="me.pem", key="/my keys/me.key", server_name="edge1")
    assert command("edge1:7443", "/a.B/C", access_pb2.WhoAmIRequest(), tls) == (
        "grpcurl -cacert /ca.pem -cert me.pem -key '/my keys/me.key' -authority edge1 -d '{}' edge1:7443 a.B/C"
    )


async def test_the_socket_is_printed_as_grpc_takes_it(served: DaemonProcess, mapctl: Mapctl) -> None:
    socket = str(served.place.socket)
    assert (await mapctl("--address", socket, "socket")).out == f"unix:{socket}\n"
    assert (await mapctl("--address", "edge1:7443", "socket")).out == "dns:///edge1:7443\n"
    gone = await mapctl("--address", f"{socket}.not", "socket")
    assert (gone.code, gone.out) == (outcomes.UNAVAILABLE, "")
    assert f"{socket}.not: no such file" in gone.err
