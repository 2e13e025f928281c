"""The screens of top, driven by keys, without a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from rich.text import Text

from mapd_api.uapi import MapType
from mapd_client.errors import MapNotFound, Unavailable
from mapd_client.stats import MapStats, StatsSample
from mapd_client.top.app import Table, TopApp
from mapd_client.top.browser import CHANGED, FRESH, Browser, Elements
from mapd_client.top.columns import STYLES
from mapd_client.top.model import Level
from mapd_client.top.paging import Page
from tests.support.screens import line_with, text_of, until, until_shows
from tests.unit.mapd_client.top.samples import sample, stats


class Played:
    """Samples and pages that a test sets; an exception in place of one is raised."""

    def __init__(self, first: StatsSample) -> None:
        self.answer: StatsSample | Exception = first
        self.page: Page | Exception = Page([], [], [], b"")
        self.asked = 0
        self.open = 0
        self.starts: list[bytes] = []
        self.blocked: asyncio.Event | None = None
        self.cancelled = 0
        self.once = False

    async def sample(self) -> StatsSample:
        self.asked += 1
        try:
            if self.blocked is not None:
                await self.blocked.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.once:
            self.blocked = asyncio.Event()
        return self.answer

    @asynccontextmanager
    async def browse(self, stats: MapStats) -> AsyncGenerator[Played]:
        del stats
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    async def read(self, start: bytes) -> Page:
        self.starts.append(start)
        if isinstance(self.page, Exception):
            raise self.page
        return self.page


MAPS = (
    stats("flows", 42),
    stats("hot", 97, memlock_bytes=1 << 20),
    stats("seen", 85, type=MapType.LRU_HASH),
    stats("block", 30, type=MapType.LPM_TRIE, exact=False, method="memory"),
    stats("jobs", None, type=MapType.QUEUE),
)


def played(interval: float = 60.0) -> tuple[Played, TopApp]:
    """``interval``: a minute, or short where a test waits for another sample."""
    first = sample(*MAPS)
    source = Played(first)
    return source, TopApp(source, first, interval=interval)


def order(text: str) -> list[str]:
    return [line.split()[0].removeprefix("web/") for line in text.splitlines() if line.startswith("web/")]


def cell_of(app: TopApp, name: str, column: str) -> Text:
    table = app.maps.query_one(Table)
    for number in range(table.row_count):
        if table.get_cell(str(number), "NAME").plain == f"web/{name}":
            return table.get_cell(str(number), column)
    raise AssertionError(name)


async def test_the_first_paint_has_the_maps_and_asks_nobody() -> None:
    source, app = played()
    source.blocked = asyncio.Event()
    async with app.run_test(size=(80, 24)) as pilot:
        text = text_of(pilot)
        assert order(text) == ["block", "flows", "hot", "jobs", "seen"]
        assert "5 maps" in text
        assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("width", [80, 110, 200])
async def test_all_columns_of_a_width_are_on_the_screen(width: int) -> None:
    _, app = played()
    async with app.run_test(size=(width, 24)) as pilot:
        head = line_with(text_of(pilot), "ENTRIES, 60 s")
        assert ("TYPE" in head) is (width >= 110)
        assert len(head) <= width


async def test_amber_red_and_estimates_are_marked() -> None:
    _, app = played()
    async with app.run_test(size=(120, 24)) as pilot:
        text = text_of(pilot)
        assert "~30 " in line_with(text, "web/block")
        assert "97%!" in line_with(text, "web/hot")
        assert "85% " in line_with(text, "web/seen")
        assert cell_of(app, "hot", "FILL").style == STYLES[Level.RED]
        assert cell_of(app, "seen", "FILL").style == STYLES[Level.AMBER]
        assert cell_of(app, "flows", "FILL").style == STYLES[Level.CALM]
        assert line_with(text, "web/jobs").split()[2:4] == ["-", "-"]


async def test_rates_come_with_the_next_sample() -> None:
    source, app = played(0.02)
    async with app.run_test(size=(120, 24)) as pilot:
        changed = stats("flows", 52, read_elements=30)
        source.answer, source.once = sample(changed, *MAPS[1:], uptime=12.0), True
        text = await until_shows(pilot, "+5.0")
        assert line_with(text, "web/flows").split()[5:7] == ["+5.0", "15"]


async def test_s_sorts_by_the_next_column_and_r_turns_round_and_the_cursor_stays_on_its_map() -> None:
    _, app = played()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("down")  # flows
        await pilot.press("s")  # entries; there is no type on 80 columns
        assert order(text_of(pilot)) == ["hot", "seen", "flows", "block", "jobs"]
        assert "ENTRIES▼" in text_of(pilot)
        assert app.maps.chosen is not None
        assert app.maps.chosen.stats.kernel_name == "flows"
        await pilot.press("r")
        assert order(text_of(pilot)) == ["block", "flows", "seen", "hot", "jobs"]
        assert app.maps.chosen.stats.kernel_name == "flows"
        for _ in range(5):
            await pilot.press("s")
        assert "MEM▼" in text_of(pilot) or "NAME▲" in text_of(pilot)


async def test_a_filter_narrows_as_it_is_typed_and_escape_shows_all_again() -> None:
    _, app = played()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("slash", "l", "r", "u")
        text = await until_shows(pilot, "1 of 5 maps", "/lru")
        assert order(text) == ["seen"]
        await pilot.press("enter")
        await pilot.press("slash", "x")
        text = await until_shows(pilot, "None of 5 maps has")
        await pilot.press("escape")
        assert order(await until_shows(pilot, "  5 maps")) == ["block", "flows", "hot", "jobs", "seen"]


async def test_maps_come_and_go() -> None:
    source, app = played(0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        source.answer = sample(MAPS[0], stats("new", 1), uptime=11.0)
        assert order(await until_shows(pilot, "web/new")) == ["flows", "new"]
        source.answer = sample(uptime=12.0)
        await until_shows(pilot, "No maps that you may see.", "not looked at: maps without a pin")
        source.answer = sample(*MAPS, uptime=13.0)
        assert len(order(await until_shows(pilot, "web/hot"))) == 5


async def test_a_daemon_that_is_away_is_said_and_asked_again_until_it_is_back() -> None:
    source, app = played(0.02)
    async with app.run_test(size=(120, 24)) as pilot:
        source.answer = Unavailable("no daemon at /run/x")
        text = await until_shows(pilot, "daemon away", "no daemon at /run/x")
        assert len(order(text)) == 5
        source.answer = sample(*MAPS, uptime=0.1, epoch="b")
        await until(pilot, lambda text: "daemon away" not in text)


async def test_pause_stands_still() -> None:
    source, app = played(0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("space")
        await until_shows(pilot, "paused")
        asked = source.asked
        source.answer = sample(uptime=11.0)
        for _ in range(5):
            await pilot.pause()
        assert source.asked <= asked + 1
        await pilot.press("space")
        await until_shows(pilot, "No maps that you may see.")


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_leaving_cancels_the_question_that_is_on_its_way(key: str) -> None:
    source, app = played(0.02)
    source.blocked = asyncio.Event()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda _: source.asked == 1)
        await pilot.press(key)
    assert source.cancelled == 1
    assert app.return_code == 0


async def test_an_answer_that_comes_while_the_screens_go_draws_nothing() -> None:
    _, app = played()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        await until_shows(pilot, "page 1")
        browser = app.screen
        assert isinstance(browser, Browser)
    app.model.feed(sample(uptime=11.0), 11.0)
    browser.show()
    app.maps.show()
    app.maps.show_head()


# ---- elements ----------------------------------------------------------------------------------


def page(values: dict[str, int], following: bytes = b"") -> Page:
    return Page(
        [key.encode() for key in values],
        [str(value).encode() for value in values.values()],
        [{"key.addr": key, "value.packets": str(value)} for key, value in values.items()],
        following,
    )


async def test_enter_shows_elements_by_field_marks_what_changes_and_escape_closes_the_map() -> None:
    source, app = played()
    source.page = page({"10.0.0.1": 5, "10.0.0.2": 7})
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        text = await until_shows(pilot, "key.addr", "value.packets", "10.0.0.1", "web/block")
        assert "2 elements, the last" in text
        assert source.open == 1
        browser = app.screen
        assert isinstance(browser, Browser)
        browser.pages.take(page({"10.0.0.1": 6, "10.0.0.3": 7}))
        browser.show()
        await until_shows(pilot, "1 gone", "10.0.0.3")
        table = browser.query_one(Elements)
        styles = [
            [str(cell.spans[0].style) for cell in table.get_row_at(row) if cell.spans] for row in (0, 1)
        ]
        assert styles == [[CHANGED], [FRESH, FRESH]]
        await pilot.press("escape")
        await until_shows(pilot, "web/flows")
        await until(pilot, lambda _: source.open == 0)


async def test_n_and_p_turn_pages() -> None:
    source, app = played()
    source.page = page({"a": 1}, following=b"behind a")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        await until_shows(pilot, "page 1, 1 elements")
        source.page = page({"b": 1})
        await pilot.press("n")
        await until_shows(pilot, "page 2, 1 elements, the last")
        assert b"behind a" in source.starts
        await pilot.press("n")
        await until_shows(pilot, "page 2")
        await pilot.press("p")
        await until_shows(pilot, "page 1")


async def test_a_map_that_cannot_be_read_says_why_and_is_tried_again() -> None:
    source, app = played(0.02)
    source.page = MapNotFound("open web/block: no such map")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        await until_shows(pilot, "no such map")
        source.page = page({"a": 1})
        text = await until_shows(pilot, "value.packets")
        assert "no such map" not in text
        await pilot.press("q")
    assert source.open == 0


async def test_long_fields_are_cut_and_lists_are_one_field() -> None:
    source, app = played()
    source.page = Page([b"k"], [b"v"], [{"key": "k" * 100, "value": "[1, 2]"}], b"")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        text = await until_shows(pilot, "[1, 2]")
        assert "k" * 39 + "…" in text
        assert "k" * 40 not in text
