"""Targets run side by side, each in its process; what came of it is read from libFuzzer's last words."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.target import Target

ROOT: Final = Path(__file__).parents[2]
INPUT_S: Final = 5
"""Seconds that one input may take: a sound one takes a millisecond, instrumented."""
RSS_MIB: Final = 512
"""Memory of a target; the interpreter with all modules has 80 MiB."""
START_S: Final = 60
"""Seconds until a process that does not end by itself is killed, over those that it was given."""

_UNCAUGHT: Final = "=== Uncaught Python exception"
"""What atheris prints, whatever code the process then ends with."""
# libFuzzer's FuzzerOptions.h: error, timeout, out of memory.
_ENDINGS: Final = {0: "ok", 70: "hang", 71: "memory", 77: "crash"}

_AFRESH: Final = ("sh", "-c", '"$@"; exit $?', "sh")
"""The shell forks once more. libFuzzer measures memory as ru_maxrss, which execve() takes over from the process that
called it (``setmax_mm_hiwater_rss()``, fs/exec.c): where tests had taken 694 MiB, each target began with 694 MiB."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one target.

    Attributes:
        result: ok, crash, hang or memory; "broken" where the fuzzer itself did not work.
        executions: inputs that were tried.
        seconds: from start to end, imports included.
        peak_mib: memory.
        found: the input that did it; None if none did.
        said: the end of what libFuzzer printed.
    """

    target: str
    result: str
    executions: int
    seconds: float
    peak_mib: int
    found: Path | None
    said: str

    def line(self) -> str:
        """As it is printed."""
        text = f"{_label(self.target)}: {self.result}: {self.executions:,} executions in {self.seconds:.0f} s"
        text += f", at most {self.peak_mib} MiB"
        if self.found is None:
            return text
        again = f"python -m tests.fuzz.child {self.target} {self.found}"
        return f"{text}\n{self.said}\nagain: {again}"


def run(
    targets: Iterable[tuple[str, Target]], folder: Path, limits: Sequence[str], patience_s: float
) -> list[Outcome]:
    """Run the targets at once, to their ends.

    Args:
        targets: by the names that ``tests.fuzz.child`` takes.
        folder: for inputs and logs.
        limits: libFuzzer's, as "-runs=1000" and "-timeout=5".
        patience_s: after which what still runs is killed, and counts as broken.
    """
    began = time.monotonic()
    running = [(name, _start(name, target, folder, limits)) for name, target in targets]
    try:
        with ThreadPoolExecutor(len(running)) as waiting:
            ends = [
                waiting.submit(_ended, name, process, folder / _label(name), began, patience_s)
                for name, process in running
            ]
            return [end.result() for end in ends]
    finally:
        for _, process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _label(name: str) -> str:
    return name.rpartition(":")[2]


def _start(name: str, target: Target, folder: Path, limits: Sequence[str]) -> subprocess.Popen[bytes]:
    place = folder / _label(name)
    corpus = place / "corpus"
    corpus.mkdir(parents=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    words = place / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    command = [*_AFRESH, sys.executable, "-m", "tests.fuzz.child", name, *limits]
    command += [f"-dict={words}"] if target.words else []
    command += [
        f"-max_len={target.max_len}",
        f"-artifact_prefix={place}/",
        "-print_final_stats=1",
        "-detect_leaks=0",
        str(corpus),
    ]
    with (place / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _ended(
    name: str, process: subprocess.Popen[bytes], place: Path, began: float, patience_s: float
) -> Outcome:
    try:
        code = process.wait(max(0.0, began + patience_s - time.monotonic()))
    except subprocess.TimeoutExpired:
        code = -1
    seconds = time.monotonic() - began
    log = (place / "log").read_text(errors="replace")
    executions, peak = _statistic(log, "number_of_executed_units"), _statistic(log, "peak_rss_mb")
    found = next(
        (path for path in sorted(place.iterdir()) if re.match("(crash|timeout|oom|leak)-", path.name)), None
    )
    result = "crash" if _UNCAUGHT in log else _ENDINGS.get(code, "broken")
    if not executions:
        result = "broken"
    said = f"{log[-4000:]}\nexit code {code}"
    return Outcome(name, result, executions, seconds, peak, found, said)


def _statistic(log: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s+([0-9]+)", log)
    return int(found[1]) if found else 0
