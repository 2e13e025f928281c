"""Real daemons, real sockets, the real kernel: marked so, and skipped (in CI: failed) without one."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from mapd.daemon import Ready, running
from tests.support.bpffs import require_bpf
from tests.support.counts import map_fds, thread_names
from tests.support.daemon import DaemonProcess, Place, daemon_process, private_place

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(autouse=True)
def needs_bpf() -> Generator[None]:
    """A kernel to test on; afterwards no map and no thread of a daemon's pool is left in this process."""
    require_bpf()
    held = map_fds()
    yield
    gc.collect()
    assert map_fds() == held, "file descriptors of maps left open"
    pool = [name for name in thread_names() if name.startswith("mapd-")]
    assert not pool, f"threads of a syscall pool left: {pool}"


@pytest.fixture
def place(needs_bpf: None) -> Generator[Place]:
    """Folders and a bpffs of the test's own."""
    del needs_bpf
    with private_place() as found:
        yield found


@pytest.fixture
async def local(place: Place) -> AsyncGenerator[Ready]:
    """A daemon in the test's own loop and process, where its tasks and descriptors can be counted."""
    async with running(place.config()) as ready:
        yield ready


@pytest.fixture
def daemon(place: Place) -> Generator[DaemonProcess]:
    """A daemon in a process of its own."""
    with daemon_process(place) as found:
        yield found
