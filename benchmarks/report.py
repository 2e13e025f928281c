"""What a run says: a table in Markdown, and everything raw as JSON."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.memory import Growth
from benchmarks.reach import Row
from benchmarks.rounds import Results, Spread


def host_facts() -> dict[str, object]:
    """What else a figure depends on; no name of the host."""
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model[0].partition(":")[2].strip() if model else "",
        "cpus": os.cpu_count(),
        "cpus_used": sorted(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": version("protobuf"),
        "numpy": version("numpy"),
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """A run.

    Attributes:
        settings: how much was measured.
        profile: of the daemon, as it says itself.
        rows: every goal.
        left_out: peers that could not be had, and why.
        results: every answer.
        growths: of memory.
    """

    settings: Mapping[str, object]
    profile: str
    rows: Sequence[Row]
    left_out: Mapping[str, str]
    results: Results
    growths: Mapping[str, Growth]


def page(measured: Measured, host: Mapping[str, object]) -> list[str]:
    """Lines of Markdown."""
    wanted = measured.settings
    counts = Counter(row.verdict for row in measured.rows)
    scope = "quick run, for orientation" if wanted["quick"] else "full run"
    where = f"kernel {host['kernel']}, {host['cpu'] or host['machine']}, load before {host['load_before']}"
    return [
        f"{scope}: hash of {wanted['entries']:,} elements of (8, 8) bytes, Unix socket, {wanted['rounds']} rounds  ",
        f"{where}, CPUs {host['cpus_used']} for everybody, nobody pinned to one  ",
        f"Python {host['python']}, grpcio {host['grpcio']}, protobuf {host['protobuf']}, numpy {host['numpy']}  ",
        f"daemon in profile {measured.profile}, its clients of another user without capabilities; peers as root  ",
        f"dumps that stand still: of {wanted['great_entries']:,} elements, for {wanted['stall_s']:g} s",
        "",
        *table(measured.rows),
        "",
        ", ".join(
            f"{verdict}: {counts[verdict]}" for verdict in ("stretch", "met", "missed", "not measured")
        ),
        f"left out: {len(measured.left_out)}",
        *(f"  {peer}: {why}" for peer, why in measured.left_out.items()),
    ]


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| work | target | stretch | measured | spread | | mapd | peer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal, figure = row.goal, row.figure
        sign = ">=" if goal.more_is_better else "<="
        cells = [
            goal.work,
            f"{sign} {goal.target:g}" if goal.target is not None else "",
            f"{goal.stretch:g}" if goal.stretch is not None else "",
            f"{figure.median:.2f} {goal.unit}" if figure else "",
            f"{figure.low:.2f} to {figure.high:.2f}" if figure and figure.low != figure.high else "",
            f"**{row.verdict}**" if goal.target is not None else "",
            _each(row.ours),
            _each(row.theirs),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _each(spread: Spread | None) -> str:
    """Seconds of one operation, as people write them."""
    if spread is None:
        return ""
    us = spread.median * 1e6
    return f"{us:.1f} us" if us >= 10 else f"{us:.2f} us" if us >= 1 else f"{us * 1e3:.0f} ns"


def as_json(measured: Measured, host: Mapping[str, object]) -> dict[str, object]:
    """Everything; times in seconds, memory in bytes."""
    return {"schema": 1, "host": dict(host), **asdict(measured)}
