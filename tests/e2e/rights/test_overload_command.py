"""The measurement under overload runs, once and short, so that it cannot rot. No time of it is looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.overload_quotas import QUOTAS
from tests.support.daemon import environment

TREE = Path(__file__).parents[3]


@pytest.mark.parametrize("dimension", ["ops_per_second", "handles"])
def test_an_overload_run_grants_nothing_beyond_the_quota_and_counts_every_call(
    dimension: str, tmp_path: Path
) -> None:
    written = tmp_path / "out.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.overload", "--runs", "1", "--seconds", "1"),
            *("--json", str(written), dimension),
        ],
        env=environment(),
        cwd=TREE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(written.read_text())
    assert run["dimension"] == dimension
    assert run["asked"] >= 10 * QUOTAS[dimension]
    assert run["granted"] > 0
    assert (run["over"], run["failed"]) == (0, 0)
    assert run["victim_s"] > 0
    assert run["idle_s"] > 0
    assert done.stdout.count(f"| {dimension}") == 1
