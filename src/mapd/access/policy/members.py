"""[principals.NAME] and [quotas]: from tables to members and numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Final

from mapd.access.policy.model import SELF, Member, Quotas
from mapd.access.policy.tables import PART_RULE, Fault, PrincipalTable, QuotaTable, read, shown
from mapd.access.principal import ADMIN
from mapd_api.names import is_part

NO_ID: Final = (1 << 32) - 1
"""uid_t and gid_t are 32 bits; this one means nobody (chown(2))."""

UNLIMITED: Final = "unlimited"

_SIZE: Final = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB|TiB)")
_UNITS: Final = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_DNS: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")


def member(name: str, raw: Mapping[str, object], base: Quotas, line: int | None) -> Member:
    """One principal.

    Raises:
        Fault: the key, and what is wrong with it.
    """
    table = read(raw, PrincipalTable)
    namespace = name if table.namespace is None else table.namespace
    for what, part in (("the name", name), ("namespace:", namespace)):
        if not is_part(part):
            raise Fault(f"{what} {shown(part)} {PART_RULE}")
    if namespace == SELF:
        raise Fault(f"namespace: {SELF!r} means the namespace of whoever asks; take another")
    for key, numbers in (("users", table.users), ("groups", table.groups)):
        for number in numbers:
            if isinstance(number, int) and not 0 <= number < NO_ID:
                raise Fault(f"{key}: {number}: a number is from 0 to {NO_ID - 1}")
    if table.grant not in ("acl", "mount"):
        raise Fault(
            f"grant: {shown(table.grant)} is none; it is 'acl' (who is in users and groups) or 'mount'"
        )
    if table.grant == "mount" and (table.users or table.groups):
        raise Fault(
            "grant: 'mount' admits whoever reaches the socket, so users and groups would mean nothing; leave them out"
        )
    if name == ADMIN and table.grant == "mount":
        raise Fault("grant: the admin's socket is not given away by a mount; name users or groups")
    return Member(
        name=name,
        namespace=namespace,
        users=tuple(map(_plain, table.users)),
        groups=tuple(map(_plain, table.groups)),
        mount=table.grant == "mount",
        tls=tuple(map(_identity, table.tls)),
        quotas=quotas(table.quotas, base, "quotas."),
        line=line,
    )


def _plain(who: str | int) -> str | int:
    """A user or group as a number where it is one: "998" and 998 are one user."""
    return int(who) if isinstance(who, str) and who.isascii() and who.isdecimal() and len(who) < 11 else who


def _identity(text: str) -> str:
    if "://" in text:
        if _URI.fullmatch(text) is None:
            raise Fault(
                f"tls: {shown(text)} is no URI, as 'spiffe://example.org/ns/web' is; its scheme is in small letters"
            )
        return text
    if _DNS.fullmatch(text.lower()) is None:
        raise Fault(
            f"tls: {shown(text)} is neither a SPIFFE id, a URI ('scheme://...') nor a DNS name without wildcards"
        )
    return text.lower()


def quotas(raw: Mapping[str, object] | None, base: Quotas, prefix: str = "") -> Quotas:
    """``base``, changed by a table.

    Raises:
        Fault: the key, and what is wrong with it.
    """
    if raw is None:
        return base
    try:
        table = read(raw, QuotaTable)
    except Fault as fault:
        unknown = str(fault).startswith("unknown key")
        raise Fault(f"{prefix.replace('.', ': ') if unknown else prefix}{fault}") from None
    said: dict[str, int | None] = {}
    for each in fields(Quotas):
        value: int | str | None = getattr(table, each.name)
        if value is not None:
            said[each.name] = _number(f"{prefix}{each.name}", value, sized=each.name == "map_bytes")
    found = replace(base, **said)
    if found.ops_per_second is None and found.burst is not None:
        raise Fault(f"{prefix}burst: {found.burst} without ops_per_second, which it is a part of; give both")
    if found.ops_per_second is not None and found.burst is None:
        found = replace(found, burst=found.ops_per_second)
    return found


def _number(key: str, value: int | str, *, sized: bool) -> int | None:
    if isinstance(value, int):
        return value
    if value == UNLIMITED:
        return None
    match = _SIZE.fullmatch(value) if sized else None
    if match is None or not int(match[1]):
        sizes = ", a size as '256MiB' (B, KiB, MiB, GiB, TiB)" if sized else ""
        raise Fault(f"{key}: {shown(value)}; here may be a number from 1{sizes} or {UNLIMITED!r}")
    return int(match[1]) << _UNITS[match[2]]
