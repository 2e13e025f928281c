"""The tables of the policy's file as they are written, and what is said of one that is not as it should be."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 40)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
UserOrGroup = Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | int

PART_RULE: Final = "must be 1 to 63 of a-z, 0-9, '_', '-', beginning with a letter or digit"
_AT: Final = re.compile(r"(?s)(?P<said>.*) - at `(?P<path>\$[^`]*)`")


class Fault(ValueError):
    """One thing that is wrong with one table; the message begins with the key."""


class QuotaTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[quotas] and [principals.NAME.quotas]: numbers, or "unlimited"; bytes also as "256MiB"."""

    maps: Count | str | None = None
    map_bytes: Count | str | None = None
    handles: Count | str | None = None
    streams: Count | str | None = None
    dumps: Count | str | None = None
    connections: Count | str | None = None
    ops_per_second: Count | str | None = None
    burst: Count | str | None = None


class PrincipalTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[principals.NAME]."""

    namespace: str | None = None
    users: tuple[UserOrGroup, ...] = ()
    groups: tuple[UserOrGroup, ...] = ()
    grant: str = "acl"
    tls: tuple[Text, ...] = ()
    quotas: dict[str, Any] | None = None


class RuleTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[[rules]]."""

    name: Annotated[str, msgspec.Meta(max_length=128)] = ""
    effect: str = "allow"
    who: tuple[str, ...] = ()
    role: str | None = None
    verbs: tuple[str, ...] | None = None
    every_map: bool = False
    names: tuple[str, ...] | None = None
    pins: tuple[str, ...] | None = None
    types: tuple[str, ...] | None = None
    owners: tuple[str, ...] | None = None
    key_prefixes: tuple[str, ...] | None = None


class FileTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file itself. What is in the tables is read table by table, so that each fault names its own."""

    contact: Annotated[str, msgspec.Meta(max_length=200)] = ""
    quotas: dict[str, Any] | None = None
    principals: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict[str, dict[str, Any]])
    rules: tuple[dict[str, Any], ...] = ()


def read(table: Mapping[str, object], kind: type[S]) -> S:
    """A table as ``kind``.

    Raises:
        Fault: the key, what was found there, what is accepted.
    """
    fields = kind.__struct_fields__
    for key in table:
        if key not in fields:
            raise Fault(f"unknown key {shown(key)}{meant(key, fields)}; here may be {', '.join(fields)}")
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise Fault(_said(str(error), table)) from None


def _said(message: str, table: Mapping[str, object]) -> str:
    """What msgspec says, begun with the key and ended with what was found there."""
    match = _AT.fullmatch(message)
    if match is None:
        return message
    path = match["path"].removeprefix("$.")
    found: object = table
    for step in re.findall(r"[^.\[\]]+", path):
        try:
            found = cast("Any", found)[int(step) if isinstance(found, list) else step]
        except (KeyError, ValueError):
            return f"{path}: {match['said']}"
    return f"{path}: {match['said']}, found {shown(found)}"


def shown(value: object) -> str:
    """A value as a message can carry it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def meant(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'read'?)``, or nothing."""
    close = difflib.get_close_matches(word[:64], list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
