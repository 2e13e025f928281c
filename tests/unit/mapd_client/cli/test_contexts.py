"""Contexts: which daemon is meant, by the command line, the environment, the file; and what is wrong with the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mapd_client import Misuse
from mapd_client.cli import contexts, outcomes
from mapd_client.cli.app import run
from mapd_client.cli.contextfile import read
from mapd_client.cli.options import Options
from mapd_client.cli.running import reached

_FILE = """\
# whom I ask
current = "here"   # for now

[contexts.here]
address = "/run/mapd/me/mapd.sock"
timeout = 5

[contexts.prod]  # careful
address = "edge1.example:7443"
tls = { ca = "ca.pem", certificate = "/etc/me.pem", key = "me.key" }

[contexts.edges]
hosts = ["edge1:7443", "edge2:7443"]
hosts_file = "edges.toml"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(_FILE)
    monkeypatch.setenv("MAPD_CONFIG", str(path))
    monkeypatch.delenv("MAPD_ADDRESS", raising=False)
    monkeypatch.delenv("MAPD_CONTEXT", raising=False)
    return path


def test_the_current_context_says_address_and_timeout(path: Path) -> None:
    del path
    assert reached(Options()) == ("/run/mapd/me/mapd.sock", None, 5.0)


def test_a_context_that_is_named_goes_before_the_current_one(path: Path) -> None:
    where = reached(Options(context="prod"))
    assert where.address == "edge1.example:7443"
    assert where.timeout == 30.0
    assert where.tls is not None
    assert where.tls.ca == str(path.parent / "ca.pem"), "relative to the file, wherever mapctl runs"
    assert where.tls.certificate == "/etc/me.pem"


def test_the_environment_names_a_context(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del path
    monkeypatch.setenv("MAPD_CONTEXT", "prod")
    assert reached(Options()).address == "edge1.example:7443"
    assert reached(Options(context="here")).address == "/run/mapd/me/mapd.sock", "the command line goes first"


def test_an_address_goes_before_any_context(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del path
    assert reached(Options(address="/x")) == ("/x", None, 30.0)
    monkeypatch.setenv("MAPD_ADDRESS", "/y")
    assert reached(Options()).address is None, "connect() reads the environment itself"
    assert reached(Options(context="prod")).address == "edge1.example:7443", "the command line goes first"


def test_the_command_line_goes_before_the_timeout_of_a_context(path: Path) -> None:
    del path
    assert reached(Options(timeout=1.0)).timeout == 1.0


def test_a_verb_for_one_host_takes_no_several(path: Path) -> None:
    with pytest.raises(Misuse, match="the context names 2 hosts, this verb takes one"):
        reached(Options(context="edges"))
    with pytest.raises(Misuse, match="-H and --hosts name 2 hosts"):
        reached(Options(hosts=("a:1", "b:2")))
    with pytest.raises(Misuse, match="name the hosts of a file"):
        reached(Options(hosts_file=path))
    assert reached(Options(hosts=("/x",))).address == "/x", "one of them is one host"
    assert reached(Options(address="/y", context="edges")).address == "/y"


def test_without_a_file_there_is_no_context(path: Path) -> None:
    path.unlink()
    assert reached(Options()) == (None, None, 30.0)
    with pytest.raises(Misuse, match=r"No such file .*\[contexts\.NAME\]"):
        reached(Options(context="prod"))


def test_the_file_lies_where_xdg_says(tmp_path: Path) -> None:
    assert contexts.config_path({"XDG_CONFIG_HOME": "/x"}) == Path("/x/mapd/config.toml")
    assert contexts.config_path({"MAPD_CONFIG": "/y.toml", "XDG_CONFIG_HOME": "/x"}) == Path("/y.toml")
    assert contexts.config_path({"MAPD_CONFIG": "", "XDG_CONFIG_HOME": ""}) == contexts.config_path({})
    assert contexts.config_path({}) == Path.home() / ".config/mapd/config.toml"
    del tmp_path


def test_an_unknown_context_is_refused_with_those_that_are_there(path: Path) -> None:
    with pytest.raises(Misuse, match=r"'other': .* it has here, prod, edges"):
        reached(Options(context="other"))
    del path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("contexts = 7", r"Expected `object`, got `int` - at `\$\.contexts`"),
        ("[contexts.a]\nadress = '/x'", r"unknown field `adress` - at `\$\.contexts"),
        ("[contexts.a]\ntimeout = 'long'", r"Expected `float \| null`, got `str`"),
        ("[contexts.a]\ntls = { ca = 'x' }", r"missing required field `certificate`"),
        ("current =", "Invalid"),
    ],
)
def test_what_is_wrong_with_the_file_is_said_with_its_place(path: Path, text: str, why: str) -> None:
    path.write_text(text)
    with pytest.raises(Misuse, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_another_context_is_made_the_current_one_and_nothing_else_changes(path: Path) -> None:
    path.chmod(0o640)
    assert run(["context", "use", "prod"]) == outcomes.OK
    assert path.read_text() == _FILE.replace('current = "here"', 'current = "prod"')
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in path.parent.iterdir()] == ["config.toml"], "no temporary file stays"


def test_the_first_current_context_is_written_before_the_tables(path: Path) -> None:
    text = _FILE.replace('current = "here"   # for now\n', "")
    path.write_text(text)
    assert run(["context", "use", "edges"]) == outcomes.OK
    assert read(path).current == "edges"
    assert path.read_text() == 'current = "edges"\n' + text


def test_a_context_that_is_not_there_is_not_made_current(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["context", "use", "other"]) == outcomes.USAGE
    assert path.read_text() == _FILE
    assert "it has here, prod, edges" in capsys.readouterr().err


def test_contexts_are_listed_with_a_star_at_the_current_one(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["context", "list"]) == outcomes.OK
    assert capsys.readouterr().out.splitlines() == [
        "* here  /run/mapd/me/mapd.sock",
        "  prod  edge1.example:7443",
        "  edges  edge1:7443 edge2:7443",
    ]
    assert run(["context", "show", "edges", "-o", "ndjson"]) == outcomes.OK
    assert json.loads(capsys.readouterr().out) == {
        "name": "edges",
        "current": False,
        "address": None,
        "hosts": ["edge1:7443", "edge2:7443"],
        "hosts_file": str(path.parent / "edges.toml"),
        "timeout": None,
        "tls": None,
    }


def test_no_file_is_said_and_no_failure(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.unlink()
    assert run(["context", "list"]) == outcomes.OK
    said = capsys.readouterr()
    assert not said.out
    assert f"no contexts: {path} does not exist" in said.err
