"""The elements of one map, page by page: the screen behind Enter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from mapd_client.errors import MapdError
from mapd_client.stats import MapStats
from mapd_client.top import words
from mapd_client.top.paging import Page, Pages, columns
from mapd_client.top.source import Reader, Source

CALM: Final = 5
"""As ``app.CALM``."""

CELL: Final = 40
"""Characters of one field at most, beside others."""

CHANGED: Final = "bold black on #ffd75f"
FRESH: Final = "bold #87d787"


class Elements(DataTable[Text]):
    """The rows of a page."""


class Browser(Screen[None]):
    """One map. It is open as long as this screen is, and read again at each interval.

    One worker opens and reads it; leaving the screen cancels that, which closes the map.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "app.pop_screen", "maps", key_display="esc"),
        Binding("n,right", "forward", "next page", key_display="n"),
        Binding("p,left", "back", "page before", key_display="p"),
        Binding("space", "pause", "pause"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(
        self, source: Source, stats: MapStats, interval: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._source = source
        self._stats = stats
        self._interval = interval
        self._clock = clock
        self._wake = asyncio.Event()
        self._drawn: tuple[list[str], int] | None = None
        self.pages = Pages()
        self.why = ""
        self.paused = False

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="head")
        yield Elements(
            id="elements", cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable"
        )
        yield Static(id="why")
        yield Footer()

    def on_mount(self) -> None:
        """Open the map and read."""
        self._table.focus()
        self.show()
        self.run_worker(self._read_on(), name="elements", exit_on_error=True)

    @property
    def _table(self) -> Elements:
        return self.query_one("#elements", Elements)

    async def _read_on(self) -> None:
        """Open, read at each interval; what fails is told, and tried again."""
        while True:
            try:
                async with self._source.browse(self._stats) as reader:
                    while True:
                        await self._read(reader)
            except MapdError as error:
                self.why = str(error)
                self.show()
            await self._rest(self._interval)

    async def _read(self, reader: Reader) -> None:
        began = time.monotonic()
        if not self.paused or self.pages.page is None:
            start = self.pages.start
            page = await reader.read(start)
            self.why = ""
            if start == self.pages.start:  # else the user went on meanwhile
                self.pages.take(page)
                self.show()
            else:
                return
        took = time.monotonic() - began
        await self._rest(max(self._interval - took, CALM * took))

    async def _rest(self, seconds: float) -> None:
        """Until then, or until a key asks for another page."""
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    def action_forward(self) -> None:
        """The page behind."""
        if self.pages.forward():
            self._turned()

    def action_back(self) -> None:
        """The page before."""
        if self.pages.back():
            self._turned()

    def _turned(self) -> None:
        self._wake.set()
        self.show()

    def action_pause(self) -> None:
        """Stand still, or go on."""
        self.paused = not self.paused
        self._show_head()

    def show(self) -> None:
        """Draw the page that was read last, and what is wrong; nothing on a screen that is being left."""
        if not self.display:  # False once textual removes the screen, its widgets first
            return
        self._show_head()
        why = self.query_one("#why", Static)
        why.display = bool(self.why)
        why.update(Text(self.why, style="bold red"))
        if self.pages.page is not None:
            self._show_page(self.pages.page)

    def _show_head(self) -> None:
        stats, page = self._stats, self.pages.page
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(stats.label, style="bold")
        head.append(f"  {stats.type_name}")
        if stats.entries is not None:
            head.append(f"  {words.count(stats.entries, exact=stats.exact)} of {stats.max_entries:,} entries")
        head.append(f"  page {self.pages.number}")
        if page is not None:
            head.append(f", {len(page.keys)} elements" + ("" if page.following else ", the last"))
            if self.pages.gone:
                head.append(f"  {self.pages.gone} gone", style="dim")
        elif not self.why:
            head.append("  reading ...", style="dim")
        if self.paused:
            head.append("  paused", style="bold yellow")
        self.query_one("#head", Static).update(head)

    def _show_page(self, page: Page) -> None:
        table = self._table
        names = columns(page.shown)
        row, offset = table.cursor_row, table.scroll_y
        table.clear(columns=names != (self._drawn[0] if self._drawn else None))
        if self._drawn is None or names != self._drawn[0]:
            for name in names:
                table.add_column(Text(f"{name}  ", style="bold"), key=name)
        for number, shown in enumerate(page.shown):
            table.add_row(*(self._cell(number, name, shown.get(name, "")) for name in names))
        if self._drawn is not None and self._drawn[1] == self.pages.number and page.keys:
            table.move_cursor(row=min(row, len(page.keys) - 1), scroll=False)
            table.scroll_to(y=offset, animate=False)
        self._drawn = names, self.pages.number

    def _cell(self, row: int, name: str, text: str) -> Text:
        style = ""
        if row in self.pages.fresh:
            style = FRESH
        elif (row, name) in self.pages.changed:
            style = CHANGED
        shown = text if len(text) <= CELL else f"{text[: CELL - 1]}…"
        # The gap to the next column is not marked.
        return Text.assemble((shown, style), "  ", no_wrap=True)
