"""How a client asks for the counts of many maps: page by page, of one start of the daemon."""

from __future__ import annotations

from typing import Any

import pytest

import mapd_client
from mapd_api.v1 import maps_pb2
from mapd_client import Misuse, Unsupported
from mapd_client.stats import FEATURE
from tests.unit.mapd_client.daemon import Daemon


class Pages:
    """What ListMapStats is answered, and what it was asked."""

    def __init__(self, daemon: Daemon, *answers: maps_pb2.ListMapStatsResponse) -> None:
        self.asked: list[maps_pb2.ListMapStatsRequest] = []
        self._answers = list(answers)
        daemon.features = (*daemon.features, FEATURE)
        daemon.hooks["ListMapStats"] = self.answer

    async def answer(self, request: maps_pb2.ListMapStatsRequest, context: Any) -> Any:
        del context
        self.asked.append(request)
        return self._answers.pop(0)


def page(epoch: str, token: str, *names: str) -> maps_pb2.ListMapStatsResponse:
    found = maps_pb2.ListMapStatsResponse(epoch=epoch, next_page_token=token)
    for name in names:
        found.stats.add(name=name, id=7, type=99, max_entries=5)
    found.uptime.FromMilliseconds(1500)
    return found


async def test_pages_are_asked_for_until_the_last(daemon: Daemon) -> None:
    pages = Pages(daemon, page("a", "0:x", "x"), page("a", "", "y"))
    async with mapd_client.connect(daemon.target) as client:
        sample = await client.map_stats("web/*", pins=True)
    assert [one.name for one in sample.maps] == ["x", "y"]
    assert (sample.epoch, sample.uptime) == ("a", 1.5)
    assert [(one.glob, one.pins, one.ids, one.page_token) for one in pages.asked] == [
        ("web/*", True, False, ""),
        ("web/*", True, False, "0:x"),
    ]


async def test_a_daemon_that_started_anew_between_two_pages_is_asked_from_the_beginning(
    daemon: Daemon,
) -> None:
    Pages(daemon, page("a", "0:x", "x"), page("b", "", "y"), page("b", "0:x", "x"), page("b", "", "y"))
    async with mapd_client.connect(daemon.target) as client:
        sample = await client.map_stats()
    assert [one.name for one in sample.maps] == ["x", "y"]
    assert sample.epoch == "b"


async def test_what_is_not_told_is_none_and_a_type_of_the_future_stays_a_number(daemon: Daemon) -> None:
    answer = page("a", "", "x")
    answer.stats.add(name="y", entries=0, read_elements=0, written_elements=0)
    Pages(daemon, answer)
    async with mapd_client.connect(daemon.target) as client:
        unknown, known = (await client.map_stats()).maps
    assert (unknown.entries, unknown.read_elements, unknown.written_elements) == (None, None, None)
    assert (unknown.type, unknown.type_name) == (99, "type 99")
    assert (known.entries, known.read_elements, known.written_elements) == (0, 0, 0)


async def test_an_older_daemon_is_named_and_not_asked(daemon: Daemon) -> None:
    pages = Pages(daemon)
    daemon.features = ()
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(Unsupported, match="no feature 'map-stats'; a newer one has"):
            await client.map_stats()
    assert pages.asked == []


async def test_a_pattern_that_is_none_is_refused(daemon: Daemon) -> None:
    Pages(daemon)
    async with mapd_client.connect(daemon.target) as client:
        with pytest.raises(Misuse, match="map_stats: glob"):
            await client.map_stats(7)  # type: ignore[arg-type]
