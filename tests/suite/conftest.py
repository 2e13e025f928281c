"""One suite of behaviour for all backends: what a map does must not depend on how it is reached."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.suite.backend import AnyMap, Backend, Shape
from tests.suite.kernel_backend import kernel_backend, opener_backend
from tests.suite.memory_backend import memory_backend
from tests.suite.remote_backend import remote_backend
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import open_fds
from tests.support.daemon import Place

HERE = Path(__file__).parent

REAL: Final = {"kernel": kernel_backend, "opener": opener_backend, "remote": remote_backend}
"""Those whose maps BPF programs can use."""

# Memory must behave as these do, or it proves nothing.
BACKENDS: Final = {"memory": memory_backend, **REAL}

Make = Callable[..., Awaitable[AnyMap]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def suite_bpffs() -> Generator[Path]:
    require_bpf()
    with mounted_bpffs() as folder:
        yield folder


def map_fds() -> int:
    """How many of this process' file descriptors are maps, of the kernel or in memory."""
    return sum(
        number for target, number in open_fds().items() if "bpf-map" in target or "mapd-memory" in target
    )


@pytest.fixture
def suite_place(suite_bpffs: Path) -> Generator[Place]:
    """Folders of the test's own; no map of it stays open in this process."""
    held = map_fds()
    with (
        tempfile.TemporaryDirectory(prefix="mapd-suite-") as folder,
        tempfile.TemporaryDirectory(prefix="suite-", dir=suite_bpffs) as pins,
    ):
        yield Place(Path(folder), Path(pins))
    if map_fds() != held:
        gc.collect()
    assert map_fds() == held, "file descriptors of maps left open"


@pytest.fixture(params=BACKENDS)
async def backend(request: pytest.FixtureRequest, suite_place: Place) -> AsyncGenerator[Backend]:
    """Each backend in turn."""
    async with BACKENDS[request.param](suite_place) as found:
        yield found


@pytest.fixture
def make(backend: Backend) -> Make:
    """Makes a map of a shape, called "flows" if nothing else is said."""

    async def made(shape: Shape, name: str = "flows", **other: Any) -> AnyMap:
        arguments: dict[str, Any] = {
            "key_size": shape.key_size,
            "value_size": shape.value_size,
            "max_entries": shape.max_entries,
            "flags": int(shape.flags),
            **other,
        }
        return await backend.create(name, shape.type, **arguments)

    return made
