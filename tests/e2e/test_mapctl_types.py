"""mapctl shows and takes fields, through a real daemon."""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mapd_client import Bytes, Map, PerCpu, connect
from mapd_client.btf.build import blob_of
from mapd_client.layouts import Enumeration, Integer, Layout, Member, Record
from tests.repo.sources import ROOT
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl

__all__ = ["mapctl"]

U32 = Integer(size=4, signed=False, type_name="__u32")
U64 = Integer(size=8, signed=False, type_name="__u64")
BE16 = Integer(size=2, signed=False, order="big", type_name="__be16")
STATE = Enumeration(size=4, signed=False, members=(("OPEN", 0), ("CLOSED", 1)), type_name="state")


def struct(name: str, size: int, *members: tuple[str, int, Layout]) -> Record:
    made = tuple(
        Member(name=one, offset=offset, layout=layout, bit_offset=8 * offset)
        for one, offset, layout in members
    )
    return Record(size=size, members=made, type_name=name)


FLOW = struct("flow", 8, ("saddr", 0, U32), ("dport", 4, BE16))
STATS = struct("stats", 16, ("packets", 0, U64), ("state", 8, STATE))


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(served: DaemonProcess, mapctl: Mapctl) -> Run:
    """Mapctl, told where the daemon is."""
    return functools.partial(mapctl, "--address", str(served.place.socket))


async def printed(run: Run, *arguments: str) -> str:
    done = await run(*arguments)
    assert (done.code, done.err) == (0, "")
    return done.out


@asynccontextmanager
async def flows(
    served: DaemonProcess, name: str, type: str = "hash", *, btf: bool = True
) -> AsyncGenerator[Map[Any, Any]]:
    value = Bytes(STATS.size)
    codec: Any = PerCpu(value) if type == "percpu_hash" else value
    types = blob_of(FLOW, STATS, "little") if btf else None
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map(name, type, key=Bytes(FLOW.size), value=codec, max_entries=8, btf=types) as found,
    ):
        yield found


OBJECT = ROOT / "tests" / "unit" / "mapd_client" / "elf" / "fixtures" / "libbpf.little.o"
KEY = '{"saddr": "10.0.0.1", "dport": 443}'
VALUE = '{"packets": 5, "state": "CLOSED"}'


async def test_fields_are_written_and_shown_by_their_names(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "fields") as made:
        await printed(run, "update", "fields", KEY, VALUE, "--as", "key.saddr=ipv4")

        assert await made[bytes((10, 0, 0, 1, 1, 187, 0, 0))] == b"\5" + bytes(7) + b"\1" + bytes(3) + bytes(
            4
        )
        shown = await printed(run, "lookup", "fields", KEY, "--as", "key.saddr=ipv4")
        assert shown == f"{KEY}  {VALUE}\n"
        line = await printed(run, "dump", "fields", "-o", "ndjson", "--json-safe-ints")
        assert json.loads(line) == {
            "key": {"saddr": 0x0100000A, "dport": 443},
            "value": {"packets": "5", "state": "CLOSED"},
        }
        assert await printed(run, "dump", "fields", "--limit", "1", "--as", "key.saddr=ipv4") == shown


async def test_scripts_of_bpftool_read_its_form(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "form") as made:
        assert await printed(run, "dump", "form", "--bpftool-json") == "[]\n"
        for at in range(2):
            await made.update(bytes((at, *bytes(7))), bytes(16))

        found = json.loads(await printed(run, "dump", "form", "--bpftool-json"))

        assert sorted(one["formatted"]["key"]["saddr"] for one in found) == [0, 1]
        assert found[0]["value"] == ["0x00"] * 16
        assert found[0]["formatted"]["value"] == {"packets": 0, "state": "OPEN"}


async def test_what_was_printed_can_be_written_again(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "again"):
        await printed(run, "update", "again", '{"saddr": 7, "dport": 53}', '{"packets": 1, "state": 9}')
        line = await printed(run, "dump", "again", "-o", "ndjson", "--json-safe-ints")
        record = json.loads(line)

        await printed(run, "update", "again", json.dumps(record["key"]), json.dumps(record["value"]), "exist")

        assert record["value"] == {"packets": "1", "state": "9"}
        assert await printed(run, "dump", "again", "-o", "ndjson", "--json-safe-ints") == line


async def test_a_per_cpu_value_is_shown_for_each_cpu(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "cpus", "percpu_hash") as made:
        await printed(run, "update", "cpus", '{"saddr": 7, "dport": 53}', VALUE)

        record = json.loads(await printed(run, "dump", "cpus", "-o", "ndjson"))

        assert record["value"] == [{"packets": 5, "state": "CLOSED"}] * made.info.slots()


async def test_what_was_printed_for_each_cpu_can_be_written_again(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "each-cpu", "percpu_hash") as made:
        key = '{"saddr": 7, "dport": 53}'
        values = [{"packets": cpu, "state": "OPEN"} for cpu in range(made.info.slots())]
        await printed(run, "update", "each-cpu", key, json.dumps(values))
        shown = json.loads(await printed(run, "dump", "each-cpu", "-o", "ndjson"))
        short = await run("update", "each-cpu", key, json.dumps(values[1:]))

    assert shown["value"] == values
    assert short.code == 2
    assert f"{len(values) - 1} elements given, {len(values)} needed: one per possible CPU" in short.err


async def test_an_element_is_removed_by_its_fields(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "removed") as made:
        await made.update(bytes((10, 0, 0, 1, 1, 187, 0, 0)), bytes(16))

        await printed(run, "delete", "removed", KEY, "--as", "key.saddr=ipv4")

        assert (await made.count()).entries == 0


async def test_hex_stays_where_no_type_is_known_and_says_what_to_do(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "untyped", btf=False) as made:
        await made.update(bytes(8), bytes(16))

        done = await run("dump", "untyped")

        assert done.out == f"{'00' * 8} (0)  {'00' * 16}\n"
        assert done.err == (
            "mapctl: values as hex: the map was created without type information (BTF); give the types with "
            "--elf FILE or --btf FILE, or say what they are: --as value=ipv4\n"
        )


async def test_types_come_from_a_file(served: DaemonProcess, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "types.btf"
    file.write_bytes(blob_of(FLOW, STATS, "little").blob)
    async with flows(served, "by-file", btf=False) as made:
        await made.update(bytes(8), bytes(16))
        types = ("--btf", str(file), "--key-type", "flow", "--value-type", "struct stats")

        assert await printed(run, "dump", "by-file", *types) == (
            '{"saddr": 0, "dport": 0}  {"packets": 0, "state": "OPEN"}\n'
        )
        wrong = await run("dump", "by-file", *types[:3], "stats")
        assert (wrong.code, wrong.err.splitlines()[0]) == (
            2,
            f"mapctl: dump by-file: {file}: type 'stats' has 16 bytes, the map's 8",
        )


async def test_types_come_from_an_object_file(served: DaemonProcess, run: Run) -> None:
    value = Bytes(16)
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map("from-object", "hash", key=Bytes(4), value=value, max_entries=8) as made,
    ):
        await made.update(bytes((7, 0, 0, 0)), b"\5" + bytes(15))

        found = json.loads(
            await printed(run, "dump", "from-object", "-o", "ndjson", "--elf", f"{OBJECT}:flows")
        )
        other = await run("dump", "from-object", "--elf", str(OBJECT))
        none = await run("dump", "from-object", "--elf", "/nowhere.o")
        as_btf = await run("dump", "from-object", "--btf", str(OBJECT), "--value-type", "stats")
    async with flows(served, "not-of-object", btf=False):
        sizes = await run("dump", "not-of-object", "--elf", f"{OBJECT}:flows")

    assert (none.code, none.err.splitlines()[0]) == (
        2,
        "mapctl: dump from-object: --elf /nowhere.o: No such file or directory",
    )
    assert (as_btf.code, as_btf.err.splitlines()[0]) == (
        2,
        f"mapctl: dump from-object: --btf {OBJECT}: this is an object file, no BTF file: give --elf {OBJECT}",
    )
    assert (sizes.code, sizes.err.splitlines()[0]) == (
        2,
        f"mapctl: dump not-of-object: --elf {OBJECT}: by 'flows' a key has 4 bytes, the map's 8",
    )
    assert (found["key"], found["value"]["packets"]) == (7, 5)
    assert other.code == 2
    assert "it declares flows, first" in other.err
    assert f"--elf {OBJECT}:NAME" in other.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lookup", "wrong", '{"saddr": 1}'), "mapctl: lookup wrong: key.dport: it is missing"),
        (("update", "wrong", "hex:00", "7"), "mapctl: update wrong: 'hex:00' is 1 byte, 8 are needed"),
        (("lookup", "wrong", "nonsense"), "a key of this map is written saddr=...,dport=..., or {"),
        (("lookup", "wrong", '{"saddr": '), "is no JSON"),
        (("dump", "wrong", "--as", "saddr=ipv4"), "--as 'saddr=ipv4': write FIELD=CODEC"),
        (("dump", "wrong", "--as", "key.sadr=ipv4"), "key.sadr"),
        (("dump", "wrong", "--key-type", "flow"), "give --btf FILE too"),
    ],
)
async def test_what_cannot_be_is_told_with_what_can(
    served: DaemonProcess, run: Run, arguments: tuple[str, ...], words: str
) -> None:
    async with flows(served, "wrong", "hash"):
        done = await run(*arguments)

    async with connect(str(served.place.socket)) as client:
        await client.unpin_map("wrong")
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err
