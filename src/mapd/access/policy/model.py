"""What a policy says: principals, rules, quotas. Immutable, and checked by whoever made it (``file``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from mapd.access.policy.glob import Glob
from mapd_api import limits
from mapd_api.ops import Verb

EVERYONE: Final = "*"
"""In ``who``: every principal but the admin, whom no rule concerns."""

SELF: Final = "self"
"""In ``owners``: the namespace of the principal that asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsure:
    """Names and pins that any map may have, for all that the daemon can tell. Denials by them hold; nothing else does.

    Attributes:
        names, pins: that it cannot open, and so does not know the maps of.
        namespaces: whose names it cannot list; ``any_name``: of all of them.
        below: folders whose pins it cannot list.
    """

    names: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    any_name: bool = False
    below: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is known of a map when a right on it is decided.

    Attributes:
        type: the kernel's number; None where it is not known yet.
        key_size: bytes of a key; None where it is not known yet.
        names: every name of it that the daemon knows, "namespace/name"; of one to create, the name.
        pins: every path that it is known to be pinned at, those of its names among them.
        owners: the namespaces of its names, and of its lease.
        unsure: what else it may be called; None where all is known.
    """

    type: int | None = None
    key_size: int | None = None
    names: frozenset[str] = frozenset()
    pins: frozenset[str] = frozenset()
    owners: frozenset[str] = frozenset()
    unsure: Unsure | None = None

    @classmethod
    def of(
        cls,
        map_type: int | None = None,
        key_size: int | None = None,
        *,
        names: Iterable[str] = (),
        pins: Iterable[str] = (),
        owners: Iterable[str] = (),
        unsure: Unsure | None = None,
    ) -> Subject:
        """A subject whose owners are the namespaces of its names, and ``owners``: those of its leases."""
        names = frozenset(names)
        owners = frozenset(owners).union(name.partition("/")[0] for name in names)
        return cls(
            type=map_type, key_size=key_size, names=names, pins=frozenset(pins), owners=owners, unsure=unsure
        )


class Effect(Enum):
    """What a rule does; a denial beats every permission."""

    ALLOW = "allow"
    DENY = "deny"


class Globs:
    """Patterns of one key of a rule. Those without wildcards cost one look-up together."""

    __slots__ = ("_literals", "_wild", "all")

    def __init__(self, globs: Iterable[Glob]) -> None:
        self.all: Final = tuple(globs)
        self._literals: Final = frozenset(glob.text for glob in self.all if glob.literal)
        self._wild: Final = tuple(glob for glob in self.all if not glob.literal)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Globs) and self.all == other.all

    def __hash__(self) -> int:
        return hash(self.all)

    def any_of(self, texts: frozenset[str]) -> bool:
        """Whether one of them matches one of these."""
        if not self._literals.isdisjoint(texts):
            return True
        return any(glob.matches(text) for text in texts for glob in self._wild)

    def below(self, folders: frozenset[str]) -> bool:
        """Whether one of them may match something below one of these folders."""
        return any(glob.reaches(folder) for folder in folders for glob in self.all)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which maps a rule is about: those that satisfy every key that is not None.

    Attributes:
        types: map types by the kernel's numbers.
        owners: namespaces, among them perhaps ``SELF``.
    """

    every_map: bool = False
    names: Globs | None = None
    pins: Globs | None = None
    types: frozenset[int] | None = None
    owners: frozenset[str] | None = None

    def matches(self, subject: Subject | None, namespace: str, *, unknown: bool = False) -> bool:
        """Whether a map is meant; None is no map but the daemon itself.

        Args:
            namespace: of the principal that asks.
            unknown: whether a map of unknown type may be taken for one of ``types``, and one that may have other
                names and pins for one that has them.
        """
        if self.every_map:
            return True
        if subject is None:
            return False
        return (
            (self.types is None or self._has_type(subject, unknown))
            and (self.owners is None or self._has_owner(subject, namespace, unknown))
            and (self.names is None or self._has_name(subject, unknown))
            and (self.pins is None or self._has_pin(subject, unknown))
        )

    def fails(self, subject: Subject | None, namespace: str) -> str:
        """The first key that a map does not satisfy, for people; "" where it is meant."""
        if self.every_map:
            return ""
        if subject is None:
            return "every_map"
        if self.types is not None and not self._has_type(subject, unknown=False):
            return "types"
        if self.owners is not None and not self._has_owner(subject, namespace, unknown=False):
            return "owners"
        if self.names is not None and not self.names.any_of(subject.names):
            return "names"
        return "pins" if self.pins is not None and not self.pins.any_of(subject.pins) else ""

    def _has_type(self, subject: Subject, unknown: bool) -> bool:
        assert self.types is not None
        return unknown if subject.type is None else subject.type in self.types

    def _has_owner(self, subject: Subject, namespace: str, unknown: bool) -> bool:
        assert self.owners is not None
        wanted = self.owners | {namespace} if SELF in self.owners else self.owners
        if not wanted.isdisjoint(subject.owners):
            return True
        unsure = subject.unsure if unknown else None
        return unsure is not None and (
            unsure.any_name
            or not wanted.isdisjoint(unsure.namespaces)
            or any(name.partition("/")[0] in wanted for name in unsure.names)
        )

    def _has_name(self, subject: Subject, unknown: bool) -> bool:
        assert self.names is not None
        if self.names.any_of(subject.names):
            return True
        unsure = subject.unsure if unknown else None
        return unsure is not None and (
            unsure.any_name or self.names.any_of(unsure.names) or self.names.below(unsure.namespaces)
        )

    def _has_pin(self, subject: Subject, unknown: bool) -> bool:
        assert self.pins is not None
        if self.pins.any_of(subject.pins):
            return True
        unsure = subject.unsure if unknown else None
        return unsure is not None and (self.pins.any_of(unsure.pins) or self.pins.below(unsure.below))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """One rule; equal to itself alone, for two that say the same still have their own lines.

    Attributes:
        number: its place in the file, from 1.
        line: of the file, None where it cannot be told.
        name: "" if it has none.
        who: principals' names; ``EVERYONE`` for all.
        role: the one that it was written with, "" if with verbs.
        prefixes: of keys; empty: it is about whole maps.
    """

    number: int
    line: int | None = None
    name: str = ""
    effect: Effect = Effect.ALLOW
    who: frozenset[str]
    verbs: frozenset[Verb]
    role: str = ""
    selector: Selector
    prefixes: tuple[bytes, ...] = ()

    @property
    def label(self) -> str:
        """``rule 3 "metrics-reads" (line 41)``."""
        name = f' "{self.name}"' if self.name else ""
        return f"rule {self.number}{name}" + (f" (line {self.line})" if self.line else "")

    def says(self) -> tuple[Effect, frozenset[str], frozenset[Verb], Selector, tuple[bytes, ...]]:
        """What it does, whatever its place and name."""
        return self.effect, self.who, self.verbs, self.selector, self.prefixes

    def concerns(self, principal: str) -> bool:
        """Whether it is about this principal."""
        return EVERYONE in self.who or principal in self.who


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What one principal may have at a time. None: not limited by the policy.

    Attributes:
        map_bytes: of kernel memory in maps that it made.
        streams: dumps, loads and sessions that are open.
        ops_per_second: element operations; ``burst`` of them at once.
    """

    maps: int | None = None
    map_bytes: int | None = None
    handles: int | None = None
    streams: int | None = None
    dumps: int | None = None
    connections: int | None = None
    ops_per_second: int | None = None
    burst: int | None = None


DEFAULT_QUOTAS: Final = Quotas(
    maps=64,
    map_bytes=256 << 20,
    handles=limits.HANDLES,
    streams=limits.SESSIONS,
    dumps=2,
    connections=32,
)
"""Of a principal for which the file says nothing else."""

ADMIN_QUOTAS: Final = Quotas(handles=limits.HANDLES, streams=4 * limits.SESSIONS)
"""Of the admin, whom [quotas] does not concern: what keeps one from taking all of the daemon's by mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A principal, as the file has it.

    Attributes:
        namespace: of names that it gives without one, and that it owns.
        users, groups: names or numbers that its socket admits.
        mount: its socket admits whoever reaches it: the folder is mounted where it shall be used.
        tls: identities in certificates: SPIFFE ids, URIs and DNS names.
        line: of the file, None where it cannot be told.
    """

    name: str
    namespace: str
    users: tuple[str | int, ...] = ()
    groups: tuple[str | int, ...] = ()
    mount: bool = False
    tls: tuple[str, ...] = ()
    quotas: Quotas = DEFAULT_QUOTAS
    line: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole file.

    Attributes:
        source: where it was read, for messages.
        version: of its content, twelve hexadecimal digits.
        contact: whom to ask for rights, "" if nobody is named.
        members: principals by name; the admin is always among them.
    """

    source: str
    version: str
    contact: str = ""
    members: Mapping[str, Member]
    rules: tuple[Rule, ...] = ()
    _rules_of: Mapping[str, tuple[Rule, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {name: tuple(rule for rule in self.rules if rule.concerns(name)) for name in self.members}
        object.__setattr__(self, "_rules_of", MappingProxyType(by_name))

    def rules_of(self, principal: str) -> tuple[Rule, ...]:
        """The rules about one principal, in the order of the file; none for one that it does not know."""
        return self._rules_of.get(principal, ())
