"""Warnings: what is allowed and probably not meant. Each kind is found, and a policy that is as meant has none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapd.access.policy.check import selector_covers, warnings
from mapd.access.policy.file import parse
from tests.unit.mapd.access.policies import PRINCIPALS, maps, policy, rules, subject, text
from tests.unit.mapd.access.reference import Map
from tests.unit.mapd.access.test_policy_hosts import Numbers

USED = "[principals.web]\nusers = ['alice']\n"
VIEWER = {"who": ["web"], "role": "viewer", "names": ["web/*"]}
BLIND = {"who": ["*"], "effect": "deny", "role": "viewer", "every_map": True}


def found(*said: dict[str, Any], head: str = USED) -> tuple[str, ...]:
    return warnings(parse(head + text(said, {}), "p.toml"), Numbers())


def test_a_policy_that_is_as_meant_has_no_warnings() -> None:
    other = {"who": ["*"], "role": "owner", "owners": ["self"]}
    denial = {"effect": "deny", "who": ["*"], "verbs": ["write"], "names": ["web/secret"]}
    assert found(VIEWER, other, denial) == ()
    assert warnings(parse("", "p.toml"), Numbers()) == ()


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            USED + "groups = ['staf']\n",
            "p.toml:1: [principals.web]: groups: this host has no group 'staf'; nobody",
        ),
        ("[principals.web]\n", "p.toml:1: [principals.web]: nobody but root can be it: give it users"),
        (USED + "[principals.db]\nusers = [5]\n", "p.toml:3: [principals.db]: no rule allows it anything"),
    ],
)
def test_a_principal_that_is_of_no_use_is_told(head: str, said: str) -> None:
    (only,) = found(VIEWER, head=head)
    assert only.startswith(said)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({**VIEWER, "who": ["web", "*"]}, "who: '*' is everybody; the other names mean nothing"),
        ({**VIEWER, "owners": ["web", "wep"]}, "owners: no principal has the namespace 'wep'"),
        (
            {**VIEWER, "names": ["db/*"], "owners": ["web"]},
            "never matches: a map with one of these names has none of",
        ),
        (
            {"who": ["web"], "verbs": ["host"], "names": ["web/*"]},
            "gives no host: that is a right on no map, for a rule with every_map = true",
        ),
        (
            {**VIEWER, "types": ["queue", "stack"], "key_prefixes": ["0a"]},
            "never matches: maps of these types have no keys",
        ),
        (
            {**VIEWER, "types": ["sk_storage"], "key_prefixes": ["0a"]},
            "allows no key of sk_storage: different bytes may name",
        ),
    ],
)
def test_a_rule_that_means_less_than_it_says_is_told(rule: dict[str, Any], said: str) -> None:
    (only,) = found(rule)
    assert only.startswith(f"p.toml:4: rule 1: {said}")


def test_a_denial_of_what_is_no_right_on_maps_is_told() -> None:
    """Whoever wrote it thinks that it takes something."""
    denial = {"who": ["web"], "effect": "deny", "verbs": ["host"], "names": ["web/*"]}
    (only,) = found(VIEWER, denial)
    assert "rule 2: takes no host: that is a right on no map" in only
    assert found({"who": ["web"], "verbs": ["host", "read"], "every_map": True}) == ()


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (VIEWER, VIEWER, "rule 2: adds nothing: rule 1 (line 4) allows all of it already"),
        (VIEWER, {**VIEWER, "names": ["web/a"]}, "rule 2: adds nothing: rule 1"),
        (
            {**VIEWER, "names": ["web/a"]},
            VIEWER,
            "rule 1: adds nothing: rule 2 (line 8) allows all of it already",
        ),
        (VIEWER, {**VIEWER, "key_prefixes": ["0a"]}, "rule 2: adds nothing: rule 1"),
        ({**VIEWER, "key_prefixes": ["0a"]}, {**VIEWER, "key_prefixes": ["0a01"]}, "rule 2: adds nothing"),
        (VIEWER, {**BLIND, "role": "admin"}, "rule 1: never has an effect: rule 2 (line 8) denies all of it"),
        (BLIND, VIEWER, "rule 2: never has an effect: rule 1"),
        (
            BLIND,
            {**VIEWER, "effect": "deny"},
            "rule 2: adds nothing: rule 1 (line 4) denies all of it already",
        ),
    ],
)
def test_a_rule_in_the_shadow_of_another_is_told(
    first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    (only,) = [line for line in found(first, second) if "no rule allows" not in line]
    assert said in only


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (VIEWER, {**VIEWER, "role": "operator", "names": ["web/a"]}),
        (VIEWER, {**VIEWER, "names": ["db/*"]}),
        (VIEWER, {**VIEWER, "types": ["hash"], "role": "operator"}),
        ({**VIEWER, "key_prefixes": ["0a"]}, {**VIEWER, "verbs": ["watch"], "names": ["web/*"]}),
        (VIEWER, {**VIEWER, "effect": "deny", "names": ["web/a"]}),
        (VIEWER, {**VIEWER, "effect": "deny", "key_prefixes": ["0a"]}),
    ],
)
def test_rules_that_say_different_things_are_left_alone(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    if "verbs" in second:
        second = {key: value for key, value in second.items() if key != "role"}
    assert found(first, second) == ()


@settings(max_examples=300, deadline=None)
@given(rules(), rules(), maps(), st.sampled_from(tuple(PRINCIPALS)))
def test_a_selector_that_covers_another_matches_all_that_the_other_does(
    one: dict[str, Any], other: dict[str, Any], of: Map, who: str
) -> None:
    wide, narrow = (rule.selector for rule in policy(one, other).rules)
    if selector_covers(wide, narrow) and narrow.matches(subject(of), PRINCIPALS[who]):
        assert wide.matches(subject(of), PRINCIPALS[who])
