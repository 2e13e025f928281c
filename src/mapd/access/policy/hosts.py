"""Who the users and groups of a policy are on this host. Blocks: names may be asked of a directory service."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mapd.access.policy.file import PolicyError
from mapd.access.policy.model import Member, Policy


class Host(Protocol):
    """Numbers of names."""

    def uid(self, name: str) -> int:
        """Of a user; raises KeyError."""
        ...

    def gid(self, name: str) -> int:
        """Of a group; raises KeyError."""
        ...


class LocalHost:
    """This host's own users and groups (nsswitch.conf)."""

    def uid(self, name: str) -> int:
        """Of a user; raises KeyError."""
        return pwd.getpwnam(name).pw_uid

    def gid(self, name: str) -> int:
        """Of a group; raises KeyError."""
        return grp.getgrnam(name).gr_gid


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may connect to one principal's socket, beside root."""

    uids: frozenset[int]
    gids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Admissions:
    """The same for every principal.

    Attributes:
        unknown: users and groups that this host does not know; they are admitted nowhere. A line each.
    """

    by_principal: Mapping[str, Admission]
    unknown: tuple[str, ...]


def admissions(policy: Policy, host: Host) -> Admissions:
    """Names as numbers.

    Raises:
        PolicyError: one user, under two names or by number, would be two principals.
    """
    found: dict[str, Admission] = {}
    unknown: list[str] = []
    owner: dict[int, Member] = {}
    for name, member in policy.members.items():

        def number(
            who: str | int, what: str, find: Callable[[str], int], member: Member = member
        ) -> int | None:
            if isinstance(who, int):
                return who
            try:
                return find(who)
            except KeyError:
                unknown.append(f"{_place(policy, member)}: {what}s: this host has no {what} {who!r}")
                return None

        uids = {uid for user in member.users if (uid := number(user, "user", host.uid)) is not None}
        gids = {gid for group in member.groups if (gid := number(group, "group", host.gid)) is not None}
        for uid in sorted(uids):
            other = owner.setdefault(uid, member)
            if other is not member:
                raise PolicyError(
                    f"{_place(policy, member)}: users: uid {uid} is [principals.{other.name}]'s already, under another "
                    "name; one who could be either would be neither: give one principal the rights of both"
                )
        found[name] = Admission(uids=frozenset(uids), gids=frozenset(gids))
    return Admissions(by_principal=found, unknown=tuple(unknown))


def _place(policy: Policy, member: Member) -> str:
    line = f":{member.line}" if member.line else ""
    return f"{policy.source}{line}: [principals.{member.name}]"
