from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.mapd_client.daemon import Daemon, serving


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mapd") as folder:
        yield Path(folder)


@pytest.fixture
async def daemon(short_folder: Path) -> AsyncIterator[Daemon]:
    async with serving(short_folder) as running:
        yield running
