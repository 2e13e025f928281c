"""Policies, maps and keys for tests: small alphabets, so that rules meet what they are about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from mapd.access.policy.file import parse
from mapd.access.policy.model import Policy, Subject
from mapd_api.uapi import MapType
from tests.unit.mapd.access.reference import ROLE_VERBS, Map, RuleDict

PRINCIPALS = {"web": "web", "ops": "shared", "guest": "shared"}
"""Names and namespaces."""

NAMES = ("web/flows", "web/ct", "shared/flows", "db/ct")
PINS = ("/sys/fs/bpf/tc/flows", "/sys/fs/bpf/tc/deep/ct", "/sys/fs/bpf/flows")
NAME_GLOBS = ("web/*", "*/flows", "*/*", "web/ct", "shared/[!f]*", "?b/c?")
PIN_GLOBS = ("/sys/fs/bpf/**", "/sys/fs/bpf/tc/*", "/sys/fs/bpf/flows", "/**/ct", "/sys/**/tc/**")
TYPE_GLOBS = ("hash", "*_hash", "lpm_trie", "*storage", "queue", "*")
TYPES = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE, MapType.QUEUE, MapType.CGROUP_STORAGE)
PREFIXES = ("00", "0a", "0a00", "0a01", "08000000", "080000000a", "080000000aff", "0a000000000000ff")
KEY_SIZES = (0, 1, 2, 8)


def toml(value: object) -> str:
    """JSON of a string, a list or a bool is TOML."""
    return json.dumps(value)


def text(rules: Sequence[RuleDict], principals: Mapping[str, str] | None = None, head: str = "") -> str:
    """The file that says this."""
    lines = [head]
    for name, namespace in (PRINCIPALS if principals is None else principals).items():
        lines += [f"[principals.{name}]", f"namespace = {toml(namespace)}"]
    for rule in rules:
        lines += ["[[rules]]", *(f"{key} = {toml(value)}" for key, value in rule.items())]
    return "\n".join(lines) + "\n"


def policy(*rules: RuleDict, head: str = "") -> Policy:
    """The policy that says this of ``PRINCIPALS``."""
    return parse(text(rules, head=head), "policy.toml")


def subject(of: Map | None) -> Subject | None:
    """A map as the engine takes it."""
    return None if of is None else Subject.of(of.type, of.key_size, names=of.names, pins=of.pins)


def _some(values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


@st.composite
def rules(draw: st.DrawFn, effect: str | None = None) -> dict[str, Any]:
    """One rule."""
    effect = draw(st.sampled_from(("allow", "deny"))) if effect is None else effect
    rule: dict[str, Any] = {"effect": effect, "who": draw(_some(("*", *PRINCIPALS)))}
    prefixes = draw(st.one_of(st.none(), _some(PREFIXES)))
    if prefixes is not None:
        rule["key_prefixes"] = prefixes
    if draw(st.booleans()):
        rule["role"] = draw(st.sampled_from(tuple(ROLE_VERBS)))
    else:
        verbs = ROLE_VERBS["admin"].split()
        if prefixes is not None:
            verbs = ["read", "write", "delete", *(["list"] if effect == "allow" else [])]
        rule["verbs"] = draw(_some(verbs))
    said = draw(st.sets(st.sampled_from(("names", "pins", "types", "owners")), max_size=2))
    if not said:
        rule["every_map"] = True
    values = {
        "names": NAME_GLOBS,
        "pins": PIN_GLOBS,
        "types": TYPE_GLOBS,
        "owners": ("self", "web", "shared"),
    }
    for key in sorted(said):
        rule[key] = draw(_some(values[key]))
    return rule


def rule_lists() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rules of one policy."""
    return st.lists(rules(), max_size=6)


@st.composite
def maps(draw: st.DrawFn) -> Map:
    """One map, with names and pins, or without."""
    kind = draw(st.sampled_from(TYPES))
    sizes = {MapType.QUEUE: (0,), MapType.LPM_TRIE: (8,), MapType.CGROUP_STORAGE: (8, 16)}
    return Map(
        kind,
        draw(st.sampled_from(sizes.get(kind, KEY_SIZES[1:]))),
        tuple(draw(st.lists(st.sampled_from(NAMES), max_size=2, unique=True))),
        tuple(draw(st.lists(st.sampled_from(PINS), max_size=2, unique=True))),
    )


def keys(size: int) -> st.SearchStrategy[bytes]:
    """Keys that begin as some prefixes do, or nearly."""
    beginnings = [bytes.fromhex(prefix) for prefix in PREFIXES] + [b""]
    tails = st.binary(min_size=size, max_size=size)
    return st.tuples(st.sampled_from(beginnings), tails).map(lambda parts: b"".join(parts)[:size])
