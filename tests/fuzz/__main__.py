"""``./dev fuzz [SECONDS] [TARGET ...]``: every target for so many seconds, side by side; 600 s if not said."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.fuzz.requests import TARGETS as REQUESTS
from tests.fuzz.runner import INPUT_S, RSS_MIB, START_S, Outcome, run
from tests.fuzz.targets import TARGETS

SECONDS = 600

ALL = {
    **{name: (name, target) for name, target in TARGETS.items()},
    "requests": ("tests.fuzz.requests:requests", REQUESTS["requests"]),
}
"""By the names that a person gives: what the process is told, and the target."""


def main(arguments: list[str]) -> int:
    """Run, print, and say by the exit code whether anything was found."""
    seconds = SECONDS
    if arguments and arguments[0].isdecimal():
        seconds = max(1, int(arguments[0]))
        arguments = arguments[1:]
    unknown = [name for name in arguments if name not in ALL]
    if unknown:
        print(f"fuzz: no target {unknown[0]}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    names = arguments or list(ALL)
    print(
        f"fuzz: {', '.join(names)}, {seconds} s; an input may take {INPUT_S} s, a process {RSS_MIB} MiB",
        flush=True,
    )
    folder = Path(tempfile.mkdtemp(prefix="mapd-fuzz-"))
    limits = [f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={RSS_MIB}"]
    outcomes = run([ALL[name] for name in names], folder, limits, seconds + START_S)
    for outcome in outcomes:
        print(outcome.line() if outcome.result != "broken" else f"{outcome.line()}\n{outcome.said}")
    return _clean(folder, outcomes)


def _clean(folder: Path, outcomes: list[Outcome]) -> int:
    if any(outcome.result != "ok" for outcome in outcomes):
        print(f"inputs and logs are kept in {folder}")
        return 1
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
