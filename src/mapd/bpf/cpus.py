"""How many CPUs a per-CPU value has slots for."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")


def parse_cpu_list(text: str) -> int:
    """How many CPUs a list like ``0-3,5`` names: five.

    Members are counted: a per-CPU value has a slot for each possible CPU in turn, and none for a
    number that is skipped (kernel/bpf/hashtab.c walks for_each_possible_cpu()).

    Raises:
        ValueError: it is no such list.
    """
    count = 0
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        low = int(first)
        high = int(last) if dash else low
        if not 0 <= low <= high:
            raise ValueError(f"{part!r} is no range of CPUs")
        count += high - low + 1
    return count


@cache
def possible_cpus() -> int:
    """CPUs that may ever be online: the slots of a per-CPU value. Fixed while the kernel runs.

    More than are online on many machines; the kernel writes a slot for each, and is told no size
    (kernel/bpf/syscall.c, bpf_map_value_size()).

    Raises:
        OSError: /sys is not mounted.
    """
    return parse_cpu_list(POSSIBLE.read_text())


def check_cpus(count: int, path: Path = POSSIBLE) -> None:
    """Refuse slots of a per-CPU value that a program could not reach by counting CPUs from 0.

    Raises:
        ValueError: the host's possible CPUs are not 0 to ``count`` - 1.
    """
    text = path.read_text().strip()
    if text != ("0" if count == 1 else f"0-{count - 1}"):
        raise ValueError(f"CPUs {text} are possible, not 0 to {count - 1}")
