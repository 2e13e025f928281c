"""A bpffs of one's own, and the check that there is a kernel to try it on."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

from mapd.bpf import CreateMap, LinuxKernel
from mapd_api.uapi import MapType


@cache
def bpf_obstacle() -> str | None:
    """Why this process cannot create maps and mount a bpffs; None if it can."""
    if os.geteuid() != 0:
        return "not root: no bpffs can be mounted"
    array = CreateMap(map_type=MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    try:
        LinuxKernel().control(array).close()
    except OSError as error:
        return f"bpf(2) refused: {errno.errorcode.get(error.errno or 0, error.errno)}"
    return None


def require_bpf() -> None:
    """Skip the test that needs bpf(2), saying why; where CI=true a missing kernel is a failure."""
    obstacle = bpf_obstacle()
    if obstacle is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must be able to use bpf(2): {obstacle}")
    pytest.skip(obstacle)


@contextlib.contextmanager
def mounted_bpffs(folder: Path | None = None) -> Generator[Path]:
    """An empty folder of a fresh bpffs; both are gone afterwards with every pin in them.

    A folder, because some kernels put ``maps.debug`` and ``progs.debug`` beside it, which cannot be
    removed (EPERM).
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mapd-bpffs-")))
        subprocess.run(["mount", "-t", "bpf", "-o", "mode=0700", "mapd-test", folder], check=True)
        # Lazily: a test that failed may still hold a folder of it open.
        stack.callback(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
        root = folder / "mapd"
        root.mkdir(mode=0o700)
        yield root
