"""Without rights: a daemon with maps in memory where it is asked for, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

import mapd_client
from mapd_client import U32, U64, Id, MapNotFound, Unsupported, testing
from tests.repo.sources import ROOT, SRC
from tests.support.counts import kernel_maps
from tests.support.daemon import NOBODY, environment


@pytest.fixture(scope="module")
def readable() -> Generator[Path]:
    """A copy of sources and scripts that every uid can read."""
    with tempfile.TemporaryDirectory(prefix="mapd-readable-") as folder:
        copy = Path(folder)
        copy.chmod(0o755)
        for tree, name in ((SRC, "src"), (ROOT / "scripts", "scripts")):
            shutil.copytree(tree, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        yield copy


def as_nobody(readable: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Python as uid 65534, with no capability."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**environment(), "PYTHONPATH": str(readable / "src"), "HOME": "/nonexistent"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_demo_without_rights_runs_in_memory_and_says_why(readable: Path) -> None:
    done = as_nobody(readable, readable / "scripts" / "demo.py")
    assert done.returncode == 0, done.stdout + done.stderr
    first, why = done.stdout.splitlines()[:2]
    assert "IN MEMORY: no map of the kernel is made here" in first
    assert f"bpf(2) is refused to uid {NOBODY}: EPERM" in why
    assert "memory: maps of this daemon alone" in done.stdout
    assert "Left behind: nothing" in done.stdout


def test_a_daemon_without_rights_does_not_fall_back(readable: Path) -> None:
    """Who asks for kernel maps and gets others would look for them in vain."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        done = as_nobody(readable, "-m", "mapd", "serve", "--runtime-dir", folder)
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert "memory" not in done.stderr


async def test_maps_in_memory_are_in_no_kernel() -> None:
    async with (
        testing.daemon() as target,
        mapd_client.connect(target) as client,
        client.create_map("none-in-kernel", "hash", key=U32, value=U64, max_entries=4) as made,
    ):
        assert made.info.kernel_name == "none_in_kernel"
        assert made.info.kernel_name not in kernel_maps().values()


async def test_what_memory_does_not_have_is_unsupported() -> None:
    async with testing.daemon() as target, mapd_client.connect(target) as client:
        with pytest.raises(Unsupported, match="ringbuf"):
            await client.create_map(
                "ring", "ringbuf", key=mapd_client.Bytes(0), value=mapd_client.Bytes(0), max_entries=4_096
            )


async def test_a_map_in_memory_ends_with_its_last_name_and_handle() -> None:
    async with testing.daemon() as target, mapd_client.connect(target) as client:
        made = await client.create_map("brief", "array", key=U32, value=U64, max_entries=4)
        by_id = Id(made.info.id)
        await client.unpin_map("brief")
        async with client.open_map(by_id, key=U32, value=U64) as again:
            await again.update(1, 5)
        assert await made.lookup(1) == 5
        await made.aclose()
        with pytest.raises(MapNotFound):
            await client.open_map(by_id, key=U32, value=U64)
