"""Map references, keys and values as bpftool's users type them, made into mapctl's one token each. No I/O.

bpftool-map(8) says ``id 42``, ``pinned FILE`` and ``name N``, and ``key hex 0a 00 value 1 0 0 0 exist``; mapctl says
``id:42``, ``pin:FILE``, ``N``, and ``hex:0a00 hex:01000000 exist``. Verbs see the second form alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import Parameter

from mapd_client.cli.completion import map_names
from mapd_client.errors import Misuse

Ref = Annotated[str, Parameter(completer=map_names)]
"""A map, as one token: "flows", "ns/flows", "pin:/sys/fs/bpf/x" or "id:42"."""

_MAPS: Final = {"diff": 2}
"""How many maps a verb takes, where it is not one."""

_CREATING: Final = {
    "type": "--type",
    "key": "--key",
    "value": "--value",
    "entries": "--max-entries",
    "name": "--kernel-name",
    "flags": "--flags",
    "inner_map": "--inner",
}
"""bpftool's words behind ``create``, and mapctl's options."""

_DATA: Final = ("key", "value")

_FLAGS: Final = ("any", "noexist", "exist")


def one_token_each(tokens: Sequence[str]) -> list[str]:
    """The tokens of a command line, verb first, with bpftool's forms replaced by mapctl's.

    Only behind the verb, and only what cannot be meant otherwise: ``id`` before digits, ``pinned`` before an absolute
    path, ``name`` before a word. Such a map's own name still works as ``ns/id``.

    Raises:
        Misuse: ``key`` or ``value`` followed by what are no bytes.
    """
    if not tokens or tokens[0].startswith("-"):
        return list(tokens)
    if tokens[0] == "create":
        return [_CREATING.get(token, token) for token in tokens]
    verb = tokens[0]
    at = 1 + _options(tokens[1:]) + (verb == "can")  # whose first argument is a right
    done, rest = list(tokens[:at]), list(tokens[at:])
    for _ in range(_MAPS.get(verb, 1)):
        found = _reference(rest)
        if found is not None:
            done.append(found)
            del rest[:2]
        elif rest and not (at > 1 and rest[0] in _DATA):
            done.append(rest.pop(0))
    return done + _elements(rest)


def _options(tokens: Sequence[str]) -> int:
    """How many tokens options take before the map; what follows one may be its value, for all that is known here."""
    at = 0
    while at < len(tokens) and tokens[at].startswith("-") and tokens[at] != "--":
        at += 1
        value = tokens[at : at + 1]
        if (
            value
            and "=" not in tokens[at - 1]
            and not value[0].startswith("-")
            and _reference(tokens[at:]) is None
        ):
            at += 1
    return at


def _reference(tokens: Sequence[str]) -> str | None:
    if len(tokens) < 2:
        return None
    word, what = tokens[:2]
    if word == "id" and re.fullmatch(r"[0-9]{1,10}", what, re.ASCII):
        return f"id:{what}"
    if word == "pinned" and what.startswith("/"):
        return f"pin:{what}"
    if word == "name" and not what.startswith("-"):
        return what
    return None


def _elements(tokens: Sequence[str]) -> list[str]:
    """``key DATA value DATA FLAGS`` as one token for each."""
    done: list[str] = []
    at = 0
    while at < len(tokens):
        if tokens[at] not in _DATA or at + 1 == len(tokens):
            done.append(tokens[at])
            at += 1
            continue
        what, at = tokens[at], at + 1
        reference = _reference(tokens[at:]) if what == "value" else None
        if reference is not None:
            done.append(reference)
            at += 2
            continue
        end = at
        while end < len(tokens) and tokens[end] not in (*_DATA, *_FLAGS) and tokens[end][:1] != "-":
            end += 1
        done.append(_bytes(what, tokens[at:end]))
        at = end
    return done


def _bytes(what: str, words: Sequence[str]) -> str:
    """Bpftool's DATA: ``hex`` and hex digits, or a number for each byte."""
    if words[:1] == ["hex"] and len(words) > 1:
        digits = "".join(word.removeprefix("0x").zfill(2) for word in words[1:])
        if re.fullmatch(r"([0-9a-fA-F]{2})+", digits):
            return f"hex:{digits.lower()}"
    elif words:
        try:
            return f"hex:{bytes(int(word, 0) for word in words).hex()}"
        except ValueError:
            pass
    raise Misuse(
        f"{what} {' '.join(words)!r}: behind '{what}' stand bytes as bpftool takes them ('hex 0a 00', or '10 0'); "
        f"leave the word out for mapctl's forms"
    )
