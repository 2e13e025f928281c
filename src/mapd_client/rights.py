"""Who the daemon takes this client for, and what it may do. Sans-I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mapd_api.ops import Verb
from mapd_api.v1 import access_pb2, types_pb2
from mapd_client import requests
from mapd_client.errors import Misuse
from mapd_client.refs import MapRef

VERBS: Final[Mapping[str, Verb]] = MappingProxyType({verb.name.lower(): verb for verb in Verb})


@dataclass(frozen=True, slots=True)
class Share:
    """What a principal may have at a time, and has.

    Attributes:
        limit: None where there is none.
        used: when it was asked.
    """

    limit: int | None
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who the daemon takes this client for.

    Attributes:
        namespace: of names that are given without one; its maps are this principal's own.
        attested_by: what fixed it: "socket:/run/mapd/web/mapd.sock", "tls:spiffe://example.org/agent".
        roles: those that rules of the policy give it on some maps, from the least: "viewer", "operator", "owner",
            "admin".
        policy_version: of the policy in force.
        contact: whom to ask for rights; "" where the policy names nobody.
        shares: by quota: "maps", "map_bytes", "handles", "streams", "dumps", "connections", "ops_per_second".
    """

    name: str
    namespace: str
    attested_by: str
    roles: Sequence[str]
    policy_version: str
    contact: str
    shares: Mapping[str, Share] = field(default_factory=dict[str, Share])


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether something may be done, and why. True in a condition where it may.

    Attributes:
        allowed: for all keys, or for the one that was asked about.
        by_key: for some keys only; ``allowed`` is False then unless a key was asked about.
        text: for a person.
        policy_version: of the policy that decided.
    """

    allowed: bool
    by_key: bool
    text: str
    policy_version: str

    def __bool__(self) -> bool:
        return self.allowed


def explain(
    verb: str, ref: MapRef | None, key: bytes | None, principal: str | None
) -> access_pb2.ExplainRequest:
    """A question.

    Raises:
        Misuse: no such right.
    """
    number = VERBS.get(verb)
    if number is None:
        raise Misuse(f"explain {verb!r}: no such right; one of {', '.join(VERBS)}", operation="explain")
    return access_pb2.ExplainRequest(
        verb=types_pb2.Verb.Name(types_pb2.Verb.ValueType(int(number))),
        map=None if ref is None else requests.by_ref(ref),
        key=key,
        principal=requests.text("as_principal", principal or ""),
    )


def principal(message: access_pb2.WhoAmIResponse) -> Principal:
    """As it came."""
    shares = message.shares
    return Principal(
        name=message.principal,
        namespace=message.namespace,
        attested_by=message.attested_by,
        roles=tuple(message.roles),
        policy_version=message.policy_version,
        contact=message.contact,
        shares=MappingProxyType(
            {
                each.name: Share(share.limit if share.HasField("limit") else None, share.used)
                for each in shares.DESCRIPTOR.fields
                if shares.HasField(each.name)
                for share in [getattr(shares, each.name)]
            }
        ),
    )


def decision(message: access_pb2.ExplainResponse) -> Decision:
    """As it came."""
    return Decision(
        allowed=message.allowed,
        by_key=message.by_key,
        text=message.text,
        policy_version=message.policy_version,
    )
