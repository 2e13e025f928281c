"""``./dev fuzz``: some inputs for each parser, and planted faults, which must be found."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import canaries
from tests.fuzz.__main__ import main
from tests.fuzz.runner import START_S, Outcome, run
from tests.fuzz.targets import TARGETS

RUNS: Final = 300
LIMITS: Final = ("-timeout=5", "-rss_limit_mb=512")
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


def test_no_parser_breaks_on_some_hundred_inputs(tmp_path: Path) -> None:
    outcomes = run(TARGETS.items(), tmp_path, (f"-runs={RUNS}", *LIMITS), START_S)
    assert {one.target: one.result for one in outcomes} == dict.fromkeys(TARGETS, "ok"), outcomes
    assert all(one.executions >= RUNS and one.found is None for one in outcomes)


def test_every_seed_is_sound() -> None:
    for target in TARGETS.values():
        assert target.seeds
        for seed in target.seeds:
            assert len(seed) <= target.max_len
            target.one(seed)


def test_a_target_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["5", "elves"]) == 2
    assert "no target elves; there are btf, " in capsys.readouterr().err
