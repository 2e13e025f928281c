"""A rule more in the file: what was there stays byte for byte, and nothing is written that was not checked."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.decide import grants
from mapd.access.policy.edit import Edit, EditError, allow, write
from mapd.access.policy.file import PolicyError, parse
from mapd.access.policy.holder import load
from mapd.access.policy.model import Subject
from mapd.access.policy.roles import ROLES
from mapd_api.ops import Verb
from mapd_api.uapi import MapType

START = b"""# Who may do what.
[principals.web]   # the shop
users  = [ 1000 ]

[[rules]] # keep this
who = ["web"]
role = "viewer"
names = ["web/*"]
"""


def added(
    content: bytes, principal: str = "web", role: str = "operator", selector: str = "web/flows"
) -> bytes:
    change = allow(content, "p.toml", principal, role, selector)
    assert change.after.startswith(content)
    return change.after.removeprefix(content)


def test_a_rule_is_added_at_the_end_and_all_else_stays_byte_for_byte() -> None:
    assert added(START) == b'\n[[rules]]\nwho = ["web"]\nrole = "operator"\nnames = ["web/flows"]\n'


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"# last", b"\n\n"])
def test_however_the_file_ends_the_result_is_a_policy(end: bytes) -> None:
    change = allow(START.rstrip() + end, "p.toml", "web", "operator", "web/flows")
    assert parse(change.after, "p.toml").version == change.policy.version
    assert len(change.policy.rules) == 2


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ("web/*", 'names = ["web/*"]'),
        ("/sys/fs/bpf/x/**", 'pins = ["/sys/fs/bpf/x/**"]'),
        ("type:lru_*", 'types = ["lru_*"]'),
        ("owner:self", 'owners = ["self"]'),
        ("every-map", "every_map = true"),
        ('/x/a"b\\c\x7f', 'pins = ["/x/a\\"b\\\\c\\u007f"]'),
    ],
)
def test_a_selector_is_written_as_the_file_has_it(selector: str, line: str) -> None:
    assert line.encode() in added(START, selector=selector).splitlines()


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0*?[]"), min_size=1, max_size=20)
)
def test_whatever_a_pin_is_called_the_rule_is_about_it(name: str) -> None:
    path = f"/x/{name}"
    if name in {".", ".."}:
        return
    change = allow(START, "p.toml", "web", "operator", path)
    subject = Subject.of(MapType.HASH, 8, pins=[path])
    assert grants(change.policy, "web", subject).whole == ROLES["operator"]


def test_keys_narrow_it() -> None:
    change = allow(START, "p.toml", "web", "operator", "db/*", ("0a00", "0b"))
    subject = Subject.of(MapType.HASH, 8, names=["db/x"])
    assert grants(change.policy, "web", subject).filters[Verb.WRITE].allowed == (b"\x0a\0", b"\x0b")


def test_the_difference_is_shown_as_diff_shows_it() -> None:
    assert allow(START, "p.toml", "web", "operator", "web/flows").diff() == (
        '--- p.toml\n+++ p.toml\n@@ -6,3 +6,8 @@\n who = ["web"]\n role = "viewer"\n names = ["web/*"]\n+\n+[[rules]]\n'
        '+who = ["web"]\n+role = "operator"\n+names = ["web/flows"]\n'
    )


def test_what_the_file_says_already_is_not_said_twice() -> None:
    change = allow(START, "p.toml", "web", "viewer", "web/*")
    assert (change.changes, change.diff(), change.notes) == (False, "", ("rule 1 (line 5) says so already",))


@pytest.mark.parametrize(
    ("principal", "role", "selector", "said"),
    [
        (
            "wep",
            "viewer",
            "web/*",
            r"has no principal 'wep' \(did you mean 'web'\?\); add \[principals.wep\]",
        ),
        ("admin", "viewer", "web/*", "admin may do everything already"),
        ("web", "view", "web/*", r"the rule would be wrong: p\.toml:10: \[\[rules\]\] 2: role: 'view'"),
        ("web", "viewer", "web", "names: 'web': names are 'namespace/name'"),
        ("web", "viewer", "type:hsh", "types: no map type is 'hsh'"),
        ("web", "viewer", "/x/\udcff", "is no text, and TOML holds nothing else"),
    ],
)
def test_a_rule_that_would_be_wrong_is_refused(principal: str, role: str, selector: str, said: str) -> None:
    with pytest.raises(EditError, match=said):
        allow(START, "p.toml", principal, role, selector)


def test_a_file_that_is_wrong_already_is_told_and_left() -> None:
    with pytest.raises(PolicyError, match="unknown key 'x'"):
        allow(b"x = 1", "p.toml", "web", "viewer", "web/*")


def test_rules_in_one_array_are_told_for_nothing_can_follow_them() -> None:
    content = b'rules = [{who = ["*"], role = "viewer", every_map = true}]\n[principals.web]\n'
    with pytest.raises(EditError, match=r"its rules are one array.*write each as a table \[\[rules\]\]"):
        allow(content, "p.toml", "web", "viewer", "web/*")


DENIAL = b'\n[[rules]]\nname = "hush"\neffect = "deny"\nwho = ["*"]\nrole = "%s"\nnames = ["web/*"]\n'


def test_a_rule_of_which_a_denial_leaves_nothing_is_not_added() -> None:
    with pytest.raises(
        EditError, match=r'nothing would be gained: rule 2 "hush" \(line 10\) denies list, read, '
    ):
        allow(START + DENIAL % b"admin", "p.toml", "web", "operator", "web/flows")


def test_what_a_denial_takes_of_it_is_told() -> None:
    change = allow(START + DENIAL % b"viewer", "p.toml", "web", "operator", "web/flows")
    assert change.notes == ('rule 2 "hush" (line 10) denies list, read, watch, host all the same',)
    assert change.changes
    some = START + DENIAL % b"admin" + b'key_prefixes = ["0a"]\n'
    assert allow(some, "p.toml", "web", "operator", "web/flows").notes == (
        'rule 2 "hush" (line 10) denies read, write, delete for some keys all the same',
    )


# ---- on disk ------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "policy.toml"
    made.write_bytes(START)
    made.chmod(0o640)
    return made


def change_of(path: Path, selector: str = "web/flows") -> Edit:
    return allow(path.read_bytes(), str(path), "web", "operator", selector)


def test_the_file_is_replaced_in_one_step_with_its_mode_and_owner(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, 1234, 2345)
    before = path.stat()
    change = change_of(path)
    with path.open("rb") as old:
        write(path, change)
        assert old.read() == START  # who had it open has the old one, whole
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, before.st_uid, before.st_gid)
    assert load(path).version == change.policy.version
    assert list(path.parent.iterdir()) == [path]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    write(link, change_of(path))
    assert link.is_symlink()
    assert len(load(path).rules) == 2


def test_what_somebody_else_wrote_meanwhile_is_not_lost(path: Path) -> None:
    change = change_of(path)
    write(path, change_of(path, "web/other"))
    with pytest.raises(EditError, match="somebody has changed it meanwhile; look at it, and try again"):
        write(path, change)
    assert b"web/other" in path.read_bytes()
    assert b"web/flows" not in path.read_bytes()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, leaves_nothing: None
) -> None:
    del leaves_nothing
    change = change_of(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        EditError, match="No space left on device; run this as a user who may write its folder"
    ):
        write(path, change)
    assert path.read_bytes() == START
    assert list(path.parent.iterdir()) == [path]


def test_two_who_write_at_once_take_turns(path: Path) -> None:
    """The lock is held while the content is compared; nobody replaces the file between that and the rename."""
    change = change_of(path)
    seen: list[bool] = []
    real = os.fchmod

    def locked(fd: int, mode: int) -> None:
        with path.open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append(True)
        real(fd, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fchmod", locked)
        write(path, change)
    assert seen == [True]
