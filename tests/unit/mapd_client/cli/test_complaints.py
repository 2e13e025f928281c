"""What is wrong is told as text, or as one JSON object where JSON was asked for; on stderr, with the exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mapd_client.cli import outcomes
from mapd_client.cli.app import VERBS, app, load_all, run
from mapd_client.cli.complaints import wants_json

_NOWHERE = "/nowhere/mapd.sock"


def _error(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    said = capsys.readouterr()
    assert not said.out, "data only"
    found: dict[str, Any] = json.loads(said.err)["error"]
    return found


@pytest.mark.parametrize("how", ["-o ndjson", "-ondjson", "-o=ndjson", "--output ndjson", "--output=ndjson"])
def test_a_failure_is_an_object_where_json_was_asked_for(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "flows", "--address", _NOWHERE, *how.split()]) == outcomes.UNAVAILABLE
    found = _error(capsys)
    assert found["exit_code"] == outcomes.UNAVAILABLE
    assert "/nowhere/mapd.sock" in found["message"]
    assert "--address" in found["hint"]


def test_a_wrong_command_line_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lookup", "flows", "-o", "ndjson"]) == outcomes.USAGE
    found = _error(capsys)
    assert "KEY" in found["message"]
    assert found["hint"] == "see 'mapctl lookup --help'"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("dump flows", False),
        ("dump flows -o table", False),
        ("dump flows -o", False),
        ("lookup flows -- -ojson", False),
        ("dump -o json flows", True),
        ("list --output=ndjson", True),
    ],
)
def test_json_is_asked_for_by_the_option_alone(arguments: str, wanted: bool) -> None:
    assert wants_json(arguments.split()) is wanted


def test_an_unknown_verb_names_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fetch", "flows"]) == outcomes.USAGE
    assert "see 'mapctl --help'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("color", "coloured"),
    [("--color always", True), ("--color=always", True), ("--color never", False), ("--color auto", False)],
)
def test_colour_is_a_terminals_unless_it_is_asked_for(
    color: str, coloured: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.setenv(name, "")  # for it to be as it was, when the test has ended
        monkeypatch.delenv(name)
    assert run([*color.split(), "context", "list", "--help"]) == outcomes.OK
    assert ("\x1b[" in capsys.readouterr().out) is coloured


def test_the_help_of_a_verb_has_its_own_options_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lookup", "--help"]) == outcomes.OK
    own, every = capsys.readouterr().out.split("Options of every verb")
    assert "--elf" in own
    assert "--address" in every
    assert "default: False" not in own + every
    assert "[default: table]" in own


def test_each_verb_is_there_with_a_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == outcomes.OK
    shown = capsys.readouterr().out
    load_all()
    for names, _ in VERBS:
        for name in names.split():
            assert app[name].help.strip(), name
        assert names.split()[0] in shown
