"""Decisions in words: for the administrator all of it, for the one who was refused what he may know."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mapd.access.policy import roles
from mapd.access.policy.decide import Decision, grants
from mapd.access.policy.keys import KeyFilter
from mapd.access.policy.model import Effect, Policy, Rule, Subject
from mapd.access.principal import ADMIN
from mapd_api.ops import Verb
from mapd_api.uapi import MapType


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a caller wanted.

    Attributes:
        operation: the caller's word: "update".
        what: the map as messages name it: "web/flows", "pin:/sys/fs/bpf/x".
        selector: what ``mapd policy allow`` takes for it, "" where it has neither name nor pin.
    """

    operation: str
    what: str
    selector: str


def refusal(policy: Policy, decision: Decision, asked: Asked, *, missing: str) -> str:
    """What a refused caller is told.

    Args:
        missing: what would be said if there were no such map; said word for word where the caller may not know
            that there is one, with the reason MAP_NOT_FOUND. Elsewhere the reason is POLICY.
    """
    if not decision.reveal:
        return missing
    lacks = roles.names(decision.missing or decision.asked)
    you = f"{asked.operation} {asked.what}: you are {decision.principal!r}, and"
    if decision.rules and decision.missing:
        return f"{you} a rule of the policy denies you {lacks} here; ask {_contact(policy)}"
    return (
        f"{you} no rule of the policy allows you {lacks} here; ask {_contact(policy)}{_line(decision, asked)}"
    )


def key_refusal(policy: Policy, decision: Decision, asked: Asked, *, missing: str) -> str:
    """What is told to one whose rights hold for other keys than those he used, or who did what takes every key."""
    if not decision.reveal:
        return missing
    held = "; ".join(f"{roles.names(frozenset({verb}))} {keys}" for verb, keys in decision.filters.items())
    return (
        f"{asked.operation} {asked.what}: you are {decision.principal!r}, and here you may {held}; others, and "
        f"operations that take more than one key, are not yours; ask {_contact(policy)}{_line(decision, asked)}"
    )


def _contact(policy: Policy) -> str:
    return policy.contact or "whoever administers mapd on this host"


def _line(decision: Decision, asked: Asked) -> str:
    if not asked.selector:
        return ""
    role = roles.role_for(decision.asked)
    words = ("mapd", "policy", "allow", decision.principal, role, asked.selector)
    return f" for: {shlex.join(words)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a principal may or may not do one thing with one map.

    Attributes:
        decision: None where it depends on the map's type, which was not given.
        text: lines for a person; each names the rule that decides.
    """

    decision: Decision | None
    text: str

    @property
    def allowed(self) -> bool:
        """Whether it may be done whatever is not known, for some keys at least."""
        return self.decision is not None and self.decision.allowed


def explain(policy: Policy, principal: str, verb: Verb, subject: Subject, what: str) -> Explanation:
    """Why; of a map of unknown type for every type that makes a difference."""
    verbs = frozenset({verb})
    if subject.type is not None:
        decision = grants(policy, principal, subject).decide(verbs)
        return Explanation(decision=decision, text=_verdict(policy, decision, verb, subject, what))
    by_type = {
        kind: grants(policy, principal, replace(subject, type=kind.value)).decide(verbs)
        for kind in MapType
        if kind
    }
    groups: dict[tuple[bool, tuple[Rule, ...], str], list[MapType]] = {}
    for kind, decision in by_type.items():
        held = _held(decision.filters)
        groups.setdefault((decision.allowed, decision.rules, held), []).append(kind)
    lines: list[str] = []
    for kinds in (ordered := sorted(groups.values(), key=len)):
        decision = by_type[kinds[0]]
        text = _verdict(policy, decision, verb, replace(subject, type=kinds[0].value), what)
        if len(ordered) > 1:
            of = f"of type {_types(kinds)}" if kinds is not ordered[-1] else "of any other type"
            text = f"{of}: {text}"
        lines.append(text)
    outcomes = {decision.allowed for decision in by_type.values()}
    decided = by_type[MapType.HASH] if len(outcomes) == 1 else None
    return Explanation(decision=decided, text="\n".join(lines))


def _types(kinds: list[MapType]) -> str:
    return ", ".join(kind.name.lower() for kind in kinds)


def _held(filters: Mapping[Verb, KeyFilter]) -> str:
    return "; ".join(str(keys) for keys in filters.values())


def _verdict(policy: Policy, decision: Decision, verb: Verb, subject: Subject, what: str) -> str:
    name = verb.name.lower()
    by = ", ".join(rule.label for rule in decision.rules)
    if decision.principal == ADMIN:
        return f"admin may {name} {what}: the admin may do everything"
    if decision.principal not in policy.members:
        return f"{decision.principal} may not {name} {what}: the policy has no such principal"
    if decision.filters:
        held = _held(decision.filters)
        return f"{decision.principal} may {name} {what} for {held}: {by}"
    if decision.allowed:
        return f"{decision.principal} may {name} {what}: {by}"
    if decision.rules:
        return f"{decision.principal} may not {name} {what}: {by} denies it"
    close = "".join(f"\n  {line}" for line in _close(policy, decision.principal, verb, subject))
    return f"{decision.principal} may not {name} {what}: no rule allows it{close}"


def _close(policy: Policy, principal: str, verb: Verb, subject: Subject) -> list[str]:
    """Rules that would allow it if the map, or the keys, were others."""
    member = policy.members[principal]
    found: list[str] = []
    for rule in policy.rules_of(principal):
        if rule.effect is Effect.ALLOW and verb in rule.verbs:
            key = rule.selector.fails(subject, member.namespace) or "key_prefixes"
            found.append(f"{rule.label} does not: its {key}")
    return found[:8]
