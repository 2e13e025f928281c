"""The engine against the reference on policies as text, the same examples every time; and what that would catch.

Each planted mutation makes the engine wrong in one place, and the same comparison must find it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mapd.access.policy import decide, elements, keys, roles
from mapd.access.policy.decide import Grants
from mapd.access.policy.model import Effect, Globs, Policy, Rule, Selector, Subject
from mapd_api import contract
from mapd_api.ops import Op, Verb
from tests.unit.mapd.access.policies import PRINCIPALS, maps, policy, rule_lists, subject
from tests.unit.mapd.access.reference import Map, Reference

Rules = list[dict[str, Any]]

EXAMPLES = 600
OP_VERBS = contract.op_verbs()
PROBES = [
    bytes.fromhex(text) for text in ("00", "0a00", "0a01", "0b", "080000000a", "080000000a01", "10000000")
]
WHO = (*PRINCIPALS, "stranger")


def probes(of: Map) -> list[bytes]:
    """Keys that are inside and outside of what rules speak of."""
    return [(probe + bytes(of.key_size))[: of.key_size] for probe in PROBES] if of.key_size else []


def allowed(reference: Reference, who: str, of: Map | None) -> set[tuple[Verb, bytes | None]]:
    """All that somebody may do by the reference: to the whole map, and to each of some keys."""
    asked: list[bytes | None] = [None, *(probes(of) if of is not None else [])]
    return {(verb, key) for verb in Verb for key in asked if reference.may(who, verb, of, key)}


def held(found: Grants, of: Map | None) -> set[tuple[Verb, bytes | None]]:
    """The same by the engine."""
    keyed: set[tuple[Verb, bytes | None]] = {
        (verb, key)
        for key in (probes(of) if of is not None else [])
        for verb in Verb
        if verb in found.whole or (verb in found.filters and found.filters[verb].permits(key))
    }
    keyed.update((verb, None) for verb in found.whole)
    return keyed


def compare(rules: Rules, of: Map | None, other: Map) -> None:
    """Fail unless both say the same of every principal, right, key and operation."""
    read, reference = policy(*rules), Reference(rules, {**PRINCIPALS, "stranger": "stranger"})
    for who in PRINCIPALS:
        found = decide.grants(read, who, subject(of))
        expected = allowed(reference, who, of)
        assert held(found, of) == expected
        assert found.reveal is reference.may(who, Verb.LIST, of)
        place = None if of is None else Subject.of(names=of.names, pins=of.pins)
        verbs = {verb for verb, _ in expected}
        assert verbs <= decide.possible(read, who, place) <= decide.possible(read, who, None)
        if of is None:
            continue
        _compare_ops(reference, found, who, of)
        both = Map(of.type, of.key_size, of.names + other.names, of.pins + other.pins)
        before, after = subject(of), subject(both)
        assert before is not None
        assert after is not None
        new = {verb for verb, _ in allowed(reference, who, both) - expected}
        assert new <= decide.gains(read, who, before, after)
    assert not held(decide.grants(read, "stranger", subject(of)), of)


def _compare_ops(reference: Reference, found: Grants, who: str, of: Map) -> None:
    pairs = [(op, key) for op in Op for key in probes(of)]
    if not pairs:
        return
    column = keys.rows(b"".join(key for _, key in pairs), of.key_size)
    mask = elements.permitted(found, of.type, bytes(op for op, _ in pairs), column)
    answered = [True] * len(pairs) if mask is None else mask.tolist()
    assert answered == [reference.may_element(who, op, OP_VERBS[op], of, key) for op, key in pairs]


def comparison(examples: int) -> Callable[[], None]:
    """The whole comparison, ready to run; with the same policies every time it is."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(rule_lists(), st.one_of(st.none(), maps(), maps(), maps()), maps())
    def run(rules: Rules, of: Map | None, other: Map) -> None:
        compare(rules, of, other)

    return run


def test_the_engine_and_the_reference_agree_on_every_policy() -> None:
    comparison(EXAMPLES)()


# ---- the canaries --------------------------------------------------------------------------------


def permission_beats_denial(patch: pytest.MonkeyPatch) -> None:
    rules_of = Policy.rules_of

    def wrong(self: Policy, who: str) -> tuple[Rule, ...]:
        said = rules_of(self, who)
        allowed = {verb for rule in said if rule.effect is Effect.ALLOW for verb in rule.verbs}
        return tuple(rule for rule in said if rule.effect is Effect.ALLOW or not rule.verbs & allowed)

    patch.setattr(Policy, "rules_of", wrong)


def only_the_first_name_counts(patch: pytest.MonkeyPatch) -> None:
    any_of = Globs.any_of

    def wrong(self: Globs, texts: frozenset[str]) -> bool:
        return any_of(self, frozenset(sorted(texts)[:1]))

    patch.setattr(Globs, "any_of", wrong)


def every_map_is_ones_own(patch: pytest.MonkeyPatch) -> None:
    matches = Selector.matches

    def wrong(self: Selector, of: Subject | None, namespace: str, *, unknown: bool = False) -> bool:
        whose = next(iter(of.owners), namespace) if of is not None else namespace
        return matches(self, of, namespace, unknown=unknown) or matches(self, of, whose, unknown=unknown)

    patch.setattr(Selector, "matches", wrong)


def bits_behind_a_trie_key_are_looked_at(patch: pytest.MonkeyPatch) -> None:
    def as_it_is(key: object) -> object:
        return key

    patch.setattr(decide, "canonical_key", as_it_is)
    patch.setattr(keys, "canonical_key", as_it_is)
    patch.setattr(keys, "canonical", as_it_is)


def denied_keys_may_be_watched(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "WITHOUT_KEYS", frozenset[Verb]())


def keys_of_storage_are_told_apart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "INEXACT_KEYS", frozenset[int]())


def denied_prefixes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    rules_of = Policy.rules_of

    def wrong(self: Policy, who: str) -> tuple[Rule, ...]:
        return tuple(
            rule for rule in rules_of(self, who) if not (rule.prefixes and rule.effect is Effect.DENY)
        )

    patch.setattr(Policy, "rules_of", wrong)


def an_atomic_is_decided_by_key(patch: pytest.MonkeyPatch) -> None:
    def wrong(map_type: int | None) -> frozenset[Op]:
        return roles.filtered_ops(map_type) | {Op.FETCH_ADD}

    patch.setattr(elements, "filtered_ops", wrong)


def a_trie_lookup_is_decided_by_key(patch: pytest.MonkeyPatch) -> None:
    def wrong(_map_type: int | None) -> frozenset[Op]:
        return roles.FILTERED_OPS

    patch.setattr(elements, "filtered_ops", wrong)


def an_unopened_map_is_believed_to_be_of_another_type(patch: pytest.MonkeyPatch) -> None:
    matches = Selector.matches

    def wrong(self: Selector, of: Subject | None, namespace: str, *, unknown: bool = False) -> bool:
        return matches(self, of, namespace, unknown=unknown and bool(of and of.type))

    patch.setattr(Selector, "matches", wrong)


def a_key_more_is_no_gain(patch: pytest.MonkeyPatch) -> None:
    def wrong(read: Policy, who: str, before: Subject, after: Subject) -> frozenset[Verb]:
        return decide.grants(read, who, after).whole - decide.grants(read, who, before).whole

    patch.setattr(decide, "gains", wrong)


def everybody_is_meant_by_every_rule(patch: pytest.MonkeyPatch) -> None:
    def wrong(_self: Rule, _who: str) -> bool:
        return True

    patch.setattr(Rule, "concerns", wrong)


MUTATIONS = (
    permission_beats_denial,
    only_the_first_name_counts,
    every_map_is_ones_own,
    bits_behind_a_trie_key_are_looked_at,
    denied_keys_may_be_watched,
    keys_of_storage_are_told_apart,
    denied_prefixes_are_forgotten,
    an_atomic_is_decided_by_key,
    a_trie_lookup_is_decided_by_key,
    an_unopened_map_is_believed_to_be_of_another_type,
    a_key_more_is_no_gain,
    everybody_is_meant_by_every_rule,
)


@pytest.mark.parametrize("plant", MUTATIONS, ids=[plant.__name__ for plant in MUTATIONS])
def test_a_wrong_engine_is_found_out(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        comparison(5 * EXAMPLES)()
