"""Rights: denied unless granted, and no proof of a grant but the authorizer's own."""

from __future__ import annotations

import pytest

from mapd.access.authorize import Authorized, Authorizer, Denied
from mapd.access.principal import ADMIN, Principal
from mapd_api.ops import Verb

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
    assert not caught.value.reveal


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
