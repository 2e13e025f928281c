"""Decisions: denied unless a rule allows it, and a denial beats every rule that allows."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from typing import Any

import pytest

from mapd.access.policy.decide import Decider, gains, grants, possible
from mapd.access.policy.file import parse
from mapd.access.policy.keys import KeyFilter
from mapd.access.policy.members import quotas
from mapd.access.policy.model import DEFAULT_QUOTAS, Quotas, Subject
from mapd.access.policy.roles import ROLES, VERBS, role_for
from mapd_api.ops import Verb
from mapd_api.uapi import MapType
from tests.repo.sources import ROOT
from tests.unit.mapd.access.policies import policy

FLOWS = Subject.of(MapType.HASH, 8, names=["web/flows"], pins=["/sys/fs/bpf/mapd/web/flows"])
EVERYTHING = frozenset(Verb)
PAGE = (ROOT / "docs" / "reference" / "policy.md").read_text()

MATRIX = {
    #             viewer operator owner admin
    Verb.LIST: "yes yes yes yes",
    Verb.READ: "yes yes yes yes",
    Verb.WRITE: "no yes yes yes",
    Verb.DELETE: "no yes yes yes",
    Verb.CREATE: "no no yes yes",
    Verb.PIN: "no no yes yes",
    Verb.FREEZE: "no no yes yes",
    Verb.OPEN_BY_ID: "no no no yes",
    Verb.WATCH: "yes yes yes yes",
    Verb.HOST: "yes yes yes yes",
    Verb.CONSUME: "no yes yes yes",
    Verb.ADMIN: "no no no yes",
}
"""Who may what, once more by hand: a right that slips into a role is a right that everybody has who has the role."""


def allow(**said: Any) -> dict[str, Any]:
    rule = {"who": ["web"], **said}
    return (
        rule
        if {"names", "pins", "types", "owners", "every_map"} & set(rule)
        else {**rule, "names": ["web/*"]}
    )


def deny(**said: Any) -> dict[str, Any]:
    return allow(effect="deny", **said)


def test_the_matrix_is_complete() -> None:
    assert set(MATRIX) == EVERYTHING
    assert list(ROLES) == ["viewer", "operator", "owner", "admin"]


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", Verb, ids=lambda verb: verb.name.lower())
def test_a_role_gives_its_verbs_and_no_other(role: str, verb: Verb) -> None:
    expected = MATRIX[verb].split()[list(ROLES).index(role)] == "yes"
    assert grants(policy(allow(role=role)), "web", FLOWS).decide(frozenset({verb})).allowed is expected


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", Verb, ids=lambda verb: verb.name.lower())
def test_a_role_takes_its_verbs_and_no_other(role: str, verb: Verb) -> None:
    taken = MATRIX[verb].split()[list(ROLES).index(role)] == "yes"
    found = grants(policy(allow(role="admin"), deny(role=role)), "web", FLOWS)
    assert found.decide(frozenset({verb})).allowed is not taken


@pytest.mark.parametrize("verb", Verb, ids=lambda verb: verb.name.lower())
@pytest.mark.parametrize("other", Verb, ids=lambda verb: verb.name.lower())
def test_a_verb_gives_itself_alone(verb: Verb, other: Verb) -> None:
    found = grants(policy(allow(verbs=[verb.name.lower()])), "web", FLOWS)
    assert found.decide(frozenset({other})).allowed is (verb is other)


def test_the_page_has_the_roles_as_they_are() -> None:
    table = re.findall(r"^\| `(\w+)` \| (yes|) *\| (yes|) *\| (yes|) *\| (yes|) *\|", PAGE, re.MULTILINE)
    assert {name: tuple(cells) for name, *cells in table} == {
        verb.name.lower(): tuple("yes" if verb in has else "" for has in ROLES.values()) for verb in Verb
    }


def test_the_example_of_the_page_is_a_policy_and_means_what_it_says() -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    found = parse(example, "policy.md")
    own = Subject.of(MapType.HASH, 8, names=["edge/flows"])
    assert grants(found, "edge", own).whole == ROLES["owner"]
    assert grants(found, "box", own).whole == frozenset()
    assert grants(found, "edge", Subject.of(MapType.HASH, 8, names=["edge/secret-x"])).whole == frozenset()
    globals_map = Subject.of(MapType.LRU_HASH, 8, pins=["/sys/fs/bpf/tc/globals/ct"])
    assert grants(found, "box", globals_map).filters.keys() == {Verb.READ, Verb.WRITE}
    both = Subject.of(MapType.HASH, 8, names=["edge/flows"], pins=["/sys/fs/bpf/mapd/edge/flows"])
    assert grants(found, "metrics", both).whole == ROLES["viewer"]


def test_the_page_has_the_quotas_as_they_are() -> None:
    table = dict(re.findall(r'^\| `(\w+)` \| `?(\d+|"\w+"|one second of them)`? \|', PAGE, re.MULTILINE))
    said = "\n".join(f"{key} = {value}" for key, value in table.items() if key != "burst")
    assert set(table) == {field.name for field in fields(Quotas)}
    assert quotas(tomllib.loads(said), Quotas()) == DEFAULT_QUOTAS


@pytest.mark.parametrize("verb", Verb, ids=lambda verb: verb.name.lower())
def test_nothing_is_allowed_that_no_rule_allows(verb: Verb) -> None:
    decision = grants(policy(), "web", FLOWS).decide(frozenset({verb}))
    assert not decision.allowed
    assert decision.missing == {verb}
    assert decision.rules == ()


def test_who_asks_for_nothing_gets_nothing() -> None:
    assert not grants(policy(allow(role="admin", every_map=True)), "web", FLOWS).decide(frozenset()).allowed
    assert not grants(policy(), "admin", FLOWS).decide(frozenset()).allowed


@pytest.mark.parametrize("subject", [FLOWS, None, Subject()])
def test_the_admin_may_do_everything_and_no_rule_changes_it(subject: Subject | None) -> None:
    found = grants(policy(deny(who=["*"], role="admin", every_map=True)), "admin", subject)
    assert found.whole == EVERYTHING
    assert found.reveal


def test_whom_the_policy_does_not_know_may_do_nothing() -> None:
    """A principal that a reload took away keeps its connection for a moment."""
    everyone = policy(allow(who=["*"], role="admin", every_map=True))
    assert grants(everyone, "gone", FLOWS).decide(frozenset({Verb.LIST})).missing == {Verb.LIST}
    assert possible(everyone, "gone", FLOWS) == frozenset()
    assert possible(everyone, "gone", None) == frozenset()


@pytest.mark.parametrize("order", [1, -1], ids=["allowed first", "denied first"])
def test_a_denial_beats_a_permission_whatever_their_order(order: int) -> None:
    rules = [allow(role="operator"), deny(verbs=["write"], names=["*/flows"])][::order]
    found = grants(policy(*rules), "web", FLOWS)
    assert found.whole == ROLES["operator"] - {Verb.WRITE}
    (rule,) = found.decide(frozenset({Verb.READ, Verb.WRITE})).rules
    assert rule.effect.value == "deny"


def test_several_names_of_one_map_have_the_union_of_their_denials() -> None:
    rules = policy(
        allow(role="operator"),
        deny(verbs=["write"], names=["db/*"]),
        deny(verbs=["delete"], pins=["/sys/fs/bpf/tc/*"]),
    )
    by_one_name = Subject.of(MapType.HASH, 8, names=["web/flows"])
    by_all = Subject.of(MapType.HASH, 8, names=["web/flows", "db/flows"], pins=["/sys/fs/bpf/tc/f"])
    assert grants(rules, "web", by_one_name).whole == ROLES["operator"]
    assert grants(rules, "web", by_all).whole == ROLES["operator"] - {Verb.WRITE, Verb.DELETE}


def test_every_key_of_a_selector_must_be_satisfied() -> None:
    rules = policy(allow(role="viewer", names=["web/*"], pins=["/sys/**"], types=["hash"], owners=["self"]))
    meant: dict[str, Any] = {"map_type": MapType.HASH, "names": ["web/a"], "pins": ["/sys/x"]}

    def may(**other: Any) -> bool:
        return Verb.READ in grants(rules, "web", Subject.of(**{**meant, **other})).whole

    assert may()
    assert not may(map_type=MapType.ARRAY)
    assert not may(names=["db/a"])
    assert not may(names=[])
    assert not may(pins=["/run/x"])
    assert not may(pins=[])


def test_self_is_the_namespace_of_whoever_asks() -> None:
    rules = policy(allow(who=["*"], role="owner", owners=["self"]))
    shared = Subject.of(MapType.HASH, 8, names=["shared/x"])
    assert Verb.WRITE in grants(rules, "ops", shared).whole  # its namespace is "shared"
    assert grants(rules, "web", shared).whole == frozenset()
    assert grants(rules, "web", Subject.of(MapType.HASH, 8, pins=["/sys/fs/bpf/web/x"])).whole == frozenset()


def test_only_a_rule_about_every_map_is_about_the_daemon_itself() -> None:
    some = policy(allow(role="admin", names=["*/*"], types=["*"]))
    assert grants(some, "web", None).whole == frozenset()
    assert Verb.ADMIN in grants(policy(allow(role="admin", every_map=True)), "web", None).whole


def test_of_a_map_of_unknown_type_denials_are_believed_and_permissions_are_not() -> None:
    unknown = Subject.of(names=["web/x"])
    assert grants(policy(allow(role="viewer", types=["hash"])), "web", unknown).whole == frozenset()
    denied = policy(allow(role="viewer"), deny(verbs=["read"], types=["hash"]))
    assert grants(denied, "web", unknown).whole == {Verb.LIST, Verb.WATCH, Verb.HOST}


# ---- keys ---------------------------------------------------------------------------------------------


def test_a_rule_about_keys_gives_them_and_the_sight_of_the_map() -> None:
    found = grants(policy(allow(role="owner", key_prefixes=["0a00"])), "web", FLOWS)
    assert found.whole == {Verb.LIST}
    assert found.reveal
    assert found.filters == dict.fromkeys((Verb.READ, Verb.WRITE, Verb.DELETE), KeyFilter((b"\x0a\0",)))


def test_rights_on_keys_add_up() -> None:
    rules = policy(
        allow(verbs=["read"], key_prefixes=["0a"]),
        allow(verbs=["read", "write"], key_prefixes=["0b"]),
        deny(verbs=["read"], key_prefixes=["0a01"]),
    )
    found = grants(rules, "web", FLOWS)
    assert found.filters[Verb.READ] == KeyFilter((b"\x0a", b"\x0b"), (b"\x0a\1",))
    assert found.filters[Verb.WRITE] == KeyFilter((b"\x0b",))
    assert [rule.number for rule in found.because[Verb.READ]] == [1, 2, 3]


def test_a_permission_for_all_keys_outweighs_one_for_some() -> None:
    found = grants(policy(allow(verbs=["read"], key_prefixes=["0a"]), allow(role="viewer")), "web", FLOWS)
    assert Verb.READ in found.whole
    assert not found.filters


def test_who_may_not_have_some_keys_gets_nothing_that_takes_every_key() -> None:
    """Watching shows the keys; another name or a freeze is of the whole map."""
    found = grants(policy(allow(role="admin"), deny(verbs=["write"], key_prefixes=["0a"])), "web", FLOWS)
    assert found.whole == EVERYTHING - {Verb.WRITE, Verb.WATCH, Verb.CONSUME, Verb.PIN, Verb.FREEZE}
    assert found.filters == {Verb.WRITE: KeyFilter(None, (b"\x0a",))}


def test_a_denial_of_every_key_that_is_allowed_leaves_nothing() -> None:
    rules = policy(allow(verbs=["read"], key_prefixes=["0a00"]), deny(verbs=["read"], key_prefixes=["0a"]))
    found = grants(rules, "web", FLOWS)
    assert Verb.READ not in found.filters
    decision = found.decide(frozenset({Verb.READ}))
    assert (decision.allowed, [rule.number for rule in decision.rules]) == (False, [2])


def test_a_prefix_longer_than_the_keys_is_of_no_key() -> None:
    short = Subject.of(MapType.HASH, 1, names=["web/x"])
    queue = Subject.of(MapType.QUEUE, 0, names=["web/x"])
    allowed = policy(allow(verbs=["list", "read"], key_prefixes=["0a00"]))
    denied = policy(allow(role="viewer"), deny(verbs=["read"], key_prefixes=["0a00"]))
    for subject in (short, queue):
        assert grants(allowed, "web", subject).whole == {Verb.LIST}
        assert not grants(allowed, "web", subject).filters
        assert grants(denied, "web", subject).whole == ROLES["viewer"]


@pytest.mark.parametrize("kind", [MapType.SK_STORAGE, MapType.CGROUP_STORAGE, MapType.TASK_STORAGE])
def test_where_different_bytes_name_one_element_some_keys_are_none_or_all(kind: MapType) -> None:
    subject = Subject.of(kind, 16, names=["web/x"])
    allowed = grants(policy(allow(role="viewer", key_prefixes=["0a"])), "web", subject)
    assert allowed.whole == {Verb.LIST}
    assert not allowed.filters
    denied = grants(policy(allow(role="viewer"), deny(verbs=["read"], key_prefixes=["0a"])), "web", subject)
    assert denied.whole == {Verb.LIST, Verb.HOST}
    assert not denied.filters


def test_a_denied_prefix_of_a_trie_is_denied_in_all_its_spellings() -> None:
    trie = Subject.of(MapType.LPM_TRIE, 8, names=["web/x"])
    sloppy = policy(allow(role="viewer"), deny(verbs=["read"], key_prefixes=["080000000a05"]))
    keys = grants(sloppy, "web", trie).filters[Verb.READ]
    assert not keys.permits(bytes.fromhex("080000000a010203"))
    assert not keys.permits(bytes.fromhex("080000000a000000"))
    assert keys.permits(bytes.fromhex("080000000b000000"))


# ---- what may be told ---------------------------------------------------------------------------------


def test_existence_is_told_to_who_may_list_and_nobody_else() -> None:
    assert grants(policy(allow(verbs=["list"])), "web", FLOWS).decide(frozenset({Verb.READ})).reveal
    assert not grants(policy(allow(verbs=["read"])), "web", FLOWS).decide(frozenset({Verb.WRITE})).reveal
    assert not grants(policy(), "web", FLOWS).decide(frozenset({Verb.READ})).reveal
    assert not grants(policy(), "web", None).decide(frozenset({Verb.READ})).reveal


def test_facts_of_the_host_are_given_by_rules_about_every_map_alone() -> None:
    """They tell of whatever runs on the host, as a listing of every map does."""
    asked = frozenset({Verb.HOST})
    assert grants(policy(allow(role="viewer", every_map=True)), "web", None).decide(asked).allowed
    assert grants(policy(allow(verbs=["host"], every_map=True)), "web", None).decide(asked).allowed
    assert not grants(policy(allow(role="owner", names=["*/*"])), "web", None).decide(asked).allowed
    filtered = policy(allow(role="viewer", every_map=True, key_prefixes=["0a"]))
    assert not grants(filtered, "web", None).decide(asked).allowed
    taken = policy(allow(role="viewer", every_map=True), deny(verbs=["host"], every_map=True))
    assert not grants(taken, "web", None).decide(asked).allowed


@pytest.mark.parametrize("verb", [Verb.CREATE, Verb.ADMIN, Verb.HOST])
def test_what_is_refused_alike_whatever_maps_there_are_may_be_told(verb: Verb) -> None:
    assert grants(policy(), "web", FLOWS).decide(frozenset({verb})).reveal
    assert not grants(policy(), "web", FLOWS).decide(frozenset({verb, Verb.READ})).reveal


def test_a_decision_carries_the_version_of_its_policy() -> None:
    rules = policy(allow(role="viewer"))
    assert grants(rules, "web", FLOWS).decide(frozenset({Verb.READ})).version == rules.version


def test_what_is_impossible_at_a_place_is_known_without_looking() -> None:
    """So a map that is there and one that is not are refused alike: nobody looked."""
    rules = policy(
        allow(verbs=["list"], types=["hash"], names=["web/*"]),
        allow(verbs=["read", "write"], pins=["/sys/fs/bpf/tc/*"]),
        deny(verbs=["write"], pins=["/sys/**"], types=["hash"]),
        deny(verbs=["read"], pins=["/sys/**"], key_prefixes=["0a"]),
        deny(verbs=["list"], names=["web/secret"]),
    )
    assert possible(rules, "web", Subject.of(names=["web/x"])) == {Verb.LIST}
    assert possible(rules, "web", Subject.of(names=["web/secret"])) == frozenset()
    assert possible(rules, "web", Subject.of(pins=["/sys/fs/bpf/tc/x"])) == {Verb.READ, Verb.WRITE}
    assert possible(rules, "web", Subject.of(pins=["/sys/fs/bpf/x"])) == frozenset()
    assert possible(rules, "web", None) == {Verb.LIST, Verb.READ, Verb.WRITE}
    assert possible(rules, "admin", None) == EVERYTHING


def test_one_name_more_may_give_rights_and_they_are_named() -> None:
    """Who may pin could make a map his by giving it his name."""
    rules = policy(
        allow(verbs=["list", "read", "pin"], names=["db/*"]),
        allow(role="owner", names=["web/*"]),
        allow(verbs=["delete"], pins=["/x/*"], key_prefixes=["0a"]),
    )
    before = Subject.of(MapType.HASH, 8, names=["db/ct"])
    after = Subject.of(MapType.HASH, 8, names=["db/ct", "web/mine"])
    assert gains(rules, "web", before, after) == ROLES["owner"] - {Verb.LIST, Verb.READ, Verb.PIN}
    assert gains(rules, "web", after, before) == frozenset()
    pinned = Subject.of(MapType.HASH, 8, names=["db/ct"], pins=["/x/y"])
    assert gains(rules, "web", before, pinned) == {Verb.DELETE}


# ---- remembered ---------------------------------------------------------------------------------------


def test_a_decision_is_made_once_and_remembered() -> None:
    decider = Decider(policy(allow(role="viewer")))
    again = Subject.of(MapType.HASH, 8, names=["web/flows"], pins=["/sys/fs/bpf/mapd/web/flows"])
    assert again is not FLOWS
    assert decider.grants("web", FLOWS) is decider.grants("web", again)
    read = frozenset({Verb.READ})
    assert decider.decide("web", read, FLOWS) is decider.decide("web", frozenset({Verb.READ}), again)
    assert decider.grants("ops", FLOWS) is not decider.grants("web", FLOWS)


def test_what_is_remembered_has_a_bound() -> None:
    decider = Decider(policy(allow(role="viewer")), cached=3)
    maps = [Subject.of(MapType.HASH, 8, names=[f"web/{i}"]) for i in range(10)]
    kept = [decider.grants("web", each) for each in maps]
    assert all(Verb.READ in each.whole for each in kept)
    assert decider.grants("web", maps[-1]) is kept[-1]
    assert decider.grants("web", maps[0]) is not kept[0]


@pytest.mark.parametrize(
    ("verbs", "role"),
    [("read", "viewer"), ("read delete", "operator"), ("pin", "owner"), ("open_by_id", "admin")],
)
def test_the_smallest_role_that_would_do_is_named(verbs: str, role: str) -> None:
    assert role_for(frozenset(VERBS[verb] for verb in verbs.split())) == role
