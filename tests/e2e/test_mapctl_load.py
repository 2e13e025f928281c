"""``mapctl load`` through a real daemon: what was printed is written again, what is wrong is told with its place."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import signal
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mapd_client import U32, U64, Map, PerCpu, connect
from mapd_client.cli import outcomes
from tests.support.daemon import DaemonProcess, daemon_process, private_place
from tests.unit.mapd_client.test_cli import Mapctl, Result, mapctl, running

__all__ = ["mapctl"]

FORMATS = ("ndjson", "json", "csv", "parquet", "bpftool")
ROOM = 8


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


@asynccontextmanager
async def made(
    served: DaemonProcess, name: str, type: str = "hash", *, entries: int = ROOM, btf: bool = True
) -> AsyncGenerator[Map[Any, Any]]:
    value: Any = PerCpu(U64) if type == "percpu_hash" else U64
    async with (
        connect(str(served.place.socket)) as client,
        client.create_map(name, type, key=U32, value=value, max_entries=entries, btf=btf) as found,
    ):
        yield found


def _bpftool(*arguments: str) -> bytes:
    return subprocess.run(["bpftool", *arguments], check=True, capture_output=True).stdout


async def process(served: DaemonProcess, *arguments: str, stdin: bytes) -> Result:
    async with running(
        "--address", str(served.place.socket), *arguments, stdin=asyncio.subprocess.PIPE
    ) as one:
        out, err = await one.communicate(stdin)
    return Result(one.returncode or 0, out.decode(), err.decode())


@pytest.mark.parametrize(
    ("type", "format"),
    [("hash", each) for each in FORMATS] + [("percpu_hash", each) for each in ("csv", "arrow", "bpftool")],
)
async def test_what_dump_printed_is_written_again(
    served: DaemonProcess, run: Run, tmp_path: Path, type: str, format: str
) -> None:
    name = f"{type}-{format}"
    async with made(served, f"{name}-from", type) as source, made(served, f"{name}-to", type) as target:
        cpus = 0 if type == "hash" else source.info.slots()
        want = {at: [at * 1000 + cpu for cpu in range(cpus)] if cpus else at * 1000 for at in range(5)}
        await source.update_many(want)
        told = ("--bpftool-json",) if format == "bpftool" else ("-o", format)
        file = tmp_path / f"dumped.{format}"
        if format in ("arrow", "parquet"):
            async with running("--address", str(served.place.socket), "dump", f"{name}-from", *told) as one:
                file.write_bytes((await one.communicate())[0])
        else:
            file.write_text((await run("dump", f"{name}-from", *told)).out)

        done = await run(
            "load", f"{name}-to", str(file), *(["--format", format] if format == "bpftool" else [])
        )

        assert done == Result(0, "5 elements written\n", "")
        assert {key: value async for key, value in target.items()} == want


@pytest.mark.parametrize("types", [True, False], ids=["types", "none"])
async def test_what_bpftool_itself_prints_is_taken_with_types_and_without(
    served: DaemonProcess, run: Run, tmp_path: Path, types: bool
) -> None:
    async with made(served, f"bt-from-{types}".lower(), btf=types) as source:
        await source.update_many({1: 10, 0xDEADBEEF: 1 << 63})
        for more in (["-j"], []):
            printed = await asyncio.to_thread(_bpftool, *more, "map", "dump", "id", str(source.info.id))
            if not more and not types:
                continue  # then bpftool prints no JSON
            name = f"bt-to-{types}-{len(more)}".lower()
            async with made(served, name, btf=types) as target:
                (tmp_path / "printed").write_bytes(printed)
                assert await run("load", name, str(tmp_path / "printed")) == Result(
                    0, "2 elements written\n", ""
                )
                assert await target.lookup_many([1, 0xDEADBEEF]) == [10, 1 << 63]


async def test_records_without_types_are_hex_digits_or_numbers(
    served: DaemonProcess, run: Run, tmp_path: Path
) -> None:
    async with made(served, "untyped", btf=False) as target:
        file = tmp_path / "x.ndjson"
        file.write_text('{"key": "07000000", "value": "0900000000000000"}\n\n{"key": 8, "value": "u64:3"}\n')
        assert (await run("load", "untyped", str(file))).out == "2 elements written\n"
        assert await target.lookup_many([7, 8]) == [9, 3]


WRONG = {
    "no JSON": ("nonsense", "no JSON"),
    "cut off": ('{"key": 3, "va', "no JSON"),
    "two records on a line": ('{"key": 3, "value": 1}, {"key": 4, "value": 1}', "no JSON"),
    "no element": ('[{"key": 3}]', "an element is written"),
    "no value": ('{"key": 3}', "--value u32=1"),
    "not of the type": ('{"key": -3, "value": 1}', "-3 is outside U32"),
    "a fraction": ('{"key": 3, "value": 1.5}', "takes an int, not float"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_stands_before_a_wrong_line_is_written_and_counted(
    served: DaemonProcess, run: Run, tmp_path: Path, what: str
) -> None:
    line, why = WRONG[what]
    async with made(served, f"wrong-{list(WRONG).index(what)}") as target:
        name = target.info.name
        file = tmp_path / "x.ndjson"
        file.write_text(
            '{"key": 1, "value": 1}\n\n{"key": 2, "value": 2}\n' + line + '\n{"key": 5, "value": 5}\n'
        )
        dry: tuple[tuple[str, ...], str, int] = (("--dry-run",), "2 elements before it can be read", 0)
        for more, told, there in (
            *([dry] if what == "no JSON" else []),
            ((), "2 elements were written before it", 2),
        ):
            done = await run("load", name, str(file), *more)
            assert (done.code, done.out) == (outcomes.USAGE, "")
            assert f"{file}: line 4: " in done.err
            assert why in done.err
            assert told in done.err
            assert (await target.count()).entries == there


async def test_of_many_blocks_all_before_the_wrong_element_are_written(
    served: DaemonProcess, run: Run, tmp_path: Path
) -> None:
    count = 150_000  # a block has 65,536
    async with made(served, "blocks", entries=2 * count) as target:
        elements = [f'{{"key": {at}, "value": {at}}}' for at in range(count)]
        (tmp_path / "x.json").write_text("[" + ",\n".join([*elements, '{"key": 1}', elements[0]]) + "]\n")
        done = await run("load", "blocks", str(tmp_path / "x.json"))
        assert (done.code, done.out) == (outcomes.USAGE, "")
        assert f"element {count + 1}: " in done.err
        assert f"{count} elements were written before it" in done.err
        assert (await target.count()).entries == count


async def test_elements_that_are_refused_do_not_stop_the_rest(
    served: DaemonProcess, run: Run, tmp_path: Path
) -> None:
    async with made(served, "refused") as target:
        await target.update(1, 7)
        file = tmp_path / "x.ndjson"
        file.write_text("".join(f'{{"key": {at}, "value": 0}}\n' for at in range(ROOM)))

        done = await run("load", "refused", str(file), "--flags", "noexist")
        assert (done.code, done.out) == (outcomes.CONFLICT, f"{ROOM - 1} elements written\n")
        assert done.err.startswith(f"mapctl: {file}: line 2: the key exists")
        assert f"1 of {ROOM} elements were refused, {ROOM - 1} were written" in done.err
        assert await target[1] == 7

        file.write_text("".join(f'{{"key": {at}, "value": 0}}\n' for at in range(100, 100 + 20)))
        done = await run("load", "refused", str(file), "-o", "json")
        assert done.code == outcomes.FAILURE
        found = json.loads(done.out)
        assert (found["written"], found["refused"], len(found["refusals"])) == (0, 20, 16)
        assert found["refusals"][0]["line"] == 1
        assert "max_entries=8" in found["refusals"][0]["message"]
        assert json.loads(done.err)["error"]["reason"] == "MAP_FULL"


async def test_a_dry_run_reads_all_and_writes_nothing(
    served: DaemonProcess, run: Run, tmp_path: Path
) -> None:
    async with made(served, "dry") as target:
        (tmp_path / "x.csv").write_text("key,value\n1,10\n2,20\n")
        done = await run("load", "dry", str(tmp_path / "x.csv"), "--dry-run")
        assert done == Result(0, "2 elements would be written\n", "")
        assert (await target.count()).entries == 0


async def test_stdin_is_read_as_it_comes_and_in_every_form(served: DaemonProcess) -> None:
    async with made(served, "piped") as target:
        done = await process(served, "load", "piped", stdin=b'{"key": 1, "value": 2}\n{"key": 2, "value": 3}')
        assert done == Result(0, "2 elements written\n", "")
        done = await process(
            served, "load", "piped", "-", "--format", "list", "--value", "9", stdin=b"4\n5 # last\n"
        )
        assert done == Result(0, "2 elements written\n", "")
        assert await target.lookup_many([1, 2, 4, 5]) == [2, 3, 9, 9]


async def test_an_option_that_is_none_is_not_taken_for_the_file(run: Run) -> None:
    done = await run("load", "any", "--dryrun")
    assert (done.code, "no such option: --dryrun" in done.err) == (outcomes.USAGE, True)


async def test_a_file_that_is_not_there_or_of_no_known_form_is_a_misuse(
    served: DaemonProcess, run: Run, tmp_path: Path
) -> None:
    async with made(served, "none"):
        done = await run("load", "none", str(tmp_path / "none"))
        assert (done.code, "No such file" in done.err) == (outcomes.USAGE, True)
        (tmp_path / "x").write_bytes(b"\x7fELF")
        done = await run("load", "none", str(tmp_path / "x"))
        assert (done.code, "--format" in done.err) == (outcomes.USAGE, True)
        (tmp_path / "x.json").write_text('[{"key": 1, "value": 2}')
        done = await run("load", "none", str(tmp_path / "x.json"))
        assert (done.code, "the file was cut off; 1 elements were written" in done.err) == (
            outcomes.USAGE,
            True,
        )


@pytest.mark.parametrize(
    "value", ['["0x01"]', '["0x01", "0x02", "0x03", "0x04", "0x05", "0x06", "0x07", 8]', "7"]
)
async def test_bytes_of_bpftools_that_are_none_are_told_by_their_element(
    served: DaemonProcess, run: Run, tmp_path: Path, value: str
) -> None:
    async with made(served, f"bytes-{len(value)}") as target:
        key = '["0x01", "0x00", "0x00", "0x00"]'
        good = f'{{"key": {key}, "value": {json.dumps(["0x02"] * 8)}}}'
        (tmp_path / "x.json").write_text(f'[{good}, {{"key": {key}, "value": {value}}}]')
        done = await run("load", target.info.name, str(tmp_path / "x.json"))
        assert (done.code, "element 2: value: 8 bytes are due" in done.err) == (outcomes.USAGE, True)
        assert await target[1] == 0x0202020202020202


async def test_interrupted_it_says_how_many_were_written(served: DaemonProcess) -> None:
    async with (
        made(served, "endless") as target,
        running(
            "--address", str(served.place.socket), "load", "endless", stdin=asyncio.subprocess.PIPE
        ) as one,
    ):
        assert one.stdin is not None
        one.stdin.write(b'{"key": 1, "value": 5}\n')
        while await target.lookup(1) is None:
            assert one.returncode is None
        one.send_signal(signal.SIGINT)
        out, err = await one.communicate()
        assert (one.returncode, out) == (outcomes.INTERRUPTED, b"")
        # Of the element that was seen in the map the answer may still be on its way.
        said = rb"mapctl: interrupted; [01] elements were written for certain, and some more may be\n"
        assert re.fullmatch(said, err)
