"""The wall clock of one process, moved while it runs; nobody else's clock is touched."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("shift.c")


@dataclass(frozen=True, slots=True)
class WallClock:
    """Attributes: prefix: of a command that shall have this clock."""

    prefix: tuple[str, ...]
    _file: Path

    def move(self, seconds: int) -> None:
        """Set it so far ahead of the true time, or behind it."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=l", seconds))


def wall_clock(folder: Path) -> WallClock:
    """A clock that is right. Files are kept in ``folder``."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing: apt-get install gcc libc6-dev")
    library, file = folder / "shift.so", folder / "clock"
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, SOURCE], check=True
    )
    file.write_bytes(bytes(8))
    return WallClock(("env", f"LD_PRELOAD={library}", f"MAPD_TEST_CLOCK={file}"), file)
