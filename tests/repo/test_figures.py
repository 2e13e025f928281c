"""tests/reliability/figures.py: what is measured stands beside its bar, from whichever process; a missed bar fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.figures import Line, table
from tests.repo.sources import ROOT

PLANTED = """
from tests.reliability.figures import Canaries, Figures, Size
import pytest

@pytest.fixture
def figure(request): return Figures(request.node)

@pytest.fixture
def canary(request): return Canaries(request.node)

def test_meets(figure, canary):
    figure("R2", "violations", 0, at_most=0, of=40_000)
    canary("R2", "a stale read", caught=3, of=3)

def test_is_slow(figure):
    figure("R1", "recovery p99", 1.25, at_most=1.0, unit="s")
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_planted.py"
    test.write_text(PLANTED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir"]
    return subprocess.run(
        [*command, str(folder), *arguments, str(test)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_the_table_has_every_figure_beside_its_bar_and_a_missed_one_fails(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    done = run(tmp_path, *processes)
    assert done.returncode == 1, done.stdout
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "R1 recovery p99 1.25 s <= 1 MISSED" in lines
    assert "R2 violations 0 of 40,000 <= 0" in lines
    assert "R2 canary: a stale read 3 of 3 = 3" in lines
    assert "1 failed, 1 passed" in done.stdout


def test_a_size_that_there_is_not_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "--reliability", "huge")
    assert done.returncode == 4
    assert "quick" in done.stderr


def test_lines_stand_by_number_and_in_columns() -> None:
    shown = table(
        [Line(id="R10", name="p99", value=0.5), Line(id="R2", name="violations", value=0, bar="<= 0")]
    )
    assert [row.split()[0] for row in shown] == ["figure", "R2", "R10"]
    assert len({row.index(word) for row, word in zip(shown[1:], ("violations", "p99"), strict=True)}) == 1
