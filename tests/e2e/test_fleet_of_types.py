"""Maps that several programs share: bpftool, other processes and BPF programs see what mapd's clients do."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

import mapd_client
from mapd.bpf import possible_cpus
from mapd_client import U32, U64, MapType, PerCpu
from tests.kernel import counting
from tests.support.daemon import (
    NOBODY,
    DaemonProcess,
    Place,
    client_sources,
    daemon_process,
    environment,
    spawn_unprivileged,
)

FILL = """
import asyncio, ipaddress, json, sys
import mapd_client
from mapd_client import U32, U64, Cidr4, PerCpu

async def main(socket, kind, cpus):
    assert __import__("os").geteuid() == 65534
    key = {"lpm_trie": Cidr4, "array": U32, "percpu_array": U32}.get(kind, U64)
    value = PerCpu(U64) if kind.startswith("percpu") else U64
    flags = 1 if kind == "lpm_trie" else 0
    def key_of(n):
        return ipaddress.ip_network(f"10.{n}.0.0/16") if kind == "lpm_trie" else n
    def value_of(n):
        return [1000 * n + cpu for cpu in range(cpus)] if kind.startswith("percpu") else 1000 * n
    async with mapd_client.connect(socket) as client:
        # A small LRU map evicts long before it is full.
        room = 64 if "array" in kind else 4096
        async with client.create_map("fleet", kind, key=key, value=value, max_entries=room, flags=flags) as fleet:
            await fleet.update_many((key_of(n), value_of(n)) for n in range(40))
            await fleet.load((key_of(n), value_of(n)) for n in range(40, 60))
            await fleet.update(key_of(60), value_of(60))
            if "array" not in kind:
                await fleet.delete(key_of(3))
        found = {}
        async with client.open_map("fleet") as raw:
            async for key, value in raw.items():
                found[key.hex()] = value.hex()
            print(json.dumps({"pin": raw.info.pin_path, "found": found}))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
"""What a client without rights does; what it sees afterwards, in hexadecimal."""


def bpftool(*arguments: str) -> str:
    tool = shutil.which("bpftool", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if tool is None:
        pytest.skip("no bpftool: apt install bpftool")
    return subprocess.run([tool, *arguments], capture_output=True, check=True, text=True).stdout


def by_bpftool(pin: str) -> dict[str, str]:
    """Keys and values in hexadecimal; of a per-CPU map the slots of all CPUs, in their order."""

    def hexadecimal(octets: list[str]) -> str:
        return "".join(octet.removeprefix("0x") for octet in octets)

    def value(entry: Any) -> str:
        if "values" not in entry:
            return hexadecimal(entry["value"])
        slots = sorted(entry["values"], key=lambda slot: slot["cpu"])
        return "".join(hexadecimal(slot["value"]) for slot in slots)

    entries = json.loads(bpftool("-j", "map", "dump", "pinned", pin))
    return {hexadecimal(entry["key"]): value(entry) for entry in entries}


@pytest.fixture
def open_to_nobody(place: Place) -> Generator[DaemonProcess]:
    with daemon_process(place, users=[NOBODY]) as found:
        yield found


@pytest.mark.parametrize(
    ("kind", "entries"),
    [
        ("hash", 60),
        ("array", 64),
        ("lru_hash", 60),
        ("percpu_hash", 60),
        ("percpu_array", 64),
        ("lpm_trie", 60),
    ],
)
def test_bpftool_sees_what_a_client_without_rights_has_written(
    open_to_nobody: DaemonProcess, kind: str, entries: int
) -> None:
    arguments = [str(open_to_nobody.place.socket), kind, str(possible_cpus())]
    with client_sources() as sources, spawn_unprivileged(sources, FILL, *arguments) as process:
        out, errors = process.communicate()
    assert errors == b""
    said = json.loads(out)
    assert said["pin"] == str(open_to_nobody.place.names / "admin" / "fleet")
    second_opinion = by_bpftool(said["pin"])
    assert len(second_opinion) == entries
    assert said["found"] == second_opinion
    assert sum(int(value, 16) != 0 for value in second_opinion.values()) >= 59


def octets(number: int) -> list[str]:
    return [str(octet) for octet in number.to_bytes(8, "little")]


async def count_elsewhere(place: Place, pin: str, key: int, runs: int) -> None:
    """Another process loads a BPF program that adds to an element of the pinned map, and runs it."""
    command = [counting.__file__, str(place.bpffs), pin, str(key), str(runs)]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment())
    assert await process.wait() == 0


async def test_a_map_made_by_mapd_is_written_by_another_process_and_its_bpf_program(
    daemon: DaemonProcess,
) -> None:
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.create_map("shared", MapType.HASH, key=U64, value=U64, max_entries=16) as shared,
    ):
        pin = shared.info.pin_path
        bpftool("map", "update", "pinned", pin, "key", *octets(1), "value", *octets(500))
        assert await shared.lookup(1) == 500
        await count_elsewhere(daemon.place, pin, key=1, runs=250)
        await count_elsewhere(daemon.place, pin, key=2, runs=7)
        assert await shared.lookup_many([1, 2, 3]) == [750, 7, None]


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "array", "percpu_hash"])
async def test_a_map_made_elsewhere_is_read_through_mapd_while_a_bpf_program_writes_it(
    daemon: DaemonProcess, kind: str
) -> None:
    pin = str(daemon.place.bpffs / "elsewhere")
    key = U32 if kind == "array" else U64
    sizes = ["key", str(key.size), "value", "8", "entries", "16"]
    bpftool("map", "create", pin, "type", kind, *sizes, "name", "elsewhere")
    value = PerCpu(U64).sum() if kind == "percpu_hash" else U64
    async with (
        mapd_client.connect(str(daemon.place.socket)) as client,
        client.open_map(f"pin:{pin}", key=key, value=value) as found,
    ):
        assert found.info.kernel_name == "elsewhere"
        for runs in (1, 100):
            await count_elsewhere(daemon.place, pin, key=5, runs=runs)
        assert await found.lookup(5) == 101
        assert {key: value async for key, value in found.items() if value} == {5: 101}
        await found.aclose()
        assert Path(pin).name in bpftool("map", "show", "pinned", pin)
