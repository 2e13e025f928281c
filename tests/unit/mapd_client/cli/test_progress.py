"""Progress: where a person looks, and nowhere else."""

from __future__ import annotations

import io

import pytest

from mapd_client.cli.options import Options
from mapd_client.cli.progress import progress, wanted


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("quiet", "out", "err", "shown"),
    [
        (False, io.StringIO(), Terminal(), True),
        (True, io.StringIO(), Terminal(), False),
        (False, Terminal(), Terminal(), False),
        (False, io.StringIO(), io.StringIO(), False),
    ],
    ids=["to a file", "--quiet", "among the elements", "no terminal"],
)
def test_it_is_shown_on_a_terminal_that_shows_nothing_else(
    quiet: bool, out: io.StringIO, err: io.StringIO, shown: bool
) -> None:
    assert wanted(Options(quiet=quiet), out, err) is shown


def test_it_tells_elements_rate_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with progress("dump flows", 200, shown=True, file=terminal) as advance:
        advance(50)
        advance(150)
    written = terminal.getvalue()
    assert "dump flows" in written
    assert "200/200" in written
    assert "/s" in written
    assert written.endswith("\x1b[2K") or "\x1b[2K" in written.splitlines()[-1]


def test_it_says_nothing_where_it_is_not_wanted() -> None:
    terminal = Terminal()
    with progress("dump flows", None, shown=False, file=terminal) as advance:
        advance(50)
    assert terminal.getvalue() == ""
