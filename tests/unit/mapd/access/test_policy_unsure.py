"""What cannot be known of a map's names and pins: denials by it hold, permissions by it do not."""

from __future__ import annotations

import pytest

from mapd.access.policy.decide import grants
from mapd.access.policy.glob import Glob
from mapd.access.policy.model import Subject, Unsure
from mapd_api.ops import Verb
from mapd_api.uapi import MapType
from tests.unit.mapd.access.policies import policy
from tests.unit.mapd.access.reference import RuleDict

ALLOW: RuleDict = {"who": ["*"], "role": "viewer", "every_map": True}


def readable(rule: RuleDict, unsure: Unsure | None, *also: RuleDict) -> bool:
    """Whether web may read a map called web/flows under this rule."""
    subject = Subject.of(MapType.HASH, 4, names=["web/flows"], pins=["/b/names/web/flows"], unsure=unsure)
    return Verb.READ in grants(policy(rule, *also), "web", subject).whole


@pytest.mark.parametrize(
    ("selector", "unsure"),
    [
        ({"names": ["db/*"]}, Unsure(names=frozenset({"db/secret"}))),
        ({"names": ["db/secret"]}, Unsure(namespaces=frozenset({"db"}))),
        ({"names": ["d?/*"]}, Unsure(namespaces=frozenset({"db"}))),
        ({"names": ["db/secret"]}, Unsure(any_name=True)),
        ({"owners": ["db"]}, Unsure(names=frozenset({"db/secret"}))),
        ({"owners": ["db"]}, Unsure(namespaces=frozenset({"db"}))),
        ({"owners": ["db"]}, Unsure(any_name=True)),
        ({"pins": ["/b/tc/*"]}, Unsure(pins=frozenset({"/b/tc/x"}))),
        ({"pins": ["/b/tc/*"]}, Unsure(below=frozenset({"/b/tc"}))),
        ({"pins": ["/b/tc/x"]}, Unsure(below=frozenset({"/b"}))),
        ({"pins": ["/b/**/x"]}, Unsure(below=frozenset({"/b/tc/deep"}))),
    ],
)
def test_a_denial_by_what_a_map_may_be_called_holds_and_a_permission_does_not(
    selector: RuleDict, unsure: Unsure
) -> None:
    deny: RuleDict = {"effect": "deny", "who": ["*"], "role": "viewer", **selector}
    allow: RuleDict = {"who": ["*"], "role": "viewer", **selector}
    assert readable(ALLOW, None, deny)
    assert not readable(ALLOW, unsure, deny)
    assert not readable(allow, unsure)


@pytest.mark.parametrize(
    ("selector", "unsure"),
    [
        ({"names": ["db/*"]}, Unsure(names=frozenset({"web/secret"}), namespaces=frozenset({"shared"}))),
        ({"owners": ["db"]}, Unsure(namespaces=frozenset({"shared"}))),
        (
            {"pins": ["/b/tc/*"]},
            Unsure(pins=frozenset({"/b/x"}), below=frozenset({"/b/tc/deep", "/b/other"})),
        ),
        ({"names": ["db/*"]}, Unsure(pins=frozenset({"/b/tc/x"}), below=frozenset({"/b"}))),
    ],
)
def test_a_denial_of_what_it_cannot_be_called_is_none(selector: RuleDict, unsure: Unsure) -> None:
    assert readable(ALLOW, unsure, {"effect": "deny", "who": ["*"], "role": "viewer", **selector})


@pytest.mark.parametrize(
    ("glob", "folder", "reaches"),
    [
        ("/a/b", "/a", True),
        ("/a/b", "", True),
        ("/a/b", "/a/b", False),
        ("/a/b", "/c", False),
        ("/a/*", "/a/b", False),
        ("/a/*/c", "/a/b", True),
        ("/a/*/c", "/a/b/c", False),
        ("/a/**", "/a", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/b", False),
        ("/**/c", "/x/y", True),
        ("/a/b/**/c", "/a", True),
        ("/a/b/**/c", "/a/x", False),
        ("web/*", "web", True),
        ("w*/x", "web", True),
        ("db/*", "web", False),
    ],
)
def test_a_pattern_reaches_below_a_folder_or_not(glob: str, folder: str, reaches: bool) -> None:
    assert Glob.compile(glob).reaches(folder) is reaches
