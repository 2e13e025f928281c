"""Logs: a line an event, and never a user's keys and values, whatever fails."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from mapd import logs


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    handlers = list(logging.getLogger().handlers)
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers


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


def test_what_libraries_say_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries write to loggers of their own, and a traceback in plain text is no line of JSON."""
    logs.configure("json", "info")
    logs.configure("json", "info")  # again, and each line comes once nevertheless
    try:
        fault(b"a secret value")
    except RuntimeError:
        logging.getLogger("grpc._cython.cygrpc").exception("Invalid encoding on %s", b"\xff")
    logging.getLogger("asyncio").info("not worth a line")
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["event"], event["logger"]) == ("Invalid encoding on b'\\xff'", "grpc._cython.cygrpc")
    assert event["exception"][0]["exc_value"] == "with 14 bytes"


def test_a_library_that_does_not_stop_has_its_lines_and_is_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stranger can make gRPC speak with every header that he sends."""
    now = 0.0
    logs.configure("json", "info")
    handler = logs.Libraries(lambda: now)
    for name, count in (("grpc", 1_000), ("asyncio", 1)):
        for _ in range(count):
            handler.handle(logging.makeLogRecord({"name": name, "levelno": logging.ERROR, "msg": "no"}))
    now = logs.LIBRARY_S
    handler.handle(logging.makeLogRecord({"name": "grpc", "levelno": logging.ERROR, "msg": "still no"}))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["logger"] for line in lines] == ["grpc"] * logs.LIBRARY_LINES + ["asyncio", "grpc"]
    assert lines[-1]["missing"] == 1_000 - logs.LIBRARY_LINES
