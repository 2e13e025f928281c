"""Figures of reliability: real daemons that are killed, stopped, starved and lied to.

``--reliability full`` makes each as large as its figure asks for; without, all of them are small enough for every run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import daemon, local, needs_bpf, place
from tests.reliability.figures import Canaries, Figures, Size

__all__ = ["canary", "daemon", "figure", "local", "needs_bpf", "place", "size"]

HERE = Path(__file__).parent

FULL_S = 900
"""Longest that one test may take in size full."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = config.getoption("--reliability") == "full"
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.e2e)
            if full:
                item.add_marker(pytest.mark.timeout(FULL_S))


@pytest.fixture
def size(request: pytest.FixtureRequest) -> Size:
    """How much this run does."""
    return Size(str(request.config.getoption("--reliability")))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figures:
    """Records what was measured beside its bar."""
    return Figures(request.node)


@pytest.fixture
def canary(request: pytest.FixtureRequest) -> Canaries:
    """Records that a planted fault was caught."""
    return Canaries(request.node)
