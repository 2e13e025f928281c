"""A client that has neither our code nor our proto files: everything it knows came by reflection."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

import mapd_client
from mapd_client import U64
from tests.support.daemon import DaemonProcess

BUF = Path(sys.executable).parent / "buf"


def curl(daemon: DaemonProcess, method: str, **request: object) -> subprocess.CompletedProcess[str]:
    """Call ``method`` with a JSON request through grpc on the daemon's socket."""
    if not BUF.exists():
        pytest.skip("no buf beside this Python: pip install buf-bin")
    home = daemon.place.root / "home"
    home.mkdir(exist_ok=True)
    over = ["--protocol", "grpc", "--http2-prior-knowledge", "--unix-socket", str(daemon.place.socket)]
    return subprocess.run(
        [BUF, "curl", *over, "--reflect", "-d", json.dumps(request), f"http://localhost/{method}"],
        cwd=home,
        env={"PATH": os.defpath, "HOME": str(home), "XDG_CACHE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bytes_of(number: int) -> str:
    """As JSON writes bytes."""
    return base64.b64encode(number.to_bytes(8, "little")).decode()


async def make_flows(daemon: DaemonProcess) -> int:
    """A map "flows" with one element, 7: 42; its kernel id."""
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("flows", "hash", key=U64, value=U64, max_entries=8) as flows,
    ):
        await flows.update(7, 42)
        return flows.info.id


async def test_maps_are_listed_and_a_key_is_looked_up_by_reflection_alone(daemon: DaemonProcess) -> None:
    map_id = await make_flows(daemon)
    listing = answer(curl(daemon, "mapd_api.v1.MapService/ListMaps"))
    assert [(found["name"], found["id"], found["type"]) for found in listing["maps"]] == [
        ("admin/flows", map_id, "MAP_TYPE_HASH")
    ]
    lookup = "mapd_api.v1.ElementService/Lookup"
    found = answer(curl(daemon, lookup, map={"name": "flows"}, key=bytes_of(7)))
    assert found == {"value": bytes_of(42)}
    assert answer(curl(daemon, lookup, map={"id": map_id}, key=bytes_of(8))) == {}


async def test_a_dump_is_streamed_to_it(daemon: DaemonProcess) -> None:
    await make_flows(daemon)
    done = curl(daemon, "mapd_api.v1.ElementService/Dump", map={"name": "flows"})
    assert done.returncode == 0, done.stderr
    decoder, text, messages = json.JSONDecoder(), done.stdout.strip(), list[Any]()
    while text:
        message, end = decoder.raw_decode(text)
        messages.append(message)
        text = text[end:].lstrip()
    assert [next(iter(message)) for message in messages] == ["header", "chunk", "trailer"]
    assert messages[1]["chunk"]["columns"] == {"count": 1, "keys": bytes_of(7), "values": bytes_of(42)}
    assert messages[2]["trailer"]["complete"] is True


def test_health_answers_serving(daemon: DaemonProcess) -> None:
    for service in ("", "mapd_api.v1.MapService", "mapd_api.v1.ElementService"):
        assert answer(curl(daemon, "grpc.health.v1.Health/Check", service=service)) == {"status": "SERVING"}


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        ({"map": {"name": "missing"}, "key": bytes_of(7)}, "not_found", "MAP_NOT_FOUND"),
        ({"map": {"name": "flows"}, "key": "AAA="}, "invalid_argument", "KEY_SIZE_MISMATCH"),
    ],
)
async def test_a_refusal_carries_a_reason_that_a_program_can_read(
    daemon: DaemonProcess, request_: dict[str, object], code: str, reason: str
) -> None:
    await make_flows(daemon)
    done = curl(daemon, "mapd_api.v1.ElementService/Lookup", **request_)
    assert done.returncode != 0
    refusal = json.loads(done.stderr)
    assert refusal["code"] == code
    (packed,) = [d["value"] for d in refusal["details"] if d["type"] == "google.rpc.ErrorInfo"]
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(packed + "=="))
    assert (info.domain, info.reason) == ("mapd", reason)
    assert {"operation", "map"} <= set(info.metadata)
