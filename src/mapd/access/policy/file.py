"""From the policy's text to a ``Policy``. Every fault is told with file, line, key, what is there and what may be."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from mapd.access.policy.lines import Place, tables
from mapd.access.policy.members import member, quotas
from mapd.access.policy.model import ADMIN_QUOTAS, DEFAULT_QUOTAS, Member, Policy, Quotas, Rule
from mapd.access.policy.rules import rule
from mapd.access.policy.tables import Fault, FileTable, RuleTable, read, shown
from mapd.access.principal import ADMIN

T = TypeVar("T")

FILE_BYTES: Final = 1 << 20
PRINCIPALS: Final = 1_024
RULES: Final = 4_096
PATTERNS: Final = 8_192
"""Patterns with wildcards of one file: each may be tried when a map is first looked at."""
FAULTS: Final = 20
"""Faults that are told at once; one is often the cause of the next."""


class PolicyError(Exception):
    """A file that cannot be used.

    Attributes:
        faults: a line each: file, line, table, key, what was found, what is accepted.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def version_of(content: bytes) -> str:
    """What names this content in audit lines and answers."""
    return hashlib.sha256(content).hexdigest()[:12]


def parse(content: bytes | str, source: str) -> Policy:
    """A policy from its file's content.

    Raises:
        PolicyError: with every fault that was found, up to ``FAULTS``.
    """
    data = content.encode() if isinstance(content, str) else content
    if len(data) > FILE_BYTES:
        raise PolicyError(f"{source}: {len(data)} bytes; a policy has at most {FILE_BYTES}")
    try:
        text = data.decode("utf-8")
        raw = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise PolicyError(
            f"{source}: not UTF-8, as TOML must be ({error.reason} at byte {error.start})"
        ) from None
    except RecursionError:
        raise PolicyError(
            f"{source}: arrays or tables too deep in one another; a policy needs four levels"
        ) from None
    except ValueError as error:  # TOMLDecodeError, and a number of thousands of digits
        raise PolicyError(f"{source}: not TOML: {error}") from None
    return _Reader(source, tables(text)).policy(raw, version_of(data))


class _Reader:
    """One reading of one file: gathers faults, and goes on."""

    def __init__(self, source: str, lines: Mapping[Place, int]) -> None:
        self._source = source
        self._lines = lines
        self._faults: list[str] = []
        self._patterns = 0

    def policy(self, raw: Mapping[str, object], version: str) -> Policy:
        file = self._try(None, "", lambda: read(raw, FileTable))
        if file is None:
            raise PolicyError(*self._faults)
        default = self._try(("quotas",), "[quotas]", lambda: quotas(file.quotas, DEFAULT_QUOTAS))
        members = self._members(file, default or DEFAULT_QUOTAS)
        rules = self._rules(file, frozenset(members) | frozenset(file.principals))
        if self._faults:
            more = len(self._faults) - FAULTS
            raise PolicyError(*self._faults[:FAULTS], *([f"{self._source}: {more} more"] if more > 0 else []))
        return Policy(
            source=self._source, version=version, contact=file.contact.strip(), members=members, rules=rules
        )

    def _try(self, place: Place | None, table: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except Fault as fault:
            line = self._lines.get(place) if place else None
            where = f"{self._source}:{line}" if line else self._source
            self._faults.append(f"{where}: {table}: {fault}" if table else f"{where}: {fault}")
            return None

    # ---- principals -------------------------------------------------------------------------------

    def _members(self, file: FileTable, default: Quotas) -> dict[str, Member]:
        members = {ADMIN: Member(name=ADMIN, namespace=ADMIN, quotas=ADMIN_QUOTAS)}
        if len(file.principals) > PRINCIPALS:
            self._faults.append(
                f"{self._source}: {len(file.principals)} principals; at most {PRINCIPALS} are taken"
            )
            return members
        for name, raw in file.principals.items():
            place = ("principals", name)
            base = ADMIN_QUOTAS if name == ADMIN else default
            line = self._lines.get(place)
            found = self._try(place, f"[principals.{name}]", lambda: member(name, raw, base, line))  # noqa: B023
            if found is not None:
                members[name] = found
        for what, key in (("user", _users), ("TLS identity", _identities)):
            self._one_principal_each(members.values(), what, key)
        return members

    def _one_principal_each(
        self, members: Iterable[Member], what: str, key: Callable[[Member], Iterable[str]]
    ) -> None:
        """Whoever connects must be one principal: which of two is meant, nothing could tell."""
        seen: dict[str, Member] = {}
        for each in members:
            for said in dict.fromkeys(key(each)):
                other = seen.setdefault(said, each)
                if other is not each:
                    table = f"[principals.{each.name}]"
                    fault = Fault(
                        f"{what} {said} is [principals.{other.name}]'s already"
                        + (f" (line {other.line})" if other.line else "")
                        + "; one who could be either would be neither: give one principal the rights of both"
                    )
                    self._try(("principals", each.name), table, _raiser(fault))

    # ---- rules ------------------------------------------------------------------------------------

    def _rules(self, file: FileTable, known: frozenset[str]) -> tuple[Rule, ...]:
        if len(file.rules) > RULES:
            self._faults.append(f"{self._source}: {len(file.rules)} rules; at most {RULES} are taken")
            return ()
        found: list[Rule] = []
        named: dict[str, int] = {}
        for index, raw in enumerate(file.rules):
            place = ("rules", index)
            name = raw.get("name")
            table = f"[[rules]] {index + 1}" + (f" {shown(name)}" if isinstance(name, str) and name else "")

            def make(raw: Mapping[str, object] = raw, index: int = index) -> Rule:
                made = rule(read(raw, RuleTable), index + 1, self._lines.get(("rules", index)), known)
                if made.name and named.setdefault(made.name, index + 1) != index + 1:
                    raise Fault(f"name: rule {named[made.name]} has it too; a name is for one")
                self._count(made)
                return made

            made = self._try(place, table, make)
            if made is not None:
                found.append(made)
        return tuple(found)

    def _count(self, made: Rule) -> None:
        before = self._patterns
        for globs in (made.selector.names, made.selector.pins):
            self._patterns += sum(not glob.literal for glob in globs.all) if globs else 0
        if self._patterns > PATTERNS >= before:
            raise Fault(f"{self._patterns} patterns with wildcards up to here; a file has at most {PATTERNS}")


def _raiser(fault: Fault) -> Callable[[], None]:
    def raises() -> None:
        raise fault

    return raises


def _users(each: Member) -> Iterable[str]:
    return (str(user) for user in each.users)


def _identities(each: Member) -> Iterable[str]:
    return each.tls
