"""tests/conftest.py: skipped tests are counted, and in CI they fail the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.sources import ROOT

PLANTED = {
    "skips": "import pytest\ndef test_one():\n    pytest.skip('no moon')\ndef test_two(): pass\n",
    "skips a module": "import pytest\npytest.skip('no sun', allow_module_level=True)\n",
    "passes": "def test_one(): pass\n",
    "fails as expected": (
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_one(): raise ValueError\n"
    ),
}


def run(folder: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_planted.py"
    test.write_text(source)
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", os.devnull, "--rootdir"]
    return subprocess.run(
        [*command, str(folder), str(test)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("planted", "line"), [("skips", "1 skipped: no moon (1)"), ("skips a module", "1 skipped: no sun (1)")]
)
def test_a_skip_is_named_and_in_ci_fails_the_run(tmp_path: Path, planted: str, line: str) -> None:
    """A test that did not run proves nothing; among many passes nobody sees it."""
    at_home, in_ci = run(tmp_path, PLANTED[planted], ""), run(tmp_path, PLANTED[planted], "true")
    assert line in at_home.stdout
    assert line in in_ci.stdout
    assert at_home.returncode != 1, at_home.stdout
    assert in_ci.returncode != 0, in_ci.stdout


@pytest.mark.parametrize("planted", ["passes", "fails as expected"])
def test_a_run_without_skips_passes_in_ci(tmp_path: Path, planted: str) -> None:
    done = run(tmp_path, PLANTED[planted], "true")
    assert done.returncode == 0, done.stdout
    assert "skipped:" not in done.stdout
