"""``mapd policy``: statuses, and what is printed where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd import cli
from mapd.access.policy.holder import load

TEXT = """contact = "ops"
[principals.web]
users = [4000000]
[[rules]]
who = ["web"]
role = "viewer"
names = ["web/*"]
[[rules]]
who = ["web"]
verbs = ["write"]
names = ["web/*"]
types = ["hash"]
key_prefixes = ["0a"]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "policy.toml"
    made.write_text(TEXT)
    return made


def test_a_good_file_is_status_0_with_its_version(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["policy", "check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{path}: version {load(path).version}: admin and 1 principal, 2 rules, no warnings\n"
    assert said.err == ""


@pytest.mark.parametrize(("options", "status"), [([], 0), (["--strict"], 1)])
def test_warnings_are_told_and_are_a_status_where_that_is_asked_for(
    path: Path, options: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(TEXT + "[principals.db]\n")
    assert cli.run(["policy", "check", *options, str(path)]) == status
    said = capsys.readouterr()
    assert said.out.endswith("admin and 2 principals, 2 rules, 2 warnings\n")
    assert said.err.startswith(f"mapd: {path}:14: [principals.db]: nobody but root can be it")


def test_a_wrong_file_is_status_2_with_a_line_for_each_fault(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text("[quotas]\nmap = 1\n[principals.a]\nuser = 1\n")
    assert cli.run(["policy", "check", str(path)]) == 2
    said = capsys.readouterr()
    assert [line.partition(": [")[0] for line in said.err.splitlines()] == [
        f"mapd: {path}:1",
        f"mapd: {path}:3",
    ]
    assert said.out == ""


def test_without_a_file_the_usual_one_is_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mapd.access.policy.holder.DEFAULT_PATH", Path("/nowhere/policy.toml"))
    assert cli.run(["policy", "check"]) == 2
    assert capsys.readouterr().err == "mapd: /nowhere/policy.toml: No such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "status", "out"),
    [
        (["web", "read", "web/flows"], 0, "web may read web/flows: rule 1 (line 4)\n"),
        (["web", "read", "flows"], 0, "web may read flows: rule 1 (line 4)\n"),
        (["web", "read", "/x/flows", "--also", "web/a"], 0, "web may read /x/flows: rule 1 (line 4)\n"),
        (["admin", "pin", "web/flows"], 0, "admin may pin web/flows: the admin may do everything\n"),
        (["web", "pin", "web/flows"], 1, "web may not pin web/flows: no rule allows it\n"),
        (
            ["web", "write", "web/flows", "--type", "hash", "--key", "0a01"],
            0,
            "web may write web/flows for keys that begin with 0a: rule 2 (line 8)\nkey 0a01: yes\n",
        ),
        (
            ["web", "write", "web/flows", "--type", "hash", "--key", "0b"],
            1,
            "web may write web/flows for keys that begin with 0a: rule 2 (line 8)\nkey 0b: no\n",
        ),
        (
            ["web", "write", "web/flows"],
            1,
            """of type hash: web may write web/flows for keys that begin with 0a: rule 2 (line 8)
of any other type: web may not write web/flows: no rule allows it
  rule 2 (line 8) does not: its types
""",
        ),
        (
            ["web", "read", "web/flows", "--key", "0b"],
            0,
            "web may read web/flows: rule 1 (line 4)\nkey 0b: yes\n",
        ),
    ],
)
def test_an_explanation_names_the_rule_and_is_a_status(
    path: Path, arguments: list[str], status: int, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    who, *rest = arguments
    assert cli.run(["policy", "explain", "--policy", str(path), "--as", who, *rest]) == status
    assert capsys.readouterr().out == out


def test_a_map_that_none_could_be_is_status_2(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["policy", "explain", "--policy", str(path), "--as", "web", "read", "Web/x"]) == 2
    assert "'Web/x' is no map name" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["policy"],
        ["policy", "explain", "read", "web/x"],
        ["policy", "explain", "--as", "web", "raed", "web/x"],
        ["policy", "explain", "--as", "web", "read", "web/x", "--key", "0"],
        ["policy", "allow", "web", "view", "web/x"],
    ],
)
def test_a_wrong_command_line_is_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.run(arguments)
    assert caught.value.code == 2


def test_a_rule_is_added_and_the_difference_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["policy", "allow", "--policy", str(path), "web", "owner", "web/*", "--key-prefix", "0a"]
    assert cli.run([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(
        '+[[rules]]\n+who = ["web"]\n+role = "owner"\n+names = ["web/*"]\n+key_prefixes = ["0a"]\n'
    )
    assert path.read_text() == TEXT
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out == shown
    assert path.read_text().startswith(TEXT)
    assert len(load(path).rules) == 3
    assert cli.run(arguments) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "mapd: rule 3 (line 15) says so already\n")


def test_a_rule_that_cannot_be_added_is_status_2_and_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["policy", "allow", "--policy", str(path), "wep", "owner", "web/*"]) == 2
    assert "has no principal 'wep' (did you mean 'web'?)" in capsys.readouterr().err
    assert path.read_text() == TEXT
