"""Rights element by element: which operations are decided key by key, and what happens to the others."""

from __future__ import annotations

import pytest

from mapd.access.policy.decide import Grants, grants
from mapd.access.policy.elements import permitted
from mapd.access.policy.keys import rows
from mapd.access.policy.model import Subject
from mapd_api.ops import Op
from mapd_api.uapi import MapType
from tests.unit.mapd.access.policies import policy

INSIDE, OUTSIDE = b"\x0a\0\0\0\0\0\0\0", b"\x0b\0\0\0\0\0\0\0"
KEYS = rows(INSIDE + OUTSIDE, 8)

HASH_OPS = {Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE}
TRIE_OPS = {Op.LOOKUP_EXACT, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE}


def granted(kind: MapType, **said: object) -> Grants:
    rule = {"who": ["web"], "role": "operator", "every_map": True, **said}
    return grants(policy(rule), "web", Subject.of(kind, 8))


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name.lower())
@pytest.mark.parametrize(
    ("kind", "by_key"), [(MapType.HASH, HASH_OPS), (MapType.LPM_TRIE, TRIE_OPS)], ids=["hash", "lpm_trie"]
)
def test_what_is_decided_by_key_is_permitted_inside_and_all_else_nowhere(
    kind: MapType, by_key: set[Op], op: Op
) -> None:
    """A trie's lookup answers with another key's value; what reads and writes at once needs all keys."""
    mask = permitted(granted(kind, key_prefixes=["0a"]), kind, bytes([op, op]), KEYS)
    assert mask is not None
    assert mask.tolist() == [op in by_key, False]


@pytest.mark.parametrize("op", Op, ids=lambda op: op.name.lower())
def test_with_rights_on_every_key_nothing_is_looked_at(op: Op) -> None:
    assert permitted(granted(MapType.HASH), MapType.HASH, bytes([op, op]), KEYS) is None


def test_each_operation_of_a_group_is_decided_by_its_own_rights() -> None:
    read = policy(
        {"who": ["web"], "verbs": ["read"], "every_map": True},
        {"who": ["web"], "verbs": ["write"], "every_map": True, "key_prefixes": ["0a"]},
    )
    found = grants(read, "web", Subject.of(MapType.HASH, 8))
    ops = bytes([Op.LOOKUP, Op.UPDATE, Op.UPDATE, Op.DELETE, Op.FETCH_ADD])
    keys = rows(OUTSIDE + OUTSIDE + INSIDE + INSIDE + INSIDE, 8)
    mask = permitted(found, MapType.HASH, ops, keys)
    assert mask is not None
    assert mask.tolist() == [True, False, True, False, False]


def test_what_is_no_operation_is_not_permitted() -> None:
    mask = permitted(granted(MapType.HASH), MapType.HASH, bytes([Op.LOOKUP, 0, 255]), rows(INSIDE * 3, 8))
    assert mask is not None
    assert mask.tolist() == [True, False, False]


def test_a_group_of_nothing_is_permitted() -> None:
    assert permitted(granted(MapType.HASH), MapType.HASH, b"", rows(b"", 8)) is None


def test_a_map_without_keys_is_decided_as_a_whole() -> None:
    keyless = KEYS[:, :0]
    all_of_it = granted(MapType.QUEUE)
    assert permitted(all_of_it, MapType.QUEUE, bytes([Op.PUSH, Op.POP]), keyless) is None
    reader = grants(
        policy({"who": ["web"], "role": "viewer", "every_map": True}), "web", Subject.of(MapType.QUEUE, 0)
    )
    mask = permitted(reader, MapType.QUEUE, bytes([Op.PEEK, Op.POP]), keyless)
    assert mask is not None
    assert mask.tolist() == [True, False]
