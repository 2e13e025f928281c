"""Roles: named sets of rights. And which rights can be had for some keys alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from mapd_api.ops import Op, Verb
from mapd_api.uapi import MapType

_VIEWER: Final = frozenset({Verb.LIST, Verb.READ, Verb.WATCH, Verb.HOST})
_OPERATOR: Final = _VIEWER | {Verb.WRITE, Verb.DELETE, Verb.CONSUME}
_OWNER: Final = _OPERATOR | {Verb.CREATE, Verb.PIN, Verb.FREEZE}

ROLES: Final[Mapping[str, frozenset[Verb]]] = MappingProxyType(
    {"viewer": _VIEWER, "operator": _OPERATOR, "owner": _OWNER, "admin": frozenset(Verb)}
)
"""From the least to the most; each has all of the one before."""

VERBS: Final[Mapping[str, Verb]] = MappingProxyType({verb.name.lower(): verb for verb in Verb})

BY_KEY: Final = frozenset({Verb.READ, Verb.WRITE, Verb.DELETE})
"""Rights that a rule with key prefixes gives or takes for those keys alone."""

WITH_PREFIXES: Final = BY_KEY | {Verb.LIST}
"""Rights that a rule with key prefixes can give; the right to see that the map exists is for the whole map."""

WITHOUT_KEYS: Final = frozenset({Verb.WATCH, Verb.CONSUME, Verb.PIN, Verb.FREEZE})
"""Rights that no key can be left out of: a rule that takes some keys takes these wholly."""

FILTERED_OPS: Final = frozenset({Op.LOOKUP, Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE})
"""Operations that are decided key by key; every other one needs its rights on all keys."""

FILTERED_LPM_OPS: Final = (FILTERED_OPS - {Op.LOOKUP}) | {Op.LOOKUP_EXACT}
"""The same of LPM tries, where LOOKUP answers with the value of another, shorter key."""

INEXACT_KEYS: Final = frozenset(
    {
        MapType.CGROUP_STORAGE,
        MapType.PERCPU_CGROUP_STORAGE,
        MapType.SK_STORAGE,
        MapType.INODE_STORAGE,
        MapType.TASK_STORAGE,
        MapType.CGRP_STORAGE,
    }
)
"""Types where different bytes may name one element: descriptors (kernel/bpf/bpf_*_storage.c) and structures with
padding (kernel/bpf/local_storage.c, bpf_cgroup_storage_key_cmp()). Keys cannot be told apart there, so a
rule that allows some keys allows none of them, and one that denies some denies all."""


def filtered_ops(map_type: int | None) -> frozenset[Op]:
    """The operations that are decided key by key in maps of this type."""
    return FILTERED_LPM_OPS if map_type == MapType.LPM_TRIE else FILTERED_OPS


def role_for(verbs: frozenset[Verb]) -> str:
    """The smallest role that has all of these."""
    return next(name for name, has in ROLES.items() if verbs <= has)


def names(verbs: frozenset[Verb]) -> str:
    """``read, write`` in the order of the contract."""
    return ", ".join(verb.name.lower() for verb in sorted(verbs))
