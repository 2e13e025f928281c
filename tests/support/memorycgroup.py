"""A memory cgroup of a test's own, with a limit; gone afterwards."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path

import pytest

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def memory_cgroup(limit: int) -> Generator[Path]:
    """Its folder; whoever is in it at the end must have ended by then, or be about to."""
    if (V1 / "memory.limit_in_bytes").exists():
        root, file = V1, "memory.limit_in_bytes"
    elif "memory" in (V2 / "cgroup.subtree_control").read_text().split():
        root, file = V2, "memory.max"
    else:
        pytest.skip(
            "no memory cgroups: /sys/fs/cgroup/memory is not mounted, nor is there a controller in cgroup2"
        )
    folder = root / f"mapd-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        (folder / file).write_text(str(limit))
        yield folder
    finally:
        deadline = time.monotonic() + 10
        while True:
            try:
                folder.rmdir()
                break
            except OSError:  # EBUSY: a process that is ending is still in it
                if time.monotonic() > deadline:
                    raise
                os.sched_yield()


def kills(folder: Path) -> int:
    """How many processes the kernel has ended in it for memory."""
    for name in ("memory.oom_control", "memory.events"):
        if (folder / name).exists():
            lines = (folder / name).read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    raise AssertionError(f"{folder}: it does not tell what was killed")


def processes(folder: Path) -> list[int]:
    """Who is in it."""
    return [int(line) for line in (folder / "cgroup.procs").read_text().split()]
