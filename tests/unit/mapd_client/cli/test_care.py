"""Who is asked before something is lost, and which answers count."""

from __future__ import annotations

import io
import sys

import pytest

from mapd_client import Misuse
from mapd_client.cli.care import agreed
from mapd_client.cli.options import Options


class Terminal(io.StringIO):
    """Somebody sits there."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "agrees"),
    [("y\n", True), ("Yes \n", True), ("n\n", False), ("\n", False), ("", False), ("sure\n", False)],
)
def test_only_yes_is_yes(monkeypatch: pytest.MonkeyPatch, answer: str, *, agrees: bool) -> None:
    said = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", said)

    assert agreed(Options(), "freeze flows", "nobody writes it again") is agrees

    assert said.getvalue().startswith("freeze flows: nobody writes it again. Go on? [y/N] ")
    assert ("nothing was done" in said.getvalue()) is not agrees


@pytest.mark.parametrize(
    ("stdin", "stderr"),
    [(io.StringIO, Terminal), (Terminal, io.StringIO), (io.StringIO, io.StringIO)],
)
def test_where_nobody_reads_the_question_or_can_answer_nothing_is_done(
    monkeypatch: pytest.MonkeyPatch, stdin: type[io.StringIO], stderr: type[io.StringIO]
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin("y\n"))
    monkeypatch.setattr(sys, "stderr", stderr())

    with pytest.raises(Misuse, match=r"freeze flows: .* nobody can be asked here: say --yes"):
        agreed(Options(), "freeze flows", "nobody writes it again")

    assert agreed(Options(yes=True), "freeze flows", "nobody writes it again")
