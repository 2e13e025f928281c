"""The policy in force: a reload replaces it as a whole, and no fault of a file takes the last good one away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mapd.access.policy import holder
from mapd.access.policy.file import FILE_BYTES, PolicyError
from mapd.access.policy.holder import NOBODY_ELSE, PolicyHolder, load
from mapd.access.policy.model import Policy
from tests.unit.mapd.access.policies import text

GOOD = text([])
OTHER = text([{"who": ["web"], "role": "viewer", "every_map": True}])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "policy.toml"
    made.write_text(GOOD)
    return made


def test_a_daemon_does_not_start_on_a_wrong_file(path: Path) -> None:
    path.write_text("[rules")
    with pytest.raises(PolicyError, match=r"policy\.toml: not TOML"):
        PolicyHolder.start(path)


def test_another_content_is_another_policy(path: Path) -> None:
    held = PolicyHolder.start(path)
    before, decider = held.policy, held.decider
    path.write_text(OTHER)
    assert held.reload()
    assert held.policy.version != before.version
    assert held.decider is not decider
    assert (held.reloads, held.failures, held.last_error) == (1, 0, None)


def test_the_same_content_leaves_what_was_remembered(path: Path) -> None:
    held = PolicyHolder.start(path)
    decider = held.decider
    path.write_text(GOOD)
    assert not held.reload()
    assert held.decider is decider
    assert held.reloads == 0


@pytest.mark.parametrize("content", ["[rules", "x = 1", "[[rules]]\n", "#" * (FILE_BYTES + 1)])
def test_a_wrong_file_leaves_the_last_good_policy_and_is_told(path: Path, content: str) -> None:
    held = PolicyHolder.start(path)
    before, since = held.decider, held.since
    path.write_text(content)
    assert not held.reload()
    assert not held.reload()
    assert held.decider is before
    assert (held.reloads, held.failures, held.since) == (0, 2, since)
    assert held.last_error is not None
    assert str(path) in held.last_error
    path.write_text(GOOD)
    assert not held.reload()
    assert held.last_error is None  # the file is the policy in force again


def test_a_file_that_is_gone_takes_nothing_away_and_gives_nothing(path: Path) -> None:
    held = PolicyHolder.start(path)
    path.unlink()
    assert not held.reload()
    assert held.last_error == f"{path}: No such file or directory"
    assert set(held.policy.members) == {"admin", "web", "ops", "guest"}


def test_what_must_hold_besides_is_asked_before_a_policy_is_in_force(path: Path) -> None:
    seen: list[Policy] = []

    def check(policy: Policy) -> None:
        seen.append(policy)
        if policy.rules:
            raise PolicyError("two users with one uid")

    held = PolicyHolder.start(path, check)
    path.write_text(OTHER)
    assert not held.reload()
    assert (held.last_error, held.policy.rules, len(seen)) == ("two users with one uid", (), 2)
    with pytest.raises(PolicyError, match="two users"):
        PolicyHolder.start(path, check)


def test_without_a_file_there_is_the_admin_and_nothing_to_reload() -> None:
    held = PolicyHolder(NOBODY_ELSE)
    assert set(held.policy.members) == {"admin"}
    assert not held.reload()
    assert held.failures == 0


def test_a_file_that_everybody_may_write_is_no_policy(path: Path) -> None:
    path.chmod(0o646)
    with pytest.raises(
        PolicyError, match="every user may write it, and so grant himself everything; chmod o-w"
    ):
        load(path)
    path.chmod(0o664)
    assert load(path).rules == ()


def test_a_pipe_or_a_folder_is_no_policy_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(PolicyError, match="not a regular file"):
            load(path)


def test_a_large_file_is_not_read_to_its_end(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(PolicyError, match=f"more than {FILE_BYTES} bytes"):
        load(path)


def test_no_descriptor_is_left(path: Path, tmp_path: Path, leaves_nothing: None) -> None:
    del leaves_nothing
    holder.read(path)
    for wrong in (tmp_path, tmp_path / "none"):
        with pytest.raises(PolicyError):
            holder.read(wrong)
