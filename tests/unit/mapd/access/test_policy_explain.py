"""What is said: to the administrator which rule decides, to a refused caller what he may know and no more."""

from __future__ import annotations

from typing import Any

import pytest

from mapd.access.policy.decide import grants
from mapd.access.policy.explain import Asked, explain, key_refusal, refusal
from mapd.access.policy.model import Policy, Subject
from mapd_api.ops import Verb
from mapd_api.uapi import MapType
from tests.unit.mapd.access.policies import policy

FLOWS = Subject.of(MapType.HASH, 8, names=["web/flows"])
UPDATE = Asked(operation="update", what="web/flows", selector="web/flows")
MISSING = "update web/flows: no such map (nothing is pinned at /sys/fs/bpf/mapd/web/flows); list the maps, or create it"
VIEWER = {"who": ["web"], "role": "viewer", "names": ["web/*"]}
DENIAL = {"name": "hush", "effect": "deny", "who": ["*"], "verbs": ["write"], "names": ["*/flows"]}


def refused(read: Policy, *verbs: Verb, asked: Asked = UPDATE) -> str:
    decision = grants(read, "web", FLOWS).decide(frozenset(verbs))
    assert not decision.allowed
    return refusal(read, decision, asked, missing=MISSING)


def test_who_may_not_know_of_a_map_is_told_word_for_word_what_is_told_of_none() -> None:
    """Also where a rule denies it: that there is a rule would tell that there is a map."""
    assert refused(policy(), Verb.WRITE) == MISSING
    assert refused(policy(DENIAL, head='contact = "ops"'), Verb.WRITE) == MISSING


def test_a_refusal_says_who_one_is_what_is_lacking_whom_to_ask_and_what_for() -> None:
    said = refused(policy(VIEWER, head='contact = "ops@example.org"'), Verb.READ, Verb.WRITE)
    assert said == (
        "update web/flows: you are 'web', and no rule of the policy allows you write here; ask ops@example.org for: "
        "mapd policy allow web operator web/flows"
    )


def test_without_a_contact_somebody_is_named_all_the_same() -> None:
    assert "; ask whoever administers mapd on this host for: mapd policy" in refused(
        policy(VIEWER), Verb.WRITE
    )


def test_a_pattern_or_a_path_can_be_pasted_into_a_shell() -> None:
    asked = Asked(operation="update", what="pin:/x/a b", selector="/x/a b")
    assert refused(policy(VIEWER), Verb.WRITE, asked=asked).endswith("allow web operator '/x/a b'")


def test_where_nothing_names_the_map_no_line_is_made_up() -> None:
    asked = Asked(operation="update", what="id:5", selector="")
    assert refused(policy(VIEWER), Verb.WRITE, asked=asked).endswith(
        "ask whoever administers mapd on this host"
    )


def test_a_denial_is_told_without_its_name_and_without_a_line_that_would_not_help() -> None:
    said = refused(policy(VIEWER, DENIAL), Verb.WRITE)
    assert said.endswith(
        "a rule of the policy denies you write here; ask whoever administers mapd on this host"
    )
    assert "hush" not in said


def test_the_line_in_a_refusal_admits_what_was_refused() -> None:
    line = refused(policy(VIEWER), Verb.WRITE).rpartition("mapd policy allow ")[2]
    who, role, names = line.split()
    more = policy(VIEWER, {"who": [who], "role": role, "names": [names]})
    assert grants(more, "web", FLOWS).decide(frozenset({Verb.WRITE})).allowed


def test_who_has_other_keys_is_told_which() -> None:
    read = policy({**VIEWER, "key_prefixes": ["0a00"]})
    decision = grants(read, "web", FLOWS).decide(frozenset({Verb.READ}))
    count = Asked(operation="count", what="web/flows", selector="web/flows")
    said = key_refusal(read, decision, count, missing=MISSING)
    assert said.startswith(
        "count web/flows: you are 'web', and here you may read keys that begin with 0a00; others"
    )
    assert said.endswith("for: mapd policy allow web viewer web/flows")


def test_who_has_some_keys_of_a_map_that_he_may_not_see_is_told_of_none() -> None:
    read = policy({"who": ["web"], "verbs": ["read"], "names": ["web/*"], "key_prefixes": ["0a00"]})
    decision = grants(read, "web", FLOWS).decide(frozenset({Verb.READ}))
    assert decision.allowed
    assert key_refusal(read, decision, UPDATE, missing=MISSING) == MISSING


# ---- for the administrator ----------------------------------------------------------------------------


def said(
    read: Policy, verb: Verb = Verb.WRITE, who: str = "web", subject: Subject = FLOWS
) -> tuple[bool, str]:
    found = explain(read, who, verb, subject, "web/flows")
    return found.allowed, found.text


@pytest.mark.parametrize(
    ("rules", "verb", "text"),
    [
        ([VIEWER], Verb.READ, "web may read web/flows: rule 1 (line 8)"),
        ([VIEWER, DENIAL], Verb.WRITE, 'web may not write web/flows: rule 2 "hush" (line 12) denies it'),
        ([], Verb.WRITE, "web may not write web/flows: no rule allows it"),
        (
            [{**VIEWER, "key_prefixes": ["0a"]}],
            Verb.READ,
            "web may read web/flows for keys that begin with 0a: rule 1 (line 8)",
        ),
    ],
)
def test_the_rule_that_decides_is_named(rules: list[dict[str, Any]], verb: Verb, text: str) -> None:
    allowed, found = said(policy(*rules), verb)
    assert found == text
    assert allowed is ("may not" not in text)


def test_rules_that_come_near_are_named_with_what_they_ask_for() -> None:
    near: list[dict[str, Any]] = [
        {"who": ["web"], "role": "operator", "names": ["db/*"]},
        {"who": ["web"], "role": "operator", "types": ["array"]},
        {"who": ["web"], "role": "operator", "owners": ["db"]},
        {"who": ["web"], "role": "operator", "pins": ["/x"]},
        {"who": ["web"], "verbs": ["write"], "names": ["web/*"], "key_prefixes": ["00" * 9]},
        {"who": ["ops"], "role": "operator", "every_map": True},
        VIEWER,
    ]
    allowed, found = said(policy(*near))
    assert not allowed
    assert [line.rpartition("its ")[2] for line in found.splitlines()[1:]] == [
        "names",
        "types",
        "owners",
        "pins",
        "key_prefixes",
    ]


def test_without_a_type_every_type_that_makes_a_difference_is_told() -> None:
    unknown = Subject.of(names=["web/flows"])
    rule = {"who": ["web"], "role": "viewer", "names": ["web/*"], "types": ["hash", "array"]}
    allowed, found = said(policy(rule), Verb.READ, subject=unknown)
    assert not allowed
    assert found.startswith(
        "of type hash, array: web may read web/flows: rule 1 (line 8)\nof any other type: web may not"
    )
    same, text = said(policy(VIEWER), Verb.READ, subject=unknown)
    assert (same, text) == (True, "web may read web/flows: rule 1 (line 8)")


def test_the_admin_and_strangers_need_no_rule() -> None:
    assert said(policy(DENIAL), who="admin") == (
        True,
        "admin may write web/flows: the admin may do everything",
    )
    assert said(policy(), who="gone") == (
        False,
        "gone may not write web/flows: the policy has no such principal",
    )
