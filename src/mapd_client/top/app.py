"""The screens of ``mapctl top``: all maps, and the elements of one. Drawn by textual."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Input, Static

from mapd_client.errors import MapdError
from mapd_client.stats import MapStats, StatsSample
from mapd_client.top import words
from mapd_client.top.browser import Browser
from mapd_client.top.columns import Column, widths
from mapd_client.top.model import Model, Row, Sort
from mapd_client.top.source import Source

CALM: Final = 5
"""The next question waits this many times as long as the last answer took: the daemon is busy for a sixth of the time
at most, however many maps there are."""

LATE_S: Final = 2.0
"""Without an answer for so long beyond the interval, the head says so."""


class Table(DataTable[Text]):
    """The rows; Enter is told at the foot."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "elements")]


class MapTable(Screen[None]):
    """All maps, a row each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("s", "sort", "sort"),
        Binding("r", "turn", "reverse"),
        Binding("space", "pause", "pause"),
        Binding("escape", "clear", "clear filter", show=False),
        Binding("q", "app.quit", "quit"),
    ]

    class Opened(Message):
        """Somebody wants to see the elements of a map."""

        def __init__(self, stats: MapStats) -> None:
            super().__init__()
            self.stats = stats

    def __init__(self, model: Model, interval: float, clock: Callable[[], float]) -> None:
        super().__init__()
        self._model = model
        self._interval = interval
        self._clock = clock
        self._rows: list[Row] = []
        self._columns: list[tuple[Column, int]] = []
        self._drawn: list[list[Text]] = []
        self.paused = False

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield Static(id="head")
        yield Table(id="maps", cursor_type="row", cell_padding=0, cursor_foreground_priority="renderable")
        yield Static(id="empty")
        yield Input(id="filter", placeholder="part of a name or type, or a pattern: web/*", compact=True)
        yield Footer()

    def on_mount(self) -> None:
        """Keys go to the table."""
        self._table.focus()
        self._filter.display = False

    @property
    def _table(self) -> Table:
        return self.query_one("#maps", Table)

    @property
    def _filter(self) -> Input:
        return self.query_one("#filter", Input)

    def on_resize(self, event: events.Resize) -> None:
        """Other columns, or wider ones; the first time all of them, so that the first paint has the maps."""
        if self._lay_out(event.size.width):
            self.show()

    def _lay_out(self, width: int) -> bool:
        columns = widths(width)
        if columns == self._columns:
            return False
        self._columns = columns
        table = self._table
        table.clear(columns=True)
        for column, room in columns:
            table.add_column(self._title(column, room), width=room + 1, key=column.title)
        self._drawn = []
        return True

    def _title(self, column: Column, room: int) -> Text:
        mark = ""
        if column.sort is self._model.sort:
            mark = "▲" if self._model.backwards is not (column.sort in (Sort.NAME, Sort.TYPE)) else "▼"
        title = column.title + mark
        return Text(title.rjust(room) if column.right else title, style="bold")

    def show(self) -> None:
        """Draw the model: the cells that are others than before. Nothing before there is room for any, or after."""
        if not self._columns or not self.display:  # False once textual removes the screen, its widgets first
            return
        table, chosen = self._table, self.chosen
        self._rows = self._model.rows()
        now = self._model.answered_at or self._clock()
        drawn = [[column.cell(row, room, now) for column, room in self._columns] for row in self._rows]
        keys = [column.title for column, _ in self._columns]
        while len(self._drawn) > len(drawn):
            table.remove_row(str(len(self._drawn) - 1))
            self._drawn.pop()
        for number, cells in enumerate(drawn):
            if number >= len(self._drawn):
                table.add_row(*cells, key=str(number))
                continue
            before = self._drawn[number]
            for key, old, new in zip(keys, before, cells, strict=True):
                if old.plain != new.plain or old.style != new.style:
                    table.update_cell(str(number), key, new)
        self._drawn = drawn
        if chosen is not None:
            self._choose(chosen)
        self.show_head()

    @property
    def chosen(self) -> Row | None:
        """The row under the cursor."""
        number = self._table.cursor_row
        return self._rows[number] if 0 <= number < len(self._rows) else None

    def _choose(self, row: Row) -> None:
        """The cursor stays on its map, wherever that is now."""
        for number, one in enumerate(self._rows):
            if one.stats.id == row.stats.id and one.stats.label == row.stats.label:
                if number != self._table.cursor_row:
                    self._table.move_cursor(row=number, scroll=True)
                return

    def show_head(self) -> None:
        """The line above the table: how many maps, and whether the daemon answers."""
        if not self._columns or not self.display:
            return
        model, now = self._model, self._clock()
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append("mapctl top", style="bold")
        shown = len(self._rows)
        head.append(f"  {model.total} maps" if shown == model.total else f"  {shown} of {model.total} maps")
        if model.pattern:
            head.append(f"  /{model.pattern}", style="bold")
        if self._rows:
            used = sum(row.stats.memlock_bytes for row in self._rows)
            ops = [row.ops for row in self._rows if row.ops is not None]
            head.append(f"  {words.memory(used)} in maps")
            if ops:
                head.append(f"  {words.rate(sum(ops))} ops/s")
        if self.paused:
            head.append("  paused", style="bold yellow")
        since = 0.0 if model.answered_at is None else now - model.answered_at
        if model.away:
            head.append(f"  daemon away for {since:.0f} s, asking again: {model.away}", style="bold red")
        elif since > LATE_S + self._interval and not self.paused:
            head.append(f"  no answer for {since:.0f} s", style="bold yellow")
        self.query_one("#head", Static).update(head)
        self._show_empty()

    def _show_empty(self) -> None:
        empty, model = self.query_one("#empty", Static), self._model
        empty.display = not self._rows
        if self._rows or model.sample is None:
            return
        if model.total:
            empty.update(
                f"None of {model.total} maps has {model.pattern!r} in its name or type. Esc shows all again."
            )
            return
        lines = [
            "No maps that you may see.",
            *(f"not looked at: {one}" for one in model.sample.not_looked_at),
        ]
        empty.update("\n".join(lines))

    # What keys do

    def action_filter(self) -> None:
        """Ask for a pattern; rows follow as it is typed."""
        self._filter.display = True
        self._filter.value = self._model.pattern
        self._filter.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Each letter."""
        self._model.pattern = event.value
        self.show()

    def on_input_submitted(self) -> None:
        """Back to the table, with the pattern."""
        self._filter.display = False
        self._table.focus()

    def action_clear(self) -> None:
        """All maps again."""
        self._filter.value = ""
        self._model.pattern = ""
        self._filter.display = False
        self._table.focus()
        self.show()

    def action_sort(self) -> None:
        """By the next column that is on the screen."""
        sorts = [column.sort for column, _ in self._columns if column.sort is not None]
        at = sorts.index(self._model.sort) if self._model.sort in sorts else -1
        self._sort_by(sorts[(at + 1) % len(sorts)])

    def action_turn(self) -> None:
        """The other way round."""
        self._sort_by(self._model.sort)

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a column's title."""
        sort = self._columns[event.column_index][0].sort
        if sort is not None:
            self._sort_by(sort)

    def _sort_by(self, sort: Sort) -> None:
        self._model.sort_by(sort)
        table = self._table
        for (column, room), shown in zip(self._columns, table.ordered_columns, strict=True):
            shown.label = self._title(column, room)
        table.refresh()
        self.show()

    def action_pause(self) -> None:
        """Stand still, or go on."""
        self.paused = not self.paused
        self.show_head()

    def on_data_table_row_selected(self) -> None:
        """Enter, or a click on the row that is chosen."""
        if self.chosen is not None:
            self.post_message(self.Opened(self.chosen.stats))


class TopApp(App[None]):
    """``mapctl top``.

    One worker asks for samples, one after the other, and is cancelled with the app: nothing of a question stays.

    Args:
        source: where the maps are from.
        first: a sample that is there already; drawn at the first paint.
        interval: seconds between two samples, longer where answers take long (``CALM``).
    """

    CSS = """
    #head { height: 1; }
    #maps, #elements { height: 1fr; scrollbar-size: 1 1; }
    #maps { scrollbar-size-horizontal: 0; }
    #empty { height: auto; padding: 1; }
    #filter { dock: bottom; margin-bottom: 1; }
    #why { height: auto; padding: 1; }
    DataTable > .datatable--header { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", show=False, priority=True)]
    TITLE = "mapctl top"
    ENABLE_COMMAND_PALETTE = False

    def __init__(
        self,
        source: Source,
        first: StatsSample | None = None,
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.source = source
        self.interval = interval
        self.model = Model()
        self._clock = clock
        if first is not None:
            self.model.feed(first, clock())
        self.maps = MapTable(self.model, interval, clock)

    def get_default_screen(self) -> Screen[None]:
        """All maps."""
        return self.maps

    def on_mount(self) -> None:
        """Ask from now on."""
        self.run_worker(self._ask(), name="samples", exit_on_error=True)
        self.set_interval(1.0, self.maps.show_head)

    def on_map_table_opened(self, event: MapTable.Opened) -> None:
        """Show them until Esc."""
        _ = self.push_screen(Browser(self.source, event.stats, self.interval, self._clock))

    async def _ask(self) -> None:
        """Samples until it is cancelled; a daemon that is away is asked again at each interval."""
        if self.model.sample is not None:
            await asyncio.sleep(self.interval)
        while True:
            began = time.monotonic()
            if not self.maps.paused:
                try:
                    sample = await self.source.sample()
                except MapdError as error:
                    self.model.lost(str(error))
                else:
                    self.model.feed(sample, self._clock())
                if self.maps.is_current:
                    self.maps.show()
            took = time.monotonic() - began
            await asyncio.sleep(max(self.interval - took, CALM * took))
