"""Who you are here, and what you may do: ``whoami`` and ``can``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from mapd_client.cli import literals, outcomes, render
from mapd_client.cli.options import Format, Given
from mapd_client.cli.outputs import Field, records
from mapd_client.cli.references import Ref
from mapd_client.cli.running import with_client
from mapd_client.client import Client
from mapd_client.rights import Principal, Share

PRINCIPAL: Final = (
    Field("principal"),
    Field("namespace"),
    Field("attested_by"),
    Field("roles", list),
    Field("policy_version"),
    Field("contact"),
    Field("shares", dict),
)

ANSWER: Final = (Field("allowed", bool), Field("by_key", bool), Field("text"), Field("policy_version"))


def whoami(*, output: Format = "table", options: Given) -> int:
    """Who the daemon takes you for, by what, and what you may have at a time.

    Args:
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        found = await client.whoami()
        if output == "table":
            render.write_fields(_fields(found), sys.stdout)
        else:
            records([_row(found)], columns=PRINCIPAL, output=output, file=sys.stdout, one=True)
        return outcomes.OK

    return with_client(options, work)


def can(
    verb: str,
    map: Ref,
    key: str | None = None,
    /,
    *,
    principal: str | None = None,
    output: Format = "table",
    options: Given,
) -> int:
    """Whether you may do something with a map, and why; exit code 4 if not. Nothing is done.

    Args:
        verb: list, read, write, delete, create, pin, freeze, open_by_id, watch, consume, admin or host.
        map: name, pin:PATH or id:NUMBER.
        key: of one element, where rights differ by key: hex:0a00, 0x0a00.
        principal: about somebody else, for who may administer the daemon.
        output: table, json, ndjson, csv, arrow or parquet.
        options: of every verb.
    """

    async def work(client: Client) -> int:
        of_key = None if key is None else literals.parse_hex(key)
        found = await client.explain(verb, map, key=of_key, as_principal=principal)
        if output == "table":
            answer = "yes" if found else "for some keys" if found.by_key else "no"
            sys.stdout.write(f"{answer}: {found.text}\n")
        else:
            row = {
                "allowed": found.allowed,
                "by_key": found.by_key,
                "text": found.text,
                "policy_version": found.policy_version,
            }
            records([row], columns=ANSWER, output=output, file=sys.stdout, one=True)
        return outcomes.OK if found else outcomes.PERMISSION

    return with_client(options, work)


def _row(found: Principal) -> Mapping[str, object]:
    shares = {name: {"limit": one.limit, "used": one.used} for name, one in found.shares.items()}
    return {
        "principal": found.name,
        "namespace": found.namespace,
        "attested_by": found.attested_by,
        "roles": list(found.roles),
        "policy_version": found.policy_version,
        "contact": found.contact,
        "shares": shares,
    }


def _fields(found: Principal) -> Mapping[str, str]:
    return {
        "principal": found.name,
        "namespace": found.namespace,
        "attested_by": found.attested_by,
        "roles": " ".join(found.roles) or "-",
        "policy": found.policy_version,
        "contact": found.contact or "-",
        **{name: _share(one) for name, one in found.shares.items()},
    }


def _share(one: Share) -> str:
    return f"{one.used} of {'unlimited' if one.limit is None else one.limit}"
