"""A group whose time is over is not gone on with: what was done is told, and so is what was not."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace

import pytest

from mapd.bpf import Fault
from mapd.bpf.abi import Command
from mapd.maps.execute import execute
from mapd.maps.groups import Group, plan
from mapd.maps.job import BETWEEN_LOOKS, BETWEEN_LOOKS_SLOW, Outcome
from mapd_api import limits
from mapd_api.ops import Op
from mapd_api.reasons import Reason
from mapd_api.uapi import MapType
from tests.unit.mapd.dictkernel import n
from tests.unit.mapd.maps.test_groups import Bench, on_keys, updates

MANY = 3 * BETWEEN_LOOKS


def run(bench: Bench, group: Group, expires: float | None) -> Outcome:
    with bench.opened.lease() as map_fd:
        return execute(bench.faulty, map_fd, bench.opened, plan(group, bench.opened), expires)


@pytest.fixture
def bench() -> Generator[Bench]:
    made = Bench(max_entries=2 * limits.BATCH_ELEMENTS)
    yield made
    made.close()


def test_what_is_begun_late_ends_after_as_many_elements_as_the_clock_is_looked_at_for(bench: Bench) -> None:
    outcome = run(bench, updates(range(MANY)), time.monotonic() - 1)
    assert list(outcome.statuses) == [0] * BETWEEN_LOOKS + [Reason.EXPIRED] * (MANY - BETWEEN_LOOKS)
    assert set(bench.map.elements) == set(map(n, range(BETWEEN_LOOKS)))
    assert [error.index for error in outcome.errors] == [
        BETWEEN_LOOKS + at for at in range(limits.ERROR_DETAILS)
    ]


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_it_ends_between_the_syscalls_that_its_time_is_over_between(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("mapd.maps.job.time", clock)

    def over() -> None:
        clock.now = 1.0

    bench.faulty.add(Fault(target=Command.MAP_UPDATE_BATCH, nth=2, failpoint=over))
    outcome = run(bench, updates(range(MANY)), 1.0)
    assert outcome.statuses.count(0) == len(bench.map.elements) == 2 * BETWEEN_LOOKS
    assert outcome.statuses.count(Reason.EXPIRED) == BETWEEN_LOOKS


def test_on_maps_of_maps_it_is_looked_at_more_often() -> None:
    bench = Bench(MapType.HASH_OF_MAPS)
    bench.map.elements = {n(number): n(number) for number in range(100)}
    outcome = run(bench, on_keys(range(100), Op.DELETE), time.monotonic() - 1)
    assert outcome.statuses.count(0) == BETWEEN_LOOKS_SLOW
    assert outcome.statuses.count(Reason.EXPIRED) == 100 - BETWEEN_LOOKS_SLOW == len(bench.map.elements)
    bench.close()


def test_in_time_the_answer_is_the_same_as_without_one(bench: Bench) -> None:
    """Values of each part are where they belong, whatever was taken or answered before it."""
    count = BETWEEN_LOOKS + 1
    written, read = updates(range(count)), on_keys(range(count), Op.LOOKUP)
    group = replace(
        written,
        count=3 * count,
        ops=bytes([Op.LOOKUP]) * count + bytes([Op.UPDATE]) * count + bytes([Op.LOOKUP]) * count,
        keys=read.keys + written.keys + read.keys,
    )
    timed, plain = run(bench, group, time.monotonic() + 3_600), run(bench, group, None)
    assert bytes(timed.statuses) == bytes([Reason.KEY_ABSENT]) * count + bytes(2 * count)
    assert bytes(plain.statuses) == bytes(3 * count)
    assert bytes(timed.values.view)[4 * count :] == written.values == bytes(plain.values.view)[4 * count :]
