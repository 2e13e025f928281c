"""mapctl as a process, against a server of the tests' own.

Where nothing is tried that only the start of a process shows, it is forked from one that has imported it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from mapd_client import Misuse, SizeMismatch, errors, replies
from mapd_client.cli import literals, outcomes
from mapd_client.info import ByteOrder
from tests.repo.sources import ROOT
from tests.unit.mapd_client.daemon import Daemon, map_info

_MAIN = "from mapd_client.cli import main; main()"
_NO_EXTRA = (
    "import importlib.util as u, sys; f = u.find_spec\n"
    "u.find_spec = lambda name, *a: None if name == 'rich' else f(name, *a)\n"
)


@dataclass(frozen=True)
class Result:
    """What a process left behind."""

    code: int
    out: str
    err: str


@asynccontextmanager
async def running(
    *arguments: str,
    program: str = _MAIN,
    stdin: int | None = None,
    stdout: int = asyncio.subprocess.PIPE,
) -> AsyncGenerator[asyncio.subprocess.Process]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("MAPD_ADDRESS", None)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Mapctl:
    """Runs mapctl, one after the other; from a process of this module's."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process = process
        self._out, self._err = folder / "out", folder / "err"

    async def __call__(self, *arguments: str, **environ: str) -> Result:
        self._out.write_bytes(b"")
        self._err.write_bytes(b"")
        asked = {"arguments": arguments, "environ": environ, "out": str(self._out), "err": str(self._err)}
        code = await asyncio.to_thread(self._ask, json.dumps(asked).encode() + b"\n")
        return Result(code, self._out.read_text(), self._err.read_text())

    def _ask(self, line: bytes) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@pytest.fixture(scope="module")
def mapctl(tmp_path_factory: pytest.TempPathFactory) -> Generator[Mapctl]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("MAPD_ADDRESS", None)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.unit.mapd_client.mapctl_forks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        cwd=ROOT,
    ) as process:
        yield Mapctl(process, tmp_path_factory.mktemp("mapctl"))


async def test_write_read_delete_with_exit_codes(daemon: Daemon, mapctl: Mapctl) -> None:
    daemon.add(map_info("ns/flows"))
    at = ("--address", daemon.target)
    assert await mapctl(*at, "update", "flows", "u32:7", "u64:9", "noexist") == Result(0, "", "")
    assert await mapctl(*at, "lookup", "flows", "7") == Result(0, "07000000 (7)  0900000000000000 (9)\n", "")
    again = await mapctl(*at, "update", "flows", "7", "9", "noexist")
    assert (again.code, again.out, len(again.err.splitlines())) == (outcomes.CONFLICT, "", 2)
    assert (await mapctl(*at, "delete", "flows", "hex:07000000")).code == 0
    assert (await mapctl(*at, "delete", "flows", "0x07000000")).code == outcomes.NOT_FOUND
    assert (await mapctl(*at, "lookup", "flows", "7")).code == outcomes.NOT_FOUND
    assert (await mapctl(*at, "lookup", "nothing", "7")).code == outcomes.NOT_FOUND


async def test_records_are_one_json_object_a_line(daemon: Daemon, mapctl: Mapctl) -> None:
    daemon.add(map_info("ns/hits", MapType.PERCPU_HASH, value_size=4))
    at = ("--address", daemon.target, "-o", "ndjson")
    assert (await mapctl("update", "hits", "1", "u32:5", *at[:2])).code == 0
    for verb in (("dump", "hits"), ("lookup", "hits", "1")):
        found = await mapctl(*verb, *at)
        assert json.loads(found.out) == {"key": "01000000", "value": ["05000000"] * 3}
    shown = await mapctl("show", "hits", *at)
    listed = await mapctl("list", *at)
    assert json.loads(shown.out) == json.loads(listed.out)
    assert json.loads(shown.out)["type"] == "percpu_hash"


async def test_tables_are_for_people(daemon: Daemon, mapctl: Mapctl) -> None:
    found = daemon.add(map_info("ns/flows"))
    found.data = {bytes([n, 0, 0, 0]): bytes(8) for n in range(3)}
    listed = await mapctl("list", "--address", daemon.target)
    assert [line.split()[:3] for line in listed.out.splitlines()] == [
        ["ID", "NAME", "TYPE"],
        ["41", "ns/flows", "hash"],
    ]
    assert listed.err == "mapctl: 1 place not looked at: see --verbose\n"
    assert (await mapctl("list", "-v", "--address", daemon.target)).err == "not looked at: page 0\n"
    assert not (await mapctl("list", "-q", "--address", daemon.target)).err
    dumped = await mapctl("dump", "flows", "--address", daemon.target, "--limit", "2")
    assert dumped.out == "00000000 (0)  0000000000000000 (0)\n01000000 (1)  0000000000000000 (0)\n"


async def test_an_incomplete_dump_fails_after_its_last_line(daemon: Daemon, mapctl: Mapctl) -> None:
    daemon.dump_complete = False
    found = daemon.add(map_info("ns/flows"))
    found.data = {bytes(4): bytes(8)}
    at = ("dump", "flows", "--address", daemon.target)
    failed = await mapctl(*at)
    assert (failed.code, len(failed.out.splitlines())) == (outcomes.FAILURE, 1)
    assert "it was cut" in failed.err
    accepted = await mapctl(*at, "--partial-ok")
    assert (accepted.code, accepted.err) == (0, "incomplete: it was cut\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("lookup", "flows"),
        ("lookup", "flows", "7", "-o", "xml"),
        ("lookup", "UP", "7"),
        ("show", "pin:/x/\udcff"),
        ("list", "\udcff"),
        ("dump", "flows", "--limit", "9e22"),
        ("dump", "flows", "--limit", "90000000000000000000000"),
        ("list", "--timeout", "nan"),
        ("list", "--timeout", "inf"),
        ("lookup", "flows", "9" * 5000),
        ("lookup", "flows", "json:" + "[" * 5000),
        ("lookup", "flows", "json:" + '{"a":' * 5000),
    ],
    ids=lambda arguments: " ".join(arguments)[:30].encode(errors="replace").decode(),
)
async def test_usage_errors(daemon: Daemon, mapctl: Mapctl, arguments: tuple[str, ...]) -> None:
    daemon.add(map_info("ns/flows"))
    found = await mapctl("--address", daemon.target, *arguments)
    assert (found.code, found.out) == (outcomes.USAGE, "")
    assert found.err
    assert "Traceback" not in found.err


async def test_without_a_daemon(mapctl: Mapctl) -> None:
    found = await mapctl("--address", "/nowhere/mapd.sock", "list")
    assert (found.code, found.out) == (outcomes.UNAVAILABLE, "")
    assert "/nowhere/mapd.sock" in found.err.splitlines()[0]
    assert len(found.err.splitlines()) == 2


async def test_a_reader_that_goes_away_is_no_news(daemon: Daemon) -> None:
    found = daemon.add(map_info("ns/flows"))
    found.data = {n.to_bytes(4, "little"): bytes(8) for n in range(200_000)}
    daemon.chunk_elements = 10_000
    async with running("dump", "flows", "--address", daemon.target) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"00000000 (0)  0000000000000000 (0)\n"
        process.stdout._transport.close()  # type: ignore[attr-defined]  # asyncio has no other way to close a pipe
        assert await process.stderr.read() == b""
        assert await process.wait() == outcomes.BROKEN_PIPE


@pytest.mark.parametrize("arguments", [("list",), ("dump", "flows"), ("--help",), ("lookup", "--help")])
async def test_a_full_disk_is_one_line(daemon: Daemon, arguments: tuple[str, ...]) -> None:
    found = daemon.add(map_info("ns/flows"))
    found.data = {bytes(4): bytes(8)}
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with running("--address", daemon.target, *arguments, stdout=full) as process:
            _, err = await process.communicate()
    finally:
        os.close(full)
    lines = [line for line in err.decode().splitlines() if "not looked at" not in line]
    assert (process.returncode, lines) == (
        outcomes.FAILURE,
        ["mapctl: cannot write: No space left on device"],
    )


@pytest.mark.parametrize("arguments", [("list",), ("show", "flows"), ("--help",)])
async def test_tables_and_help_go_quietly_with_their_reader(
    daemon: Daemon, arguments: tuple[str, ...]
) -> None:
    daemon.add(map_info("ns/flows"))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        async with running("--address", daemon.target, *arguments, stdout=writer) as process:
            _, err = await process.communicate()
    finally:
        os.close(writer)
    assert process.returncode == outcomes.BROKEN_PIPE
    assert err.decode() in ("", "mapctl: 1 place not looked at: see --verbose\n")


async def test_interrupted(daemon: Daemon) -> None:
    daemon.add(map_info("ns/flows"))
    arrived = asyncio.Event()

    async def hang(request: object, context: object) -> None:
        del request, context
        arrived.set()
        await asyncio.Event().wait()

    daemon.hooks["Apply"] = hang
    async with running("lookup", "flows", "7", "--address", daemon.target) as process:
        await arrived.wait()
        process.send_signal(2)
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (outcomes.INTERRUPTED, b"", b"")


async def test_without_the_extra_the_line_to_install_it() -> None:
    async with running("list", program=_NO_EXTRA + _MAIN) as process:
        out, err = await process.communicate()
        found = Result(process.returncode or 0, out.decode(), err.decode())
    hint = "pip install 'bpf-mapd[cli]' (or, in a checkout, pip install '.[cli]')"
    assert found == Result(2, "", f"mapctl needs rich\n{hint}\n")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (errors.IndexOutOfRange("x", reason=Reason.INDEX_OUT_OF_RANGE), "max_entries"),
        (errors.PermissionDenied("x", reason=Reason.POLICY), "mapctl can"),
        (errors.PermissionDenied("x"), r"\[principals\.NAME\] users"),
        (errors.Unavailable("x", reason=Reason.BUSY), "try again"),
        (errors.Unavailable("x"), "MAPD_ADDRESS"),
        (errors.Unsupported("x", reason=Reason.OPERATION_UNSUPPORTED, operation="delete"), "mapctl show"),
        (errors.Unsupported("x", operation="pin"), "different versions"),
        (errors.SizeMismatch("x", reason=Reason.KEY_SIZE_MISMATCH), "type and sizes"),
        (errors.DaemonCapability("x", metadata={"fix": "mend it so"}), "mend it so"),
        (errors.MapdError("x", reason=Reason.INTERNAL), "its log"),
    ],
)
def test_advice_goes_by_the_reason(error: errors.MapdError, advice: str) -> None:
    assert re.search(advice, outcomes.of_error(error)[1])


async def test_an_address_of_tcp_is_told_which_certificates_it_needs(mapctl: Mapctl) -> None:
    found = await mapctl("--address", "localhost:99", "list")
    assert found.code == outcomes.USAGE
    assert "set MAPD_TLS_CA, MAPD_TLS_CERT, MAPD_TLS_KEY" in found.err


@pytest.mark.parametrize(("text", "network"), [("10.0.0.1", "10.0.0.1/32"), ("::1", "::1/128")])
def test_an_address_is_no_key_of_a_trie(text: str, network: str) -> None:
    info = replies.map_info(map_info("ns/routes", MapType.LPM_TRIE, 8 if "." in text else 20, 4))
    with pytest.raises(Misuse, match=f"write {network}$"):
        literals.parse_key(text, info, "little")
    assert len(literals.parse_key(network, info, "little")) == info.key_size


_WITH_ADVICE = (errors.SizeMismatch, errors.Unsupported)
"""Of those that a caller's mistake is told by: what to look at is not in the message."""


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_code_and_one_line_of_advice_where_its_message_is_not_one(name: str) -> None:
    kind: type[errors.MapdError] = getattr(errors, name)
    code, advice = outcomes.of_error(kind("x"))
    assert code in range(1, 7)
    says_all = issubclass(kind, (errors.Misuse, errors.MapFull)) and not issubclass(kind, _WITH_ADVICE)
    assert len(advice.splitlines()) == (0 if says_all else 1)


@pytest.mark.parametrize(
    ("text", "size", "byteorder", "data"),
    [
        ("hex:0a00", 2, "little", b"\x0a\0"),
        ("0x0A00", 2, "little", b"\x0a\0"),
        ("u32:7", 4, "little", b"\7\0\0\0"),
        ("u32:7", 4, "big", b"\0\0\0\7"),
        ("i16:-2", 2, "little", b"\xfe\xff"),
        ("u16:0x0102", 2, "little", b"\2\1"),
        ("7", 8, "big", bytes(7) + b"\7"),
        ("-1", 1, "little", b"\xff"),
        ("10.0.0.1", 4, "little", b"\x0a\0\0\1"),
        ("10.0.0.0/8", 8, "little", b"\x08\0\0\0\x0a\0\0\0"),
        ("2001:db8::/32", 20, "big", b"\0\0\0\x20" + ip_network("2001:db8::/32").network_address.packed),
        ("02:00:5e:10:00:01", 6, "little", bytes.fromhex("02005e100001")),
    ],
)
def test_literals(text: str, size: int, byteorder: ByteOrder, data: bytes) -> None:
    assert literals.parse(text, size, byteorder) == data


@pytest.mark.parametrize(
    ("text", "size", "error", "why"),
    [
        ("hex:0a0", 2, Misuse, "two hex digits"),
        ("hex:0a", 2, SizeMismatch, "1 byte, 2 are needed"),
        ("u32:x", 4, Misuse, "a number follows"),
        ("u8:256", 1, SizeMismatch, "0 to 255"),
        ("7", 3, Misuse, "no integer has 3 bytes"),
        ("10.0.0.1/8", 8, Misuse, "host bits"),
        ("cheese", 4, Misuse, "write hex:0a00"),
    ],
)
def test_what_is_no_literal(text: str, size: int, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        literals.parse(text, size, "little")
