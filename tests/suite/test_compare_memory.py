"""Memory against the kernel: every call on every type of data answers the same, but for the known differences."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from mapd.memory.creation import TYPES as IN_MEMORY
from mapd_api.uapi import MapType
from tests.suite.comparison import Side, linux_and_memory
from tests.suite.machine import SPECS, STEPS, machine
from tests.support.bpffs import mounted_bpffs, require_bpf
from tests.support.counts import nothing_left_behind

pytestmark = pytest.mark.kernel

RUNS = 200

COMPARED = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)


@pytest.fixture(scope="module")
def compared_bpffs() -> Generator[Path]:
    require_bpf()
    with mounted_bpffs() as folder:
        yield folder


@pytest.fixture
def sides(compared_bpffs: Path) -> Generator[tuple[Side, Side]]:
    with (
        nothing_left_behind(),
        tempfile.TemporaryDirectory(prefix="compared-", dir=compared_bpffs) as folder,
        linux_and_memory(Path(folder)) as found,
    ):
        yield found


@pytest.mark.parametrize("map_type", SPECS, ids=lambda kind: kind.name.lower())
def test_memory_answers_as_the_kernel_does(sides: tuple[Side, Side], map_type: MapType) -> None:
    """200 runs of 50 steps for each type; a failure prints the shortest series of calls that shows it."""
    run_state_machine_as_test(machine(sides, SPECS[map_type]), settings=COMPARED)


def test_every_type_in_memory_is_compared() -> None:
    assert set(SPECS) == IN_MEMORY
