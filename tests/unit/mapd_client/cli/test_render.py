"""Tables: whole at any width."""

from __future__ import annotations

import io
import re

import pytest

from mapd_client.cli.render import write_table

TITLES = [("ID", True), ("NAME", False), ("TYPE", False), ("PIN", False)]
PATH = "/sys/fs/bpf/mapd/alice/a-rather-long-name-of-a-map-that-does-not-fit"
ROWS = [["7", "alice/flows", "lru_percpu_hash", PATH], ["123456", "alice/x", "array", "-"]]


class Terminal(io.StringIO):
    """Of as many columns as ``COLUMNS`` says."""

    def isatty(self) -> bool:
        return True


def table(rows: list[list[str]], file: io.StringIO) -> list[str]:
    write_table(TITLES, rows, file)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal whose width rich believes."""
    monkeypatch.setenv("TERM", "xterm")


def test_names_stay_whole_beside_a_path_that_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = table(ROWS, Terminal())
    assert max(map(len, lines)) <= 80
    assert lines[1].split()[:3] == ["7", "alice/flows", "lru_percpu_hash"]
    folded = [lines[1].split()[3], *(line.strip() for line in lines[2:-1])]
    assert "".join(folded) == PATH


def test_where_it_is_very_narrow_more_is_folded_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    lines = table(ROWS, Terminal())
    assert max(map(len, lines)) <= 44
    whole = "".join(title for title, _ in TITLES) + "".join("".join(row) for row in ROWS)
    assert sorted("".join(lines).replace(" ", "")) == sorted(whole)


def test_a_wide_terminal_and_a_pipe_fold_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert len(table(ROWS, Terminal())) == 3
    monkeypatch.setenv("COLUMNS", "40")
    assert table(ROWS, io.StringIO())[1].split() == ROWS[0]


def test_a_table_of_nothing_has_its_titles() -> None:
    assert table([], io.StringIO())[0].split() == ["ID", "NAME", "TYPE", "PIN"]


def test_markup_in_a_name_is_data() -> None:
    assert "[bold]x[/bold] :smile:" in table([["1", "[bold]x[/bold] :smile:", "hash", "-"]], io.StringIO())[1]
