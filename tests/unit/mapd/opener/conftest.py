"""How many lies the opener is told: 50,000, or as many as the command line says."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def lies(config: pytest.Config) -> int:
    """Of --fuzz."""
    count: object = config.getoption("fuzz")
    assert isinstance(count, int)
    return count


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A fuzz of many takes its time."""
    for item in items:
        if item.path == HERE / "test_fuzz.py":
            item.add_marker(pytest.mark.timeout(120 + lies(config) // 500))


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> int:
    """Packets to send."""
    return lies(request.config)
