"""``./dev fuzz``: some inputs for each parser, and planted faults, which must be found."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import canaries
from tests.fuzz.__main__ import ALL, main
from tests.fuzz.runner import START_S, Outcome, run
from tests.fuzz.targets import TARGETS

CANARY_LIMITS: Final = ("-runs=500000", "-seed=1", "-timeout=1", "-rss_limit_mb=256")
"""The crash takes some 50,000 inputs where branches are seen, and 2**32 where they are not."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    chosen = [(f"tests.fuzz.canaries:{name}", target) for name, target in canaries.TARGETS.items()]
    outcomes = run(chosen, tmp_path_factory.mktemp("canaries"), CANARY_LIMITS, START_S)
    return {outcome.target.rpartition(":")[2]: outcome for outcome in outcomes}


@pytest.mark.parametrize("fault", canaries.TARGETS)
def test_a_planted_fault_is_found_named_and_kept(planted: dict[str, Outcome], fault: str) -> None:
    outcome = planted[fault]
    assert outcome.result == fault, outcome.said
    assert outcome.executions > 0
    assert outcome.found is not None
    found = outcome.found.read_bytes()
    assert {"crash": found.startswith(b"mapd"), "hang": found.startswith(b"h"), "memory": True}[fault]
    assert f"again: python -m tests.fuzz.child tests.fuzz.canaries:{fault} {outcome.found}" in outcome.line()


def test_no_parser_breaks_in_a_short_run_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = main(["1"])
    said = capsys.readouterr().out
    assert result == 0, said
    first, *lines = said.splitlines()
    assert first == "fuzz: btf, elf, keys, requests, 1 s; an input may take 5 s, a process 512 MiB"
    found = [
        re.fullmatch(r"([a-z]+): ok: ([0-9,]+) executions in [0-9]+ s, at most [0-9]+ MiB", line)
        for line in lines
    ]
    counts = {one[1]: int(one[2].replace(",", "")) for one in found if one is not None}
    assert counts.keys() == ALL.keys(), said
    assert all(count > len(ALL[name][1].seeds) for name, count in counts.items())
    assert list(tmp_path.iterdir()) == [], "what found nothing leaves nothing"


def test_a_fuzzer_that_does_not_start_is_no_success(tmp_path: Path) -> None:
    target = canaries.TARGETS["hang"]
    (outcome,) = run([("tests.fuzz.canaries:none", target)], tmp_path, CANARY_LIMITS, START_S)
    assert (outcome.result, outcome.executions, outcome.found) == ("broken", 0, None)
    assert "KeyError: 'none'" in outcome.said


def test_every_seed_is_sound() -> None:
    for target in TARGETS.values():
        assert target.seeds
        for seed in target.seeds:
            assert len(seed) <= target.max_len
            target.one(seed)


def test_a_target_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["5", "elves"]) == 2
    assert "no target elves; there are btf, " in capsys.readouterr().err
