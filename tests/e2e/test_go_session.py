"""A client in Go that has the contract alone: examples/go, built from proto/ as it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import mapd_client
from mapd_client import U64
from tests.support.cutting import Cut, Twice, relaying
from tests.support.daemon import DaemonProcess

TREE = Path(__file__).parents[2]
BUILD = TREE / "examples" / "go" / "build.sh"
ENDS_S = 40.0

SAID = """\
opened admin/flows MAP_TYPE_HASH
key 1 REASON_UNSPECIFIED 10
key 2 REASON_UNSPECIFIED 20
key 3 REASON_UNSPECIFIED 30
key 4 REASON_KEY_ABSENT 0
"""

pytestmark = [
    pytest.mark.go,
    pytest.mark.timeout(600),
]  # compiling grpc takes a minute where nothing is cached


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled."""
    for tool in ("go", "protoc", "protoc-gen-go"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}: apt-get install the packages that {BUILD.relative_to(TREE)} names")
    folder = tmp_path_factory.mktemp("go")
    cache = Path(os.environ.get("MAPD_BENCH_BUILD", folder)) / "gocache"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GOCACHE": str(cache)}
    done = subprocess.run([BUILD, folder], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "session"


async def said_by(program: Path, socket: Path, name: str) -> tuple[int | None, str, str]:
    """Its status, what it printed and what it complained of."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(program, socket, name, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(ENDS_S):
            printed, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, printed.decode(), complained.decode()


async def make_flows(daemon: DaemonProcess) -> None:
    async with mapd_client.connect(str(daemon.place.socket)) as client:
        await client.create_map("flows", "hash", key=U64, value=U64, max_entries=8)


async def test_it_writes_and_reads_in_a_session(program: Path, daemon: DaemonProcess) -> None:
    await make_flows(daemon)
    assert await said_by(program, daemon.place.socket, "flows") == (0, SAID, "")


async def test_it_says_why_a_map_cannot_be_opened(program: Path, daemon: DaemonProcess) -> None:
    code, printed, complained = await said_by(program, daemon.place.socket, "nothing")
    assert (code, printed) == (1, "")
    assert "NotFound" in complained


@pytest.mark.parametrize(
    "cut",
    [
        Cut("client", 1, arrives=False),
        Cut("client", 1, arrives=True),
        Cut("daemon", 1, arrives=False),
        Cut("client", 2, arrives=False),
        Cut("client", 2, arrives=True),
        Cut("daemon", 2, arrives=False),
        Cut("daemon", 2, arrives=True),
        Cut("client", 3, arrives=False),
        Cut("client", 3, arrives=True),
        Cut("daemon", 3, arrives=False),
    ],
    ids=str,
)
async def test_it_goes_on_in_its_session_when_the_stream_is_cut_at(
    cut: Cut, program: Path, daemon: DaemonProcess
) -> None:
    """Messages of the client: open, the updates, the lookups. It ends with an error where it cannot resume."""
    await make_flows(daemon)
    path = daemon.place.root / "relay.sock"
    async with relaying(path, daemon.place.socket, cut) as relay:
        assert await said_by(program, path, "flows") == (0, SAID, "")
    assert relay.was_cut
    assert relay.connections == 2


async def test_an_answer_that_comes_again_is_not_taken_for_that_of_the_next_message(
    program: Path, daemon: DaemonProcess
) -> None:
    """As the contract allows after a resumption."""
    await make_flows(daemon)
    path = daemon.place.root / "relay.sock"
    async with relaying(path, daemon.place.socket, Twice(2)) as relay:
        assert await said_by(program, path, "flows") == (0, SAID, "")
    assert relay.connections == 1
