"""How far a long dump is: elements, rate and time left on stderr, where a person looks and nothing else is printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from mapd_client.cli.options import Options

Advance = Callable[[int], None]
"""Takes how many elements more there are."""


def wanted(options: Options, out: TextIO | None = None, err: TextIO | None = None) -> bool:
    """Whether progress is shown: stderr is a terminal, stdout is none that it would be mixed with, and no --quiet."""
    return not options.quiet and (err or sys.stderr).isatty() and not (out or sys.stdout).isatty()


@contextmanager
def progress(what: str, total: int | None, *, shown: bool, file: TextIO | None = None) -> Generator[Advance]:
    """Show progress until the end of the block; it leaves nothing on the screen.

    Args:
        what: "dump flows".
        total: elements, None if not known.
        shown: do it; else what is given is ignored.
        file: the terminal, stderr if None.
    """
    if not shown:
        yield lambda _count: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from mapd_client.cli.console import QuietConsole

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")

    columns = (BarColumn(None), MofNCompleteColumn(), Rate(), TimeRemainingColumn(compact=True))
    console = QuietConsole(file=file or sys.stderr, markup=False, highlight=False)
    with Progress("{task.description}", *columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task(what, total=total)

        def advance(count: int) -> None:
            bar.advance(task, count)

        yield advance
