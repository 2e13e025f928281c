"""``python -m benchmarks.overload [--runs N] [DIMENSION ...]``: one principal asks for ten times its quota.

Two daemons. At one an abuser asks for ten times what the policy gives it; a victim, another principal of the same
daemon, makes a modest number of calls. At the other a second victim makes the same calls at the same time, and nobody
else is there. The figure is the first victim's 99th percentile over the second's: what the machine itself loses to
the abuser's process, both lose.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.overload_quotas import BURST, QUOTAS, RATE, TIMES, VICTIM_RATE
from benchmarks.place import CLIENT_ID, Place, daemon, private_place, rights

LIMIT: Final = 1.5
ABUSER_ID: Final = CLIENT_ID - 2
LEAD_S: Final = 3.0
"""From when the processes of a run are started until they begin: imports, connections, maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: 99th percentiles in seconds, and what the abuser got."""

    dimension: str
    victim_s: float
    idle_s: float
    failed: int
    asked: int
    granted: int
    quota: float
    over: int
    late: int

    @property
    def ratio(self) -> float:
        """The figure."""
        return self.victim_s / self.idle_s


def policy(dimension: str) -> str:
    """Both principals; the abuser is limited in one dimension, so that it is that one which holds."""
    quotas: dict[str, int | str] = dict.fromkeys(QUOTAS, "unlimited")
    quotas[dimension] = QUOTAS[dimension]
    if dimension == "ops_per_second":
        quotas["burst"] = BURST
    lines = [
        "[principals.victim]",
        f"users = [{CLIENT_ID}]",
        "[principals.abuser]",
        f"users = [{ABUSER_ID}]",
        "[principals.abuser.quotas]",
    ]
    lines += [f"{name} = {json.dumps(value)}" for name, value in quotas.items()]
    lines += ["[[rules]]", 'who = ["*"]', 'role = "owner"', 'owners = ["self"]']
    return "\n".join(lines) + "\n"


@contextmanager
def served(dimension: str) -> Generator[Place]:
    """A daemon with nobody at it."""
    with private_place() as place:
        (place.root / "policy.toml").write_text(policy(dimension))
        with daemon(place):
            yield place


def begun(place: Place, user: int, role: str, begin: float, seconds: float, *more: str) -> Any:
    """One role's process."""
    socket = place.root / "run" / role / "mapd.sock"
    return subprocess.Popen(
        [
            *(*rights(user), sys.executable, "-m", "benchmarks.overload_roles", role, str(socket)),
            *(str(begin), str(seconds), *more),
        ],
        env=place.environment,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def told(process: Any) -> dict[str, Any]:
    """What a process said at its end."""
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args[-6:]} ended with status {process.returncode}")
    found: dict[str, Any] = json.loads(said)
    return found


def percentile(latencies: Sequence[float], of_calls: int) -> float:
    """The 99th; calls that failed count as slower than all."""
    ordered = sorted(latencies)
    place = max(0, -(-of_calls * 99 // 100) - 1)
    return ordered[place] if place < len(ordered) else float("inf")


def run(dimension: str, seconds: float) -> Run:
    """Both daemons anew, so that nothing is left of an earlier run."""
    with ExitStack() as stack:
        abused, idle = stack.enter_context(served(dimension)), stack.enter_context(served(dimension))
        begin = time.monotonic() + LEAD_S
        processes = [
            begun(abused, CLIENT_ID, "victim", begin, seconds),
            begun(idle, CLIENT_ID, "victim", begin, seconds),
            begun(abused, ABUSER_ID, "abuser", begin, seconds, dimension),
        ]
        victim, other, abuser = (told(process) for process in processes)
    calls = int(VICTIM_RATE * seconds)
    return Run(
        dimension=dimension,
        victim_s=percentile(victim["latencies"], calls),
        idle_s=percentile(other["latencies"], calls),
        failed=victim["failed"] + other["failed"],
        **abuser,
    )


def row(runs: Sequence[Run]) -> str:
    """One dimension's line."""
    ratios = sorted(one.ratio for one in runs)
    middle = statistics.median(ratios)
    p99 = statistics.median(one.victim_s for one in runs) * 1e3
    idle = statistics.median(one.idle_s for one in runs) * 1e3
    over, failed = sum(one.over for one in runs), sum(one.failed for one in runs)
    verdict = "met" if middle <= LIMIT and not over and not failed else "missed"
    return (
        f"| {runs[0].dimension:14} | {sum(one.asked for one in runs):8} | {over:5} | {p99:8.2f} | {idle:8.2f} "
        f"| {middle:5.2f} | {ratios[0]:.2f}-{ratios[-1]:.2f} | {failed:4} | {verdict} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, a table; the status says whether nothing beyond a quota was granted."""
    parser = argparse.ArgumentParser(prog="overload", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("dimensions", nargs="*", metavar="DIMENSION", help=", ".join(QUOTAS))
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.dimensions) - QUOTAS.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: dimensions are {', '.join(QUOTAS)}")
    print(
        f"{TIMES} times the quota in each second ({RATE} operations a second, else as the policy says); "
        f"{VICTIM_RATE} calls a second of each victim, {chosen.seconds:g} s, median of {chosen.runs}; limit {LIMIT}"
    )
    print("| dimension      |    asked |  over | p99 ms   | idle ms  | ratio | spread    | lost | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    done: list[Run] = []
    for dimension in chosen.dimensions or QUOTAS:
        runs = [run(dimension, chosen.seconds) for _ in range(chosen.runs)]
        print(row(runs), flush=True)
        done += runs
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in done]))
    return 1 if any(one.over for one in done) else 0


if __name__ == "__main__":
    sys.exit(main())
