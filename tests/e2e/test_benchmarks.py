"""The benchmarks run, once and small, so that they cannot rot. No figure of theirs is looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reach import GOALS
from tests.support.daemon import environment

TREE = Path(__file__).parents[2]
ENTRIES = 20_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a quick run prints, and its JSON."""
    folder = tmp_path_factory.mktemp("bench")
    build = os.environ.get("MAPD_BENCH_BUILD", str(folder / "build"))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--json", folder / "out.json", str(ENTRIES)],
        env=environment(MAPD_BENCH_BUILD=build),
        cwd=TREE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "out.json").read_text())


@pytest.mark.timeout(
    600
)  # it compiles a C program and two in Go, which takes a minute where nothing is cached
def test_a_quick_run_prints_every_goal_beside_its_target_and_writes_every_answer(
    run: tuple[str, dict[str, Any]],
) -> None:
    printed, written = run
    table = [line for line in printed.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table[1:]] == [goal.work for goal in GOALS]
    assert [row["goal"]["work"] for row in written["rows"]] == [goal.work for goal in GOALS]
    assert written["profile"] == "minimal"
    assert written["settings"]["entries"] == ENTRIES
    for race, by_name in written["results"].items():
        for name, answers in by_name.items():
            assert len(answers) == written["settings"]["rounds"], (race, name)
            assert all(answer["seconds"] > 0 and answer["count"] > 0 for answer in answers), (race, name)
    assert {grown["streams"] for grown in written["growths"].values()} == {1, 64}


def test_a_goal_that_was_not_measured_says_why_and_its_peer_is_counted(
    run: tuple[str, dict[str, Any]],
) -> None:
    printed, written = run
    left_out = written["left_out"]
    assert f"left out: {len(left_out)}" in printed.splitlines()
    for row in written["rows"]:
        measured = row["figure"] is not None
        assert measured == (row["verdict"] != "not measured"), row
        assert measured != bool(row["why"]), row
        assert measured or row["why"] == left_out[row["goal"]["peer"]], row
    if os.environ.get("CI") == "true":
        assert left_out == {}


def test_nothing_of_a_run_names_the_host_or_its_folders(run: tuple[str, dict[str, Any]]) -> None:
    text = run[0] + json.dumps(run[1])
    assert os.uname().nodename not in text or os.uname().nodename == "localhost"
    assert str(TREE) not in text
    assert "/tmp/mapd-bench-" not in text
