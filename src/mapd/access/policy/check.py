"""What is allowed in a policy and probably not meant. Warnings only: none of it makes a policy unsafe."""

from __future__ import annotations

from collections.abc import Iterator

from mapd.access.policy import roles
from mapd.access.policy.hosts import Host, admissions
from mapd.access.policy.model import EVERYONE, SELF, Effect, Globs, Member, Policy, Rule, Selector
from mapd.access.principal import ADMIN
from mapd_api.ops import Verb
from mapd_api.uapi import MapType

_WITHOUT_KEYS = frozenset(
    {MapType.QUEUE, MapType.STACK, MapType.BLOOM_FILTER, MapType.RINGBUF, MapType.USER_RINGBUF}
)
"""Types whose key_size is 0 (kernel/bpf: queue_stack_maps.c, bloom_filter.c, ringbuf.c)."""


def warnings(policy: Policy, host: Host) -> tuple[str, ...]:
    """A line each, with file, line and table.

    Raises:
        PolicyError: as ``admissions``: what this host makes of the users is no policy.
    """
    found = [f"{line}; nobody is admitted by it" for line in admissions(policy, host).unknown]
    for member in policy.members.values():
        found += [
            f"{_at(policy, member.line)}: [principals.{member.name}]: {said}"
            for said in _member(policy, member)
        ]
    for rule in policy.rules:
        found += [
            f"{_at(policy, rule.line)}: {rule.label.partition(' (line')[0]}: {said}"
            for said in _rule(policy, rule)
        ]
    return tuple(found)


def _at(policy: Policy, line: int | None) -> str:
    return f"{policy.source}:{line}" if line else policy.source


def _member(policy: Policy, member: Member) -> Iterator[str]:
    if member.name == ADMIN:
        return
    if not (member.users or member.groups or member.mount or member.tls):
        yield "nobody but root can be it: give it users, groups, tls, or grant = 'mount'"
    if not any(rule.effect is Effect.ALLOW for rule in policy.rules_of(member.name)):
        yield "no rule allows it anything"


def _rule(policy: Policy, rule: Rule) -> Iterator[str]:
    if EVERYONE in rule.who and len(rule.who) > 1:
        yield f"who: {EVERYONE!r} is everybody; the other names mean nothing"
    yield from _never(policy, rule)
    for other in policy.rules:
        if other is rule or not _covers(other, rule):
            continue
        if other.effect is Effect.DENY and rule.effect is Effect.ALLOW:
            yield f"never has an effect: {other.label} denies all of it"
            return
        # Of two that say the same, the later one is told.
        if other.effect is rule.effect and (other.number < rule.number or not _covers(rule, other)):
            does = "denies" if rule.effect is Effect.DENY else "allows"
            yield f"adds nothing: {other.label} {does} all of it already"
            return


def _never(policy: Policy, rule: Rule) -> Iterator[str]:
    selector = rule.selector
    namespaces = {member.namespace for member in policy.members.values()}
    for owner in sorted((selector.owners or frozenset()) - namespaces - {SELF}):
        yield f"owners: no principal has the namespace {owner!r}"
    if selector.owners and selector.names and SELF not in selector.owners:
        heads = {glob.text.partition("/")[0] for glob in selector.names.all}
        if not any(set("*?[") & set(head) for head in heads) and heads.isdisjoint(selector.owners):
            yield f"never matches: a map with one of these names has none of the owners {_list(selector.owners)}"
    if Verb.HOST in rule.verbs and not rule.role and not selector.every_map:
        what = "takes" if rule.effect is Effect.DENY else "gives"
        yield f"{what} no host: that is a right on no map, for a rule with every_map = true"
    if rule.prefixes and selector.types:
        if selector.types <= _WITHOUT_KEYS:
            yield "never matches: maps of these types have no keys, and it is about keys"
        elif selector.types & roles.INEXACT_KEYS and rule.effect is Effect.ALLOW:
            inexact = [MapType(kind).name.lower() for kind in sorted(selector.types & roles.INEXACT_KEYS)]
            yield f"allows no key of {', '.join(inexact)}: different bytes may name one element there"


def _list(words: frozenset[str]) -> str:
    return ", ".join(sorted(words))


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether whatever one rule concerns is surely concerned by another."""
    return (
        (EVERYONE in wide.who or narrow.who <= wide.who)
        and narrow.verbs <= wide.verbs
        and (
            not wide.prefixes
            or (bool(narrow.prefixes) and all(p.startswith(wide.prefixes) for p in narrow.prefixes))
        )
        and selector_covers(wide.selector, narrow.selector)
    )


def selector_covers(wide: Selector, narrow: Selector) -> bool:
    """Whether every map that ``narrow`` means is surely meant by ``wide``; False where it is not plain."""
    if wide.every_map or narrow.every_map:
        return wide.every_map
    return (
        _subset(wide.types, narrow.types)
        and _subset(wide.owners, narrow.owners)
        and _globs_cover(wide.names, narrow.names)
        and _globs_cover(wide.pins, narrow.pins)
    )


def _subset(
    wide: frozenset[int] | frozenset[str] | None, narrow: frozenset[int] | frozenset[str] | None
) -> bool:
    return wide is None or (narrow is not None and narrow <= wide)


def _globs_cover(wide: Globs | None, narrow: Globs | None) -> bool:
    if wide is None:
        return True
    return narrow is not None and all(any(w.covers(n) for w in wide.all) for n in narrow.all)
