"""Rights: denied unless granted, and no proof of a grant but the authorizer's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapd.access.authorize import Authorized, Authorizer, Denied
from mapd.access.policy.explain import Asked
from mapd.access.policy.holder import PolicyHolder
from mapd.access.policy.model import Subject
from mapd.access.principal import ADMIN, Principal
from mapd_api.ops import Verb
from mapd_api.uapi import MapType
from tests.unit.mapd.access.policies import policy, text

ADMINISTRATOR = Principal(name=ADMIN, namespace="admin")
STRANGER = Principal(name="web", namespace="web")


@pytest.mark.parametrize("verb", Verb)
def test_the_admin_may_do_everything(verb: Verb) -> None:
    granted = Authorizer().authorize(ADMINISTRATOR, frozenset({verb}), "map")
    assert granted.demand({verb}) == "map"
    assert (granted.target, granted.principal, granted.verbs) == ("map", ADMINISTRATOR, frozenset({verb}))


@pytest.mark.parametrize("verb", Verb)
def test_anybody_else_may_do_nothing_and_learns_nothing(verb: Verb) -> None:
    with pytest.raises(Denied, match=f"web may not {verb.name.lower()}") as caught:
        Authorizer().authorize(STRANGER, frozenset({verb}), "map")
    assert caught.value.reveal is (
        verb in {Verb.CREATE, Verb.ADMIN, Verb.HOST}
    )  # which are of no map that might be there


def test_a_namespace_called_admin_makes_no_admin() -> None:
    with pytest.raises(Denied):
        Authorizer().authorize(Principal(name="web", namespace=ADMIN), frozenset({Verb.READ}), "map")


def test_a_request_without_verbs_is_denied_even_to_the_admin() -> None:
    with pytest.raises(Denied):
        Authorizer().authorize(ADMINISTRATOR, frozenset(), "map")


@pytest.mark.parametrize("seal", [None, object(), True])
def test_nobody_else_makes_an_authorized(seal: object) -> None:
    with pytest.raises(TypeError, match=r"Authorizer\.authorize alone"):
        Authorized("map", ADMINISTRATOR, frozenset(Verb), seal)


def test_an_authorized_takes_no_new_attribute() -> None:
    granted = Authorizer().authorize(ADMINISTRATOR, frozenset({Verb.READ}), "map")
    with pytest.raises(AttributeError):
        granted.seal = None  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # that it has none is the point


def test_a_use_that_was_not_authorised_is_a_fault_of_ours() -> None:
    granted = Authorizer().authorize(ADMINISTRATOR, frozenset({Verb.READ, Verb.LIST}), "map")
    assert granted.demand({Verb.READ}) == "map"
    assert granted.demand(()) == "map"
    with pytest.raises(AssertionError, match="WRITE"):
        granted.demand({Verb.READ, Verb.WRITE})


# ---- with a policy ------------------------------------------------------------------------------------

READ = frozenset({Verb.READ})
FLOWS = Subject.of(MapType.HASH, 8, names=["web/flows"])
VIEWER = {"who": ["web"], "role": "viewer", "names": ["web/*"]}
UPDATE = Asked(operation="update", what="web/flows", selector="web/flows")


def test_the_policy_decides_by_what_is_known_of_the_map() -> None:
    authorizer = Authorizer(PolicyHolder(policy(VIEWER)))
    granted = authorizer.authorize_map(STRANGER, READ, "map", FLOWS)
    assert (granted.demand(READ), granted.grants) == ("map", None)
    with pytest.raises(Denied):
        authorizer.authorize_map(STRANGER, READ, "map", Subject.of(MapType.HASH, 8, names=["db/flows"]))
    with pytest.raises(Denied):
        authorizer.authorize(STRANGER, READ, "map")


def test_rights_on_some_keys_are_none_to_who_does_not_ask_for_them() -> None:
    """Who forgets to filter must get nothing to filter."""
    authorizer = Authorizer(PolicyHolder(policy({**VIEWER, "key_prefixes": ["0a"]})))
    with pytest.raises(Denied, match="web may not read") as caught:
        authorizer.authorize_map(STRANGER, READ, "map", FLOWS)
    assert caught.value.reveal
    assert "you may read keys that begin with 0a" in caught.value.message(UPDATE, missing="none")
    granted = authorizer.authorize_map(STRANGER, READ, "map", FLOWS, by_key=True)
    assert granted.grants is not None
    assert granted.grants.filters[Verb.READ].permits(b"\x0a1234567")
    assert not granted.grants.filters[Verb.READ].permits(b"\x0b1234567")


def test_a_denial_carries_its_rules_and_what_the_caller_may_know() -> None:
    denial = {"effect": "deny", "who": ["web"], "verbs": ["read"], "names": ["web/flows"]}
    with pytest.raises(Denied) as caught:
        Authorizer(PolicyHolder(policy(VIEWER, denial))).authorize_map(STRANGER, READ, "map", FLOWS)
    assert caught.value.decision is not None
    assert [rule.number for rule in caught.value.decision.rules] == [2]
    assert "a rule of the policy denies you read here" in caught.value.message(UPDATE, missing="none")
    with pytest.raises(Denied) as caught:
        Authorizer(PolicyHolder(policy(denial))).authorize_map(STRANGER, READ, "map", FLOWS)
    assert (caught.value.reveal, caught.value.message(UPDATE, missing="none")) == (False, "none")


def test_a_reload_changes_the_next_decision(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text([VIEWER]))
    held = PolicyHolder.start(path)
    authorizer = Authorizer(held)
    authorizer.authorize_map(STRANGER, READ, "map", FLOWS)
    path.write_text(text([]))
    assert held.reload()
    with pytest.raises(Denied) as caught:
        authorizer.authorize_map(STRANGER, READ, "map", FLOWS)
    assert caught.value.decision is not None
    assert caught.value.decision.version == held.policy.version


def test_a_denial_without_a_policy_says_no_more_than_it_knows() -> None:
    assert Denied(STRANGER, READ, reveal=True).message(UPDATE, missing="none") == "web may not read"
    assert Denied(STRANGER, READ, reveal=False).message(UPDATE, missing="none") == "none"
