"""Objects as clang makes them of tests/e2e/objects/*.c, and the maps that other loaders make of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

SOURCES: Final = Path(__file__).parents[1] / "e2e" / "objects"
_NAMES: Final = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))

_IN_ITS_OWN_MOUNTS: Final = """
mount -t bpf mapd-test /sys/fs/bpf || exit 90
ip link set lo up && tc qdisc add dev lo clsact || exit 91
{command}
status=$?
for pin in $(find /sys/fs/bpf -type f -not -name '*.debug'); do
    echo "{{\\"pin\\": \\"$pin\\", \\"show\\": $(bpftool -j map show pinned "$pin" 2>/dev/null)}}"
done
exit $status
"""


def clang() -> str:
    """The compiler; skips the test where there is none."""
    for name in _NAMES:
        if (found := shutil.which(name)) is not None:
            return found
    pytest.skip("no clang: apt-get install clang")


def compiled(folder: Path, source: str, *options: str, target: str = "bpf", name: str = "") -> Path:
    """The object of one source, ``folder/NAME.o``."""
    made = folder / f"{name or source}.o"
    command = [clang(), "-target", target, "-g", "-O2", "-Wall", "-Werror", *options, "-c"]
    done = subprocess.run(
        [*command, SOURCES / f"{source}.c", "-o", made], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return made


def bpftool(*arguments: str | Path) -> Any:
    """What it says, parsed."""
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def shape(said: Mapping[str, Any]) -> dict[str, Any]:
    """What two maps made of one declaration agree in: all but ids, and which program was first to use it."""
    left_out = ("id", "btf_id", "owner_prog_type", "owner_jited", "pinned", "pids", "ifindex")
    return {"btf": "btf_id" in said, **{key: one for key, one in said.items() if key not in left_out}}


def loaded_by_libbpf(obj: Path, bpffs: Path) -> dict[str, Path]:
    """Load programs and maps by bpftool, and thus by libbpf; pins of the maps by their declared names."""
    programs, maps = bpffs / "progs", bpffs / "maps"
    programs.mkdir()
    maps.mkdir()
    command: list[str | Path] = ["bpftool", "prog", "loadall", obj, programs, "pinmaps", maps]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {pin.name: pin for pin in maps.iterdir()}


@dataclass(frozen=True, slots=True)
class Loading:
    """How a loader ended that has /sys/fs/bpf and a network for itself.

    Attributes:
        status: of the command.
        said: on its standard error.
        pins: what bpftool says of each map that it left pinned, by path.
    """

    status: int
    said: str
    pins: Mapping[str, Mapping[str, Any]]


def loaded_alone(command: Sequence[str | Path]) -> Loading:
    """Run a loader in namespaces of its own: what it pins is gone with it."""
    words = " ".join(f"'{word}'" for word in command)
    script = _IN_ITS_OWN_MOUNTS.format(command=words)
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode not in (90, 91), done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"pin"')]
    maps = {line["pin"]: line["show"] for line in lines if "error" not in line["show"]}
    return Loading(done.returncode, done.stderr, maps)
