"""R8: whatever bytes a method is sent, by whomever: they are answered or refused, and nothing of the daemon breaks."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.requests import TARGETS
from tests.fuzz.runner import START_S, Outcome, run
from tests.reliability.figures import Canaries, Figures, Size


def fuzzed(name: str, folder: Path, *limits: str, seconds: int = 0) -> Outcome:
    common = ("-seed=1", "-timeout=10", "-rss_limit_mb=512")
    (outcome,) = run(
        [(f"tests.fuzz.requests:{name}", TARGETS[name])], folder, (*common, *limits), seconds + START_S
    )
    return outcome


def test_no_request_breaks_the_daemon(tmp_path: Path, size: Size, figure: Figures) -> None:
    """From decoding to the plan; kept between inputs are the maps and leases that they have made."""
    seconds = size.pick(quick=0, full=90)
    limit = f"-max_total_time={seconds}" if seconds else "-runs=3000"
    outcome = fuzzed("requests", tmp_path, limit, seconds=seconds)
    assert outcome.result == "ok", outcome.line()
    figure("R8", "crashes, hangs and faults", int(outcome.result != "ok"), at_most=0, of=outcome.executions)
    figure(
        "R8",
        "executions, of up to 8 calls each",
        outcome.executions,
        at_least=size.pick(quick=3_000, full=20_000),
    )
    figure("R8", "memory at most", outcome.peak_mib, at_most=512, unit="MiB")


def test_a_planted_fault_is_found(tmp_path: Path, canary: Canaries) -> None:
    outcome = fuzzed("planted", tmp_path, "-runs=5000")
    canary("R8", "a name with a capital letter is a fault", caught=int(outcome.result == "crash"), of=1)
