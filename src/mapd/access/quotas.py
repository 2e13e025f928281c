"""What one principal may have at a time: looked up in the policy in force whenever it matters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

from mapd.access.policy.holder import PolicyHolder
from mapd.access.policy.model import Quotas
from mapd.access.principal import Principal

QuotasOf = Callable[[Principal], Quotas]
"""The quotas of a principal now; asked at each check, so that a reload counts at once."""

OwnersOf = Callable[[str], Sequence[Principal]]
"""The principals whose namespace one is."""


class Dimension(StrEnum):
    """What is limited, as [quotas] of the policy spells it."""

    MAPS = "maps"
    MAP_BYTES = "map_bytes"
    HANDLES = "handles"
    STREAMS = "streams"
    DUMPS = "dumps"
    CONNECTIONS = "connections"
    OPS_PER_SECOND = "ops_per_second"


NOTHING: Final = Quotas(
    maps=0, map_bytes=0, handles=0, streams=0, dumps=0, connections=0, ops_per_second=0, burst=0
)
"""Of whom the policy in force does not know: removed by a reload, with connections that are still open."""


def limit(quotas: Quotas, dimension: Dimension) -> int | None:
    """One of them; None: not limited."""
    found: int | None = getattr(quotas, dimension.value)
    return found


def in_force(holder: PolicyHolder) -> QuotasOf:
    """The quotas of the policy that ``holder`` has in force at the time."""

    def quotas_of(principal: Principal) -> Quotas:
        member = holder.policy.members.get(principal.name)
        return NOTHING if member is None else member.quotas

    return quotas_of


def owners_in_force(holder: PolicyHolder) -> OwnersOf:
    """Whose namespace a namespace is, by the policy that ``holder`` has in force at the time."""

    def owners_of(namespace: str) -> Sequence[Principal]:
        members = holder.policy.members.values()
        return [
            Principal(name=one.name, namespace=namespace) for one in members if one.namespace == namespace
        ]

    return owners_of


def nobody(_namespace: str) -> Sequence[Principal]:
    """The owners where no policy is asked."""
    return ()


def always(quotas: Quotas) -> QuotasOf:
    """The same for everybody, whatever the policy: for a daemon's parts on their own."""
    return lambda _principal: quotas
