"""[[rules]]: from a table to a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from mapd.access.policy import roles
from mapd.access.policy.glob import BadGlob, Glob
from mapd.access.policy.model import EVERYONE, SELF, Effect, Globs, Rule, Selector
from mapd.access.policy.tables import PART_RULE, Fault, RuleTable, meant, shown
from mapd.access.principal import ADMIN
from mapd_api.names import is_part
from mapd_api.ops import Verb
from mapd_api.uapi import MapType

PREFIXES: Final = 1_024
"""Key prefixes of one rule."""
PREFIX_BYTES: Final = 512

_TYPES: Final[Mapping[str, int]] = {kind.name.lower(): kind.value for kind in MapType if kind}


def rule(table: RuleTable, number: int, line: int | None, known: frozenset[str]) -> Rule:
    """One rule.

    Args:
        known: principals that the file has.

    Raises:
        Fault: the key, what was found, and what is accepted.
    """
    if table.effect not in ("allow", "deny"):
        raise Fault(f"effect: {shown(table.effect)} is none; it is 'allow' or 'deny'")
    effect = Effect(table.effect)
    prefixes = _prefixes(table.key_prefixes)
    return Rule(
        number=number,
        line=line,
        name=table.name,
        effect=effect,
        who=_who(table.who, known),
        verbs=_verbs(table, effect, filtered=bool(prefixes)),
        role=table.role or "",
        selector=_selector(table),
        prefixes=prefixes,
    )


def _who(who: tuple[str, ...], known: frozenset[str]) -> frozenset[str]:
    if not who:
        raise Fault(f"who: nobody is named; name principals, or {EVERYONE!r} for all of them")
    for name in who:
        if name == ADMIN:
            raise Fault(f"who: {ADMIN!r} may do everything, and no rule changes that; leave it out")
        if name != EVERYONE and name not in known:
            raise Fault(
                f"who: no principal {shown(name)}{meant(name, known)}; add [principals.{name}], or name one of "
                f"{shown(sorted(known - {ADMIN}))}"
            )
    return frozenset(who)


def _verbs(table: RuleTable, effect: Effect, *, filtered: bool) -> frozenset[Verb]:
    can = roles.WITH_PREFIXES if effect is Effect.ALLOW else roles.BY_KEY
    if (table.role is None) == (table.verbs is None):
        what = "both role and verbs" if table.role is not None else "neither role nor verbs"
        raise Fault(f"{what}; give one: role is {', '.join(roles.ROLES)}; verbs are {', '.join(roles.VERBS)}")
    if table.role is not None:
        if table.role not in roles.ROLES:
            raise Fault(
                f"role: {shown(table.role)}{meant(table.role, roles.ROLES)} is none; roles are {', '.join(roles.ROLES)}"
            )
        return roles.ROLES[table.role] & can if filtered else roles.ROLES[table.role]
    found: set[Verb] = set()
    for name in table.verbs or ():
        if name not in roles.VERBS:
            raise Fault(
                f"verbs: {shown(name)}{meant(name, roles.VERBS)} is none; verbs are {', '.join(roles.VERBS)}"
            )
        if filtered and roles.VERBS[name] not in can:
            raise Fault(
                f"verbs: {name} cannot be {'given' if effect is Effect.ALLOW else 'taken'} for some keys alone; with "
                f"key_prefixes go {roles.names(can)}; write another rule for it"
            )
        found.add(roles.VERBS[name])
    if not found:
        raise Fault(f"verbs: none is named; verbs are {', '.join(roles.VERBS)}")
    return frozenset(found)


def _selector(table: RuleTable) -> Selector:
    said = {key: getattr(table, key) for key in ("names", "pins", "types", "owners")}
    given = [key for key, value in said.items() if value is not None]
    if table.every_map and given:
        raise Fault(f"every_map together with {', '.join(given)}: leave out one or the other")
    if not table.every_map and not given:
        raise Fault(
            "no maps are named; give names, pins, types or owners, or every_map = true for all that the host has"
        )
    for key in given:
        if not said[key]:
            raise Fault(f"{key}: an empty list matches no map; leave it out, or name some")
    return Selector(
        every_map=table.every_map,
        names=None if table.names is None else _globs("names", table.names, _check_name),
        pins=None if table.pins is None else _globs("pins", table.pins, _check_pin),
        types=None if table.types is None else _types(table.types),
        owners=None if table.owners is None else _owners(table.owners),
    )


def _globs(key: str, texts: Iterable[str], check: Callable[[str], None]) -> Globs:
    found: list[Glob] = []
    for text in dict.fromkeys(texts):
        try:
            check(text)
            found.append(Glob.compile(text))
        except BadGlob as error:
            raise Fault(f"{key}: {error}") from None
    return Globs(found)


def _check_name(text: str) -> None:
    parts = text.split("/")
    if len(parts) != 2 or "**" in parts or not all(parts):
        raise BadGlob(
            f"{shown(text)}: names are 'namespace/name', as in 'web/*' or '*/flows'; '*/*' is every name"
        )
    for part in parts:
        if not set("*?[") & set(part) and not is_part(part):
            raise BadGlob(f"{shown(text)}: no name has a part {shown(part)}: it {PART_RULE}")


def _check_pin(text: str) -> None:
    parts = text.split("/")
    if not text.startswith("/"):
        raise BadGlob(f"{shown(text)}: a pin is an absolute path, as in '/sys/fs/bpf/tc/globals/*'")
    if {"", ".", ".."} & set(parts[1:]):
        raise BadGlob(f"{shown(text)}: a part is empty, '.' or '..'; write the path that it means")


def _types(texts: Iterable[str]) -> frozenset[int]:
    found: set[int] = set()
    for text in texts:
        try:
            glob = Glob.compile(text)
        except BadGlob as error:
            raise Fault(f"types: {error}") from None
        matched = {number for name, number in _TYPES.items() if glob.matches(name)}
        if not matched:
            raise Fault(
                f"types: no map type is {shown(text)}{meant(text, _TYPES)}; types are {', '.join(_TYPES)}"
            )
        found |= matched
    return frozenset(found)


def _owners(texts: Iterable[str]) -> frozenset[str]:
    for text in texts:
        if text != SELF and not is_part(text):
            raise Fault(f"owners: {shown(text)}: a namespace {PART_RULE}; {SELF!r} is that of whoever asks")
    return frozenset(texts)


def _prefixes(texts: tuple[str, ...] | None) -> tuple[bytes, ...]:
    if texts is None:
        return ()
    if not texts:
        raise Fault("key_prefixes: an empty list matches no key; leave it out for whole maps, or name some")
    if len(texts) > PREFIXES:
        raise Fault(f"key_prefixes: {len(texts)} of them; a rule has at most {PREFIXES}")
    found: list[bytes] = []
    for text in texts:
        try:
            prefix = bytes.fromhex(text)
        except ValueError:
            raise Fault(
                f"key_prefixes: {shown(text)} is not hexadecimal, two digits a byte, as in '0a00'"
            ) from None
        if not prefix:
            raise Fault("key_prefixes: an empty prefix is every key; leave key_prefixes out for whole maps")
        if len(prefix) > PREFIX_BYTES:
            raise Fault(f"key_prefixes: one of {len(prefix)} bytes; at most {PREFIX_BYTES} are taken")
        found.append(prefix)
    return tuple(dict.fromkeys(found))
