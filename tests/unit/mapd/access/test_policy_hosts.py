"""Users and groups of a policy as this host knows them."""

from __future__ import annotations

import grp
import os
import pwd
from typing import ClassVar

import pytest

from mapd.access.policy.file import PolicyError, parse
from mapd.access.policy.hosts import LocalHost, admissions


class Numbers:
    """A host with these users and groups."""

    users: ClassVar = {"alice": 1000, "al": 1000, "bob": 1001}
    groups: ClassVar = {"staff": 50}

    def uid(self, name: str) -> int:
        return self.users[name]

    def gid(self, name: str) -> int:
        return self.groups[name]


def test_names_become_numbers_and_numbers_stay() -> None:
    policy = parse("[principals.web]\nusers = ['alice', 7, '8']\ngroups = ['staff', 9]", "p.toml")
    found = admissions(policy, Numbers())
    assert found.by_principal["web"].uids == {1000, 7, 8}
    assert found.by_principal["web"].gids == {50, 9}
    assert found.by_principal["admin"].uids == frozenset()
    assert found.unknown == ()


def test_whom_the_host_does_not_know_is_admitted_nowhere_and_told() -> None:
    policy = parse("\n[principals.web]\nusers = ['carol', 'bob']\ngroups = ['staf']", "p.toml")
    found = admissions(policy, Numbers())
    assert found.by_principal["web"].uids == {1001}
    assert found.unknown == (
        "p.toml:2: [principals.web]: users: this host has no user 'carol'",
        "p.toml:2: [principals.web]: groups: this host has no group 'staf'",
    )


@pytest.mark.parametrize("other", ["'al'", "1000"])
def test_one_uid_is_one_principal_under_whatever_names(other: str) -> None:
    policy = parse(f"[principals.web]\nusers = ['alice']\n[principals.db]\nusers = [{other}]", "p.toml")
    with pytest.raises(PolicyError) as caught:
        admissions(policy, Numbers())
    assert str(caught.value).startswith(
        "p.toml:3: [principals.db]: users: uid 1000 is [principals.web]'s already"
    )


def test_one_principal_may_have_one_user_twice() -> None:
    policy = parse("[principals.web]\nusers = ['alice', 'al', 1000]", "p.toml")
    assert admissions(policy, Numbers()).by_principal["web"].uids == {1000}


def test_this_host_is_asked_as_every_program_asks_it() -> None:
    host = LocalHost()
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(0)
    assert (host.uid(user.pw_name), host.gid(group.gr_name)) == (user.pw_uid, 0)
    for ask in (host.uid, host.gid):
        with pytest.raises(KeyError):
            ask("no-such-name-here")
