"""Decisions: what a principal may do with a map, and which rule says so. Pure, and cheap once made.

Nothing is allowed that no rule allows; a rule that denies beats every one that allows, whatever their order. A
map is judged by all its names and pins together, so a denial by one of them holds by whichever it is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mapd.access.policy.keys import KeyFilter, canonical_key
from mapd.access.policy.model import Effect, Policy, Rule, Subject
from mapd.access.policy.roles import BY_KEY, INEXACT_KEYS, WITHOUT_KEYS
from mapd.access.principal import ADMIN
from mapd_api.ops import Verb
from mapd_api.uapi import MapType

CACHED: Final = 4_096
"""Grants that are kept of one policy: of a principal and a map each."""

_EVERYTHING: Final = frozenset(Verb)

_OF_NO_MAP: Final = frozenset({Verb.CREATE, Verb.ADMIN, Verb.HOST})
"""Rights that are refused alike whatever maps there are, so that the refusal tells of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one question.

    Attributes:
        asked: the rights in question.
        missing: those that are not granted at all.
        filters: those that are granted for some keys alone.
        rules: that decided: of the first missing right those that deny it (none: no rule allows it), else those that
            allow or narrow what was asked.
        reveal: whether the caller may know that the map exists.
        version: of the policy.
    """

    principal: str
    asked: frozenset[Verb]
    missing: frozenset[Verb]
    filters: Mapping[Verb, KeyFilter]
    rules: tuple[Rule, ...]
    reveal: bool
    version: str

    @property
    def allowed(self) -> bool:
        """Whether everything is granted, for some keys at least. Who asks for nothing gets nothing."""
        return bool(self.asked) and not self.missing

    @property
    def whole(self) -> bool:
        """Whether everything is granted for all keys."""
        return self.allowed and not self.filters


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """All that one principal may do with one map under one policy.

    Attributes:
        whole: rights on every key.
        filters: rights on some keys.
        because: the rules that decided each right, granted or denied; none for what no rule speaks of.
        reveal: whether the principal may know that the map exists.
    """

    principal: str
    version: str
    whole: frozenset[Verb]
    filters: Mapping[Verb, KeyFilter]
    because: Mapping[Verb, tuple[Rule, ...]]
    reveal: bool
    _decisions: dict[frozenset[Verb], Decision] = field(
        default_factory=dict[frozenset[Verb], Decision], init=False, repr=False, compare=False
    )

    def decide(self, verbs: frozenset[Verb]) -> Decision:
        """The answer for some rights together."""
        found = self._decisions.get(verbs)
        if found is None:
            found = self._decisions[verbs] = self._decide(verbs)
        return found

    def _decide(self, verbs: frozenset[Verb]) -> Decision:
        missing = verbs - self.whole - self.filters.keys()
        about = [min(missing)] if missing else sorted(verbs)
        return Decision(
            principal=self.principal,
            asked=verbs,
            missing=missing,
            filters=MappingProxyType({verb: self.filters[verb] for verb in verbs & self.filters.keys()}),
            rules=tuple(dict.fromkeys(rule for verb in about for rule in self.because.get(verb, ()))),
            reveal=self.reveal or (bool(missing) and missing <= _OF_NO_MAP),
            version=self.version,
        )


class _Tally:
    """The rules that match, gathered."""

    def __init__(self, subject: Subject | None) -> None:
        self._subject = subject
        map_type = subject.type if subject else None
        self._lpm = map_type == MapType.LPM_TRIE
        self._inexact = map_type in INEXACT_KEYS
        self.allowed: dict[Verb, Rule] = {}
        self.denied: dict[Verb, Rule] = {}
        self.allowed_keys: dict[Verb, list[tuple[Rule, bytes]]] = {}
        self.denied_keys: dict[Verb, list[tuple[Rule, bytes]]] = {}

    def add(self, rule: Rule) -> None:
        """Count a rule that matches."""
        denies = rule.effect is Effect.DENY
        if not rule.prefixes:
            self._wholly(rule, rule.verbs, self.denied if denies else self.allowed)
            return
        if not denies:
            self._wholly(rule, rule.verbs - BY_KEY, self.allowed)
        prefixes = self._prefixes(rule)
        if not prefixes:
            return
        if denies:
            self._wholly(rule, WITHOUT_KEYS, self.denied)
        if self._inexact:
            if denies:
                self._wholly(rule, rule.verbs, self.denied)
            return
        into = self.denied_keys if denies else self.allowed_keys
        for verb in rule.verbs & BY_KEY:
            into.setdefault(verb, []).extend((rule, prefix) for prefix in prefixes)

    def _wholly(self, rule: Rule, verbs: Iterable[Verb], into: dict[Verb, Rule]) -> None:
        for verb in verbs:
            into.setdefault(verb, rule)

    def _prefixes(self, rule: Rule) -> tuple[bytes, ...]:
        """Those that a key of this map can begin with, as its keys are compared."""
        size = self._subject.key_size if self._subject else None
        fitting = rule.prefixes if size is None else tuple(p for p in rule.prefixes if len(p) <= size)
        return tuple(map(canonical_key, fitting)) if self._lpm else fitting

    def right(self, verb: Verb) -> tuple[bool, KeyFilter | None, tuple[Rule, ...]]:
        """(whether it is granted, the keys if not all, the rules that decided)."""
        if verb in self.denied:
            return False, None, (self.denied[verb],)
        denied = self.denied_keys.get(verb, [])
        denying = tuple(dict.fromkeys(rule for rule, _ in denied))
        prefixes = tuple(prefix for _, prefix in denied)
        if verb in self.allowed:
            keys = KeyFilter(None, prefixes, self._lpm) if denied else None
            return True, keys, (self.allowed[verb], *denying)
        allowed = self.allowed_keys.get(verb)
        if allowed is None:
            return False, None, ()
        keys = KeyFilter(tuple(prefix for _, prefix in allowed), prefixes, self._lpm)
        if keys.empty:
            return False, None, denying
        return True, keys, (*dict.fromkeys(rule for rule, _ in allowed), *denying)


def grants(policy: Policy, principal: str, subject: Subject | None) -> Grants:
    """All rights of one principal on one map; on the daemon itself where ``subject`` is None."""
    member = policy.members.get(principal)
    whole: set[Verb] = set()
    filters: dict[Verb, KeyFilter] = {}
    because: dict[Verb, tuple[Rule, ...]] = {}
    if principal == ADMIN:
        whole = set(_EVERYTHING)
    elif member is not None:
        tally = _Tally(subject)
        for rule in policy.rules_of(principal):
            # Of a map whose type is unknown, all denials are believed and no permission.
            if rule.selector.matches(subject, member.namespace, unknown=rule.effect is Effect.DENY):
                tally.add(rule)
        for verb in Verb:
            granted, keys, because[verb] = tally.right(verb)
            if keys is not None:
                filters[verb] = keys
            elif granted:
                whole.add(verb)
    return Grants(
        principal=principal,
        version=policy.version,
        whole=frozenset(whole),
        filters=MappingProxyType(filters),
        because=MappingProxyType({verb: rules for verb, rules in because.items() if rules}),
        reveal=Verb.LIST in whole,
    )


def possible(policy: Policy, principal: str, place: Subject | None) -> frozenset[Verb]:
    """Rights that a map at a place may turn out to give, whatever its type; None: any place at all.

    For deciding before a map is opened: whoever may not even list what could be there is told that nothing is,
    and nothing was looked at, so neither time nor a fault of the host can tell more.
    """
    if principal == ADMIN:
        return _EVERYTHING
    member = policy.members.get(principal)
    allowed: set[Verb] = set()
    denied: set[Verb] = set()
    for rule in policy.rules_of(principal) if member else ():
        assert member is not None
        denies = rule.effect is Effect.DENY
        if place is None:
            meant = rule.selector.every_map or not denies
        else:
            meant = rule.selector.matches(place, member.namespace, unknown=not denies)
        if meant and not (denies and rule.prefixes):
            (denied if denies else allowed).update(rule.verbs)
    return frozenset(allowed - denied)


def gains(policy: Policy, principal: str, before: Subject, after: Subject) -> frozenset[Verb]:
    """Rights that a map would give to a principal by one name or pin more.

    Who may pin could otherwise give a map a name by which it is his. Filtered rights count as gained where they
    are not the same.
    """
    old, new = grants(policy, principal, before), grants(policy, principal, after)
    wider = {
        verb for verb, keys in new.filters.items() if verb not in old.whole and old.filters.get(verb) != keys
    }
    return (new.whole - old.whole) | frozenset(wider)


class Decider:
    """Decisions of one policy, remembered. Not for several threads at once."""

    def __init__(self, policy: Policy, cached: int = CACHED) -> None:
        self.policy: Final = policy
        self._cached = cached
        self._grants: dict[tuple[str, Subject | None], Grants] = {}

    def grants(self, principal: str, subject: Subject | None) -> Grants:
        """As ``decide.grants``."""
        key = (principal, subject)
        found = self._grants.get(key)
        if found is None:
            if len(self._grants) >= self._cached:
                self._grants.clear()
            found = self._grants[key] = grants(self.policy, principal, subject)
        return found

    def decide(self, principal: str, verbs: frozenset[Verb], subject: Subject | None) -> Decision:
        """Whether a principal may do something, and by which rule."""
        return self.grants(principal, subject).decide(verbs)
