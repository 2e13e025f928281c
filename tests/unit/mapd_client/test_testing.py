"""mapd_client.testing: a daemon for users' tests, that starts, stops, and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

import mapd_client
from mapd_client import U32, U64, Misuse, Unavailable, testing
from tests.repo.sources import ROOT, SRC

PAGE = ROOT / "docs" / "how-to" / "testing.md"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where daemons make their folders: a short path, for sockets; empty again afterwards."""
    del tmp_path  # pytest makes it where it always does, and not in here
    with tempfile.TemporaryDirectory(prefix="t-") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        yield Path(short)
        assert list(Path(short).iterdir()) == []


async def use(target: str) -> None:
    async with mapd_client.connect(target) as client:
        assert (await client.server_info()).backend == "memory"
        async with client.create_map("flows", "hash", key=U32, value=U64, max_entries=4) as flows:
            await flows.update(1, 2)
            assert await flows.lookup(1) == 2


def test_a_with_block_has_a_daemon() -> None:
    with testing.daemon() as target:
        asyncio.run(use(target))


async def test_an_async_with_block_has_a_daemon_and_the_next_one_another() -> None:
    daemon = testing.daemon()
    for _ in range(2):
        async with daemon as target:
            await use(target)  # "flows" is new each time


def test_a_daemon_is_started_once_at_a_time() -> None:
    daemon = testing.daemon()
    with daemon, pytest.raises(Misuse, match="running already"), daemon:
        pass


async def test_cancelling_a_start_leaves_no_daemon() -> None:
    daemon = testing.daemon()
    starting = asyncio.ensure_future(daemon.__aenter__())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


def test_one_that_is_too_slow_is_ended() -> None:
    with pytest.raises(Unavailable, match="did not start in 0 s"), testing.daemon(start_s=0):
        pass


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "structlog.py").write_text("raise ModuleNotFoundError('no structlog', name='structlog')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"pip install 'bpf-mapd\[daemon\]'"), testing.daemon():
        pass


def test_it_ends_with_the_process_that_started_it(temporary: Path) -> None:
    """A test run that is killed must not leave daemons."""
    code = (
        "import sys, time\nfrom mapd_client import testing\n"
        "with testing.daemon() as target:\n    print(target, flush=True)\n    sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC), "TMPDIR": str(temporary)}
    starter = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdin is not None
    assert starter.stdout is not None
    with starter.stdin, starter.stdout:
        socket = Path(starter.stdout.readline().strip().removeprefix("unix:"))
        folder = socket.parents[1]
        pidfd = os.pidfd_open(int((folder / "mapd.lock").read_text()))
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        assert select.select([pidfd], [], [], 10.0)[0] == [pidfd]
        os.close(pidfd)
    assert not socket.exists()
    for left in (folder / name for name in ("ready", "log", "mapd.toml", "policy.toml", "mapd.lock")):
        left.unlink()
    (folder / "admin").rmdir()
    (folder / ".staging").rmdir()
    folder.rmdir()


def test_the_module_of_the_how_to_is_a_test_that_passes(tmp_path: Path) -> None:
    """What people paste is run, to the letter."""
    (module,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "test_packets.py").write_text(module)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
