"""Looks at maps: one at a time, seldom enough, and never the end of everything else that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from structlog.testing import capture_logs

from mapd.maps.errors import MapError
from mapd.metrics import maps
from mapd.metrics.maps import Looking
from mapd_api.reasons import Reason

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def own_logs() -> None:
    structlog.reset_defaults()


class Counted:
    """A look that counts how often it was taken, and stands still until it may go on."""

    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        self._error = error

    async def __call__(self) -> Sequence[Metric]:
        self.looks += 1
        self.begun.set()
        await self.go_on.wait()
        if self._error is not None:
            raise self._error
        return [GaugeMetricFamily("seen", "Looks.", self.looks)]


def values(families: Sequence[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for family in families for sample in family.samples}


async def test_many_who_ask_at_once_wait_for_one_look() -> None:
    look = Counted()
    look.go_on.clear()
    looking = Looking([look], every_s=3_600)
    asking = [asyncio.create_task(looking.families()) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who gives up takes the look from nobody
    look.go_on.set()
    told = await asyncio.gather(*asking[1:])
    assert look.looks == 1
    assert {values(each)["seen"] for each in told} == {1.0}
    assert values(await looking.families())["seen"] == 1.0
    assert look.looks == 1


async def test_a_look_that_is_due_is_taken_again() -> None:
    look = Counted()
    looking = Looking([look], every_s=0)
    assert [values(await looking.families())["seen"] for _ in range(3)] == [1.0, 2.0, 3.0]


async def test_without_anything_to_look_at_nothing_is_told() -> None:
    assert await Looking([], every_s=0).families() == ()


@pytest.mark.parametrize(
    ("error", "level"), [(MapError(Reason.BUSY, "later"), "warning"), (RuntimeError("a fault"), "error")]
)
async def test_a_look_that_fails_is_counted_and_the_others_are_told(error: Exception, level: str) -> None:
    looking = Looking([Counted(error), Counted()], every_s=0)
    with capture_logs() as said:
        told = values(await looking.families())
    assert (told["seen"], told["mapd_look_failures"]) == (1.0, 1.0)
    assert [line["log_level"] for line in said] == [level]


async def test_a_look_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "LOOK_S", 0.01)
    stuck = Counted()
    stuck.go_on.clear()
    looking = Looking([Counted(), stuck], every_s=0)
    async with asyncio.timeout(WAIT_S):
        told = values(await looking.families())
    assert (told["seen"], told["mapd_look_failures"]) == (1.0, 1.0)


async def test_a_look_ends_with_the_daemon() -> None:
    stuck = Counted()
    stuck.go_on.clear()
    looking = Looking([stuck], every_s=0)
    asking = asyncio.create_task(looking.families())
    await stuck.begun.wait()
    await looking.aclose()
    async with asyncio.timeout(WAIT_S):
        assert await asking == ()
    assert [task.get_name() for task in asyncio.all_tasks()].count("metrics of maps") == 0
