"""Logs: a line an event, and never a user's keys and values, whatever fails."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from mapd import logs


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def fault(value: bytes) -> None:
    local = value
    raise RuntimeError(f"with {len(local)} bytes")


@pytest.mark.parametrize("style", ["json", "console"])
def test_a_fault_is_logged_with_its_place_and_without_local_values(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(style, "info")
    try:
        fault(b"a secret value")
    except RuntimeError as error:
        structlog.get_logger().error("fault", exc_info=error)
    said = capsys.readouterr().err
    assert "with 14 bytes" in said
    assert "test_logs.py" in said
    assert "secret" not in said.replace('fault(b"a secret value")', "")  # the source line is ours


def test_json_is_a_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    structlog.get_logger().info("ready", socket="/run/mapd/admin/mapd.sock")
    structlog.get_logger().debug("refused")
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"]) == ("ready", "info")
    assert event["timestamp"].endswith("Z")


def test_without_a_terminal_auto_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("auto", "debug")
    structlog.get_logger().debug("refused")
    assert json.loads(capsys.readouterr().err)["event"] == "refused"
