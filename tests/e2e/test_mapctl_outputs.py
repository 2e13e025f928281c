"""mapctl dump, lookup and count in every format, through a real daemon."""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
from collections.abc import AsyncGenerator, Generator
from importlib import import_module
from typing import Any

import pyarrow.ipc as ipc
import pytest

from mapd_client import Map
from mapd_client.cli import outcomes
from tests.e2e.test_mapctl_types import Run, flows, printed
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, mapctl, running

__all__ = ["mapctl"]

parquet: Any = import_module("pyarrow.parquet")  # its stubs are half there


@pytest.fixture(scope="module")
def served() -> Generator[DaemonProcess]:
    """One daemon for all of them."""
    with private_place() as place, daemon_process(place) as found:
        yield found


@pytest.fixture
def run(served: DaemonProcess, mapctl: Mapctl) -> Run:
    """Mapctl, told where the daemon is."""
    return functools.partial(mapctl, "--address", str(served.place.socket))


def element(number: int) -> tuple[bytes, bytes]:
    return bytes((number, 0, 0, 0, 1, 187, 0, 0)), number.to_bytes(8, "little") + bytes(
        (number % 2, *bytes(7))
    )


_NUMBERS = itertools.count()

RECORDS = [
    {"key": {"saddr": n, "dport": 443}, "value": {"packets": n, "state": ("OPEN", "CLOSED")[n % 2]}}
    for n in range(3)
]


@pytest.fixture
async def three(served: DaemonProcess) -> AsyncGenerator[tuple[str, Map[Any, Any]]]:
    """A map of three elements, and its name."""
    name = f"three-{next(_NUMBERS)}"
    async with flows(served, name) as made:
        for number in range(3):
            await made.update(*element(number))
        yield name, made


def ordered(records: list[Any]) -> list[Any]:
    return sorted(records, key=lambda record: record["key"]["saddr"])


Three = tuple[str, Map[Any, Any]]


async def test_formats_of_text_have_the_same_records(run: Run, three: Three) -> None:
    name, _ = three
    assert ordered(json.loads(await printed(run, "dump", name, "-o", "json"))) == RECORDS
    lines = (await printed(run, "dump", name, "-o", "ndjson")).splitlines()
    assert ordered([json.loads(line) for line in lines]) == RECORDS
    rows = list(csv.reader(io.StringIO(await printed(run, "dump", name, "-o", "csv"))))
    assert rows[0] == ["key.saddr", "key.dport", "value.packets", "value.state"]
    assert sorted(rows[1:]) == [
        ["0", "443", "0", "OPEN"],
        ["1", "443", "1", "CLOSED"],
        ["2", "443", "2", "OPEN"],
    ]


@pytest.mark.parametrize("output", ["arrow", "parquet"])
async def test_tables_of_bytes_go_through_a_pipe(served: DaemonProcess, three: Three, output: str) -> None:
    name, _ = three
    at = ("--address", str(served.place.socket))
    async with running(*at, "dump", name, "-o", output) as process:
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    table = ipc.open_stream(out).read_all() if output == "arrow" else parquet.read_table(io.BytesIO(out))
    assert ordered(table.to_pylist()) == RECORDS


async def test_of_keys_alone_no_values_are_shown(run: Run, three: Three) -> None:
    name, _ = three
    lines = (await printed(run, "dump", name, "--keys-only", "-o", "ndjson")).splitlines()
    assert ordered([json.loads(line) for line in lines]) == [{"key": one["key"]} for one in RECORDS]


async def test_a_dump_is_of_what_was_asked_for(run: Run, three: Three) -> None:
    name, _ = three
    assert len((await printed(run, "dump", name, "--limit", "2")).splitlines()) == 2
    found = json.loads(await printed(run, "dump", name, "--prefix", "02", "-o", "json"))
    assert found == [RECORDS[2]]
    found = json.loads(await printed(run, "dump", name, "--nonzero", "-o", "json"))
    assert ordered(found) == RECORDS[1:]


async def test_one_element_is_the_object_by_its_fields(run: Run, three: Three) -> None:
    name, made = three
    assert json.loads(await printed(run, "get", name, "saddr=1,dport=443", "-o", "json")) == RECORDS[1]
    await printed(run, "update", name, "saddr=1,dport=443", "packets=9,state=OPEN")
    assert await made[element(1)[0]] == (9).to_bytes(8, "little") + bytes(8)
    form = json.loads(await printed(run, "lookup", name, "saddr=1,dport=443", "--bpftool-json"))
    assert form["formatted"]["value"] == {"packets": 9, "state": "OPEN"}
    missing = await run("lookup", name, "saddr=7,dport=443", "-o", "csv")
    assert (missing.code, missing.out) == (outcomes.NOT_FOUND, "")


async def test_the_cpus_values_are_summed_or_stand_beside_each_other(served: DaemonProcess, run: Run) -> None:
    async with flows(served, "summed", "percpu_hash") as made:
        cpus = range(made.info.slots())
        await made.update(element(1)[0], [element(cpu + 1)[1] for cpu in cpus])

        done = await run("dump", "summed", "--per-cpu", "sum", "-o", "json")
        beside = json.loads(await printed(run, "dump", "summed", "--per-cpu", "columns", "-o", "json"))
        csv_of = await printed(
            run, "lookup", "summed", "saddr=1,dport=443", "--per-cpu", "columns", "-o", "csv"
        )
        table = await run("dump", "summed", "--per-cpu", "sum")

    assert json.loads(done.out)[0]["value"] == {"packets": sum(cpu + 1 for cpu in cpus)}
    assert [beside[0]["value"][f"cpu{cpu}"]["packets"] for cpu in cpus] == [cpu + 1 for cpu in cpus]
    assert csv_of.splitlines()[0].startswith(
        '"key.saddr","key.dport","value.cpu0.packets","value.cpu0.state"'
    )
    assert table.err == "mapctl: not summed, for they are no integers: value.state\n"


async def test_elements_are_counted(run: Run, three: Three) -> None:
    name, made = three
    count = await made.count()
    assert (await run("count", name)).out == "3\n"
    assert json.loads(await printed(run, "count", name, "-o", "json")) == {
        "entries": 3,
        "exact": count.exact,
        "method": count.method,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dump", "-o", "xml"), "xml"),
        (("dump", "--keys-only", "--bpftool-json"), "without --keys-only and --per-cpu"),
        (("lookup", "saddr=1"), "key.dport: it is missing"),
        (("lookup", "saddr=1,dport=2,saddr=3"), "saddr is given twice"),
        (("lookup", "saddr=1,dprt=2"), "did you mean 'dport'?"),
    ],
)
async def test_what_cannot_be_printed_is_told(
    run: Run, three: Three, arguments: tuple[str, ...], words: str
) -> None:
    verb, *rest = arguments
    done = await run(verb, three[0], *rest)
    assert (done.code, done.out) == (outcomes.USAGE, "")
    assert words in done.err
