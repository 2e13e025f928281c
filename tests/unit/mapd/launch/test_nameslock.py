"""The folder for names is one daemon's at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mapd.launch import LaunchError
from mapd.launch.nameslock import lock_names

LOCK_AND_DIE = """
import os, sys
from mapd.launch.nameslock import lock_names
lock_names(sys.argv[1])
os.kill(os.getpid(), 9)
"""


def test_who_comes_second_is_told_whose_the_names_are(tmp_path: Path) -> None:
    held = lock_names(str(tmp_path))
    with pytest.raises(
        LaunchError, match=rf"another mapd's \(pid {os.getpid()}\).*or set another \[daemon\] pin_root"
    ):
        lock_names(str(tmp_path), wait_s=0.01)
    os.close(held)
    os.close(lock_names(str(tmp_path), wait_s=0))


def test_a_start_waits_for_one_that_is_just_ending(tmp_path: Path) -> None:
    held = lock_names(str(tmp_path))
    ending = threading.Timer(0.05, os.close, (held,))
    ending.start()
    os.close(lock_names(str(tmp_path), wait_s=10))
    ending.join()


def test_the_lock_ends_with_its_process_and_leaves_no_file(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", LOCK_AND_DIE, tmp_path], check=False).returncode == -9
    os.close(lock_names(str(tmp_path), wait_s=0))
    assert list(tmp_path.iterdir()) == []


def test_no_child_holds_it(tmp_path: Path) -> None:
    held = lock_names(str(tmp_path))
    with subprocess.Popen(["sleep", "10"]) as child:
        os.close(held)
        os.close(lock_names(str(tmp_path), wait_s=0))
        child.kill()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="No such file or directory"):
        lock_names(str(tmp_path / "none"))
