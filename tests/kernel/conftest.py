"""Everything here runs on the real kernel: marked so, and skipped (in CI: failed) without one."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.kernel.maps import Maps
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import nothing_left_behind

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(autouse=True)
def needs_bpf() -> Generator[None]:
    """A kernel to test on, and nothing left open on it."""
    require_bpf()
    with nothing_left_behind():
        yield


@pytest.fixture(scope="session")
def session_bpffs() -> Generator[Path]:
    require_bpf()
    with mounted_bpffs() as folder:
        yield folder


@pytest.fixture
def bpffs(session_bpffs: Path) -> Generator[Path]:
    """A folder of a private bpffs, empty; its pins are removed with it."""
    folder = session_bpffs / "test"
    folder.mkdir(mode=0o700)
    yield folder
    empty(folder)
    folder.rmdir()


@pytest.fixture
def maps(needs_bpf: None) -> Generator[Maps]:
    """Makes maps, and closes them at the end."""
    del needs_bpf
    with Maps() as found:
        yield found


def empty(folder: Path) -> None:
    """Remove all in ``folder``, following no link."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            empty(entry)
            entry.rmdir()
        else:
            entry.unlink()


@pytest.fixture
def one_cpu() -> Generator[None]:
    """This thread on one CPU: what an LRU map evicts depends on where it is written."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield
    os.sched_setaffinity(0, usable)
