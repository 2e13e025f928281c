"""sd_notify: one datagram with our state, on a real socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mapd.notify import notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    """A service manager's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        yield listening


def test_lines_arrive_as_one_datagram(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "n")
    manager.bind(path)
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    notify("READY=1", "STATUS=serving /run/mapd/admin/mapd.sock")
    assert manager.recv(1_024) == b"READY=1\nSTATUS=serving /run/mapd/admin/mapd.sock"


def test_an_at_sign_means_an_abstract_socket(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mapd-test-{os.getpid()}"
    manager.bind(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    notify("STOPPING=1")
    assert manager.recv(1_024) == b"STOPPING=1"


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_manager_nothing_is_sent(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    notify("READY=1")


def test_a_manager_that_is_gone_does_not_stop_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
