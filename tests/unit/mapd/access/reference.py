"""What a policy means, written down as plainly as possible: one key, one rule, one letter at a time.

Shares nothing with the engine but the numbers of the contract. Slow on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mapd_api.ops import Op, Verb
from mapd_api.uapi import MapType

RuleDict = Mapping[str, Any]

ROLE_VERBS = {
    "viewer": "list read watch host",
    "operator": "list read watch host write delete consume",
    "owner": "list read watch host write delete consume create pin freeze",
    "admin": "list read watch host write delete consume create pin freeze open_by_id admin",
}
INEXACT = {
    MapType.CGROUP_STORAGE,
    MapType.PERCPU_CGROUP_STORAGE,
    MapType.SK_STORAGE,
    MapType.INODE_STORAGE,
    MapType.TASK_STORAGE,
    MapType.CGRP_STORAGE,
}
KEYED = {"read", "write", "delete"}


@dataclass(frozen=True)
class Map:
    """A map as it is. ``leases``: the namespaces of the leases that it is in."""

    type: MapType
    key_size: int
    names: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()


@dataclass
class Reference:
    """A policy as the dictionary that its TOML is."""

    rules: Sequence[RuleDict]
    namespaces: Mapping[str, str] = field(default_factory=dict[str, str])

    def may(self, who: str, verb: Verb, of: Map | None, key: bytes | None = None) -> bool:
        """Whether ``who`` may do it to an element with this key; None: to the map as a whole, all keys of it."""
        name = verb.name.lower()
        allowed = False
        for rule in self._about(who, of):
            prefixes = self._prefixes(rule, of)
            if rule.get("effect", "allow") == "deny":
                if self._denies(rule, name, of, key, prefixes):
                    return False
            elif self._allows(rule, name, of, key, prefixes):
                allowed = True
        return allowed

    def may_element(self, who: str, op: Op, verbs: frozenset[Verb], of: Map, key: bytes) -> bool:
        """Whether ``who`` may do one operation to one element."""
        wholly = all(self.may(who, verb, of) for verb in verbs)
        keyed = {Op.UPDATE, Op.UPDATE_NOEXIST, Op.UPDATE_EXIST, Op.DELETE}
        keyed.add(Op.LOOKUP_EXACT if of.type == MapType.LPM_TRIE else Op.LOOKUP)
        return wholly or (op in keyed and all(self.may(who, verb, of, key) for verb in verbs))

    def _about(self, who: str, of: Map | None) -> Iterator[RuleDict]:
        for rule in self.rules:
            if ("*" in rule["who"] or who in rule["who"]) and self._means(rule, who, of):
                yield rule

    def _means(self, rule: RuleDict, who: str, of: Map | None) -> bool:
        if rule.get("every_map"):
            return True
        if of is None:
            return False
        if "types" in rule and not any(match(t, of.type.name.lower()) for t in rule["types"]):
            return False
        if "owners" in rule:
            wanted = {self.namespaces[who] if owner == "self" else owner for owner in rule["owners"]}
            if not wanted & {*of.leases, *(name.split("/")[0] for name in of.names)}:
                return False
        if "names" in rule and not any(match(g, name) for g in rule["names"] for name in of.names):
            return False
        return not ("pins" in rule and not any(match(g, pin) for g in rule["pins"] for pin in of.pins))

    @staticmethod
    def _verbs(rule: RuleDict) -> set[str]:
        return set(rule["verbs"]) if "verbs" in rule else set(ROLE_VERBS[rule["role"]].split())

    @staticmethod
    def _prefixes(rule: RuleDict, of: Map | None) -> list[bytes] | None:
        if "key_prefixes" not in rule:
            return None
        prefixes = [bytes.fromhex(prefix) for prefix in rule["key_prefixes"]]
        if of is None:
            return prefixes
        return [one_key(of, p) for p in prefixes if len(p) <= of.key_size]

    def _denies(
        self, rule: RuleDict, verb: str, of: Map | None, key: bytes | None, prefixes: list[bytes] | None
    ) -> bool:
        if prefixes is None:
            return verb in self._verbs(rule)
        if not prefixes:
            return False
        if verb in {"watch", "consume", "pin", "freeze"}:
            return True
        if verb not in self._verbs(rule) & KEYED:
            return False
        if key is None or (of is not None and of.type in INEXACT):
            return True
        return begins(of, key, prefixes)

    def _allows(
        self, rule: RuleDict, verb: str, of: Map | None, key: bytes | None, prefixes: list[bytes] | None
    ) -> bool:
        if verb not in self._verbs(rule):
            return False
        if prefixes is None or verb == "list":
            return True
        if verb not in KEYED or key is None or (of is not None and of.type in INEXACT):
            return False
        return begins(of, key, prefixes)


def begins(of: Map | None, key: bytes, prefixes: list[bytes]) -> bool:
    key = one_key(of, key) if of is not None else key
    return any(key[: len(prefix)] == prefix for prefix in prefixes)


def one_key(of: Map, key: bytes) -> bytes:
    """Of a trie the key without the bits that it does not look at, or the first bytes of one."""
    if of.type != MapType.LPM_TRIE or len(key) <= 4:
        return key
    length = int.from_bytes(key[:4], sys.byteorder)
    bits = [bool(key[4 + i // 8] & 0x80 >> i % 8) and i < length for i in range(8 * (len(key) - 4))]
    return key[:4] + bytes(sum(0x80 >> j for j in range(8) if bits[i + j]) for i in range(0, len(bits), 8))


def match(glob: str, path: str) -> bool:
    """Whether a path is as a pattern says."""
    return _parts(glob.split("/"), path.split("/"))


def _parts(globs: list[str], parts: list[str]) -> bool:
    if not globs:
        return not parts
    if globs[0] == "**":
        if not globs[1:]:
            return bool(parts)
        return any(_parts(globs[1:], parts[i:]) for i in range(len(parts) + 1))
    return bool(parts) and _letters(globs[0], parts[0]) and _parts(globs[1:], parts[1:])


def _letters(glob: str, text: str) -> bool:
    if not glob:
        return not text
    if glob[0] == "*":
        return any(_letters(glob[1:], text[i:]) for i in range(len(text) + 1))
    if glob[0] == "[":
        negated = glob[1] == "!"
        inside = glob[2:] if negated else glob[1:]
        end = inside.index("]", 1)
        return (
            bool(text)
            and (_in_set(inside[:end], text[0]) != negated)
            and _letters(inside[end + 1 :], text[1:])
        )
    return bool(text) and glob[0] in ("?", text[0]) and _letters(glob[1:], text[1:])


def _in_set(items: str, letter: str) -> bool:
    while items:
        if items[1:2] == "-" and len(items) > 2:
            if items[0] <= letter <= items[2]:
                return True
            items = items[3:]
        else:
            if items[0] == letter:
                return True
            items = items[1:]
    return False
