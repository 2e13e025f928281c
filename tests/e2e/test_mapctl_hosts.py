"""mapctl on several hosts: two real daemons, and one that is not there."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from mapd_client.cli import outcomes
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, mapctl

__all__ = ["mapctl"]


@pytest.fixture(scope="module")
def daemons() -> Generator[tuple[DaemonProcess, DaemonProcess]]:
    """Two, for all of them."""
    with private_place() as one, private_place() as two, daemon_process(one) as a, daemon_process(two) as b:
        yield a, b


@pytest.fixture(scope="module")
def ready() -> set[str]:
    """The daemons that have the map: it is made once, not for each test."""
    return set()


@pytest.fixture
async def file(
    daemons: tuple[DaemonProcess, DaemonProcess], ready: set[str], mapctl: Mapctl, tmp_path: Path
) -> str:
    """A file of three hosts; the two that live have a map with other values."""
    text = '[hosts.dead]\naddress = "/nowhere/mapd.sock"\n'
    for at, daemon in enumerate(daemons):
        address = str(daemon.place.socket)
        text += f'[hosts.edge{at}]\naddress = "{address}"\nlabels = {{ dc = "dc{at}" }}\n'
        if address in ready:
            continue
        made = ("create", "flows", "hash", "--key", "u32", "--value", "u64", "--entries", "9")
        assert (await mapctl(*made, "--address", address)).code == 0
        assert (await mapctl("set", "flows", "7", str(10 + at), "--address", address)).code == 0
        ready.add(address)
    path = tmp_path / "hosts.toml"
    path.write_text(text)
    return str(path)


def records(text: str) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda one: one["host"])


def errors(text: str) -> list[str]:
    return [json.loads(line)["error"]["message"] for line in text.splitlines()]


async def test_records_begin_with_their_host_and_the_dead_one_is_named(mapctl: Mapctl, file: str) -> None:
    for verb in (("dump", "flows"), ("get", "flows", "7")):
        found = await mapctl("--hosts", file, *verb, "-o", "ndjson")
        assert found.code == outcomes.SOME_HOSTS
        assert records(found.out) == [
            {"host": "edge0", "key": 7, "value": 10},
            {"host": "edge1", "key": 7, "value": 11},
        ]
        assert [message.split(":")[0] for message in errors(found.err)] == ["dead"]


@pytest.mark.parametrize("verb", ["list", "show flows", "count flows", "health"])
async def test_other_records_do_too(mapctl: Mapctl, file: str, verb: str) -> None:
    found = await mapctl("--hosts", file, *verb.split(), "-o", "ndjson")
    assert found.code == outcomes.SOME_HOSTS
    assert [one["host"] for one in records(found.out)] == ["edge0", "edge1"]
    alone = await mapctl("--hosts", file, "-H", "edge*", *verb.split(), "-o", "ndjson")
    assert alone.code == outcomes.OK, "names are chosen by patterns"
    assert records(alone.out) == records(found.out)


async def test_a_document_is_one_whatever_the_hosts(mapctl: Mapctl, file: str) -> None:
    found = await mapctl("--hosts", file, "dump", "flows", "-o", "json")
    assert {one["host"] for one in json.loads(found.out)} == {"edge0", "edge1"}
    table = await mapctl("--hosts", file, "dump", "flows")
    assert sorted(table.out.splitlines()) == ["edge0  7  10", "edge1  7  11"]
    assert "mapctl: dead: " in table.err
    assert table.err.endswith("mapctl: 1 of 3 hosts failed\n")


async def test_what_is_written_is_written_everywhere(mapctl: Mapctl, file: str) -> None:
    written = await mapctl("--hosts", file, "set", "flows", "8", "1")
    assert (written.code, written.out) == (outcomes.SOME_HOSTS, "")
    edges = ("--hosts", file, "-H", "edge?")
    assert len(records((await mapctl(*edges, "get", "flows", "8", "-o", "ndjson")).out)) == 2
    assert (await mapctl(*edges, "del", "flows", "8")).code == outcomes.OK
    again = await mapctl(*edges, "del", "flows", "8")
    assert again.code == outcomes.NOT_FOUND, "the code that all have"
    assert {"mapctl: edge0: delete flows: no such key 08000000"} <= set(again.err.splitlines())


async def test_the_hosts_and_their_state(mapctl: Mapctl, file: str) -> None:
    found = await mapctl("--hosts", file, "hosts", "-o", "ndjson")
    assert found.code == outcomes.SOME_HOSTS
    dead, one, two = records(found.out)
    assert (dead["state"], dead["node"]) == ("unreachable", None)
    assert (one["state"], one["labels"], two["principal"]) == ("serving", {"dc": "dc0"}, "admin")


async def test_where_nobody_answers_the_code_is_the_first_hosts(mapctl: Mapctl) -> None:
    found = await mapctl("-H", "/nowhere/a.sock", "-H", "/nowhere/b.sock", "count", "flows", "-o", "ndjson")
    assert (found.code, found.out) == (outcomes.UNAVAILABLE, "")
    assert len(errors(found.err)) == 2


async def test_a_context_can_be_several_hosts(mapctl: Mapctl, file: str) -> None:
    config = Path(file).with_name("config.toml")
    config.write_text(f'[contexts.edges]\nhosts_file = "{file}"\nhosts = ["edge*"]\n')
    found = await mapctl("--context", "edges", "count", "flows", "-o", "ndjson", MAPD_CONFIG=str(config))
    assert (found.code, len(records(found.out))) == (outcomes.OK, 2)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("-H", "nosuch", "count", "flows"), "has no such host; it has dead, edge0, edge1"),
        (("--address", "/x", "count", "flows"), "--address is one daemon"),
        (("whoami",), "this verb takes one"),
        (("--print-grpcurl", "count", "flows"), "to one daemon"),
        (("dump", "flows", "--bpftool-json"), "bpftool knows no hosts"),
    ],
)
async def test_what_cannot_be_meant_is_said(
    mapctl: Mapctl, file: str, arguments: tuple[str, ...], why: str
) -> None:
    found = await mapctl("--hosts", file, *arguments)
    assert (found.code, found.out) == (outcomes.USAGE, "")
    assert why in found.err
