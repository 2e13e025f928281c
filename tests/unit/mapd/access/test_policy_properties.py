"""What holds of every policy: the engine against a reference that reads one key and one rule at a time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.decide import gains, grants, possible
from mapd.access.policy.elements import permitted
from mapd.access.policy.keys import rows
from mapd.access.policy.model import Effect
from mapd_api import contract
from mapd_api.ops import Op, Verb
from tests.unit.mapd.access.policies import PRINCIPALS, keys, maps, policy, rule_lists, rules, subject
from tests.unit.mapd.access.reference import Map, Reference

Rules = list[dict[str, Any]]
WHO = st.sampled_from(tuple(PRINCIPALS))
OP_VERBS = contract.op_verbs()
PROBES = [bytes.fromhex(text) for text in ("00", "0a", "0a00", "0a01", "0b", "080000000a", "ff")]


def probes(of: Map) -> list[bytes]:
    """Keys that are inside and outside of what rules speak of."""
    return [(probe + bytes(of.key_size))[: of.key_size] for probe in PROBES] if of.key_size else []


def rights(all_rules: Rules, who: str, of: Map) -> set[tuple[Verb, bytes | None]]:
    """Everything that somebody may do with a map, by the engine: wholly, and to each of some keys."""
    found = grants(policy(*all_rules), who, subject(of))
    whole: set[tuple[Verb, bytes | None]] = {(verb, None) for verb in found.whole}
    single = {
        (verb, key)
        for verb in (Verb.READ, Verb.WRITE, Verb.DELETE)
        for key in probes(of)
        if verb in found.whole or (verb in found.filters and found.filters[verb].permits(key))
    }
    return whole | single


@settings(max_examples=500, deadline=None)
@given(rule_lists(), WHO, st.one_of(st.none(), maps()), st.data())
def test_the_engine_decides_as_the_reference_does(
    all_rules: Rules, who: str, of: Map | None, data: st.DataObject
) -> None:
    reference = Reference(all_rules, PRINCIPALS)
    found = grants(policy(*all_rules), who, subject(of))
    assert found.whole == {verb for verb in Verb if reference.may(who, verb, of)}
    assert found.reveal is reference.may(who, Verb.LIST, of)
    if of is None or not of.key_size:
        return
    for key in [*probes(of), data.draw(keys(of.key_size))]:
        for verb in (Verb.READ, Verb.WRITE, Verb.DELETE):
            held = verb in found.whole or (verb in found.filters and found.filters[verb].permits(key))
            assert held is reference.may(who, verb, of, key), (verb, key.hex())


@settings(max_examples=150, deadline=None)
@given(rule_lists(), WHO, maps().filter(lambda of: of.key_size > 0), st.data())
def test_a_group_is_decided_element_by_element_as_the_reference_does(
    all_rules: Rules, who: str, of: Map, data: st.DataObject
) -> None:
    """Every operation, also those that are not decided by key, mixed in one group."""
    elements = data.draw(st.lists(st.tuples(st.sampled_from(Op), keys(of.key_size)), max_size=12))
    found = grants(policy(*all_rules), who, subject(of))
    column = rows(b"".join(key for _, key in elements), of.key_size)
    mask = permitted(found, of.type, bytes(op for op, _ in elements), column)
    reference = Reference(all_rules, PRINCIPALS)
    expected = [reference.may_element(who, op, OP_VERBS[op], of, key) for op, key in elements]
    assert ([True] * len(elements) if mask is None else mask.tolist()) == expected


@settings(deadline=None)
@given(rule_lists(), rules(effect="deny"), WHO, maps(), st.integers(0, 6))
def test_a_denial_more_never_adds_a_right(
    all_rules: Rules, more: dict[str, Any], who: str, of: Map, at: int
) -> None:
    assert rights([*all_rules[:at], more, *all_rules[at:]], who, of) <= rights(all_rules, who, of)


@settings(deadline=None)
@given(rule_lists(), rules(effect="allow"), WHO, maps(), st.integers(0, 6))
def test_a_permission_more_never_takes_a_right(
    all_rules: Rules, more: dict[str, Any], who: str, of: Map, at: int
) -> None:
    assert rights([*all_rules[:at], more, *all_rules[at:]], who, of) >= rights(all_rules, who, of)


@settings(deadline=None)
@given(rule_lists(), WHO, maps())
def test_what_a_denial_names_is_denied_whatever_else_is_said(all_rules: Rules, who: str, of: Map) -> None:
    read = policy(*all_rules)
    found = grants(read, who, subject(of))
    for rule in read.rules_of(who):
        matches = rule.selector.matches(subject(of), PRINCIPALS[who])
        if matches and rule.effect is Effect.DENY and not rule.prefixes:
            assert not rule.verbs & (found.whole | found.filters.keys())


@settings(deadline=None)
@given(rule_lists(), WHO, maps())
def test_the_order_of_rules_means_nothing(all_rules: Rules, who: str, of: Map) -> None:
    assert rights(all_rules, who, of) == rights(all_rules[::-1], who, of)


@settings(deadline=None)
@given(rule_lists(), WHO, maps(), maps())
def test_a_map_of_more_names_has_all_their_denials(all_rules: Rules, who: str, of: Map, other: Map) -> None:
    """Each denial that a map has by one of its names it has by all of them together."""
    both = Map(of.type, of.key_size, of.names + other.names, of.pins + other.pins)
    denials = [rule for rule in all_rules if rule["effect"] == "deny"]
    everything = {"effect": "allow", "who": ["*"], "role": "admin", "every_map": True}
    assert rights([everything, *denials], who, both) <= rights([everything, *denials], who, of)


@settings(deadline=None)
@given(rule_lists(), WHO, maps())
def test_what_is_granted_was_possible_at_the_place(all_rules: Rules, who: str, of: Map) -> None:
    """Who is turned away before the map was opened would have been turned away after it."""
    read = policy(*all_rules)
    found = grants(read, who, subject(of))
    place = subject(Map(of.type, of.key_size, of.names, of.pins))
    assert place is not None
    unopened = type(place).of(names=of.names, pins=of.pins)
    granted = found.whole | found.filters.keys()
    assert granted <= possible(read, who, unopened) <= possible(read, who, None)


@settings(deadline=None)
@given(rule_lists(), WHO, maps(), maps())
def test_a_right_that_a_name_more_gives_is_a_gain(all_rules: Rules, who: str, of: Map, other: Map) -> None:
    both = Map(of.type, of.key_size, of.names + other.names, of.pins + other.pins)
    before, after = subject(of), subject(both)
    assert before is not None
    assert after is not None
    new = rights(all_rules, who, both) - rights(all_rules, who, of)
    assert {verb for verb, _ in new} <= gains(policy(*all_rules), who, before, after)


@settings(deadline=None)
@given(rule_lists(), WHO, maps(), st.frozensets(st.sampled_from(Verb), min_size=1, max_size=3))
def test_a_decision_names_the_rules_that_made_it(
    all_rules: Rules, who: str, of: Map, asked: frozenset[Verb]
) -> None:
    decision = grants(policy(*all_rules), who, subject(of)).decide(asked)
    effects = {rule.effect for rule in decision.rules}
    if decision.whole:
        assert effects == {Effect.ALLOW}
    elif decision.allowed:
        assert Effect.ALLOW in effects
    else:
        assert effects <= {Effect.DENY}
    for rule in decision.rules:
        assert rule.concerns(who)
        assert rule.selector.matches(subject(of), PRINCIPALS[who])
        assert rule.selector.fails(subject(of), PRINCIPALS[who]) == ""


@settings(deadline=None)
@given(rule_lists(), WHO, maps())
def test_what_a_selector_is_said_to_fail_by_it_fails_by(all_rules: Rules, who: str, of: Map) -> None:
    for rule in policy(*all_rules).rules:
        fails = rule.selector.fails(subject(of), PRINCIPALS[who])
        assert rule.selector.matches(subject(of), PRINCIPALS[who]) is (fails == "")
        assert fails == "" or getattr(rule.selector, fails) is not None
